"""Slow checks of exact regions in a triangle."""

from collections.abc import Callable

import numpy as np
import torch
from fuzz_reference import together
from torch import Tensor

from regioncount.regions import ExactPlane

POINTS = 500
MAX_POLYGONS = 150  # more are not connected by the slow reference
MIN_AREA = 1e-6  # slivers have edges that the slow reference cannot tell from points


def wrong_plane(model: Callable[[Tensor], Tensor], triangle: Tensor, plane: ExactPlane) -> str:
    """Return what is wrong with the exact regions of a triangle, or nothing."""
    if abs(plane.areas.sum() - 1) > 1e-9:
        return f"the areas sum to {plane.areas.sum()}"
    polygons, labels = plane.polygons, plane.labels
    centroids = np.array([polygon.mean(0) for polygon in polygons])
    if reason := wrong_labels(model, triangle, centroids, labels):
        return f"at a centroid, {reason}"
    points = np.random.default_rng(0).dirichlet([1, 1, 1], POINTS)[:, 1:]
    inside = np.stack([depth(polygon, points) for polygon in polygons])  # (polygons, points), above 0 inside
    owner = inside.argmax(0)
    if (inside.max(0) < -1e-9).any():
        return "a point is in no polygon"
    certain = inside.max(0) > 1e-9
    if reason := wrong_labels(model, triangle, points[certain], labels[owner[certain]]):
        return f"at a random point, {reason}"
    comparable = len(polygons) <= MAX_POLYGONS and plane.areas.min() > MIN_AREA
    if comparable and (number := slow_count(polygons, labels)) != plane.count:
        return f"{plane.count} regions, {number} by shared edges"
    return ""


def wrong_labels(model: Callable[[Tensor], Tensor], triangle: Tensor, points: np.ndarray, labels: np.ndarray) -> str:
    """Return a difference between labels and those of the model at points of a triangle, or nothing."""
    weights = torch.from_numpy(np.column_stack([1 - points.sum(1), points]))
    values = together(model, torch.einsum("pk,k...->p...", weights, triangle.double())).values
    lead = values.amax(1) - values[range(len(labels)), labels.tolist()]
    tolerance = 1e-9 * float(values[values.isfinite()].abs().max())
    if not (lead > tolerance).any():
        return ""
    worst = int(lead.argmax())
    return f"the label at {points[worst]} is {int(values[worst].argmax())}, not {labels[worst]}"


def depth(polygon: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the smallest distance of points from the edges of a convex polygon, negative outside."""
    edges = np.roll(polygon, -1, 0) - polygon
    lengths = np.linalg.norm(edges, axis=1)
    edges, corners = edges[lengths > 0] / lengths[lengths > 0, None], polygon[lengths > 0]
    offset = points[:, None] - corners
    distance = edges[:, 0] * offset[..., 1] - edges[:, 1] * offset[..., 0]  # (points, edges)
    area = (polygon[:, 0] * np.roll(polygon[:, 1], -1) - polygon[:, 1] * np.roll(polygon[:, 0], -1)).sum()
    return (distance * np.sign(area)).min(1)


def slow_count(polygons: list[np.ndarray], labels: np.ndarray) -> int:
    """Count regions: polygons of one label are connected if their edges overlap in more than a point."""
    parent = list(range(len(polygons)))

    def root(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    for one in range(len(polygons)):
        for other in range(one):
            if labels[one] == labels[other] and root(one) != root(other) and touch(polygons[one], polygons[other]):
                parent[root(one)] = root(other)
    return len({root(index) for index in range(len(polygons))})


def touch(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether an edge of one polygon and an edge of the other overlap in more than 1e-7."""
    if (one.min(0) > other.max(0) + 1e-9).any() or (other.min(0) > one.max(0) + 1e-9).any():
        return False
    for start, stop in zip(one, np.roll(one, -1, 0), strict=True):
        length = np.linalg.norm(stop - start)
        if length < 1e-7:
            continue
        direction = (stop - start) / length
        normal = np.array([-direction[1], direction[0]])
        for first, last in zip(other, np.roll(other, -1, 0), strict=True):
            if max(abs((first - start) @ normal), abs((last - start) @ normal)) < 1e-9:
                low, high = sorted([(first - start) @ direction, (last - start) @ direction])
                if min(high, length) - max(low, 0) > 1e-7:
                    return True
    return False
