"""Bounds of a network's values on an interval, propagated through one operation.

A value is the chord between its values at the two ends of the interval plus a deviation in [-below, above]; see
`regioncount.regions.bounds`. N intervals are bounded at once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import tree_map

from regioncount.regions.maxima import candidates
from regioncount.regions.nodes import Values, call, is_size, nodes_in, value_of
from regioncount.regions.operations import Operation
from regioncount.regions.piecewise import Program

ConstantsAt = Callable[[int], Values]
"""Constants as a function of the number of inputs: some have the size of the batch."""


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
        return torch.zeros(1, *map(int, value.shape[1:]), dtype=value.dtype, device=program.device)

    nodes = [program.input, *(operation.node for operation in program.operations)]
    return {node: tree_map(zeros, node.meta["val"]) for node in nodes}


def linear_part(node: Node, constants: ConstantsAt, zeros: Values, operands: Values, points: int) -> Any:
    """Apply an affine operation without its constant term.

    Args:
        node: Node of the operation.
        constants: The network's constants, as a function of the number of inputs.
        zeros: The result of `zero_values`.
        operands: Values of N inputs.
        points: Number of inputs N.

    Returns:
        A tensor (N, ...) or a list of tensors.
    """
    result, constant_term = call(node, {**constants(points), **operands}, points), call(node, {**constants(1), **zeros}, 1)
    return tree_map(_difference, result, constant_term)


def _difference(first: Tensor, second: Tensor) -> Tensor:
    """Return a difference, in which infinite values that are equal cancel."""
    return torch.where(first == second, 0.0, first - second)


def linear_radius(
    operation: Operation, magnitudes: ConstantsAt, zeros: Values, radii: Values, middle: Any, points: int
) -> Any:
    """Return the radius |A| r of the result of an affine operation with matrix A.

    Operands are mapped one at a time: in a difference of two, radii would cancel. An operation without constants has
    coefficients of one sign, or one coefficient per value, so the absolute value of its result is |A| r.

    Args:
        operation: The operation.
        magnitudes: Absolute values of the network's constants; see `magnitudes_of`.
        zeros: The result of `zero_values`.
        radii: Radii of the operands, (N, ...) each.
        middle: Middle of the result, which has its shape.
        points: Number of intervals N.

    Returns:
        A tensor (N, ...) or a list of tensors.
    """
    total = tree_map(torch.zeros_like, middle)
    no_radii = {operand: tree_map(torch.zeros_like, radius) for operand, radius in radii.items()}
    for operand in operation.operands:
        part = linear_part(operation.node, magnitudes, zeros, {**no_radii, operand: radii[operand]}, points)
        total = tree_map(lambda total, part: total + part.abs(), total, part)
    return total


def magnitudes_of(program: Program) -> ConstantsAt:
    """Return the absolute values of a network's constants, also of those that have the size of the batch.

    Indices and conditions, which are integers or booleans, are left as they are.

    Args:
        program: The network.

    Returns:
        Absolute values as a function of the number of inputs.
    """

    def magnitude(constant: Any) -> Any:
        return constant.abs() if constant.is_floating_point() else constant

    fixed = {node: tree_map(magnitude, value) for node, value in program.constants.items()}
    used = {used for operation in program.operations if operation.is_affine for used in operation.node.all_input_nodes}
    used -= {program.input, *program.constants, *(operation.node for operation in program.operations)}
    sized = [node for node in used if not is_size(node)]
    return lambda points: {**fixed, **{node: magnitude(call(node, program.constants, points)) for node in sized}}


def relax(
    operation: Operation, constants: Values, values: Values, result: Tensor, below: Values, above: Values
) -> Relaxation:
    """Bound the result of a piecewise affine operation.

    Args:
        operation: A monotone activation, or a maximum or minimum.
        constants: The network's constants.
        values: Operands at the first ends of all intervals, then at the last ones, (2 N, ...) each.
        result: Result at the same points, (2 N, ...).
        below: Deviations of the operands below their chords, (N, ...) each.
        above: Deviations of the operands above their chords, (N, ...) each.

    Returns:
        Bounds of the result.
    """
    first_result, last_result = result.chunk(2)
    if operation.maximum is None:
        first, last = values[operation.operand].chunk(2)
        deviations = below[operation.operand], above[operation.operand]
        return _relax_activation(operation, constants, (first, last), (first_result, last_result), *deviations)
    maximum, number = operation.maximum, len(first_result)
    first, last = candidates(maximum, {**constants, **values}, 2 * number).chunk(2)
    no_deviation = {
        node: torch.zeros_like(value_of(node, constants, number), dtype=torch.float64)
        for node in nodes_in(maximum.arguments)
        if node not in operation.operands
    }
    lower, upper = (candidates(maximum, {**no_deviation, **deviation}, number) for deviation in (below, above))
    chord = maximum.sign * first_result.flatten(1), maximum.sign * last_result.flatten(1)
    if maximum.sign < 0:  # the smallest value is minus the largest of the negative candidates
        relaxed = _relax_maximum((first, last), chord, -upper, -lower)
        relaxed = relaxed._replace(below=relaxed.above, above=relaxed.below)
    else:
        relaxed = _relax_maximum((first, last), chord, lower, upper)
    return relaxed._replace(below=relaxed.below.view_as(first_result), above=relaxed.above.view_as(first_result))


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


def _relax_maximum(operand: tuple[Tensor, Tensor], chord: tuple[Tensor, Tensor], below: Tensor, above: Tensor) -> Relaxation:
    """Bound the largest of K candidates at both ends, (N, G, K) each, with deviations (N, G, K) and chords (N, G)."""
    first, last = operand
    # From above: the largest upper bound is convex along the interval, so it is furthest from the chord at an end.
    tops = [(value + above).amax(dim=-1) - chord_end for value, chord_end in zip((first, last), chord, strict=True)]
    # From below: the larger of the lower bounds of two candidates, those that are the largest at either end. It is furthest
    # from the chord at an end or where the two are equal.
    winners = [value.argmax(dim=-1, keepdim=True) for value in (first, last)]
    first_lower, last_lower = (
        [(value - below).gather(-1, winner).squeeze(-1) for winner in winners] for value in (first, last)
    )
    first_lead, last_lead = first_lower[0] - first_lower[1], last_lower[0] - last_lower[1]
    meet = first_lead * last_lead < 0
    share = torch.where(meet, first_lead / (first_lead - last_lead), 0.0)
    at_first, at_last = torch.maximum(*first_lower) - chord[0], torch.maximum(*last_lower) - chord[1]
    at_meeting = torch.lerp(first_lower[0], last_lower[0], share) - torch.lerp(chord[0], chord[1], share)
    departures = torch.stack([at_first, at_last, torch.where(meet, at_meeting, at_first)])
    # The largest candidate changes at most once per other candidate, and never if one stays above all others.
    others = [(value + above).scatter(-1, winners[0], -torch.inf).amax(dim=-1) for value in (first, last)]
    stays = (first_lower[0] > others[0]) & (last_lower[0] > others[1])
    possible_crossings = _count(~stays) * (first.shape[-1] - 1)
    crossings = _count(winners[0] != winners[1])
    return Relaxation(-departures.amin(dim=0), torch.maximum(*tops), possible_crossings, crossings)


def _count(mask: Tensor) -> Tensor:
    """Return the number of true values for each interval, (N,)."""
    return mask.flatten(1).sum(1)
