"""Slow, explicit references for region counts: float64, one point at a time, and a flood fill."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
import torch
from torch import Tensor

Model = Callable[[Tensor], Tensor]
Point = tuple[int, ...]

# More combinations of labels than this are not enumerated in a plane.
MAX_CHOICES = 256


@dataclass(frozen=True)
class Outputs:
    """What a model returns at P points."""

    values: Tensor
    """Logits float64 (P, classes), or labels int64 (P,)."""

    @property
    def labels(self) -> list[int]:
        return (self.values if self.values.dim() == 1 else self.values.argmax(1)).tolist()


def one_at_a_time(model: Model, points: Tensor) -> Outputs:
    """Evaluate a model at each point alone."""
    with torch.no_grad():
        values = torch.cat([torch.as_tensor(model(point.clone())) for point in points.split(1)])
    return Outputs(values.double() if values.is_floating_point() else values.long())


def together(model: Model, points: Tensor) -> Outputs:
    """Evaluate a model at all points in one batch."""
    with torch.no_grad():
        values = torch.as_tensor(model(points.clone()))
    return Outputs(values.double() if values.is_floating_point() else values.long())


def lattice(dimension: int, resolution: int) -> list[Point]:
    """Return the integer coordinates of the lattice points of a simplex."""
    return [point for point in product(range(resolution), repeat=dimension) if sum(point) < resolution]


def inputs_at(simplex: Tensor, points: list[Point], resolution: int) -> Tensor:
    """Return the inputs at lattice points of one simplex (d + 1, *input_shape), in float64."""
    rows = [[resolution - 1 - sum(point), *point] for point in points]
    weights = torch.tensor(rows, dtype=torch.float64) / (resolution - 1)
    return torch.einsum("pk,k...->p...", weights, simplex.double())


def allowed_labels(exact: Outputs, native: Outputs, moved: list[Outputs]) -> list[set[int]]:
    """Return the labels that rounding may give each point.

    Args:
        exact: Outputs of the float64 copy.
        native: Outputs of the model in its own type.
        moved: Outputs of the float64 copy at points that are moved by rounding errors.
    """
    allowed = [{label, *others} for label, *others in zip(exact.labels, *(output.labels for output in moved), strict=True)]
    if exact.values.dim() == 1:
        return allowed
    # A huge or tiny model leaves the range of float32: its labels are those of float32.
    overflows = native.values.isfinite() != exact.values.isfinite()
    error = (native.values - exact.values).abs().nan_to_num(0, 0, 0).amax(1)
    largest = exact.values.abs().nan_to_num(0, 0, 0).amax(1)
    tolerance = 8 * error + 4 * error.median() + 1e-6 * largest
    for point, logits in enumerate(exact.values):
        close = (logits >= logits.max() - tolerance[point]).nonzero().flatten().tolist()
        allowed[point] |= set(close)
        if overflows[point].any():
            allowed[point] = {native.labels[point]}
    return allowed


def possible_counts(allowed: list[set[int]], points: list[Point]) -> tuple[int, int] | None:
    """Return the smallest and the largest number of regions, or None if there are too many combinations."""
    if len(points[0]) == 1:
        return _possible_counts_on_line(allowed)
    if prod(map(len, allowed)) > MAX_CHOICES:
        return None
    counts = [count(dict(zip(points, labels, strict=True))) for labels in product(*allowed)]
    return min(counts), max(counts)


def _possible_counts_on_line(allowed: list[set[int]]) -> tuple[int, int]:
    least, most = (dict.fromkeys(allowed[0], 1) for _ in range(2))
    for labels in allowed[1:]:
        least = {label: min(number + (label != other) for other, number in least.items()) for label in labels}
        most = {label: max(number + (label != other) for other, number in most.items()) for label in labels}
    return min(least.values()), max(most.values())


def count(labels: dict[Point, int]) -> int:
    """Count connected regions by flood fill: 2 neighbours on a line, 8 in a plane, as in the paper."""
    dimension = len(next(iter(labels)))
    offsets = [offset for offset in product((-1, 0, 1), repeat=dimension) if any(offset)]
    unvisited, regions = set(labels), 0
    while unvisited:
        regions += 1
        stack = [unvisited.pop()]
        while stack:
            point = stack.pop()
            for offset in offsets:
                other = tuple(a + b for a, b in zip(point, offset, strict=True))
                if other in unvisited and labels[other] == labels[point]:
                    unvisited.remove(other)
                    stack.append(other)
    return regions


def narrowest_region(labels: list[int]) -> int:
    """Return the smallest number of consecutive points of one label."""
    changes = np.flatnonzero(np.diff(labels)) + 1
    return int(np.diff([0, *changes, len(labels)]).min())
