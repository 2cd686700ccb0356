"""The regular lattice in a simplex or in the box that its edges span.

A lattice point has integer coordinates (a_1, ..., a_d) from 0 to n - 1, where n is the resolution; in a simplex, their sum
is at most n - 1. Its barycentric coordinates are (n - 1 - sum a, a_1, ..., a_d) / (n - 1). Membership and neighbourhood are
decided in integers: in floating point, a test such as a + b <= 1 loses points at the border.
"""

import numpy as np

from regioncount.regions.methods import require_connectivity


def simplex_lattice(dimension: int, resolution: int) -> np.ndarray:
    """Return all lattice points of a simplex in lexicographic order.

    Args:
        dimension: Dimension d of the simplex.
        resolution: Lattice points n along each edge, ends included.

    Returns:
        Integer coordinates, int64 (P, d) with P = binomial(n - 1 + d, d): 200 points for d = 1 and n = 200, 55 for d = 2 and
        n = 10, 126 for d = 5 and n = 5.
    """
    points = np.zeros((1, 0), dtype=np.int64)
    remaining = np.array([resolution - 1])  # n - 1 minus the coordinates so far, for each partial point
    for _ in range(dimension):
        choices = remaining + 1
        parent = np.repeat(np.arange(len(points)), choices)
        value = np.arange(len(parent)) - np.repeat(np.cumsum(choices) - choices, choices)
        points = np.column_stack([points[parent], value])
        remaining = remaining[parent] - value
    return points


def box_lattice(dimension: int, resolution: int) -> np.ndarray:
    """Return all lattice points of a box in lexicographic order.

    The points are x_0 + sum_i a_i (x_i - x_0) / (n - 1) for the vertices x_0, ..., x_d of a simplex: for d = 2, those of the
    parallelogram that has two edges of a triangle as its sides.

    Args:
        dimension: Dimension d of the box.
        resolution: Lattice points n along each edge, ends included.

    Returns:
        Integer coordinates, int64 (n^d, d).
    """
    return np.indices([resolution] * dimension).reshape(dimension, -1).T


def barycentric(points: np.ndarray, resolution: int) -> np.ndarray:
    """Return the barycentric coordinates of lattice points.

    Args:
        points: Integer coordinates, int64 (P, d).
        resolution: Lattice points n along each edge.

    Returns:
        float64 (P, d + 1); each row sums to 1. The first coordinate of points outside the simplex is negative.
    """
    first = (resolution - 1) - points.sum(axis=1, keepdims=True)
    return np.concatenate([first, points], axis=1) / (resolution - 1)


def index_grid(points: np.ndarray, resolution: int) -> np.ndarray:
    """Return a d-dimensional array that maps integer coordinates to the index of their lattice point.

    Args:
        points: Integer coordinates, int64 (P, d).
        resolution: Length n of the array along each axis.

    Returns:
        int64 (n, ..., n); -1 at coordinates outside the simplex.
    """
    grid = np.full([resolution] * points.shape[1], -1, dtype=np.int64)
    grid[tuple(points.T)] = np.arange(len(points))
    return grid


def neighbour_offsets(dimension: int, connectivity: str) -> np.ndarray:
    """Return the coordinate differences between neighbouring lattice points.

    On a line, both connectivities are the same: each point has two neighbours.

    Args:
        dimension: Dimension d of the lattice.
        connectivity: "paper": in the plane, the 8 points that differ by at most 1 in each coordinate; otherwise, the
            2 d points that differ by 1 in one coordinate (Li et al. 2025, section 3). "lattice": the d (d + 1) points
            reached by moving one unit from one barycentric coordinate to another, which treats all d + 1 vertices alike.

    Returns:
        int64 (k, d), one of each pair of opposite offsets.

    Raises:
        InputError: If the connectivity is unknown.
    """
    require_connectivity(connectivity)
    unit = np.eye(dimension, dtype=np.int64)
    differences = [unit[i] - unit[j] for i in range(dimension) for j in range(i + 1, dimension)]
    if connectivity == "lattice":
        return np.array([*unit, *differences])
    return np.array([*unit, [1, 1], *differences]) if dimension == 2 else unit


def neighbour_pairs(points: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return all pairs of points that differ by one of the offsets.

    Args:
        points: Distinct, non-negative integer coordinates, int64 (P, d), in lexicographic order.
        offsets: int64 (k, d), such as those of `neighbour_offsets`.

    Returns:
        Pairs of indices into `points`, int64 (E, 2).
    """
    # The key of a point is its index in a box with a margin of 1, so that no offset wraps around to another point.
    shape = tuple(int(extent) for extent in points.max(axis=0) + 3)
    keys = np.atleast_1d(np.ravel_multi_index(tuple((points + 1).T), shape))
    pairs: list[np.ndarray] = []
    for offset in offsets:
        neighbour_keys = np.ravel_multi_index(tuple((points + 1 + offset).T), shape)
        candidates = np.minimum(np.searchsorted(keys, neighbour_keys), len(keys) - 1)
        start = np.flatnonzero(keys[candidates] == neighbour_keys)
        pairs.append(np.stack([start, candidates[start]], axis=1))
    return np.concatenate(pairs)
