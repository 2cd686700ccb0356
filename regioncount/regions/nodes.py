"""The nodes of a graph that `torch.export` has traced: names, arguments and values of their operations."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import arg_tree_leaves

Values = Mapping[Node, Any]
"""The values of graph nodes: tensors, or lists of tensors for operations such as `split`."""


def call(node: Node, values: Values, points: int) -> Any:
    """Evaluate the operation of a graph node.

    Args:
        node: A node that calls a function.
        values: The values of its operands. An operand without a value is evaluated from its own operands.
        points: Number of inputs, used as the batch size.

    Returns:
        A tensor or a list of tensors.
    """
    keywords = {name: value_of(argument, values, points) for name, argument in node.kwargs.items()}
    return function_of(node)(*(value_of(argument, values, points) for argument in node.args), **keywords)


def value_of(argument: Any, values: Values, points: int) -> Any:
    """Return the value of an argument of an operation.

    Args:
        argument: A node, a list of arguments, or a constant.
        values: The values of nodes, as for `call`.
        points: Number of inputs.

    Returns:
        A tensor, a list, a size, or the constant itself.
    """
    if isinstance(argument, list | tuple):
        return [value_of(part, values, points) for part in argument]
    if not isinstance(argument, Node):
        return argument
    if argument in values:
        return values[argument]
    return _size_at(argument, points) if is_size(argument) else call(argument, values, points)


def operation_name(node: Node) -> str:
    """Return the name of a node's operation without its namespace.

    Args:
        node: A node that calls a function.

    Returns:
        A name such as "relu".
    """
    function = function_of(node)
    schema = getattr(function, "_schema", None)
    return schema.name.rpartition("::")[2] if schema else function.__name__


def bound_arguments(node: Node) -> list[Any]:
    """Return the values of all arguments of a node's operation, in the order of its schema, with defaults filled in."""
    schema = getattr(function_of(node), "_schema", None)
    if schema is None:
        return [*node.args]
    given = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False)) | node.kwargs
    return [given.get(argument.name, argument.default_value) for argument in schema.arguments]


def option_of(node: Node, name: str) -> Any:
    """Return the value of an argument of a node's operation by its name in the schema; None without such an argument."""
    schema = getattr(function_of(node), "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema else []
    return bound_arguments(node)[names.index(name)] if name in names else None


def function_of(node: Node) -> Callable[..., Any]:
    """Return the function that a node calls."""
    assert callable(node.target)  # true of every node with op "call_function"
    return node.target


def nodes_in(arguments: Any) -> list[Node]:
    """Return the nodes among arguments and in their lists, in order; a node is repeated where it occurs again."""
    return [leaf for leaf in arg_tree_leaves(arguments) if isinstance(leaf, Node)]


def tensors_of(value: Any) -> Iterable[Tensor]:
    """Return the tensors of a node's value, which is a tensor or a list of tensors."""
    return value if isinstance(value, list | tuple) else [value]


def number_of_values(node: Node) -> int:
    """Return the number of values that a node has for one input."""
    return sum(value[0].numel() for value in tensors_of(node.meta["val"]) if value.numel())


def is_size(node: Node) -> bool:
    """Return whether a node is a number that is computed from the batch size."""
    return isinstance(node.meta.get("val"), torch.SymInt | torch.SymFloat | torch.SymBool)


def _size_at(node: Node, points: int) -> int:
    """Evaluate a node that is computed from the batch size."""
    if node.target is torch.ops.aten.sym_size.int:
        return points  # only the batch dimension has a symbolic size
    return function_of(node)(*(_size_at(part, points) if isinstance(part, Node) else part for part in node.args))
