"""Labels of a whole lattice from a model's logits at some of its points.

A coarse sub-lattice is evaluated first. Then cells (intervals, squares, cubes, ...) inside which a label might change are
halved, level by level, all subspaces together, down to the lattice itself. A cell whose corners share a label is left alone
where the lead of that label over each other one would stay positive if it ran between the corners like a parabola, bent
`SAFETY` times as much as the lead is seen to bend at the corners.
"""

from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from torch import Tensor

# On lines, in planes, and beyond: cells along an axis of the coarse sub-lattice, and the factor on the bend, which on a line
# is seen in one direction only. benchmarks/README.md has the evaluations and the agreement that other values give.
COARSE_CELLS = (16, 12, 6)
SAFETY = (24.0, 4.0, 4.0)


def adaptive_labels(
    evaluate: Callable[[Tensor, Tensor, Tensor], Tensor], number: int, positions: np.ndarray, device: torch.device
) -> Tensor:
    """Labels int64 (number, P) of all lattice points of all subspaces.

    evaluate(subspace, point, expected): logits (N, C) of N lattice points, each asked for once. Subspace and point are
    int64 (N,), on `device`; expected, float (N,), is the margin between the two highest logits that is expected there.
    positions: int64 (n, ..., n), the index of the lattice point at each place, -1 where there is none: a full box, or a
    simplex with its right angle at the origin.
    """
    table = torch.as_tensor(positions, device=device)
    known = _Known(evaluate, number, table)
    filled = torch.full((number, known.points), -1, dtype=torch.int64, device=device)
    owner, box = _coarse_cells(table, number)
    expected = torch.full((len(owner),), torch.inf, device=device)
    while len(owner):
        corners = _corners(box, table)
        known.ask(owner, corners, expected)
        label, safe, middle = known.judge(owner, box, corners)
        _fill(filled, table, owner[safe], box[safe], label[safe])
        divided = ~safe & (box[:, 1] - box[:, 0] > 1).any(dim=1)
        owner, box, expected = _halves(owner[divided], box[divided], middle[divided], table)
    return known.laid_over(filled)


class _Known:
    """The lattice points evaluated so far: which of all points they are (N,), and their logits (N, C)."""

    def __init__(self, evaluate: Callable, number: int, table: Tensor) -> None:
        self.evaluate = evaluate
        self.places = (table >= 0).nonzero()[table[table >= 0].argsort()]  # (P, d): where each point lies
        self.points, self.side = len(self.places), table.shape[0]
        self.row = torch.full((number * self.points,), -1, dtype=torch.int64, device=table.device)  # of a point, in these:
        self.flat, self.logits = None, None

    def ask(self, owner: Tensor, index: Tensor, expected: Tensor) -> None:
        """Evaluate those of the points index (K, M) of subspaces owner (K,) that are not known yet; -1 is none.

        expected: the margin expected at new points of each cell, (K,).
        """
        flat = owner.unsqueeze(1) * self.points + index
        new = (index >= 0) & (self.row[flat.clamp(min=0)] < 0)
        wanted, place = flat[new].unique(return_inverse=True)
        if not len(wanted):
            return
        margin = torch.full((len(wanted),), torch.inf, dtype=expected.dtype, device=wanted.device)
        margin = margin.scatter_reduce(0, place, expected.unsqueeze(1).expand_as(flat)[new], "amin")
        logits = self.evaluate(wanted // self.points, wanted % self.points, margin)
        self.flat = wanted if self.flat is None else torch.cat([self.flat, wanted])
        self.logits = logits if self.logits is None else torch.cat([self.logits, logits])
        self.row[wanted] = torch.arange(len(self.flat) - len(wanted), len(self.flat), device=wanted.device)

    def judge(self, owner: Tensor, box: Tensor, corners: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The label at the lower corner of each cell, whether all its points have it, the margin expected in its middle.

        A lead that is a and b at two corners and dips by e below the chord halfway between them is positive all the way
        where (sqrt(a) + sqrt(b))^2 > 4 e; a slope that changes by s over the distance h makes e = s h / 8.
        """
        whole = (corners >= 0).all(dim=1)
        row = self.row[owner.unsqueeze(1) * self.points + corners.clamp(min=0)]  # (K, 2^d)
        logits = self.logits[row]
        label = logits[:, 0].argmax(dim=1)
        same = (logits.argmax(dim=2) == label.unsqueeze(1)).all(dim=1)
        lowest = _lead(logits, label).clamp(min=0).sort(dim=1).values[:, :2].sqrt().sum(dim=1).square()
        bend = torch.zeros_like(lowest)
        for axis in range(box.shape[2]):
            changes = _lead(self._slope_changes(axis)[row], label).abs().amax(dim=1)
            bend += changes * (box[:, 1, axis] - box[:, 0, axis]).unsqueeze(1)
        safety = _of_dimension(SAFETY, box.shape[2])
        itself = torch.arange(logits.shape[2], device=label.device) == label.unsqueeze(1)
        safe = whole & same & ((lowest > safety / 2 * bend) | itself).all(dim=1)
        return label, safe, margins(logits.mean(dim=1))

    def _slope_changes(self, axis: int) -> Tensor:
        """At each known point, the slope to the next known one along an axis less that from the last: (N, C).

        Zero where there is none on one of the two sides.
        """
        place = self.places[self.flat % self.points]
        line = self.flat // self.points
        for other in range(place.shape[1]):
            line = line if other == axis else line * self.side + place[:, other]
        order = (line * self.side + place[:, axis]).argsort()
        line, place, logits = line[order], place[order, axis], self.logits[order]
        slopes = logits.diff(dim=0) / place.diff().unsqueeze(1)
        between = (line[2:] == line[:-2]).unsqueeze(1)
        changes = torch.zeros_like(logits)
        changes[order[1:-1]] = torch.where(between, slopes.diff(dim=0), 0)
        return changes

    def laid_over(self, filled: Tensor) -> Tensor:
        """Labels (S, P) with those of the points known in their places."""
        labels = filled.flatten()
        labels[self.flat] = self.logits.argmax(dim=1)
        return labels.view(filled.shape)


def margins(logits: Tensor) -> Tensor:
    """The highest logit less the second highest: (B,) from (B, C)."""
    first, second = logits.topk(2, dim=1).values.unbind(dim=1)
    return first - second


def _lead(logits: Tensor, label: Tensor) -> Tensor:
    """By how much the logit of each cell's label (K,) leads over every other: (K, M, C)."""
    return logits.gather(2, label.view(-1, 1, 1).expand(-1, logits.shape[1], 1)) - logits


def _of_dimension(values: tuple, dimension: int):
    return values[min(dimension, len(values)) - 1]


def _coarse_cells(table: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The cells of the coarse sub-lattice in all subspaces: the subspace (K,), lower and upper corner (K, 2, d)."""
    dimension, last = table.dim(), table.shape[0] - 1
    cells = _of_dimension(COARSE_CELLS, dimension)
    places = torch.linspace(0, last, cells + 1, dtype=torch.float64).round().long().unique().to(table.device)
    sides = (torch.cartesian_prod(*[ends] * dimension).view(-1, dimension) for ends in (places[:-1], places[1:]))
    box = torch.stack(list(sides), dim=1)
    box = box[table[box[:, 0].unbind(dim=1)] >= 0]
    owner = torch.arange(number, device=table.device).repeat_interleave(len(box))
    return owner, box.repeat(number, 1, 1)


def _corners(box: Tensor, table: Tensor) -> Tensor:
    """The indices (K, 2^d) of the lattice points at the corners of cells, the lower corner first; -1 outside."""
    sides = product((0, 1), repeat=table.dim())
    return torch.stack([table[tuple(box[:, end, axis] for axis, end in enumerate(side))] for side in sides], dim=1)


def _halves(owner: Tensor, box: Tensor, expected: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cells cut in two along each axis on which they are longer than a step: those parts in which lattice points lie."""
    places = torch.stack([box[:, 0], box.sum(dim=1) // 2, box[:, 1]], dim=1)  # (K, 3, d)
    parts = []
    for side in product((0, 1), repeat=table.dim()):
        lower = torch.tensor(side, device=table.device).expand(len(box), 1, -1)
        parts.append(torch.cat([places.gather(1, lower), places.gather(1, lower + 1)], dim=1))
    owner, box, expected = owner.repeat(len(parts)), torch.cat(parts), expected.repeat(len(parts))
    kept = (box[:, 1] > box[:, 0]).all(dim=1) & (table[box[:, 0].unbind(dim=1)] >= 0)
    return owner[kept], box[kept], expected[kept]


def _fill(filled: Tensor, table: Tensor, owner: Tensor, box: Tensor, label: Tensor) -> None:
    """Give all lattice points of cells that lie wholly inside their cell's label."""
    sizes = box[:, 1] - box[:, 0]
    for size in sizes.unique(dim=0):
        chosen = (sizes == size).all(dim=1)
        steps = torch.cartesian_prod(*[torch.arange(extent + 1, device=table.device) for extent in size.tolist()])
        places = box[chosen, :1] + steps.view(-1, table.dim())  # (K, points of a cell, d)
        filled[owner[chosen].unsqueeze(1), table[places.unbind(dim=-1)]] = label[chosen].unsqueeze(1)
