"""Exact regions on lines, for networks that are piecewise linear in evaluation mode.

The network's input is affine along a line. Points on the line are propagated through the operations so that all values
are affine between consecutive points. A piecewise affine operation preserves this on an interval if both ends are on
the same piece; otherwise, the interval is cut at the interpolated crossings (Sotoudeh and Thakur 2019, section 3).
The result of a comparison, such as the condition of `torch.where`, is constant between its crossings.
Finally, the logits are affine between consecutive points, and the labels follow from their upper envelope.

Arithmetic is in float64. Regions and affine pieces shorter than the fraction `MIN_LENGTH` of their line may be missed.
If logits tie on an interval, the label is the lowest index.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from regioncount.regions.callables import as_model
from regioncount.regions.checks import as_vertices, require_count
from regioncount.regions.evaluation import Model, device_and_dtype, true_float32
from regioncount.regions.intervals import Intervals, covered_share, merge_intervals, merge_sorted
from regioncount.regions.model_check import check_function, sample_points
from regioncount.regions.outputs import refuse_nan
from regioncount.regions.piecewise import Program, apply, trace
from regioncount.regions.points import Points, compare, meet_thresholds, sorting_order, upper_envelope, with_crossings
from regioncount.regions.progress import Advance, progress
from regioncount.regions.verification import verify

# Number of values propagated through the network at a time.
CHUNK_VALUES = {"cpu": 2**21, "cuda": 2**28}

# Alternatives to a count that takes long.
ADVICE = "use method=auto, or give a budget (method=exact or bounds), which makes the count a lower bound"

# Distance from a boundary, as a fraction of the line, at which labels are compared if logits may jump there.
INSIDE = 1e-9


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
            normalization, piecewise linear activations such as ReLU, average and max pooling, sums, concatenation,
            comparisons, and operations that only rearrange values; see `regioncount.regions.operations`.
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
        ends = vertices.to(program.device).double()
        with progress(len(ends), "lines", ADVICE) as advance:
            lines = propagate(program, ends, budget, advance)
        return verified(program, ends, lines)


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
    middle = (lines.start + lines.stop) / 2
    is_boundary = (lines.line[1:] == lines.line[:-1]) & (lines.start[1:] == lines.stop[:-1])
    (before,) = is_boundary.nonzero()
    after = before + 1
    stop, start = lines.stop[before], lines.start[after]
    if program.comparison is not None:  # a logit may jump at the boundary: compare inside the regions, close to it
        stop = stop - np.minimum(INSIDE, stop - middle[before])
        start = start + np.minimum(INSIDE, middle[after] - start)
    interval = np.concatenate([np.arange(len(lines.line)), before, after])
    position = np.concatenate([middle, stop, start])
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


def propagate(program: Program, vertices: Tensor, budget: int | None, advance: Advance) -> ExactLines:
    """Compute the exact regions on lines for a traced network.

    Points are propagated from stage to stage in chunks. The chunk that is furthest through the network comes first, so
    that few points are in memory.

    Args:
        program: The network.
        vertices: float64 (S, 2, *input_shape) on the network's device.
        budget: Number of network evaluations after which the proof stops, or None.
        advance: Called with the number of lines that are done, of which the last is a fraction; see `progress`.

    Returns:
        Intervals of constant label on each line.
    """
    number, done = len(vertices), 0.0
    max_points = max(2, chunk_size(program))
    ends = torch.arange(2 * number, device=program.device)
    points = Points(ends // 2, (ends % 2).double(), (ends % 2 == 0)[:-1], {program.input: vertices.flatten(0, 1)})
    stack = [(0, points, *chunk) for chunk in _chunks(ends, torch.zeros_like(points.position), max_points)]
    intervals: list[Intervals] = []
    pieces, evaluations = np.zeros(number, dtype=np.int64), 0
    while stack and (budget is None or evaluations < budget):
        stage, points, before, share = stack.pop()
        points = points.interpolate(before, share)
        if stage:
            points = meet_thresholds(program.stages[stage][0], program.constants, points)
        for operation in program.stages[stage]:
            if operation.compared is not None:
                points = compare(operation, program.constants, points)
            else:
                points = replace(points, values=apply(program, operation, points.values))
        if stage + 1 < len(program.stages):
            before, share = with_crossings(program.stages[stage + 1][0], program.constants, points)
            stack += [(stage + 1, points, *chunk) for chunk in _chunks(before, share, max_points)]
            continue
        evaluations += len(points.line)
        pieces += np.bincount(points.line[:-1][points.joined].cpu().numpy(), minlength=number)
        labelled = _label_intervals(points, points.values[program.output])
        if program.comparison is not None:
            evaluations += _verify_middles(program, vertices, labelled)
        intervals.append(merge_sorted(labelled))
        done += float(points.position.diff()[points.joined].sum())
        advance(min(number, max(done, number * evaluations / budget if budget else 0.0)), "")
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


def _label_intervals(points: Points, logits: Tensor) -> Intervals:
    """Return the intervals of constant label between joined points, in order; neighbours may have one label."""
    refuse_nan(logits.isnan().any())
    (before,) = points.joined.nonzero(as_tuple=True)
    row, start, label = upper_envelope(logits[before], logits[before + 1])
    order = sorting_order(row, start)
    row, start, label = row[order], start[order], label[order]
    is_last = torch.ones_like(row, dtype=torch.bool)
    is_last[:-1] = row[1:] != row[:-1]
    stop = torch.where(is_last, 1.0, start.roll(-1))
    point = before[row]
    low, high = points.position[point], points.position[point + 1]
    columns = points.line[point], torch.lerp(low, high, start), torch.lerp(low, high, stop), label
    return Intervals(*(column.cpu().numpy() for column in columns))


def _verify_middles(program: Program, vertices: Tensor, intervals: Intervals) -> int:
    """Compare the network with the label in the middle of each interval on which every comparison has one result.

    Regions are verified too, but a wrong result on an interval may hide inside a region: a change of label that is missed
    leaves one region in place of several.

    Returns:
        The number of evaluations.

    Raises:
        InputError: If a label differs.
    """
    long = intervals.stop - intervals.start > 2 * INSIDE  # rounding decides at which end of a shorter one its middle is
    line, start, stop, label = (column[long] for column in intervals)
    middle = (start + stop) / 2
    return verify(program, vertices, line, np.stack([1 - middle, middle], axis=1), label)
