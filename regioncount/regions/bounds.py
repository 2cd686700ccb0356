"""Regions on lines by bounds: one label is proved on whole intervals, which are not cut wherever the network bends.

On an interval each value of the network is a chord, the straight line between its values at the two ends, and a deviation
that lies between two constants, -below and above. An affine operation takes chords to chords, and a deviation of middle m
and radius r to one of middle A m and radius |A| r. A monotone function of a chord and a deviation departs from its own chord
the most at an end, or where it passes a threshold at its lowest or highest. Where one logit at its lowest is above all
others at their highest at both ends, it is so in between. (Linear relaxation, carried forward, as in Zhang et al. 2018,
"Efficient Neural Network Robustness Certification"; here the input has one dimension, and the ends are evaluated.)

An interval on which that proves nothing is split, where its parts promise to be proved at less cost than an exact count
would have; else it is counted exactly.
"""

import math
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.utils._pytree import tree_map

from regioncount.errors import InputError
from regioncount.regions.evaluation import true_float32
from regioncount.regions.exact import (
    CHUNK_VALUES,
    TOUCHING,
    ExactLines,
    check_lines,
    follow,
    merged,
    open_parts,
    proved_share,
)
from regioncount.regions.piecewise import Operation, Program, call, operation_name, trace

# To bound an interval: its two ends, the middles and the radii of deviations.
EVALUATIONS = 4

# A logit is above another one where the difference is more than this share of the largest one: less may be rounding.
ROUNDING = 1e-9


def bounded_lines(model: nn.Module, vertices: Tensor, budget: int | None = None) -> ExactLines:
    """The regions of `exact_lines`, most of each line proved by bounds; affine pieces are not counted.

    Without a budget all is proved, and the regions are the same. With one, `counts` bounds them from below, and `most` from
    above. It saves evaluations in networks of few layers. Bounds widen with every layer; in deep networks an interval on
    which they prove a label is no longer than an affine piece, and all is left to the exact count.

    Parameters as of `exact_lines`. Raises InputError as that does, and where an activation is not monotone.
    """
    check_lines(vertices, budget)
    program = trace(model, vertices.shape[2:])
    check_monotone(program)
    with torch.no_grad(), true_float32():
        return _prove(program, vertices.to(program.device, torch.float64), budget)


@dataclass(frozen=True)
class _Intervals:
    """Parts of lines."""

    line: np.ndarray
    """int64 (N,)"""
    ends: np.ndarray
    """float64 (N, 2), shares of the line"""
    most: np.ndarray
    """float64 (N,): regions that each has at most"""
    bends: np.ndarray
    """int64 (N,): affine pieces that it seems to have"""

    def __getitem__(self, which) -> "_Intervals":
        return _Intervals(self.line[which], self.ends[which], self.most[which], self.bends[which])

    def halves(self) -> "_Intervals":
        (start, stop), twice = self.ends.T, self[np.arange(len(self.line)).repeat(2)]
        middle = (start + stop) / 2
        return replace(twice, ends=np.stack([start, middle, middle, stop], axis=1).reshape(-1, 2))

    def parts(self, size: int) -> list["_Intervals"]:
        return [self[at : at + size] for at in range(0, len(self.line), size)]

    def inputs(self, vertices: Tensor) -> Tensor:
        """The network's inputs at the ends: (N, 2, *input_shape)."""
        first, last = vertices[torch.from_numpy(self.line)].split(1, dim=1)
        return torch.lerp(first, last, torch.from_numpy(self.ends).to(vertices).view(-1, 2, *[1] * (vertices.dim() - 2)))


def _together(parts: list[_Intervals]) -> _Intervals:
    columns = (np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(_Intervals))
    return _Intervals(*columns)


def check_monotone(program: Program) -> None:
    """Raises InputError where an activation falls while its operand rises."""
    zeros = _zeros(program)
    for operation in (operation for stage in program.stages for operation in stage if operation.thresholds):
        levels = [operation.thresholds[0] - 1, *operation.thresholds, operation.thresholds[-1] + 1]
        rising = torch.cat([zeros[operation.operand] + level for level in levels])
        if (_applied(operation, program.constants, rising).diff(dim=0) < 0).any():
            name = operation_name(operation.node)
            raise InputError(f"method=bounds cannot follow {name}, which falls as its operand rises; take method=exact")


def _zeros(program: Program) -> dict[Node, Tensor]:
    """Of one point, for each value of the network."""

    def zero(value: Tensor) -> Tensor:
        return torch.zeros(1, *value.shape[1:], dtype=value.dtype, device=program.device)

    nodes = [program.input, *(operation.node for stage in program.stages for operation in stage)]
    return {node: tree_map(zero, node.meta["val"]) for node in nodes}


def _prove(program: Program, vertices: Tensor, budget: int | None) -> ExactLines:
    number = len(vertices)
    sizes = {node: value.abs() for node, value in program.constants.items() if isinstance(value, Tensor)}
    zeros = _zeros(program)
    many = max(1, CHUNK_VALUES.get(program.device.type, CHUNK_VALUES["cuda"]) // (2 * EVALUATIONS * program.width))
    limit, evaluations = math.inf if budget is None else budget, 0
    ends = np.tile([0.0, 1.0], (number, 1))
    whole = _Intervals(np.arange(number), ends, np.full(number, np.inf), np.zeros(number, dtype=int))
    waiting, left, found = whole.parts(many), [whole[:0]], []
    while waiting and evaluations < limit:
        now = waiting.pop(0)  # the widest first
        evaluations += EVALUATIONS * len(now.line)
        label, cost, most, bends = _bound(program, sizes, zeros, now.inputs(vertices))
        proved = label >= 0
        found.append((now.line[proved], *now.ends[proved].T, label[proved]))
        now = replace(now, most=most, bends=bends)
        waiting += now[~proved & (cost < bends)].halves().parts(many)
        left.append(now[~proved & (cost >= bends)])
    hard = _together(left)
    hard = hard[np.argsort(hard.bends / np.diff(hard.ends).squeeze(1), kind="stable")]  # the cheapest of a length first
    for part in hard.parts(many):
        if evaluations < limit:
            exact = follow(program, part.inputs(vertices), None if budget is None else budget - evaluations)
            evaluations += exact.evaluations
            start, stop = part.ends[exact.line].T
            places = [start + place * (stop - start) for place in (exact.start, exact.stop)]
            found.append((part.line[exact.line], *places, exact.label))
    line, start, stop, label = merged(found)
    most = _most(line, open_parts(line, start, stop, number), _together([hard, *waiting]), number)
    return ExactLines(line, start, stop, label, proved_share(line, start, stop, number), most, None, evaluations)


def _most(line: np.ndarray, gaps: tuple[np.ndarray, ...], intervals: _Intervals, number: int) -> np.ndarray:
    """Regions that each line has at most: float64 (number,).

    line: that of each interval of one label. gaps: what these leave open. Where a gap meets another interval, it shares its
    region there.
    """
    most = np.bincount(line, minlength=number).astype(float)
    for owner, start, stop in zip(*gaps, strict=True):
        inside = (
            (intervals.line == owner) & (intervals.ends[:, 0] < stop - TOUCHING) & (intervals.ends[:, 1] > start + TOUCHING)
        )
        neighbours = inside.sum() - 1 + (start > 0) + (stop < 1)
        most[owner] += intervals.most[inside].sum() - neighbours
    return most


def _bound(program: Program, sizes: dict[Node, Tensor], zeros: dict[Node, Tensor], ends: Tensor) -> tuple[np.ndarray, ...]:
    """What is known of intervals with inputs (N, 2, *input_shape) at their ends.

    sizes: the constants without their signs. zeros: of one point, for every value. Returns (N,) each: the label that is
    proved on all of it, or -1; about how many evaluations would prove one by splitting; how many regions, and (about) how
    many affine pieces, it has.
    """
    points = len(ends)
    values = {program.input: ends.transpose(0, 1).flatten(0, 1)}
    middles, radii = ({program.input: torch.zeros_like(ends[:, 0])} for _ in range(2))
    pieces, bends = ends.new_ones(points), ends.new_zeros(points)
    for operation in (operation for stage in program.stages for operation in stage):
        node = operation.node
        result = call(node, program.constants | values, 2 * points)
        if operation.affine:
            middle = _linear(node, program.constants, zeros, middles, points)
            radius = _radius(node, sizes, zeros, radii, middle, points)
        else:
            below = radii[operation.operand] - middles[operation.operand]
            above = radii[operation.operand] + middles[operation.operand]
            bent = _pooled if operation.windows is not None else _activated
            operand, chord = values[operation.operand].chunk(2), result.chunk(2)
            below, above, unsure, crossed = bent(operation, program.constants, operand, chord, below, above)
            middle, radius = (above - below) / 2, (above + below) / 2
            pieces, bends = pieces * (1 + unsure), bends + crossed
        values, middles, radii = (
            {kept: value for kept, value in (known | {node: new}).items() if kept in operation.kept}
            for known, new in ((values, result), (middles, middle), (radii, radius))
        )
    logits, middle, radius = (known[program.output] for known in (values, middles, radii))
    if logits.isnan().any():
        raise InputError("the model gives logits that are not a number: its regions cannot be counted")
    return tuple(
        value.cpu().numpy() for value in _labels(logits.view(2, points, -1), radius - middle, radius + middle, pieces, bends)
    )


def _labels(logits: Tensor, below: Tensor, above: Tensor, pieces: Tensor, bends: Tensor) -> tuple[Tensor, ...]:
    """As `_bound`; logits at the two ends (2, N, classes), their deviations (N, classes)."""
    own = logits.argmax(dim=2, keepdim=True)
    slack = ROUNDING * logits.abs().amax()
    label = own[0]

    def needed(label: Tensor) -> Tensor:
        """What the deviations may make up, as a share of how far a label's logit is ahead: (2, N, classes), 0 for itself."""
        ahead = logits.gather(2, label.expand(2, -1, -1)) - logits
        share = (below.gather(1, label) + above + slack) / ahead
        return torch.where(ahead > 0, share, torch.inf).scatter(2, label.expand(2, -1, -1), 0.0)

    first, last = needed(own[0]), needed(own[1])
    beaten = ((first < 1) & (first > 0)).all(dim=0) | ((last < 1) & (last > 0)).all(dim=0)
    most = 1 + pieces * ((~beaten).sum(dim=1) - 1)
    short = torch.stack([first[0].amax(dim=1), last[1].amax(dim=1)])
    same = (own[0] == own[1]).squeeze(1)
    short = torch.where(same, short.amax(dim=0), short.amin(dim=0).clamp(min=1))
    label = torch.where(same & (short < 1), own[0].squeeze(1), -1)
    # A deviation shrinks with the square of the length; all the splitting takes twice what the last parts take.
    return label, 2 * EVALUATIONS * short.sqrt().ceil(), most, bends


def _linear(node: Node, constants: dict, zeros: dict, known: dict, points: int):
    """The linear part of an affine operation, on known values."""
    return tree_map(torch.sub, call(node, constants | known, points), call(node, constants | zeros, 1))


def _radius(node: Node, sizes: dict, zeros: dict, radii: dict, like, points: int):
    """The absolute values of its coefficients, on the radii: of each operand alone, as in a difference they would cancel.

    Of the operations there are, those without constants have coefficients of one sign, or one for each value.
    """
    total = tree_map(torch.zeros_like, like)
    nothing = {known: tree_map(torch.zeros_like, radius) for known, radius in radii.items()}
    for operand in node.all_input_nodes:
        if operand in radii:
            part = _linear(node, sizes, zeros, nothing | {operand: radii[operand]}, points)
            total = tree_map(lambda total, part: total + part.abs(), total, part)
    return total


def _applied(operation: Operation, constants: dict, values: Tensor) -> Tensor:
    return call(operation.node, constants | {operation.operand: values}, len(values))


def _activated(operation: Operation, constants: dict, operand, chord, below: Tensor, above: Tensor) -> tuple[Tensor, ...]:
    """Bounds of the deviation of a monotone function of each value, how many values may pass a threshold, how many do.

    operand and chord: the values that it takes and gives at the two ends.
    """

    def departures(shift: Tensor) -> Tensor:
        """From the chord, where the values are shifted: at the ends, and where they pass thresholds."""
        first, last = (value + shift for value in operand)
        found = [_applied(operation, constants, end) - top for end, top in zip((first, last), chord, strict=True)]
        for threshold in operation.thresholds:
            passes = (first - threshold) * (last - threshold) < 0
            place = torch.where(passes, (threshold - first) / (last - first), 0.0)
            passing = torch.lerp(first, last, place)
            found.append(_applied(operation, constants, passing) - torch.lerp(*chord, place))
        return torch.stack(found)

    low, high = torch.minimum(*operand) - below, torch.maximum(*operand) + above
    unsure = sum(((low < level) & (high > level)).flatten(1).sum(1) for level in operation.thresholds)
    crossed = sum((((operand[0] - level) * (operand[1] - level)) < 0).flatten(1).sum(1) for level in operation.thresholds)
    return -departures(-below).amin(dim=0), departures(above).amax(dim=0), unsure, crossed


def _pooled(operation: Operation, constants: dict, operand, chord, below: Tensor, above: Tensor) -> tuple[Tensor, ...]:
    """The same of a max pooling."""

    def windows(values: Tensor) -> Tensor:
        return values.flatten(2)[..., operation.windows]  # (N, channels, outputs, values)

    shape, chord = chord[0].shape, [value.flatten(2) for value in chord]
    first, last = map(windows, operand)
    lowest, highest = windows(below), windows(above)
    winners = [value.argmax(dim=-1, keepdim=True) for value in (first, last)]
    upper = torch.maximum(*((value + highest).amax(dim=-1) - top for value, top in zip((first, last), chord, strict=True)))
    # From below by two straight lines, those of the winners at the ends: at the ends, and where they meet.
    low = [[(value - lowest).gather(-1, winner).squeeze(-1) for winner in winners] for value in (first, last)]
    ahead = [one - other for one, other in low]
    meet = ahead[0] * ahead[1] < 0
    place = torch.where(meet, ahead[0] / (ahead[0] - ahead[1]), 0.0)
    lower = [torch.maximum(*pair) - top for pair, top in zip(low, chord, strict=True)]
    lower.append(torch.lerp(low[0][0], low[1][0], place) - torch.lerp(*chord, place))
    lower[2] = torch.where(meet, lower[2], lower[0])
    others = [(value + highest).scatter(-1, winners[0], -torch.inf).amax(dim=-1) for value in (first, last)]
    sure = torch.stack([pair[0] > other for pair, other in zip(low, others, strict=True)]).all(dim=0)
    unsure = (~sure).flatten(1).sum(1) * (first.shape[-1] - 1)
    crossed = (winners[0] != winners[1]).flatten(1).sum(1)
    return -torch.stack(lower).amin(dim=0).view(shape), upper.view(shape), unsure, crossed
