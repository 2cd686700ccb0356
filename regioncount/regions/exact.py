"""Exact regions on lines, for networks that are piecewise linear in evaluation mode.

The network's input is affine along a line. Points on the line are propagated through the operations so that all values
are affine between consecutive points. A piecewise affine operation preserves this on an interval if both ends are on
the same piece; otherwise, the interval is cut at the interpolated crossings (Sotoudeh and Thakur 2019, section 3).
Finally, the logits are affine between consecutive points, and the labels follow from their upper envelope.

Arithmetic is in float64. Regions and affine pieces shorter than the fraction `MIN_LENGTH` of their line may be missed.
If logits tie on an interval, the label is the lowest index.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from regioncount.regions.callables import as_model
from regioncount.regions.checks import as_vertices, require_count
from regioncount.regions.evaluation import Model, device_and_dtype, true_float32
from regioncount.regions.intervals import MIN_LENGTH, Intervals, covered_share, merge_intervals, merge_sorted
from regioncount.regions.model_check import check_function, sample_points
from regioncount.regions.outputs import refuse_nan
from regioncount.regions.piecewise import Operation, Program, apply, trace
from regioncount.regions.verification import verify

# Number of values propagated through the network at a time.
CHUNK_VALUES = {"cpu": 2**21, "cuda": 2**28}


@dataclass(frozen=True)
class ExactLines:
    """The proved regions on S lines.

    Positions are fractions of a line: 0 is its first vertex, 1 its second.
    """

    line: np.ndarray
    """int64 (N,): the line of each of N intervals of constant label, in order along each line."""
    start: np.ndarray
    """float64 (N,): position at which each interval starts."""
    stop: np.ndarray
    """float64 (N,): position at which each interval stops."""
    label: np.ndarray
    """int64 (N,): label of each interval."""
    proved: np.ndarray
    """float64 (S,): share of each line that the intervals cover."""
    most: np.ndarray
    """float64 (S,): upper bound on the number of regions on each line; inf if unknown."""
    pieces: np.ndarray | None
    """int64 (S,): number of affine pieces (intervals with one activation pattern); None for `bounded_lines`."""
    evaluations: int
    """Network evaluations, in inputs."""

    @cached_property
    def counts(self) -> np.ndarray:
        """int64 (S,): number of regions on each line; a lower bound if `proved` is below 1."""
        is_first = np.append(True, (self.line[1:] != self.line[:-1]) | (self.label[1:] != self.label[:-1]))[: len(self.line)]
        return np.bincount(self.line[is_first], minlength=len(self.proved)).clip(min=1)

    @cached_property
    def entropies(self) -> np.ndarray:
        """float64 (S,): -sum p log p in nats, where p is a region's share of its line; NaN if `proved` is below 1."""
        share = self.stop - self.start
        entropies = np.bincount(self.line, weights=-share * np.log(share), minlength=len(self.proved)) + 0.0
        return np.where(self.proved == 1, entropies, np.nan)

    def boundaries(self, line: int) -> np.ndarray:
        """Return the positions on a line at which the label changes.

        Args:
            line: Index of the line.

        Returns:
            float64 (k,) in ascending order.
        """
        on_line = self.line == line
        start, stop = self.start[on_line], self.stop[on_line]
        return start[1:][start[1:] == stop[:-1]]


def exact_lines(model: Model, vertices: Tensor, budget: int | None = None) -> ExactLines:
    """Compute the regions of constant predicted label on each of S lines, without a lattice.

    Args:
        model: A torch module that returns logits (B, classes), built from convolutions, linear layers, batch
            normalization, piecewise linear activations such as ReLU, average and max pooling, sums, concatenation, and
            operations that only rearrange values.
        vertices: The two ends of each line, floating point (S, 2, *input_shape).
        budget: Number of network evaluations after which the proof stops; None proves every line completely.

    Returns:
        Intervals of constant label on each line.

    Raises:
        InputError: If the vertices are not lines, the budget is below 1, the network has an operation that is not piecewise
            linear, or a logit is not a number.

    References:
        Sotoudeh and Thakur 2019, "Computing Linear Restrictions of Neural Networks".
    """
    model = as_model(model)
    vertices = as_vertices(vertices, dimension=1)
    if budget is not None:
        require_count("budget", budget, 1)
    check_function(model, sample_points(vertices).to(*device_and_dtype(model, vertices)))
    program = trace(model, vertices.shape[2:])
    with torch.no_grad(), true_float32():
        return verified(program, ends := vertices.to(program.device, torch.float64), propagate(program, ends, budget))


def verified(program: Program, vertices: Tensor, lines: ExactLines) -> ExactLines:
    """Return exact regions on lines after comparing them with the network in their middles and at their boundaries.

    Args:
        program: The traced network.
        vertices: float64 (S, 2, *input_shape) on the network's device.
        lines: The regions.

    Returns:
        The regions, with these evaluations counted.

    Raises:
        InputError: The network predicts another label in the middle of a region, or neither label at a boundary.
    """
    is_boundary = (lines.line[1:] == lines.line[:-1]) & (lines.start[1:] == lines.stop[:-1])
    (before,) = is_boundary.nonzero()
    interval = np.concatenate([np.arange(len(lines.line)), before, before + 1])
    position = np.concatenate([(lines.start + lines.stop) / 2, lines.stop[before], lines.start[before + 1]])
    weights = np.stack([1 - position, position], axis=1)
    evaluations = verify(program, vertices, lines.line[interval], weights, lines.label[interval])
    return replace(lines, evaluations=lines.evaluations + evaluations)


def chunk_size(program: Program) -> int:
    """Return the number of inputs that are propagated through a network at a time.

    Args:
        program: The network.

    Returns:
        The number of inputs; it may be 0 for a network with very many values.
    """
    return CHUNK_VALUES.get(program.device.type, CHUNK_VALUES["cuda"]) // program.values_per_input


@dataclass(frozen=True)
class _Points:
    """P points in order along lines."""

    line: Tensor
    """int64 (P,): the line of each point."""
    position: Tensor
    """float64 (P,): position on the line."""
    joined: Tensor
    """bool (P - 1,): whether each point and the next one are the ends of an interval, on which all values are affine."""
    values: dict[Node, Any]
    """Values of the network at the points, (P, ...) each."""

    def interpolate(self, before: Tensor, share: Tensor) -> "_Points":
        """Return points (Q,), each a fraction `share` in [0, 1) of the way from the point `before` to the next one."""
        after = (before + 1).clamp(max=len(self.line) - 1)

        def lerp(values: Tensor) -> Tensor:
            return torch.lerp(values[before], values[after], share.view(-1, *[1] * (values.dim() - 1)))

        first, second = before[:-1], before[1:]
        joined = (second == first) | ((second == first + 1) & self.joined[first.clamp(max=len(self.joined) - 1)])
        values = {node: lerp(value) for node, value in self.values.items()}
        return _Points(self.line[before], lerp(self.position), joined, values)


def propagate(program: Program, vertices: Tensor, budget: int | None) -> ExactLines:
    """Compute the exact regions on lines for a traced network.

    Points are propagated from stage to stage in chunks. The chunk that is furthest through the network comes first, so
    that few points are in memory.

    Args:
        program: The network.
        vertices: float64 (S, 2, *input_shape) on the network's device.
        budget: Number of network evaluations after which the proof stops, or None.

    Returns:
        Intervals of constant label on each line.
    """
    number = len(vertices)
    max_points = max(2, chunk_size(program))
    ends = torch.arange(2 * number, device=program.device)
    points = _Points(ends // 2, (ends % 2).double(), (ends % 2 == 0)[:-1], {program.input: vertices.flatten(0, 1)})
    stack = [(0, points, *chunk) for chunk in _chunks(ends, torch.zeros_like(points.position), max_points)]
    intervals: list[Intervals] = []
    pieces, evaluations = np.zeros(number, dtype=np.int64), 0
    while stack and (budget is None or evaluations < budget):
        stage, points, before, share = stack.pop()
        points = points.interpolate(before, share)
        for operation in program.stages[stage]:
            points = replace(points, values=apply(program, operation, points.values))
        if stage + 1 < len(program.stages):
            before, share = _with_crossings(program.stages[stage + 1][0], points)
            stack += [(stage + 1, points, *chunk) for chunk in _chunks(before, share, max_points)]
            continue
        evaluations += len(points.line)
        pieces += np.bincount(points.line[:-1][points.joined].cpu().numpy(), minlength=number)
        intervals.append(_label_intervals(points, points.values[program.output]))
    merged = merge_intervals(intervals)
    proved = covered_share(merged, number)
    lines = ExactLines(*merged, proved, np.full(number, np.inf), pieces, evaluations)
    return replace(lines, most=np.where(proved == 1, lines.counts, np.inf))


def _chunks(before: Tensor, share: Tensor, max_points: int) -> list[tuple[Tensor, Tensor]]:
    """Split points into chunks, the last chunk first; consecutive chunks share a point."""
    number = max(1, -(-(len(before) - 1) // (max_points - 1)))
    size = -(-(len(before) - 1) // number)
    starts = range((number - 1) * size, -1, -size)
    return [(before[start : start + size + 1], share[start : start + size + 1]) for start in starts]


def _with_crossings(operation: Operation, points: _Points) -> tuple[Tensor, Tensor]:
    """Return the points and, in order between them, those at which the operation changes from one affine piece to another.

    Each is given by the last point before it, (Q,), and the fraction of the way to the next; see `_Points.interpolate`.
    """
    operand = points.values[operation.operand]
    if operation.windows is None:
        crossings = _threshold_crossings(operand, operation.thresholds, points.joined)
    else:
        crossings = [_maximum_crossings(operation, operation.windows, operand, points.joined)]
    indices = torch.arange(len(points.line), device=operand.device)
    before = torch.cat([indices, *(interval for interval, _ in crossings)])
    share = torch.cat([torch.zeros_like(points.position), *(share for _, share in crossings)])
    order = _order(before, share)
    before, share = before[order], share[order]
    # Drop crossings that rounding cannot distinguish from the previous crossing or from an end of their interval.
    length = points.position.diff(append=points.position[-1:])[before]
    offset = share * length
    kept = share == 0
    kept[1:] |= offset[1:] - offset[:-1] > MIN_LENGTH
    kept &= (share == 0) | (length - offset > MIN_LENGTH)
    return before[kept], share[kept]


def _order(first: Tensor, second: Tensor) -> Tensor:
    """Return the indices (Q,) that sort by the first key, then by the second."""
    order = second.argsort(stable=True)
    return order[first[order].argsort(stable=True)]


def _threshold_crossings(operand: Tensor, thresholds: Sequence[float], joined: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return, for each threshold, the intervals (K,) on which a value crosses it, and the fraction at which it does."""
    values = operand.reshape(len(operand), -1)
    crossings: list[tuple[Tensor, Tensor]] = []
    for threshold in thresholds:
        side = (values - threshold).sign()
        interval, value = ((side[1:] * side[:-1] < 0) & joined.unsqueeze(1)).nonzero().unbind(1)
        first, last = values[interval, value], values[interval + 1, value]
        crossings.append((interval, (threshold - first) / (last - first)))
    return crossings


def _maximum_crossings(operation: Operation, windows: Tensor, operand: Tensor, joined: Tensor) -> tuple[Tensor, Tensor]:
    """Return the intervals (K,) on which the largest pixel of a window changes, and the fraction at which it does."""
    _, winners = torch.ops.aten.max_pool2d_with_indices(operand, *operation.node.args[1:])
    winners, images = winners.flatten(2), operand.flatten(2)
    interval, channel, window = ((winners[1:] != winners[:-1]) & joined.view(-1, 1, 1)).nonzero().unbind(1)
    pixels = windows[window]
    first, last = (images[point.unsqueeze(1), channel.unsqueeze(1), pixels] for point in (interval, interval + 1))
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


def _label_intervals(points: _Points, logits: Tensor) -> Intervals:
    """Return the intervals of constant label between joined points."""
    refuse_nan(logits.isnan().any())
    (before,) = points.joined.nonzero(as_tuple=True)
    row, start, label = upper_envelope(logits[before], logits[before + 1])
    order = _order(row, start)
    row, start, label = row[order], start[order], label[order]
    is_last = torch.ones_like(row, dtype=torch.bool)
    is_last[:-1] = row[1:] != row[:-1]
    stop = torch.where(is_last, 1.0, start.roll(-1))
    point = before[row]
    low, high = points.position[point], points.position[point + 1]
    columns = points.line[point], torch.lerp(low, high, start), torch.lerp(low, high, stop), label
    return merge_sorted(Intervals(*(column.cpu().numpy() for column in columns)))
