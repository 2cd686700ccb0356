"""Points on lines between which all values of a network are affine, and the points at which a value changes its piece."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from regioncount.regions.intervals import MIN_LENGTH
from regioncount.regions.maxima import Maximum, candidates_at, winners_of
from regioncount.regions.nodes import Values, call, value_of
from regioncount.regions.operations import Operation, crossed

# Two values that differ by at most this fraction of the larger one, at both ends of an interval that is longer than `LONG`,
# are equal on it: a maximum and the view of its largest candidate, for example. The network itself is evaluated there, too.
ROUNDING = 1e-13
LONG = 1e-6


@dataclass(frozen=True)
class Points:
    """P points in order along lines.

    Where a value jumps, there are two points at one position, which are not joined: the ends of the intervals on both sides.
    """

    line: Tensor
    """int64 (P,): the line of each point."""
    position: Tensor
    """float64 (P,): position on the line."""
    joined: Tensor
    """bool (P - 1,): whether each point and the next one are the ends of an interval, on which all values are affine."""
    values: dict[Node, Any]
    """Values of the network at the points, (P, ...) each."""

    def interpolate(self, before: Tensor, share: Tensor) -> "Points":
        """Return points (Q,), each a fraction `share` in [0, 1) of the way from the point `before` to the next one."""
        after = (before + 1).clamp(max=len(self.line) - 1)

        def lerp(values: Tensor) -> Tensor:
            first, weight = values[before], share.view(-1, *[1] * (values.dim() - 1))
            if not values.is_floating_point():  # constant between joined points
                return first
            last = values[after]
            result = torch.lerp(first, last, weight)
            if result.isnan().any():  # between two infinite values, and where an infinite value has no weight
                result = torch.where((weight == 0) | (first == last), first, result)
            return result

        first, second = before[:-1], before[1:]
        joined = (second == first) | ((second == first + 1) & self.joined[first.clamp(max=len(self.joined) - 1)])
        values = {node: lerp(value) for node, value in self.values.items()}
        return Points(self.line[before], lerp(self.position), joined, values)


def with_crossings(operation: Operation, constants: Values, points: Points) -> tuple[Tensor, Tensor]:
    """Return the points and, in order between them, those at which an operation changes from one affine piece to another.

    Args:
        operation: A piecewise affine operation.
        constants: The network's constants.
        points: The points.

    Returns:
        For each, the last point before it, (Q,), and the fraction of the way to the next; see `Points.interpolate`.
    """
    values, number = {**constants, **points.values}, len(points.line)
    if operation.maximum is not None:
        crossings = [_maximum_crossings(operation.maximum, values, points.joined)]
    else:
        crossings = _zero_crossings(crossed(operation, values, number), points.joined)
    indices = torch.arange(number, device=points.line.device)
    before = torch.cat([indices, *(interval for interval, _ in crossings)])
    share = torch.cat([torch.zeros_like(points.position), *(share for _, share in crossings)])
    order = sorting_order(before, share)
    before, share = before[order], share[order]
    # Drop crossings that rounding cannot distinguish from the previous crossing or from an end of their interval.
    length = points.position.diff(append=points.position[-1:])[before]
    offset = share * length
    kept = share == 0
    kept[1:] |= offset[1:] - offset[:-1] > MIN_LENGTH
    kept &= (share == 0) | (length - offset > MIN_LENGTH)
    return before[kept], share[kept]


def meet_thresholds(operation: Operation, constants: Values, points: Points) -> Points:
    """Return the points, where an operand is exactly at its threshold at the point of its own crossing.

    An interpolated crossing misses the threshold by rounding. Where it is on the wrong side, an activation that is constant
    on an interval (such as ReLU) would not be constant up to its end, and two values that are equal on an interval (such as
    a maximum and its largest candidate) would differ there: rounding would decide a comparison, or a tie of logits, on the
    whole interval. Since all crossings are points, an interval that still contains one has it at an end, up to rounding.

    Args:
        operation: A piecewise affine operation.
        constants: The network's constants.
        points: The points; they include the operation's crossings.
    """
    number = len(points.line)
    values = dict(points.values)
    maximum = operation.maximum
    if maximum is not None and maximum.windows is not None:
        (operand,) = maximum.arguments
        point, element, new = _near_ties(maximum, values, points.joined)
        if len(point):
            values[operand] = with_elements(values[operand], point, element, new)
        return replace(points, values=values)
    pair = operation.compared if maximum is None else maximum.arguments
    if pair is not None:
        first, second = pair_values(pair, {**constants, **values}, number)
        nearest = _near_zeros(first - second, points.joined)
        return replace(points, values=equated(pair, constants, values, number, *nearest))
    for threshold in operation.thresholds:
        operand = values[operation.operand]
        point, element = _near_zeros(operand.reshape(number, -1) - threshold, points.joined)
        if len(point):
            values[operation.operand] = with_elements(operand, point, element, operand.new_full(point.shape, threshold))
    return replace(points, values=values)


def compare(operation: Operation, constants: Values, points: Points) -> Points:
    """Apply a comparison, whose result is constant between joined points, and is evaluated in the middle between them.

    Args:
        operation: The comparison.
        constants: The network's constants.
        points: The points; they include those at which the result changes.

    Returns:
        The points, where the result changes at a point twice: as the end of one interval and the start of the next.
    """
    number, device = len(points.line), points.line.device
    middles = _middles(operation, constants, points)
    between = call(operation.node, {**constants, **middles}, number - 1)
    end = torch.zeros(1, dtype=torch.bool, device=device)
    has_left, has_right = torch.cat([end, points.joined]), torch.cat([points.joined, end])
    changes = (between[1:] != between[:-1]).flatten(1).any(dim=1)
    doubled = torch.cat([end, changes, end]) & has_left & has_right
    source = torch.arange(number, device=device).repeat_interleave(1 + doubled.long())
    is_second = torch.cat([end, source[1:] == source[:-1]])
    uses_right = is_second | (~doubled & has_right)[source]
    interval = torch.where(uses_right, source, source - 1).clamp(0, number - 2)
    joined = ~is_second[1:] & points.joined[source[:-1].clamp(max=number - 2)]
    values = {node: value[source] for node, value in points.values.items() if node in operation.kept}
    if operation.node in operation.kept:
        values[operation.node] = between[interval]
    return Points(points.line[source], points.position[source], joined, values)


def _middle(values: Tensor) -> Tensor:
    """Return the values (P - 1, ...) in the middle between neighbouring points."""
    first, last = values[:-1], values[1:]
    return torch.where(first == last, first, (first + last) / 2) if values.is_floating_point() else first


def sorting_order(first: Tensor, second: Tensor) -> Tensor:
    """Return the indices (Q,) that sort by the first key, then by the second."""
    order = second.argsort(stable=True)
    return order[first[order].argsort(stable=True)]


def _zero_crossings(functions: Sequence[Tensor], joined: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return, for each tensor (P, M), the intervals (K,) on which a value crosses 0, and the fraction at which it does."""
    crossings: list[tuple[Tensor, Tensor]] = []
    for values in functions:
        side = values.sign()
        interval, value = ((side[1:] * side[:-1] < 0) & joined.unsqueeze(1)).nonzero().unbind(1)
        first, last = values[interval, value], values[interval + 1, value]
        crossings.append((interval, first / (first - last)))
    return crossings


def _near_zeros(values: Tensor, joined: Tensor) -> tuple[Tensor, Tensor]:
    """Return the points (N,) and the columns (N,) of values (P, M) at the nearer ends of intervals on which they cross 0."""
    side = values.sign()
    interval, column = ((side[1:] * side[:-1] < 0) & joined.unsqueeze(1)).nonzero().unbind(1)
    first, last = values[interval, column].abs(), values[interval + 1, column].abs()
    finite = (first + last).isfinite()
    return torch.where(first <= last, interval, interval + 1)[finite], column[finite]


def pair_values(pair: tuple[Any, ...], values: Values, number: int) -> tuple[Tensor, Tensor]:
    """Return the values of the two arguments of a comparison or a maximum, float64 (N, M), for N inputs."""
    arguments = (value_of(argument, values, number) for argument in pair)
    first, second = torch.broadcast_tensors(*(torch.as_tensor(value, dtype=torch.float64) for value in arguments))
    return first.reshape(number, -1), second.reshape(number, -1)


def equated(
    pair: tuple[Any, ...], constants: Values, values: dict[Node, Any], number: int, row: Tensor, element: Tensor
) -> dict[Node, Any]:
    """Return the values, where the two arguments are equal in some elements: one of them, unless both are broadcast."""
    if not len(row):
        return values
    first, second = pair_values(pair, {**constants, **values}, number)
    for argument, other in zip(pair, (second, first), strict=True):
        value = values.get(argument) if isinstance(argument, Node) else None
        if value is not None and value.is_floating_point() and value[0].numel() == other.shape[1]:
            return {**values, argument: with_elements(value, row, element, other[row, element])}
    return values


def _middles(operation: Operation, constants: Values, points: Points) -> dict[Node, Any]:
    """Return the operands of a comparison in the middle between neighbouring points, (P - 1, ...) each.

    Operands that differ by rounding alone at both ends of an interval are equal in its middle.
    """
    number = len(points.line)
    middles = {operand: _middle(points.values[operand]) for operand in operation.operands}
    assert operation.compared is not None
    first, second = pair_values(operation.compared, {**constants, **points.values}, number)
    scale = torch.maximum(first.abs(), second.abs()).amax(dim=0)
    near = ((first - second).abs() <= ROUNDING * scale) & scale.isfinite()
    long = points.joined & (points.position.diff() > LONG)
    row, element = (near[1:] & near[:-1] & long.unsqueeze(1)).nonzero().unbind(1)
    return equated(operation.compared, constants, middles, number - 1, row, element)


def _near_ties(maximum: Maximum, values: Values, joined: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return points, elements of the operand, and new values, (N,) each, which make candidates equal where they tie.

    The largest candidate of a group differs between the ends of some intervals, although every crossing is a point: the
    candidate that is the largest in the middle is exceeded at an end by rounding. It becomes equal to the largest one there.
    """
    assert maximum.windows is not None
    points = len(joined) + 1
    winners = winners_of(maximum, values, points)
    interval, group = ((winners[1:] != winners[:-1]) & joined.unsqueeze(1)).nonzero().unbind(1)
    first, last = candidates_at(maximum, values, points, torch.cat([interval, interval + 1]), group.repeat(2)).chunk(2)
    element = maximum.windows[group, (first + last).argmax(dim=1)]
    largest = maximum.sign * torch.cat([first.amax(dim=1), last.amax(dim=1)])
    finite = largest.isfinite()
    return torch.cat([interval, interval + 1])[finite], element.repeat(2)[finite], largest[finite]


def with_elements(value: Tensor, row: Tensor, element: Tensor, new: Tensor) -> Tensor:
    """Return a value (P, ...) with new values (N,) of some elements in some rows."""
    value = value.clone(memory_format=torch.contiguous_format)
    value.view(len(value), -1)[row, element] = new
    return value


def _maximum_crossings(maximum: Maximum, values: Values, joined: Tensor) -> tuple[Tensor, Tensor]:
    """Return the intervals (K,) on which the largest candidate of a group changes, and the fraction at which it does."""
    points = len(joined) + 1
    winners = winners_of(maximum, values, points)
    interval, group = ((winners[1:] != winners[:-1]) & joined.unsqueeze(1)).nonzero().unbind(1)
    ends = candidates_at(maximum, values, points, torch.cat([interval, interval + 1]), group.repeat(2))
    first, last = ends.chunk(2)
    row, share, _ = upper_envelope(first, last)
    return interval[row[share > 0]], share[share > 0]


def upper_envelope(first: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the upper envelope of K affine functions on [0, 1], for each of N sets.

    Args:
        first: Values at 0, (N, K).
        last: Values at 1, (N, K).

    Returns:
        Parts in no particular order, (M,) each: the set, the start of the part, and the index of the highest function
        on the part (the lowest index if functions are equal). A part stops where the set's next part starts, or at 1.
    """
    slope = last - first
    is_top = first == first.amax(dim=1, keepdim=True)
    row = torch.arange(len(first), device=first.device)
    start = torch.zeros(len(first), dtype=first.dtype, device=first.device)
    top = torch.where(is_top, slope, -torch.inf).argmax(dim=1)
    rows, starts, tops = [row], [start], [top]
    while len(row):
        closing = slope[row] - slope[row, top].unsqueeze(1)  # above 0 for functions that overtake the highest one
        overtaking = (first[row, top].unsqueeze(1) - first[row]) / closing
        overtaking = torch.where(closing > 0, overtaking.clamp(min=start.unsqueeze(1)), torch.inf)
        start = overtaking.amin(dim=1)
        top = torch.where(overtaking == start.unsqueeze(1), closing, -torch.inf).argmax(dim=1)
        row, start, top = row[start < 1], start[start < 1], top[start < 1]
        rows.append(row)
        starts.append(start)
        tops.append(top)
    return torch.cat(rows), torch.cat(starts), torch.cat(tops)
