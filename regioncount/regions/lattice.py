"""The lattice in a simplex, in integers.

A lattice point is (a_1, ..., a_d) with a_i >= 0 and a_1 + ... + a_d <= n - 1; its barycentric coordinates are
(n - 1 - sum a, a_1, ..., a_d) / (n - 1). In floating point, a test such as a + b <= 1 loses points; here nothing is tested
in floating point.
"""

import numpy as np

from regioncount.errors import InputError

CONNECTIVITIES = ("paper", "lattice")


def simplex_lattice(dimension: int, resolution: int) -> np.ndarray:
    """All lattice points of a simplex, int64 (P, d) in lexicographic order, with `resolution` points along an axis.

    P is binomial(resolution - 1 + d, d): 200 for a line of 200, 55 for a triangle of 10, 126 for a 5-simplex of 5.
    """
    points = np.zeros((1, 0), dtype=np.int64)
    left = np.array([resolution - 1])  # how much of n - 1 each partial point has not used up
    for _ in range(dimension):
        choices = left + 1
        parent = np.repeat(np.arange(len(points)), choices)
        value = np.arange(len(parent)) - np.repeat(np.cumsum(choices) - choices, choices)
        points = np.column_stack([points[parent], value])
        left = left[parent] - value
    return points


def barycentric(points: np.ndarray, resolution: int) -> np.ndarray:
    """Barycentric coordinates of lattice points: float64 (P, d + 1), each row summing to 1."""
    first = (resolution - 1) - points.sum(axis=1, keepdims=True)
    return np.concatenate([first, points], axis=1) / (resolution - 1)


def positions(points: np.ndarray, resolution: int) -> np.ndarray:
    """The index in `points` (P, d) of the point at each place of an n x ... x n box, -1 where there is none: int64."""
    box = np.full([resolution] * points.shape[1], -1, dtype=np.int64)
    box[tuple(points.T)] = np.arange(len(points))
    return box


def neighbour_offsets(dimension: int, connectivity: str) -> np.ndarray:
    """The steps that join lattice points, one of each pair of opposite steps: int64 (k, d).

    `paper`: in the plane at most one step on each axis (8 neighbours), otherwise one step on one axis (2d neighbours).
    `lattice`: one step moved from one barycentric coordinate to another, d (d + 1) neighbours, so that the d + 1 vertices
    are treated alike. Both are the two neighbours on a line. Raises InputError for another name.
    """
    unit = np.eye(dimension, dtype=np.int64)
    differences = [unit[i] - unit[j] for i in range(dimension) for j in range(i + 1, dimension)]
    if connectivity == "lattice":
        return np.array([*unit, *differences])
    if connectivity == "paper":
        return np.array([*unit, [1, 1], *differences]) if dimension == 2 else unit
    raise InputError(f"connectivity={connectivity}: one of {', '.join(CONNECTIVITIES)} is needed")


def edges(points: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """All pairs of points that differ by one of the offsets, as positions in `points`: int64 (E, 2).

    points: int64 (P, d), distinct, none negative, in lexicographic order.
    """
    # One axis wider than the points on every side, so that a step past the border is the key of no point.
    shape = points.max(axis=0) + 3
    keys = np.ravel_multi_index(tuple((points + 1).T), shape)
    pairs = []
    for offset in offsets:
        wanted = np.ravel_multi_index(tuple((points + 1 + offset).T), shape)
        found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        start = np.flatnonzero(keys[found] == wanted)
        pairs.append(np.stack([start, found[start]], axis=1))
    return np.concatenate(pairs)
