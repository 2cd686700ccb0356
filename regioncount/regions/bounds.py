"""Regions on lines from bounds: a label is proved on a whole interval at once, without cutting it at every crossing.

On an interval, each value of the network is written as its chord (the straight line between its values at the two ends) plus
a deviation between two constants, -below and above. An affine operation with matrix A maps chords to chords, and a deviation
with middle m and radius r to one with middle A m and radius |A| r. The result of a monotone activation is
furthest from its chord at an end of the interval, or where the operand, shifted by -below or above, crosses a
threshold. A label is proved if the lower bound of its logit exceeds the upper bound of every other logit at both ends,
hence in between. This is linear relaxation, propagated forward (Zhang et al. 2018, "Efficient Neural Network Robustness
Certification"), for a one-dimensional input and with the network evaluated at both ends.

An interval on which no label is proved is split if proving its parts is expected to cost less than an exact count, and is
counted exactly otherwise.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import tree_map

from regioncount.errors import InputError
from regioncount.regions.callables import as_model
from regioncount.regions.checks import as_vertices, require_count
from regioncount.regions.evaluation import Model, device_and_dtype, true_float32
from regioncount.regions.exact import ADVICE, ExactLines, chunk_size, propagate, verified
from regioncount.regions.intervals import MIN_GAP, Intervals, covered_share, find_gaps, merge_intervals
from regioncount.regions.model_check import check_function, sample_points
from regioncount.regions.nodes import Values, call, operation_name, tensors_of
from regioncount.regions.operations import Operation
from regioncount.regions.outputs import refuse_nan
from regioncount.regions.piecewise import Program, trace
from regioncount.regions.progress import Advance, progress
from regioncount.regions.relaxation import ConstantsAt, linear_part, linear_radius, magnitudes_of, relax, zero_values

# Network evaluations to bound an interval: its two ends, the middles and the radii of the deviations.
EVALUATIONS_PER_INTERVAL = 4

# An interval of at most this length is not bisected but counted exactly. Values that are equal up to rounding, such as those
# of a pooling window, would otherwise be bisected without end.
MIN_BISECTED = 1e-6

# Random deviations for which the bounds of each affine operation are checked.
SAMPLES = 8

# A logit exceeds another if the difference is above this fraction of the largest logit. Smaller differences may be
# rounding errors.
ROUNDING = 1e-9


def bounded_lines(model: Model, vertices: Tensor, budget: int | None = None) -> ExactLines:
    """Compute the regions of `exact_lines`, proving most of each line with bounds.

    This saves evaluations in networks with few layers. Bounds widen with every layer: in deep networks, an interval on which
    they prove a label is as short as an affine piece, and the exact count does all the work.

    Args:
        model: A torch module that returns logits (B, classes), as for `exact_lines`, with non-decreasing activations
            and without comparisons.
        vertices: The two ends of each line, floating point (S, 2, *input_shape).
        budget: Number of network evaluations after which the proof stops; None proves every line completely.

    Returns:
        Intervals of constant label on each line; `pieces` is None. Without a budget they are those of `exact_lines`. With
        one, `counts` is a lower bound and `most` an upper bound on the regions.

    Raises:
        InputError: If `exact_lines` would raise it, or the network has an operation that cannot be bounded, such as an
            activation that decreases as its operand increases.
    """
    model = as_model(model)
    vertices = as_vertices(vertices, dimension=1)
    if budget is not None:
        require_count("budget", budget, 1)
    check_function(model, sample_points(vertices).to(*device_and_dtype(model, vertices)))
    program = trace(model, vertices.shape[2:])
    check_relaxable(program)
    with torch.no_grad(), true_float32():
        return verified(program, ends := vertices.to(program.device).double(), _prove(program, ends, budget))


def check_relaxable(program: Program) -> None:
    """Check that all operations of a network can be bounded.

    Args:
        program: The network.

    Raises:
        InputError: If an activation decreases as its operand increases, a result jumps, or the bounds of an affine operation
            on a few values are wrong: it mixes values with coefficients of both signs that are not constants of the network.
    """
    advice = "use method=exact"
    if program.comparison is not None:
        raise InputError(f"method=bounds cannot follow {program.comparison}, whose result jumps; {advice}")
    zeros, magnitudes = zero_values(program), magnitudes_of(program)
    for operation in program.operations:
        name = operation_name(operation.node)
        if operation.thresholds:
            levels = sorted(operation.thresholds)
            levels = [levels[0] - 1, *levels, levels[-1] + 1]
            increasing = torch.cat([zeros[operation.operand] + level for level in levels])
            results = call(operation.node, {**program.constants, operation.operand: increasing}, len(increasing))
            if (results.diff(dim=0) < 0).any():
                raise InputError(f"method=bounds cannot follow {name}, which decreases as its operand increases; {advice}")
        elif operation.is_affine and not _radius_is_bound(program, operation, magnitudes, zeros):
            raise InputError(f"method=bounds cannot follow {name}, whose coefficients have both signs; {advice}")


def _radius_is_bound(program: Program, operation: Operation, magnitudes: ConstantsAt, zeros: Values) -> bool:
    """Return whether `linear_radius` bounds an affine operation's results for a few deviations of random signs."""
    generator = torch.Generator().manual_seed(0)

    def deviations(zero: Tensor) -> Tensor:
        return torch.randn(SAMPLES, *zero.shape[1:], generator=generator, dtype=torch.float64).to(zero)

    deviation = {operand: tree_map(deviations, zeros[operand]) for operand in operation.operands}
    radii = tree_map(torch.abs, deviation)
    result = linear_part(operation.node, lambda _: program.constants, zeros, deviation, SAMPLES)
    bound = linear_radius(operation, magnitudes, zeros, radii, result, SAMPLES)
    pairs = zip(tensors_of(result), tensors_of(bound), strict=True)
    return all(bool((value.abs() <= radius + ROUNDING * (1 + value.abs())).all()) for value, radius in pairs)


@dataclass(frozen=True)
class _Undecided:
    """N intervals of lines on which no label is proved."""

    line: np.ndarray
    """int64 (N,): the line of each interval."""
    ends: np.ndarray
    """float64 (N, 2): start and stop, as fractions of the line."""
    max_regions: np.ndarray
    """float64 (N,): upper bound on the number of regions in each interval."""
    pieces: np.ndarray
    """int64 (N,): estimated number of affine pieces in each interval."""

    def __getitem__(self, index: Any) -> "_Undecided":
        return _Undecided(self.line[index], self.ends[index], self.max_regions[index], self.pieces[index])

    def bisect(self) -> "_Undecided":
        """Return both halves of each interval."""
        start, stop = self.ends.T
        middle = (start + stop) / 2
        halves = self[np.arange(len(self.line)).repeat(2)]
        return replace(halves, ends=np.stack([start, middle, middle, stop], axis=1).reshape(-1, 2))

    def chunks(self, size: int) -> list["_Undecided"]:
        """Split the intervals into chunks of at most `size`."""
        return [self[start : start + size] for start in range(0, len(self.line), size)]

    def inputs(self, vertices: Tensor) -> Tensor:
        """Return the network's inputs at both ends, (N, 2, *input_shape)."""
        first, last = vertices[torch.from_numpy(self.line)].split(1, dim=1)
        return torch.lerp(first, last, torch.from_numpy(self.ends).to(vertices).view(-1, 2, *[1] * (vertices.dim() - 2)))


def _concatenate(parts: list[_Undecided]) -> _Undecided:
    columns = (np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(_Undecided))
    return _Undecided(*columns)


def _prove(program: Program, vertices: Tensor, budget: int | None) -> ExactLines:
    """Bound and bisect intervals, widest first; then count exactly those for which bounds are expected to cost more."""
    number = len(vertices)
    magnitudes, zeros = magnitudes_of(program), zero_values(program)
    chunk = max(1, chunk_size(program) // (2 * EVALUATIONS_PER_INTERVAL))
    limit, evaluations = math.inf if budget is None else budget, 0
    whole_lines = _Undecided(
        np.arange(number), np.tile([0.0, 1.0], (number, 1)), np.full(number, np.inf), np.zeros(number, dtype=int)
    )
    queue, exact_parts = whole_lines.chunks(chunk), [whole_lines[:0]]
    proved: list[Intervals] = []
    while queue and evaluations < limit:
        intervals = queue.pop(0)
        evaluations += EVALUATIONS_PER_INTERVAL * len(intervals.line)
        bounds = _bound(program, magnitudes, zeros, intervals.inputs(vertices))
        decided = bounds.label >= 0
        start, stop = intervals.ends[decided].T
        proved.append(Intervals(intervals.line[decided], start, stop, bounds.label[decided]))
        intervals = replace(intervals, max_regions=bounds.max_regions, pieces=bounds.pieces)
        is_cheaper = (bounds.cost < bounds.pieces) & (np.diff(intervals.ends).squeeze(1) > MIN_BISECTED)
        queue += intervals[~decided & is_cheaper].bisect().chunks(chunk)
        exact_parts.append(intervals[~decided & ~is_cheaper])
    remaining = _concatenate(exact_parts)
    # Intervals with the fewest pieces per length come first: on these, a budget proves the largest share of a line.
    remaining = remaining[np.argsort(remaining.pieces / np.diff(remaining.ends).squeeze(1), kind="stable")]
    with progress(len(remaining.line), "intervals of lines", ADVICE) as advance:
        complete = 0
        for part in remaining.chunks(chunk):
            if evaluations < limit:
                left = None if budget is None else budget - evaluations
                exact = propagate(program, part.inputs(vertices), left, _after(complete, advance))
                complete, evaluations = complete + len(part.line), evaluations + exact.evaluations
                offset, end = part.ends[exact.line].T
                start, stop = (offset + position * (end - offset) for position in (exact.start, exact.stop))
                proved.append(Intervals(part.line[exact.line], start, stop, exact.label))
    merged = merge_intervals(proved)
    most = _max_regions(merged, _concatenate([remaining, *queue]), number)
    return ExactLines(*merged, covered_share(merged, number), most, None, evaluations)


def _after(complete: int, advance: Advance) -> Advance:
    """Return a function that adds what was complete before."""
    return lambda done, description: advance(complete + done, description)


def _max_regions(proved: Intervals, undecided: _Undecided, number: int) -> np.ndarray:
    """Return an upper bound on the regions of each line, float64 (number,).

    A gap between proved intervals has at most the regions of the undecided intervals in it. Neighbouring intervals, whether
    proved or undecided, share the region of the point at which they meet.
    """
    most = np.bincount(proved.line, minlength=number).astype(float)
    for line, start, stop in zip(*find_gaps(proved, number), strict=True):
        overlaps = (undecided.ends[:, 0] < stop - MIN_GAP) & (undecided.ends[:, 1] > start + MIN_GAP)
        inside = (undecided.line == line) & overlaps
        shared = inside.sum() - 1 + (start > 0) + (stop < 1)
        most[line] += undecided.max_regions[inside].sum() - shared
    return most


class _Bounds(NamedTuple):
    """Bounds on N intervals, (N,) each."""

    label: np.ndarray
    """The label that is proved on the whole interval, or -1."""
    cost: np.ndarray
    """Estimated number of evaluations to prove labels on the interval's parts."""
    max_regions: np.ndarray
    """Upper bound on the number of regions."""
    pieces: np.ndarray
    """Estimated number of affine pieces."""


def _bound(program: Program, magnitudes: ConstantsAt, zeros: dict[Node, Any], ends: Tensor) -> _Bounds:
    """Return bounds on intervals with inputs (N, 2, *input_shape) at their ends.

    `magnitudes` and `zeros` are those of `magnitudes_of` and `zero_values`.
    """
    points = len(ends)
    values: dict[Node, Any] = {program.input: ends.transpose(0, 1).flatten(0, 1)}
    middles: dict[Node, Any] = {program.input: torch.zeros_like(ends[:, 0])}
    radii: dict[Node, Any] = {program.input: torch.zeros_like(ends[:, 0])}
    max_pieces, crossings = ends.new_ones(points), ends.new_zeros(points)
    for operation in program.operations:
        node = operation.node
        result = call(node, {**program.constants, **values}, 2 * points)
        if operation.is_affine:
            middle = linear_part(node, lambda _: program.constants, zeros, middles, points)
            radius = linear_radius(operation, magnitudes, zeros, radii, middle, points)
        else:
            below = {operand: radii[operand] - middles[operand] for operand in operation.operands}
            above = {operand: radii[operand] + middles[operand] for operand in operation.operands}
            relaxed = relax(operation, program.constants, values, result, below, above)
            middle, radius = (relaxed.above - relaxed.below) / 2, (relaxed.above + relaxed.below) / 2
            max_pieces, crossings = max_pieces * (1 + relaxed.possible_crossings), crossings + relaxed.crossings
        middle, radius = tree_map(_finite, middle), tree_map(_unbounded, radius)
        values, middles, radii = (
            {key: value for key, value in {**previous, node: new}.items() if key in operation.kept}
            for previous, new in ((values, result), (middles, middle), (radii, radius))
        )
    logits, middle, radius = (tensors[program.output] for tensors in (values, middles, radii))
    refuse_nan(logits.isnan().any())
    return _decide(logits.view(2, points, -1), radius - middle, radius + middle, max_pieces, crossings)


def _finite(middle: Tensor) -> Tensor:
    return middle.nan_to_num(nan=0.0)


def _unbounded(radius: Tensor) -> Tensor:
    """Return radii in which undefined ones, of values that are infinite at an end of the interval, are infinite."""
    return radius.nan_to_num(nan=torch.inf, posinf=torch.inf)


def _decide(logits: Tensor, below: Tensor, above: Tensor, max_pieces: Tensor, crossings: Tensor) -> _Bounds:
    """Compute the bounds from the logits at both ends, (2, N, classes), and their deviations, (N, classes)."""
    winners = logits.argmax(dim=2, keepdim=True)
    slack = ROUNDING * logits.abs().amax()

    def lead_used(winner: Tensor) -> Tensor:
        """Return the share of a label's lead that the deviations may use up, (2, N, classes); 0 for the label itself."""
        index = winner.expand(2, -1, -1)
        lead = logits.gather(2, index) - logits
        share = (below.gather(1, winner) + above + slack) / lead
        return torch.where(lead > 0, share, torch.inf).scatter(2, index, 0.0)

    first, last = lead_used(winners[0]), lead_used(winners[1])
    # A class whose logit stays below the logit of the label at one end is never the label. If k classes remain, the label
    # changes at most k - 1 times on an affine piece.
    excluded = ((first < 1) & (first > 0)).all(dim=0) | ((last < 1) & (last > 0)).all(dim=0)
    max_regions = 1 + max_pieces * ((~excluded).sum(dim=1) - 1)
    used = torch.stack([first[0].amax(dim=1), last[1].amax(dim=1)])
    same_label = (winners[0] == winners[1]).squeeze(1)
    used = torch.where(same_label, used.amax(dim=0), used.amin(dim=0).clamp(min=1))
    label = torch.where(same_label & (used < 1), winners[0].squeeze(1), -1)
    # A deviation shrinks with the square of the length, so sqrt(used) parts suffice. All levels of bisection together
    # cost twice the last one.
    cost = 2 * EVALUATIONS_PER_INTERVAL * used.sqrt().ceil()
    return _Bounds(*(value.cpu().numpy() for value in (label, cost, max_regions, crossings)))
