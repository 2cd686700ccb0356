"""Labels at all points of a lattice from the logits at some of them.

A coarse sub-lattice is evaluated first. It divides each subspace into cells (intervals, squares, cubes, ...). A cell is
certified if its corners share a label, and if the lead of this label over every other one would stay positive along a
parabola between the corners with `SAFETY` times the curvature estimated there. This is an estimate, not a proof. All points
of a certified cell receive its label. All other cells are bisected along each axis, level by level, down to single lattice
points. Each level is one pass over all subspaces.
"""

from collections.abc import Callable
from itertools import product
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

# Number of cells along each axis of the coarse sub-lattice, and safety factor on the curvature, for lines, planes, and
# higher dimensions. The factor is larger on lines, where the curvature is observed in one direction only.
# benchmarks/README.md lists the number of evaluations and the agreement with the grid for other values.
COARSE_CELLS = (16, 12, 6)
SAFETY = (24.0, 4.0, 4.0)

_Value = TypeVar("_Value", int, float)


def adaptive_labels(
    evaluate: Callable[[Tensor, Tensor, Tensor], Tensor], number: int, index_grid: np.ndarray, device: torch.device
) -> Tensor:
    """Return the labels of all lattice points of all subspaces.

    Args:
        evaluate: Function of (subspace, point, expected margin), each (N,), the first two int64, that returns logits (N, C).
            Each point is evaluated at most once. The expected margin estimates the difference of the two highest logits, so
            that `evaluate` can choose a precision.
        number: Number of subspaces S.
        index_grid: Index of the lattice point at each integer coordinate, int64 (n, ..., n), -1 where there is none. The
            points fill the box, or a simplex with its right angle at the origin.
        device: Device of the tensors passed to `evaluate`.

    Returns:
        int64 (S, P).
    """
    grid = torch.as_tensor(index_grid, device=device)
    evaluated = _EvaluatedPoints(evaluate, number, grid)
    labels = torch.full((number, evaluated.points), -1, dtype=torch.int64, device=device)
    subspace, cells = _coarse_cells(grid, number)
    expected_margin = torch.full((len(subspace),), torch.inf, device=device)
    while len(subspace):
        corners = _corner_points(cells, grid)
        evaluated.evaluate_missing(subspace, corners, expected_margin)
        label, certified, centre_margin = evaluated.certify(subspace, cells, corners)
        _fill(labels, grid, subspace[certified], cells[certified], label[certified])
        divided = ~certified & (cells[:, 1] - cells[:, 0] > 1).any(dim=1)
        subspace, cells, expected_margin = _bisect(subspace[divided], cells[divided], centre_margin[divided], grid)
    return evaluated.overlay(labels)


class _EvaluatedPoints:
    """The points evaluated so far, (N,), as subspace * P + point, and their logits (N, C)."""

    def __init__(self, evaluate: Callable[[Tensor, Tensor, Tensor], Tensor], number: int, grid: Tensor) -> None:
        self.evaluate = evaluate
        self.coordinates = (grid >= 0).nonzero()[grid[grid >= 0].argsort()]  # (P, d)
        self.points, self.side = len(self.coordinates), grid.shape[0]
        self.flat = torch.empty(0, dtype=torch.int64, device=grid.device)
        self.logits = torch.empty(0, 0, device=grid.device)
        # The row of each point of each subspace in `flat` and `logits`, -1 if not evaluated.
        self.row = torch.full((number * self.points,), -1, dtype=torch.int64, device=grid.device)

    def evaluate_missing(self, subspace: Tensor, corners: Tensor, expected_margin: Tensor) -> None:
        """Evaluate those corners (K, M) of cells that have not been evaluated yet; -1 marks absent corners."""
        flat = subspace.unsqueeze(1) * self.points + corners
        is_missing = (corners >= 0) & (self.row[flat.clamp(min=0)] < 0)
        missing, inverse = flat[is_missing].unique(return_inverse=True)
        if not len(missing):
            return
        # The expected margin of a corner is the smallest one of the cells that share it.
        margin = torch.full((len(missing),), torch.inf, dtype=expected_margin.dtype, device=missing.device)
        margin = margin.scatter_reduce(0, inverse, expected_margin.unsqueeze(1).expand_as(flat)[is_missing], "amin")
        logits = self.evaluate(missing // self.points, missing % self.points, margin)
        self.logits = torch.cat([self.logits, logits]) if len(self.flat) else logits
        self.flat = torch.cat([self.flat, missing])
        self.row[missing] = torch.arange(len(self.flat) - len(missing), len(self.flat), device=missing.device)

    def certify(self, subspace: Tensor, cells: Tensor, corners: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return each cell's label (of its lower corner), whether it is certified, and the margin at its centre."""
        complete = (corners >= 0).all(dim=1)
        row = self.row[subspace.unsqueeze(1) * self.points + corners.clamp(min=0)]  # (K, 2^d)
        logits = self.logits[row]
        label = logits[:, 0].argmax(dim=1)
        corners_agree = (logits.argmax(dim=2) == label.unsqueeze(1)).all(dim=1)
        # A parabola with values a and b at two corners that is e below its chord halfway between them stays positive if
        # (sqrt(a) + sqrt(b))^2 > 4 e. If its slope changes by s over a distance h, then e = s h / 8.
        smallest_leads = _lead(logits, label).clamp(min=0).sort(dim=1).values[:, :2]
        allowed = smallest_leads.sqrt().sum(dim=1).square()
        bend = torch.zeros_like(allowed)
        for axis in range(cells.shape[2]):
            changes = _lead(self._slope_changes(axis)[row], label).abs().amax(dim=1)
            bend += changes * (cells[:, 1, axis] - cells[:, 0, axis]).unsqueeze(1)
        safety = _for_dimension(SAFETY, cells.shape[2])
        is_label = torch.arange(logits.shape[2], device=label.device) == label.unsqueeze(1)
        certified = complete & corners_agree & ((allowed > safety / 2 * bend) | is_label).all(dim=1)
        return label, certified, margins(logits.mean(dim=1))

    def _slope_changes(self, axis: int) -> Tensor:
        """Return the change of slope along an axis at each evaluated point, (N, C); 0 without neighbours on both sides."""
        coordinates = self.coordinates[self.flat % self.points]
        line = self.flat // self.points
        for other in range(coordinates.shape[1]):
            line = line if other == axis else line * self.side + coordinates[:, other]
        order = (line * self.side + coordinates[:, axis]).argsort()
        line, position, logits = line[order], coordinates[order, axis], self.logits[order]
        slopes = logits.diff(dim=0) / position.diff().unsqueeze(1)
        has_neighbours = (line[2:] == line[:-2]).unsqueeze(1)
        changes = torch.zeros_like(logits)
        changes[order[1:-1]] = torch.where(has_neighbours, slopes.diff(dim=0), 0)
        return changes

    def overlay(self, labels: Tensor) -> Tensor:
        """Return the labels (S, P) with those of the evaluated points set from their logits."""
        flat_labels = labels.flatten()
        flat_labels[self.flat] = self.logits.argmax(dim=1)
        return flat_labels.view(labels.shape)


def margins(logits: Tensor) -> Tensor:
    """Return the highest logit minus the second highest.

    Args:
        logits: (B, C).

    Returns:
        (B,), at least 0.
    """
    first, second = logits.topk(2, dim=1).values.unbind(dim=1)
    return first - second


def _lead(logits: Tensor, label: Tensor) -> Tensor:
    """Return the logit of each cell's label (K,) minus every logit, (K, M, C)."""
    return logits.gather(2, label.view(-1, 1, 1).expand(-1, logits.shape[1], 1)) - logits


def _for_dimension(values: tuple[_Value, ...], dimension: int) -> _Value:
    """Return the value for a dimension; the last one holds for all higher dimensions."""
    return values[min(dimension, len(values)) - 1]


def _coarse_cells(grid: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Return the cells of the coarse sub-lattice: subspace (K,), lower and upper corner (K, 2, d)."""
    dimension, last = grid.dim(), grid.shape[0] - 1
    cells_per_axis = _for_dimension(COARSE_CELLS, dimension)
    ticks = torch.linspace(0, last, cells_per_axis + 1, dtype=torch.float64).round().long().unique().to(grid.device)
    lower, upper = (torch.cartesian_prod(*[ends] * dimension).view(-1, dimension) for ends in (ticks[:-1], ticks[1:]))
    cells = torch.stack([lower, upper], dim=1)
    cells = cells[grid[cells[:, 0].unbind(dim=1)] >= 0]
    subspace = torch.arange(number, device=grid.device).repeat_interleave(len(cells))
    return subspace, cells.repeat(number, 1, 1)


def _corner_points(cells: Tensor, grid: Tensor) -> Tensor:
    """Return the points at the corners of cells, (K, 2^d), the lower corner first; -1 outside the lattice."""
    corners = product((0, 1), repeat=grid.dim())
    return torch.stack([grid[tuple(cells[:, end, axis] for axis, end in enumerate(corner))] for corner in corners], dim=1)


def _bisect(subspace: Tensor, cells: Tensor, margin: Tensor, grid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Halve cells along each axis on which they are longer than 1, and drop the parts without lattice points."""
    ticks = torch.stack([cells[:, 0], cells.sum(dim=1) // 2, cells[:, 1]], dim=1)  # (K, 3, d)
    parts: list[Tensor] = []
    for side in product((0, 1), repeat=grid.dim()):
        lower = torch.tensor(side, device=grid.device).expand(len(cells), 1, -1)
        parts.append(torch.cat([ticks.gather(1, lower), ticks.gather(1, lower + 1)], dim=1))
    subspace, cells, margin = subspace.repeat(len(parts)), torch.cat(parts), margin.repeat(len(parts))
    kept = (cells[:, 1] > cells[:, 0]).all(dim=1) & (grid[cells[:, 0].unbind(dim=1)] >= 0)
    return subspace[kept], cells[kept], margin[kept]


def _fill(labels: Tensor, grid: Tensor, subspace: Tensor, cells: Tensor, label: Tensor) -> None:
    """Set the labels of all lattice points of cells."""
    sizes = cells[:, 1] - cells[:, 0]
    for size in sizes.unique(dim=0):
        chosen = (sizes == size).all(dim=1)
        steps = torch.cartesian_prod(*[torch.arange(extent + 1, device=grid.device) for extent in size.tolist()])
        coordinates = cells[chosen, :1] + steps.view(-1, grid.dim())  # (K, points of a cell, d)
        labels[subspace[chosen].unsqueeze(1), grid[coordinates.unbind(dim=-1)]] = label[chosen].unsqueeze(1)
