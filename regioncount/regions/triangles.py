"""Exact regions in triangles, for small networks that are piecewise linear in evaluation mode.

The triangle is divided into convex cells on which the network is affine. Operation by operation, cells are cut along the
lines on which an operation changes from one affine piece to another (as in SplineCam, Humayun et al. 2023), and finally
along the lines on which two logits are equal. Cells of equal label that share an edge belong to one region. The lines are
applied to all cells in the same order, so that neighbouring cells have the same vertices on a shared edge. Arithmetic is in
float64; a vertex that is on a line up to rounding is treated as on it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.fx import Node

from regioncount.errors import InputError
from regioncount.regions.callables import as_model
from regioncount.regions.checks import as_vertices
from regioncount.regions.evaluation import Model, device_and_dtype, true_float32
from regioncount.regions.maxima import candidates
from regioncount.regions.model_check import check_function, sample_points
from regioncount.regions.operations import Operation, crossed
from regioncount.regions.outputs import refuse_nan
from regioncount.regions.piecewise import Program, apply, trace
from regioncount.regions.points import equated, pair_values, with_elements
from regioncount.regions.progress import progress
from regioncount.regions.verification import verify

# Values at the vertices of all cells in memory at a time: 2 GB. A network that needs more is too large for this method.
MAX_VALUES = 2**28

# A value this close to zero, relative to the largest value, may be a rounding error.
ROUNDING = 1e-12

Interpolate = Callable[[Tensor], Tensor]
"""Function from values at the vertices before a cut, (P, ...), to values at the vertices after it."""


@dataclass(frozen=True)
class ExactPlane:
    """The regions of one triangle, as N convex polygons."""

    polygons: list[np.ndarray]
    """Vertices of each polygon, float64 (k, 2): x and y are the barycentric coordinates of the triangle's second and third
    vertex."""
    labels: np.ndarray
    """int64 (N,): label of each polygon."""
    regions: np.ndarray
    """int64 (N,): index of the region that contains each polygon."""
    pieces: int
    """Number of cells on which the network is affine (its activation pattern is constant). An overestimate with max
    pooling, because cells are cut wherever two values of a window are equal."""

    evaluations: int
    """Network evaluations, in inputs: the vertices of these cells."""

    @cached_property
    def areas(self) -> np.ndarray:
        """float64 (N,): share of the triangle's area in each polygon."""
        columns = (polygon.T for polygon in self.polygons)
        return np.array([abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) for x, y in columns])

    @property
    def count(self) -> int:
        """Number of connected regions of constant predicted label."""
        return int(self.regions.max()) + 1

    @property
    def entropy(self) -> float:
        """Region entropy -sum p log p in nats, where p is a region's share of the area."""
        share = np.bincount(self.regions, weights=self.areas)
        share = share[share > 0]
        return float(-(share * np.log(share)).sum()) + 0.0


def exact_planes(model: Model, triangles: Tensor) -> list[ExactPlane]:
    """Compute the regions of constant predicted label in each of S triangles.

    Args:
        model: A torch module, as for `exact_lines`. It must be small: the cost grows with the number of affine pieces, which
            are cut one at a time.
        triangles: Floating point (S, 3, *input_shape).

    Returns:
        The regions of each triangle.

    Raises:
        InputError: If the vertices are not triangles, the network has an operation that is not piecewise linear or too many
            affine pieces, or a logit is not a number.

    References:
        Humayun et al. 2023, "SplineCam: Exact Visualization and Characterization of Deep Network Geometry and Decision
        Boundaries".
    """
    model = as_model(model)
    triangles = as_vertices(triangles, dimension=2)
    check_function(model, sample_points(triangles).to(*device_and_dtype(model, triangles)))
    program = trace(model, triangles.shape[2:])
    if program.comparison is not None:
        raise InputError(f"an exact count in planes cannot follow {program.comparison}, whose result jumps; use method=grid")
    with torch.no_grad(), true_float32():
        triangles = triangles.to(program.device).double()
        planes: list[ExactPlane] = []
        with progress(len(triangles), "triangles", "use method=auto, or a smaller network") as advance:
            for triangle in triangles:
                planes.append(_verified(program, _divide(program, triangle, partial(advance, len(planes))), triangle))
                advance(len(planes), "")
        return planes


def _verified(program: Program, plane: ExactPlane, triangle: Tensor) -> ExactPlane:
    """Return exact regions in a triangle after comparing the labels of all polygons with the network at their centroids."""
    centroids = np.array([polygon.mean(axis=0) for polygon in plane.polygons])
    weights = np.column_stack([1 - centroids.sum(axis=1), centroids])
    evaluations = verify(program, triangle[None], np.zeros(len(centroids), np.int64), weights, plane.labels)
    return replace(plane, evaluations=plane.evaluations + evaluations)


def _divide(program: Program, triangle: Tensor, report: Callable[[str], None]) -> ExactPlane:
    """Return the regions of one triangle; `report` is called with what is done."""
    cells, positions = [[0, 1, 2]], np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    values: dict[Node, Any] = {program.input: triangle}
    max_vertices = _max_vertices(program)
    for stage in program.stages:
        if stage is not program.stages[0]:
            lines = _piece_boundaries(program, stage[0], values)
            cells, interpolate = _cut(cells, lines, max_vertices, report)
            positions = interpolate(torch.from_numpy(positions)).numpy()
            values = {node: interpolate(value) for node, value in values.items()}
            values = _meet_thresholds(program, stage[0], values, _tolerance(lines))
        for operation in stage:
            values = apply(program, operation, values)
    logits = values[program.output]
    refuse_nan(logits.isnan().any())
    pieces, evaluations = len(cells), len(positions)
    classes = _finite_classes(logits)
    logits = logits[:, classes]
    pairs = torch.tensor([*combinations(range(len(classes)), 2)], dtype=torch.int64, device=logits.device).view(-1, 2)
    cells, interpolate = _cut(cells, logits[:, pairs[:, 0]] - logits[:, pairs[:, 1]], max_vertices, report)
    positions, logits = interpolate(torch.from_numpy(positions)).numpy(), interpolate(logits).cpu().numpy()
    labels = np.array(classes)[[logits[cell].mean(axis=0).argmax() for cell in cells]]
    return ExactPlane([positions[cell] for cell in cells], labels, _connect(cells, labels), pieces, evaluations)


def _finite_classes(logits: Tensor) -> list[int]:
    """Return the classes that may be predicted, given logits (P, classes): a class with logits of minus infinity is not.

    Raises:
        InputError: If another logit is infinite.
    """
    masked = (logits == -torch.inf).all(dim=0)
    if masked.all() or not logits[:, ~masked].isfinite().all():
        raise InputError("a logit is infinite at some points of a triangle; use method=grid")
    return (~masked).nonzero().flatten().tolist()


def _piece_boundaries(program: Program, operation: Operation, values: dict[Node, Any]) -> Tensor:
    """Return values (P, M) that are zero where an operation changes from one affine piece to another.

    Raises:
        InputError: If a value is infinite at some points only.
    """
    values, points = {**program.constants, **values}, len(values[operation.operands[0]])
    if operation.maximum is None:
        boundaries = torch.cat(crossed(operation, values, points), dim=1)
    else:
        options = candidates(operation.maximum, values, points)
        first, second = torch.combinations(torch.arange(options.shape[2], device=options.device)).T
        boundaries = (options[..., first] - options[..., second]).flatten(1)
    finite = boundaries.isfinite()
    sides = boundaries.nan_to_num(nan=0.0).sign()
    if not (finite.all(dim=0) | (~finite & (sides == sides[:1])).all(dim=0)).all():
        raise InputError("a value of the network is infinite at some points of a triangle; use method=grid")
    return boundaries[:, finite.all(dim=0)]


def _max_vertices(program: Program) -> int:
    """Return the largest number of vertices: each has the values of the network, and those of `_piece_boundaries`."""
    maxima = [operation.maximum for operation in program.operations if operation.maximum is not None]
    shapes = [maximum.windows.shape for maximum in maxima if maximum.windows is not None]
    pairs = max((groups * comb(size, 2) for groups, size in shapes), default=0)
    return MAX_VALUES // max(pairs, program.values_per_input)


def _cut(
    cells: list[list[int]], lines: Tensor, max_vertices: int, report: Callable[[str], None]
) -> tuple[list[list[int]], Interpolate]:
    """Return convex cells cut along each line that passes through them, and a function for values at the vertices.

    Args:
        cells: The vertices of each cell, in order.
        lines: Values (P, M) at the vertices of M functions that are affine on each cell and zero on a line.
        max_vertices: Largest number of vertices.
        report: Called with the number of vertices.

    Returns:
        The new cells, and a function from values at the old vertices, (P, ...), to values at all vertices.

    Raises:
        InputError: If there are more than `max_vertices` vertices.
    """
    rows = list(lines.cpu().numpy())
    tolerance = _tolerance(lines)
    crossings: dict[tuple[int, int, int], int] = {}
    new_vertices: list[tuple[int, int, float]] = []  # the ends of each vertex's edge, and the fraction of the way

    def crossing(u: int, v: int, line: int) -> int:
        """Return the vertex at which a line crosses an edge, the same one for both cells that share the edge."""
        u, v = min(u, v), max(u, v)
        if (u, v, line) not in crossings:
            share = rows[u][line] / (rows[u][line] - rows[v][line])
            crossings[u, v, line] = len(rows)
            new_vertices.append((u, v, float(share)))
            row = rows[u] + share * (rows[v] - rows[u])
            row[line] = 0.0
            rows.append(row)
        return crossings[u, v, line]

    new_cells: list[list[int]] = []
    for cell in cells:
        report(f"the first has {len(rows):,} vertices of affine pieces, of at most {max_vertices:,}")
        if len(rows) > max_vertices:
            raise InputError(
                f"a triangle has over {max_vertices:,} vertices of affine pieces; method=exact needs a smaller network"
            )
        corners = np.stack([rows[vertex] for vertex in cell])
        parts = [cell]
        for line in np.flatnonzero((corners.min(axis=0) < -tolerance) & (corners.max(axis=0) > tolerance)).tolist():
            sides = [[_side(rows[vertex][line], tolerance) for vertex in part] for part in parts]
            parts = [half for part, side in zip(parts, sides, strict=True) for half in _split(part, side, line, crossing)]
        new_cells += parts

    def interpolate(values: Tensor) -> Tensor:
        result = torch.cat([values, values.new_empty(len(new_vertices), *values.shape[1:])])
        for vertex, (u, v, share) in enumerate(new_vertices, start=len(values)):
            result[vertex] = torch.where(result[u] == result[v], result[u], torch.lerp(result[u], result[v], share))
        return result

    return new_cells, interpolate


def _tolerance(lines: Tensor) -> float:
    """Return how far from zero a value at a vertex may be if its line passes through the vertex."""
    return ROUNDING * max(1e-300, float(lines.abs().max())) if lines.numel() else 0.0


def _meet_thresholds(program: Program, operation: Operation, values: dict[Node, Any], tolerance: float) -> dict[Node, Any]:
    """Return the values, where an operand is exactly at its threshold at the vertices on the line of that threshold.

    So are the candidates of a maximum equal where they tie. Otherwise, ReLU would be a rounding error instead of zero on a
    cell, and decide ties of logits there.
    """
    maximum, number = operation.maximum, len(values[operation.operands[0]])
    if maximum is not None and maximum.windows is None:
        first, second = pair_values(maximum.arguments, {**program.constants, **values}, number)
        row, element = ((first - second).abs() <= tolerance).nonzero().unbind(1)
        return equated(maximum.arguments, program.constants, values, number, row, element)
    if maximum is not None and maximum.windows is not None:
        (operand,) = maximum.arguments
        options = candidates(maximum, {**program.constants, **values}, number)
        largest = options.amax(dim=2)
        row, group, option = (largest.unsqueeze(2) - options <= tolerance).nonzero().unbind(1)
        new = maximum.sign * largest[row, group]
        return {**values, operand: with_elements(values[operand], row, maximum.windows[group, option], new)}
    for threshold in operation.thresholds:
        operand = values[operation.operand]
        near = (operand - threshold).abs() <= tolerance
        values = {**values, operation.operand: torch.where(near, torch.as_tensor(threshold).to(operand), operand)}
    return values


def _side(value: float, tolerance: float) -> int:
    """Return the side of a line that a vertex is on: -1, 1, or 0 on the line."""
    return 0 if abs(value) <= tolerance else int(np.sign(value))


def _split(cell: list[int], sides: list[int], line: int, crossing: Callable[[int, int, int], int]) -> list[list[int]]:
    """Return the two parts of a cell, or the cell itself if the line does not pass through it."""
    if not (-1 in sides and 1 in sides):
        return [cell]
    halves: dict[int, list[int]] = {-1: [], 1: []}
    for (vertex, next_vertex), (side, next_side) in zip(_edges(cell), _edges(sides), strict=True):
        for half in (-1, 1) if side == 0 else (side,):
            halves[half].append(vertex)
        if side * next_side < 0:
            new_vertex = crossing(vertex, next_vertex, line)
            halves[-1].append(new_vertex)
            halves[1].append(new_vertex)
    return [half for half in halves.values() if len(half) > 2]


def _edges(cell: list[int]) -> Iterator[tuple[int, int]]:
    """Return each vertex of a cell with the next one, cyclically."""
    return zip(cell, cell[1:] + cell[:1], strict=True)


def _connect(cells: list[list[int]], labels: np.ndarray) -> np.ndarray:
    """Return the region of each cell, int64 (N,): cells of equal label are connected by shared edges."""
    cell_of_edge: dict[tuple[int, int], int] = {}
    pairs: list[tuple[int, int]] = []
    for number, cell in enumerate(cells):
        for u, v in _edges(cell):
            other = cell_of_edge.setdefault((min(u, v), max(u, v)), number)
            if other != number and labels[other] == labels[number]:
                pairs.append((other, number))
    first, second = np.array(pairs, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(cells), len(cells)))
    return connected_components(graph, directed=False)[1].astype(np.int64)
