"""Import the names of a package at first use, so that importing the package imports no heavy dependency."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, module_of_name: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the functions `__getattr__` and `__dir__` of a package.

    Args:
        package: The package's `__name__`.
        module_of_name: The module inside the package that defines each name. A name that is mapped to itself stands for
            the module.
    """

    def load(name: str) -> Any:
        if name not in module_of_name:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(f"{package}.{module_of_name[name]}")
        return module if module_of_name[name] == name else getattr(module, name)

    return load, lambda: sorted(module_of_name)
