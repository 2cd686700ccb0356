"""Maxima and minima of values: pooling, reductions, and the larger or smaller of two values.

Each result is the largest (or, with the sign -1, the smallest) of a group of candidates. For a pooling or a reduction, the
candidates are elements of one operand, given by a table of indices; for two values, they are the elements of both.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional

from regioncount.errors import InputError
from regioncount.regions.nodes import Values, bound_arguments, operation_name, tensors_of, value_of

POOLINGS = frozenset(
    f"{adaptive}max_pool{dimensions}d{suffix}"
    for adaptive, suffix in (("", ""), ("", "_with_indices"), ("adaptive_", ""))
    for dimensions in (1, 2, 3)
)
REDUCTIONS = {"amax": 1, "max": 1, "amin": -1, "min": -1}
PAIRS = {"maximum": 1, "minimum": -1}


class Maximum(NamedTuple):
    """The largest or smallest values of G groups of K candidates."""

    arguments: tuple[Any, ...]
    """The operand, or the two values that are compared."""
    windows: Tensor | None
    """Indices of the candidates among the elements of the operand for one input, int64 (G, K); None for two values."""
    sign: int
    """1 for a maximum, -1 for a minimum."""
    winners: Callable[[Tensor], Tensor] | None = None
    """For a pooling: the index of the largest candidate of each group, from the operand."""


def returns_indices(node: Node) -> bool:
    """Return whether a node returns maxima or minima and their indices."""
    is_maximum = operation_name(node) in {*POOLINGS, *REDUCTIONS}
    return is_maximum and isinstance(node.meta["val"], list | tuple)


def maximum_of(node: Node, device: torch.device) -> Maximum | None:
    """Return the candidates of a node that computes maxima or minima.

    Args:
        node: A node that calls a function.
        device: Device of the table of indices.

    Returns:
        The candidates; None for another operation.

    Raises:
        InputError: If the maximum is over the batch, or a pooling window contains padding only.
    """
    name, arguments = operation_name(node), bound_arguments(node)
    if name in PAIRS:
        return Maximum((arguments[0], arguments[1]), None, PAIRS[name])
    if name not in {*POOLINGS, *REDUCTIONS}:
        return None
    operand, winners = arguments[0], None
    shape = [int(size) for size in operand.meta["val"].shape[1:]]
    axes = [torch.arange(size).unsqueeze(1) for size in shape]  # indices (outputs, candidates) along each axis
    if name in POOLINGS:
        dimensions = int(name.split("pool")[1][0])
        outputs = [int(size) for size in next(iter(tensors_of(node.meta["val"]))).shape[-dimensions:]]
        winners = _winners_of_pooling(name, arguments[1:6])
        for axis in range(-dimensions, 0):
            axes[axis] = _pooled(name, [_along(argument, axis) for argument in arguments[1:5]], shape[axis], outputs[axis])
    else:
        reduced = arguments[1] if len(arguments) > 1 else []
        reduced = [axis % (len(shape) + 1) for axis in (reduced if isinstance(reduced, list | tuple) else [reduced])]
        if not reduced or 0 in reduced:  # an empty list means all
            raise InputError(f"an exact count cannot follow {name} over the inputs of a batch")
        for axis in reduced:
            axes[axis - 1] = axes[axis - 1].T
    return Maximum((operand,), _table(axes, shape).to(device), REDUCTIONS.get(name, 1), winners)


def winners_of(maximum: Maximum, values: Values, points: int) -> Tensor:
    """Return which candidate is the result in each group, int64 (P, G), in a numbering of its own.

    Args:
        maximum: The maximum.
        values: The values of its operands, (P, ...), and of constants.
        points: Number of inputs P.
    """
    if maximum.winners is None:
        return candidates(maximum, values, points).argmax(dim=-1)
    return maximum.winners(value_of(maximum.arguments[0], values, points)).reshape(points, -1)


def candidates_at(maximum: Maximum, values: Values, points: int, point: Tensor, group: Tensor) -> Tensor:
    """Return the candidates, as `candidates` does, of N pairs of an input and a group, (N, K)."""
    if maximum.windows is None:
        return candidates(maximum, values, points)[point, group]
    operand = value_of(maximum.arguments[0], values, points).reshape(points, -1)
    return maximum.sign * operand[point.unsqueeze(1), maximum.windows[group]]


def candidates(maximum: Maximum, values: Values, points: int) -> Tensor:
    """Return the candidates, with the sign of the maximum, for P inputs.

    Args:
        maximum: The maximum.
        values: The values of its operands, (P, ...), and of constants.
        points: Number of inputs P.

    Returns:
        Tensor (P, G, K), whose largest elements along the last dimension are the results, or minus the results for minima.
    """
    operands = [value_of(argument, values, points) for argument in maximum.arguments]
    if maximum.windows is not None:
        return maximum.sign * operands[0].reshape(points, -1)[:, maximum.windows]
    first, second = torch.broadcast_tensors(*(torch.as_tensor(operand, dtype=torch.float64) for operand in operands))
    return maximum.sign * torch.stack([first, second], dim=-1).reshape(points, -1, 2)


def _along(argument: Any, axis: int) -> Any:
    """Return the option of a pooling along an axis (-1 is the last): options are one number or one per axis."""
    if not isinstance(argument, list | tuple):
        return argument
    return argument[axis if len(argument) > 1 else 0] if argument else None


def _winners_of_pooling(name: str, options: Sequence[Any]) -> Callable[[Tensor], Tensor]:
    """Return a function from the operand of a pooling to the index of the largest value in each window.

    The pooling of torch is faster than a search in the gathered windows, which repeat values if they overlap.
    """
    pool = getattr(functional, name.removesuffix("_with_indices"))
    if name.startswith("adaptive"):
        return lambda operand: pool(operand, options[0], return_indices=True)[1]
    kernel, stride, padding, dilation, ceil_mode = options
    stride = stride or None
    return lambda operand: pool(operand, kernel, stride, padding, dilation, ceil_mode=ceil_mode, return_indices=True)[1]


def _pooled(name: str, options: Sequence[Any], size: int, outputs: int) -> Tensor:
    """Return the indices of each window along one axis, int64 (outputs, candidates).

    Shorter windows, and padding, are filled with an element of the window, which changes no maximum.

    Raises:
        InputError: If a window contains padding only.
    """
    output = torch.arange(outputs).unsqueeze(1)
    if name.startswith("adaptive"):
        start, stop = output * size // outputs, -(-(output + 1) * size // outputs)
        positions = start + torch.arange(int((stop - start).max()))
        valid = positions < stop
    else:
        kernel, stride, padding, dilation = options
        positions = output * (stride or kernel) - padding + dilation * torch.arange(kernel)
        valid = (positions >= 0) & (positions < size)
    if not valid.any(dim=1).all():
        raise InputError(f"an exact count cannot follow {name} with windows that contain padding only")
    inside = torch.where(valid, positions, -1).amax(dim=1, keepdim=True)
    return torch.where(valid, positions, inside)


def _table(axes: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """Return the flat indices (G, K) of groups that are products of index sets (outputs, candidates) along each axis."""
    table = torch.zeros(1, 1, dtype=torch.int64)
    for axis, size in zip(axes, shape, strict=True):
        combined = table[:, None, :, None] * size + axis[None, :, None, :]
        table = combined.reshape(len(table) * len(axis), -1)
    return table
