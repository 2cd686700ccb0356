"""Classes and functions that `_target_` names and no registry lists."""

from regioncount.errors import InputError, one_line
from regioncount.plugins import load_plugins
from regioncount.registry import Entry, resolve


def load_target(kind: str, target: str, example: str, result: str) -> Entry:
    """Import a class or function.

    Args:
        kind: "model" or "dataset".
        target: Its dotted name, "module.attribute".
        example: An example of the attribute, for messages.
        result: What it returns, for messages.

    Returns:
        An entry with the class or function as its factory.

    Raises:
        InputError: It cannot be imported, or is not callable.
    """
    module, _, attribute = target.rpartition(".")
    if not module:
        raise InputError(f"{kind}._target_={target}: pass a module and a class, such as my_module.{example}")
    load_plugins([module], f"{kind}._target_={target}")
    try:
        factory = resolve(f"{module}:{attribute}")
    except AttributeError as error:
        raise InputError(f"{kind}._target_={target}: {one_line(error)}") from error
    if not callable(factory):
        raise InputError(f"{kind}._target_={target}: name a class or a function that returns {result}")
    return Entry(kind, attribute, factory, plugin=module)
