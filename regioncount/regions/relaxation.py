"""Bounds of a network's values on an interval, propagated through one operation.

A value is the chord between its values at the two ends of the interval plus a deviation in [-below, above]; see
`regioncount.regions.bounds`. N intervals are bounded at once.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import tree_map

from regioncount.regions.nodes import Values, call
from regioncount.regions.piecewise import Operation, Program


class Relaxation(NamedTuple):
    """Bounds on the result of a piecewise affine operation on N intervals."""

    below: Tensor
    """Deviation below the chord of the result, (N, ...)."""
    above: Tensor
    """Deviation above the chord of the result, (N, ...)."""
    possible_crossings: Tensor
    """Upper bound on the number of changes between affine pieces, (N,)."""
    crossings: Tensor
    """Number of changes between affine pieces that the values at the two ends imply, (N,)."""


def zero_values(program: Program) -> dict[Node, Any]:
    """Return zeros in the shape of each value of a network.

    Args:
        program: The network.

    Returns:
        A tensor (1, ...) or a list of tensors for each value.
    """

    def zeros(value: Tensor) -> Tensor:
        return torch.zeros(1, *value.shape[1:], dtype=value.dtype, device=program.device)

    nodes = [program.input, *(operation.node for operation in program.operations)]
    return {node: tree_map(zeros, node.meta["val"]) for node in nodes}


def linear_part(node: Node, constants: Values, zeros: Values, operands: Values, points: int) -> Any:
    """Apply an affine operation without its constant term.

    Args:
        node: Node of the operation.
        constants: The network's constants.
        zeros: The result of `zero_values`.
        operands: Values of N inputs.
        points: Number of inputs N.

    Returns:
        A tensor (N, ...) or a list of tensors.
    """
    result, constant_term = call(node, {**constants, **operands}, points), call(node, {**constants, **zeros}, 1)
    return tree_map(torch.sub, result, constant_term)


def linear_radius(node: Node, magnitudes: Values, zeros: Values, radii: Values, middle: Any, points: int) -> Any:
    """Return the radius |A| r of the result of an affine operation with matrix A.

    Operands are mapped one at a time: in a difference of two, radii would cancel. An operation without constants has
    coefficients of one sign, or one coefficient per value, so the absolute value of its result is |A| r.

    Args:
        node: Node of the operation.
        magnitudes: Absolute values of the network's constants.
        zeros: The result of `zero_values`.
        radii: Radii of the operands, (N, ...) each.
        middle: Middle of the result, which has its shape.
        points: Number of intervals N.

    Returns:
        A tensor (N, ...) or a list of tensors.
    """
    total = tree_map(torch.zeros_like, middle)
    no_radii = {operand: tree_map(torch.zeros_like, radius) for operand, radius in radii.items()}
    for operand in node.all_input_nodes:
        if operand in radii:
            part = linear_part(node, magnitudes, zeros, {**no_radii, operand: radii[operand]}, points)
            total = tree_map(lambda total, part: total + part.abs(), total, part)
    return total


def relax(
    operation: Operation, constants: Values, operand: Tensor, result: Tensor, below: Tensor, above: Tensor
) -> Relaxation:
    """Bound the result of a piecewise affine operation.

    Args:
        operation: A monotone activation or a max pooling.
        constants: The network's constants.
        operand: Operand at the first ends of all intervals, then at the last ones, (2 N, ...).
        result: Result at the same points, (2 N, ...).
        below: Deviation of the operand below its chord, (N, ...).
        above: Deviation of the operand above its chord, (N, ...).

    Returns:
        Bounds of the result.
    """
    first, last = operand.chunk(2)
    first_result, last_result = result.chunk(2)
    if operation.windows is None:
        return _relax_activation(operation, constants, (first, last), (first_result, last_result), below, above)
    return _relax_max_pooling(operation.windows, (first, last), (first_result, last_result), below, above)


def _relax_activation(
    operation: Operation,
    constants: Values,
    operand: tuple[Tensor, Tensor],
    chord: tuple[Tensor, Tensor],
    below: Tensor,
    above: Tensor,
) -> Relaxation:
    """Bound the result of a monotone activation."""

    def activate(values: Tensor) -> Tensor:
        return call(operation.node, {**constants, operation.operand: values}, len(values))

    def departures(shift: Tensor) -> Tensor:
        """Return the activation of the shifted operand minus the chord, at all points where they may be furthest apart."""
        first, last = (value + shift for value in operand)
        result = [activate(end) - chord_end for end, chord_end in zip((first, last), chord, strict=True)]
        for threshold in operation.thresholds:
            crosses = (first - threshold) * (last - threshold) < 0
            share = torch.where(crosses, (threshold - first) / (last - first), 0.0)
            crossing = torch.lerp(first, last, share)
            result.append(activate(crossing) - torch.lerp(chord[0], chord[1], share))
        return torch.stack(result)

    lowest, highest = torch.minimum(*operand) - below, torch.maximum(*operand) + above
    possible_crossings, crossings = (torch.zeros(len(below), dtype=torch.int64, device=below.device) for _ in range(2))
    for threshold in operation.thresholds:
        possible_crossings += _count((lowest < threshold) & (highest > threshold))
        crossings += _count((operand[0] - threshold) * (operand[1] - threshold) < 0)
    return Relaxation(-departures(-below).amin(dim=0), departures(above).amax(dim=0), possible_crossings, crossings)


def _relax_max_pooling(
    windows: Tensor, operand: tuple[Tensor, Tensor], chord: tuple[Tensor, Tensor], below: Tensor, above: Tensor
) -> Relaxation:
    """Bound the result of a max pooling."""

    def pixels(values: Tensor) -> Tensor:
        return values.flatten(2)[..., windows]  # (N, channels, outputs, pixels of a window)

    shape = chord[0].shape
    chord = chord[0].flatten(2), chord[1].flatten(2)
    first, last = pixels(operand[0]), pixels(operand[1])
    pixels_below, pixels_above = pixels(below), pixels(above)
    # From above: the largest upper bound is convex along the interval, so it is furthest from the chord at an end.
    tops = [(value + pixels_above).amax(dim=-1) - chord_end for value, chord_end in zip((first, last), chord, strict=True)]
    # From below: the larger of the lower bounds of two pixels, those that are the largest at either end. It is furthest
    # from the chord at an end or where the two are equal.
    winners = [value.argmax(dim=-1, keepdim=True) for value in (first, last)]
    first_lower, last_lower = (
        [(value - pixels_below).gather(-1, winner).squeeze(-1) for winner in winners] for value in (first, last)
    )
    first_lead, last_lead = first_lower[0] - first_lower[1], last_lower[0] - last_lower[1]
    meet = first_lead * last_lead < 0
    share = torch.where(meet, first_lead / (first_lead - last_lead), 0.0)
    at_first, at_last = torch.maximum(*first_lower) - chord[0], torch.maximum(*last_lower) - chord[1]
    at_meeting = torch.lerp(first_lower[0], last_lower[0], share) - torch.lerp(chord[0], chord[1], share)
    departures = torch.stack([at_first, at_last, torch.where(meet, at_meeting, at_first)])
    # The largest pixel of a window changes at most once per other pixel, and never if one pixel stays above all others.
    others = [(value + pixels_above).scatter(-1, winners[0], -torch.inf).amax(dim=-1) for value in (first, last)]
    stays = (first_lower[0] > others[0]) & (last_lower[0] > others[1])
    possible_crossings = _count(~stays) * (first.shape[-1] - 1)
    crossings = _count(winners[0] != winners[1])
    return Relaxation(-departures.amin(dim=0).view(shape), torch.maximum(*tops).view(shape), possible_crossings, crossings)


def _count(mask: Tensor) -> Tensor:
    """Return the number of true values for each interval, (N,)."""
    return mask.flatten(1).sum(1)
