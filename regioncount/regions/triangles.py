"""Exact regions in triangles, through small networks that are piecewise linear in evaluation mode.

The triangle is cut into convex pieces, operation after operation, along the lines on which an operation passes from one of
its pieces to another (as Humayun et al. 2023, SplineCam, do); at the end along the lines on which two logits are equal.
Pieces that share an edge and a label are of one region. All pieces are cut in the same order, so that what two of them share
is cut at the same places in both. In float64: two points that are nearly on a line that cuts are taken to be on it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from regioncount.errors import InputError
from regioncount.regions.evaluation import true_float32
from regioncount.regions.piecewise import Operation, Program, apply, trace

# Values at the vertices of all pieces that are kept at a time: 2 GB. A network with more is not small.
MOST_VALUES = 2**28

# A value this far from zero, relative to the largest there is, may be rounding.
ROUNDING = 1e-12


@dataclass(frozen=True)
class ExactPlane:
    """The regions of one triangle."""

    polygons: list[np.ndarray]
    """float64 (k, 2) each, convex: where x and y are the shares of the second and third vertex"""
    labels: np.ndarray
    """int64 (N,): of each polygon"""
    regions: np.ndarray
    """int64 (N,): the region that each polygon is part of"""
    pieces: int
    """on which the network is affine, its activation pattern constant; with max pooling there are more than it needs, as
    every two values of a window are told apart"""

    evaluations: int
    """of the network, in inputs: the vertices of these pieces"""

    @cached_property
    def areas(self) -> np.ndarray:
        """float64 (N,): the share of the triangle's area that each polygon has."""
        return np.array([abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) for x, y in (each.T for each in self.polygons)])

    @property
    def count(self) -> int:
        """Connected regions of constant predicted label."""
        return int(self.regions.max()) + 1

    @property
    def entropy(self) -> float:
        """-sum p log p in nats, p a region's share of the area."""
        share = np.bincount(self.regions, weights=self.areas)
        share = share[share > 0]
        return float(-(share * np.log(share)).sum()) + 0.0


def exact_planes(model: nn.Module, triangles: Tensor) -> list[ExactPlane]:
    """The regions of constant predicted label in each of S triangles.

    model: as of `exact_lines`, and small: the work grows with the number of pieces, cell by cell. triangles: floating point
    (S, 3, *input_shape).

    Raises InputError where the vertices are no triangles, the network has an operation that is not piecewise linear or is
    affine in too many pieces, or a logit is not a number. Source: Humayun et al. 2023, "SplineCam".
    """
    if triangles.dim() < 3 or triangles.shape[1] != 3 or len(triangles) < 1:
        raise InputError(f"triangles, vertices (S, 3, *input_shape), are needed, not {tuple(triangles.shape)}")
    program = trace(model, triangles.shape[2:])
    with torch.no_grad(), true_float32():
        return [_follow(program, triangle.to(program.device, torch.float64)) for triangle in triangles]


def _follow(program: Program, triangle: Tensor) -> ExactPlane:
    cells, places = [[0, 1, 2]], np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    values, most = {program.input: triangle}, MOST_VALUES // program.width
    for stage in program.stages:
        if stage is not program.stages[0]:
            cells, between = _cut(cells, _lines(stage[0], values[stage[0].operand]), most)
            places = between(torch.from_numpy(places)).numpy()
            values = {node: between(value) for node, value in values.items()}
        for operation in stage:
            values = apply(program, operation, values)
    logits = values[program.output]
    if logits.isnan().any():
        raise InputError("the model gives logits that are not a number: its regions cannot be counted")
    pieces, evaluations = len(cells), len(places)
    pairs = torch.tensor([*combinations(range(logits.shape[1]), 2)], device=logits.device)
    cells, between = _cut(cells, logits[:, pairs[:, 0]] - logits[:, pairs[:, 1]], most)
    places, logits = between(torch.from_numpy(places)).numpy(), between(logits).cpu().numpy()
    labels = np.array([logits[cell].mean(axis=0).argmax() for cell in cells])
    return ExactPlane([places[cell] for cell in cells], labels, _regions(cells, labels), pieces, evaluations)


def _lines(operation: Operation, operand: Tensor) -> Tensor:
    """Values (P, M) that are zero where an operation passes from one of its pieces to another."""
    if operation.windows is None:
        return torch.cat([operand.reshape(len(operand), -1) - threshold for threshold in operation.thresholds], dim=1)
    images, windows = operand.flatten(2), operation.windows
    pairs = combinations(range(windows.shape[1]), 2)
    return torch.cat([(images[..., windows[:, a]] - images[..., windows[:, b]]).flatten(1) for a, b in pairs], dim=1)


def _cut(cells: list[list[int]], lines: Tensor, most: int) -> tuple[list[list[int]], Callable[[Tensor], Tensor]]:
    """Convex cells, vertices in order, cut along each of the lines that passes through them.

    lines: (P, M), the values at the vertices of functions that are affine in each cell, and 0 on a line. most: vertices
    that there may be; InputError where there are more. Returns the cells, and a function from values at the vertices there
    were (P, ...) to values at all that there are now.
    """
    rows = list(lines.cpu().numpy())
    tolerance = ROUNDING * max(1e-300, float(lines.abs().max())) if lines.numel() else 0.0
    made, parents = {}, []

    def crossing(u: int, v: int, line: int) -> int:
        """The vertex at which a line crosses an edge, the same for both cells that share it."""
        u, v = min(u, v), max(u, v)
        if (u, v, line) not in made:
            share = rows[u][line] / (rows[u][line] - rows[v][line])
            made[u, v, line] = len(rows)
            parents.append((u, v, share))
            row = rows[u] + share * (rows[v] - rows[u])
            row[line] = 0.0
            rows.append(row)
        return made[u, v, line]

    found = []
    for cell in cells:
        if len(rows) > most:
            raise InputError(f"a triangle has over {most:,} vertices of affine pieces: exact is for small networks there")
        ends = np.stack([rows[vertex] for vertex in cell])
        parts = [cell]
        for line in np.flatnonzero((ends.min(axis=0) < -tolerance) & (ends.max(axis=0) > tolerance)):
            parts = [half for part in parts for half in _halves(part, rows, line, tolerance, crossing)]
        found += parts

    def between(values: Tensor) -> Tensor:
        known = torch.cat([values, values.new_empty(len(parents), *values.shape[1:])])
        for vertex, (u, v, share) in enumerate(parents, start=len(values)):
            known[vertex] = torch.lerp(known[u], known[v], float(share))
        return known

    return found, between


def _halves(cell: list[int], rows: list[np.ndarray], line: int, tolerance: float, crossing: Callable) -> list[list[int]]:
    """The two parts of a cell, or the cell itself where the line does not pass through it."""
    sides = [0 if abs(rows[vertex][line]) <= tolerance else int(np.sign(rows[vertex][line])) for vertex in cell]
    if not (-1 in sides and 1 in sides):
        return [cell]
    halves = {-1: [], 1: []}
    for vertex, side, after, next_side in zip(cell, sides, cell[1:] + cell[:1], sides[1:] + sides[:1], strict=True):
        for half in (-1, 1) if side == 0 else (side,):
            halves[half].append(vertex)
        if side * next_side < 0:
            place = crossing(vertex, after, line)
            halves[-1].append(place)
            halves[1].append(place)
    return [half for half in halves.values() if len(half) > 2]


def _regions(cells: list[list[int]], labels: np.ndarray) -> np.ndarray:
    """For each cell the number of its region: cells of one label that hang together by edges."""
    owners, joined = {}, []
    for number, cell in enumerate(cells):
        for edge in zip(cell, cell[1:] + cell[:1], strict=True):
            other = owners.setdefault((min(edge), max(edge)), number)
            if other != number and labels[other] == labels[number]:
                joined.append((other, number))
    one, other = np.array(joined, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(len(cells), len(cells)))
    return connected_components(graph, directed=False)[1].astype(np.int64)
