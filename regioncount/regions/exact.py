"""Exact regions on lines, through networks that are piecewise linear in evaluation mode.

Along a line the input is affine. Where it is affine on an interval, so is the operand of every operation, up to the first
that is affine only in pieces; where that one's pieces are the same at both ends of the interval, its result is affine too;
where not, the interval is cut at the crossings, which are interpolated (ExactLine, Sotoudeh and Thakur 2019, section 3). At
the end there are intervals on which the logits are affine, and the labels follow from the logits at their ends.

Arithmetic is in float64. A region, or an affine piece, that is shorter than `SHORTEST` of its line may be missed, and where
logits tie over an interval the lowest index wins.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import Node

from regioncount.errors import InputError
from regioncount.regions.evaluation import true_float32
from regioncount.regions.piecewise import Operation, Program, apply, trace

# Crossings that lie closer together, as a share of the line, are taken for one: rounding tells them apart no longer.
SHORTEST = 1e-12

# Intervals this close to each other touch: what lies between them is shorter than that.
TOUCHING = 10 * SHORTEST

# Values that are carried through the network at a time.
CHUNK_VALUES = {"cpu": 2**21, "cuda": 2**28}


@dataclass(frozen=True)
class ExactLines:
    """The regions of S lines, as far as they are proved.

    Places are shares of a line: 0 is its first vertex, 1 its second.
    """

    line: np.ndarray
    """int64 (N,): the line of each of N intervals; in order along each line"""
    start: np.ndarray
    """float64 (N,)"""
    stop: np.ndarray
    """float64 (N,)"""
    label: np.ndarray
    """int64 (N,): on the whole of the interval"""
    proved: np.ndarray
    """float64 (S,): the share of each line that these intervals cover"""
    most: np.ndarray
    """float64 (S,): a number of regions that each line has at most; infinity, where nothing says so"""
    pieces: np.ndarray | None
    """int64 (S,): intervals on which the network was found to be affine, its activation pattern constant; None of bounds"""
    evaluations: int
    """of the network, in inputs"""

    @cached_property
    def counts(self) -> np.ndarray:
        """int64 (S,): regions of each line; where not all of it is proved, a number that it has at least."""
        begins = np.append(True, (self.line[1:] != self.line[:-1]) | (self.label[1:] != self.label[:-1]))[: len(self.line)]
        return np.bincount(self.line[begins], minlength=len(self.proved)).clip(min=1)

    @cached_property
    def entropies(self) -> np.ndarray:
        """float64 (S,): -sum p log p in nats, p a region's share of its line; not a number where not all is proved."""
        share = self.stop - self.start
        found = np.bincount(self.line, weights=-share * np.log(share), minlength=len(self.proved)) + 0.0
        return np.where(self.proved == 1, found, np.nan)

    def boundaries(self, line: int) -> np.ndarray:
        """float64 (k,): the places at which the label changes."""
        own = self.line == line
        start, stop = self.start[own], self.stop[own]
        return start[1:][start[1:] == stop[:-1]]


def exact_lines(model: nn.Module, vertices: Tensor, budget: int | None = None) -> ExactLines:
    """The regions of constant predicted label on each of S lines, without a lattice.

    model: a network that gives logits (B, classes), of convolutions, linear layers, batch normalization, ReLU and its like,
    average and max pooling, sums, concatenation, and what only moves values.
    vertices: floating point (S, 2, *input_shape). budget: evaluations after which no more is proved; None is until done.

    Raises InputError where the vertices are no lines, the network has another operation, or a logit is not a number. Source:
    Sotoudeh and Thakur 2019, "Computing Linear Restrictions of Neural Networks".
    """
    check_lines(vertices, budget)
    program = trace(model, vertices.shape[2:])
    with torch.no_grad(), true_float32():
        return follow(program, vertices.to(program.device, torch.float64), budget)


def check_lines(vertices: Tensor, budget: int | None) -> None:
    """Raises InputError where vertices are no lines, or a budget is no number of evaluations."""
    if vertices.dim() < 3 or vertices.shape[1] != 2 or len(vertices) < 1:
        raise InputError(f"lines, vertices (S, 2, *input_shape), are needed, not {tuple(vertices.shape)}")
    if budget is not None and budget < 1:
        raise InputError(f"budget={budget}: at least 1 evaluation is needed")


@dataclass(frozen=True)
class _Points:
    """Points on lines, in order: between two that are joined, all values so far are affine."""

    line: Tensor
    """int64 (P,)"""
    place: Tensor
    """float64 (P,)"""
    joined: Tensor
    """bool (P - 1,): whether each point and the next one are the ends of an interval"""
    values: dict[Node, Tensor]
    """(P, ...) each"""

    def between(self, owner: Tensor, share: Tensor) -> "_Points":
        """Points (Q,) that lie so far, from 0 to below 1, on the way from a point to the next one."""
        after = (owner + 1).clamp(max=len(self.line) - 1)

        def mean(values: Tensor) -> Tensor:
            return torch.lerp(values[owner], values[after], share.view(-1, *[1] * (values.dim() - 1)))

        first = owner[:-1]
        joined = (owner[1:] == first) | ((owner[1:] == first + 1) & self.joined[first.clamp(max=len(self.joined) - 1)])
        return _Points(
            self.line[owner], mean(self.place), joined, {node: mean(value) for node, value in self.values.items()}
        )


def follow(program: Program, vertices: Tensor, budget: int | None) -> ExactLines:
    """The exact regions of lines, float64 (S, 2, *input_shape).

    All points are carried from stage to stage; where they are too many to be carried at once, the first of them are
    carried to the end before the others are looked at.
    """
    number = len(vertices)
    most = max(2, CHUNK_VALUES.get(program.device.type, CHUNK_VALUES["cuda"]) // program.width)
    ends = torch.arange(2 * number, device=program.device)
    points = _Points(ends // 2, (ends % 2).double(), (ends % 2 == 0)[:-1], {program.input: vertices.flatten(0, 1)})
    waiting = [(0, points, *part) for part in _parts(ends, torch.zeros_like(points.place), most)]
    found, pieces, evaluations = [], np.zeros(number, dtype=np.int64), 0
    while waiting and (budget is None or evaluations < budget):
        stage, points, owner, share = waiting.pop()
        points = points.between(owner, share)
        for operation in program.stages[stage]:
            points = replace(points, values=apply(program, operation, points.values))
        if stage + 1 < len(program.stages):
            owner, share = _cuts(program.stages[stage + 1][0], points)
            waiting += [(stage + 1, points, *part) for part in _parts(owner, share, most)]
            continue
        evaluations += len(points.line)
        pieces += np.bincount(points.line[:-1][points.joined].cpu().numpy(), minlength=number)
        found.append(_intervals(points, points.values[program.output]))
    line, start, stop, label = merged(found)
    proved = proved_share(line, start, stop, number)
    lines = ExactLines(line, start, stop, label, proved, np.full(number, np.inf), pieces, evaluations)
    return replace(lines, most=np.where(proved == 1, lines.counts, np.inf))


def _parts(owner: Tensor, share: Tensor, most: int) -> list[tuple[Tensor, Tensor]]:
    """Not more than `most` points at a time, the first last; the last point of one part is the first of the next."""
    count = max(1, -(-(len(owner) - 1) // (most - 1)))
    size = -(-(len(owner) - 1) // count)
    return [(owner[at : at + size + 1], share[at : at + size + 1]) for at in range((count - 1) * size, -1, -size)]


def _cuts(operation: Operation, points: _Points) -> tuple[Tensor, Tensor]:
    """The points there are and, between them, those at which an operation passes from one of its pieces to another.

    Returns for each of them (Q,) the point that it is or comes after, and how far it lies from there to the next one.
    """
    operand = points.values[operation.operand]
    found = _thresholds_crossed(operand, operation.thresholds, points.joined)
    if operation.windows is not None:
        found = [_maxima_that_change(operation, operand, points.joined)]
    own = torch.arange(len(points.line), device=operand.device)
    owner = torch.cat([own, *(interval for interval, _ in found)])
    share = torch.cat([torch.zeros_like(points.place), *(share for _, share in found)])
    order = _order(owner, share)
    owner, share = owner[order], share[order]
    # Rounding does not tell these apart, neither from each other nor from the points there are.
    length = points.place.diff(append=points.place[-1:])[owner]
    place = share * length
    kept = share == 0
    kept[1:] |= place[1:] - place[:-1] > SHORTEST
    kept &= (share == 0) | (length - place > SHORTEST)
    return owner[kept], share[kept]


def _order(owner: Tensor, share: Tensor) -> Tensor:
    """Indices (Q,) that sort by owner, and by share where that is the same."""
    order = share.argsort(stable=True)
    return order[owner[order].argsort(stable=True)]


def _thresholds_crossed(operand: Tensor, thresholds: Sequence[float], joined: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For each threshold the intervals (K,) on which a value passes it, and where."""
    values, crossed = operand.reshape(len(operand), -1), []
    for threshold in thresholds:
        side = (values - threshold).sign()
        interval, value = ((side[1:] * side[:-1] < 0) & joined.unsqueeze(1)).nonzero().unbind(1)
        first, last = values[interval, value], values[interval + 1, value]
        crossed.append((interval, (threshold - first) / (last - first)))
    return crossed


def _maxima_that_change(operation: Operation, operand: Tensor, joined: Tensor) -> tuple[Tensor, Tensor]:
    """The intervals (K,) on which a pooling's maximum passes from one of its values to another, and where."""
    _, winners = torch.ops.aten.max_pool2d_with_indices(operand, *operation.node.args[1:])
    winners, images = winners.flatten(2), operand.flatten(2)
    interval, channel, window = ((winners[1:] != winners[:-1]) & joined.view(-1, 1, 1)).nonzero().unbind(1)
    places = operation.windows[window]
    first, last = (images[at.unsqueeze(1), channel.unsqueeze(1), places] for at in (interval, interval + 1))
    row, share, _ = upper_envelope(first, last)
    return interval[row[share > 0]], share[share > 0]


def upper_envelope(first: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which of K straight lines over [0, 1] is the highest where, for N sets of them, (N, K) at 0 and at 1.

    Returns, in no particular order, stretches (M,): the set, where it begins, and the line that is the highest from there
    to the next stretch of this set, or to 1. Of equal ones, the first.
    """
    slope = last - first
    lead = torch.where(first == first.amax(dim=1, keepdim=True), slope, -torch.inf)
    row = torch.arange(len(first), device=first.device)
    begin, top = torch.zeros(len(first), dtype=first.dtype, device=first.device), lead.argmax(dim=1)
    stretches = [(row, begin, top)]
    while len(row):
        closing = slope[row] - slope[row, top].unsqueeze(1)  # > 0 for those that will overtake it
        overtaken = (first[row, top].unsqueeze(1) - first[row]) / closing
        overtaken = torch.where(closing > 0, overtaken.clamp(min=begin.unsqueeze(1)), torch.inf)
        begin = overtaken.amin(dim=1)
        top = torch.where(overtaken == begin.unsqueeze(1), closing, -torch.inf).argmax(dim=1)
        row, begin, top = row[begin < 1], begin[begin < 1], top[begin < 1]
        stretches.append((row, begin, top))
    return tuple(torch.cat(parts) for parts in zip(*stretches, strict=True))


def _intervals(points: _Points, logits: Tensor) -> tuple[np.ndarray, ...]:
    """The intervals of one label between joined points: line, start, stop, label, (M,) each."""
    if logits.isnan().any():
        raise InputError("the model gives logits that are not a number: its regions cannot be counted")
    (at,) = points.joined.nonzero(as_tuple=True)
    row, begin, label = upper_envelope(logits[at], logits[at + 1])
    order = _order(row, begin)
    row, begin, label = row[order], begin[order], label[order]
    last = torch.ones_like(row, dtype=torch.bool)
    last[:-1] = row[1:] != row[:-1]
    end = torch.where(last, 1.0, begin.roll(-1))
    first, after = points.place[at[row]], points.place[at[row] + 1]
    found = points.line[at[row]], torch.lerp(first, after, begin), torch.lerp(first, after, end), label
    return _joined(*(part.cpu().numpy() for part in found))


def merged(found: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Several lots of intervals (line, start, stop, label), in order, those of one label that touch as one."""
    line, start, stop, label = map(np.concatenate, zip(*found, strict=True))
    order = np.lexsort((start, line))
    return _joined(line[order], start[order], stop[order], label[order])


def _joined(line: np.ndarray, start: np.ndarray, stop: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, ...]:
    long = stop - start > SHORTEST
    line, start, stop, label = line[long], start[long], stop[long], label[long]
    touching = (line[1:] == line[:-1]) & (start[1:] - stop[:-1] < TOUCHING)
    first = np.append(True, ~touching | (label[1:] != label[:-1]))[: len(line)]
    last = np.append(first[1:], True)[: len(line)]
    line, label, start, stop = line[first], label[first], start[first], stop[last]
    touching = (line[1:] == line[:-1]) & (start[1:] - stop[:-1] < TOUCHING)
    stop[:-1] = np.where(touching, start[1:], stop[:-1])
    return line, start, stop, label


def open_parts(line: np.ndarray, start: np.ndarray, stop: np.ndarray, number: int) -> tuple[np.ndarray, ...]:
    """What intervals, in order, leave open of so many lines: line, start, stop, (G,) each."""
    every, nothing, whole = np.arange(number), np.zeros(number), np.ones(number)
    line = np.concatenate([every, line, every])
    start, stop = np.concatenate([nothing, start, whole]), np.concatenate([nothing, stop, whole])
    order = np.lexsort((stop, start, line))
    line, start, stop = line[order], start[order], stop[order]
    at = np.flatnonzero((line[1:] == line[:-1]) & (start[1:] - stop[:-1] >= TOUCHING))
    return line[at], stop[at], start[at + 1]


def proved_share(line: np.ndarray, start: np.ndarray, stop: np.ndarray, number: int) -> np.ndarray:
    """The share of each line that intervals cover: float64 (number,), 1 where nothing is left between them."""
    owner, begin, end = open_parts(line, start, stop, number)
    return 1 - np.bincount(owner, weights=end - begin, minlength=number)
