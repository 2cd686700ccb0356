"""How many: connected components of equal labels, over all subspaces at once."""

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from regioncount.errors import InputError
from regioncount.regions.lattice import edges, neighbour_offsets

# Lattice points and joins handled in one graph; bounds memory to a few hundred megabytes.
GRAPH_SIZE = 4_000_000


def count_components(labels, connectivity: str = "paper") -> np.ndarray:
    """Count the connected regions of equal label in each of S label arrays.

    labels: integers (S, n) or (S, n, n, ...), array or tensor, -1 where a point lies outside and belongs to no region.
    connectivity: "paper" (neighbours on a line; 8 neighbours in the plane; 2d neighbours beyond) or "lattice" (see
    `neighbour_offsets`). Returns counts int64 (S,); an array wholly outside counts 0. Raises InputError for another
    shape or type, labels below -1, or an unknown connectivity. Source: Li et al. 2025, section 3.
    """
    labels = labels.detach().cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    if labels.ndim < 2 or 0 in labels.shape[1:]:
        raise InputError(f"labels of shape (S, n) or (S, n, n, ...) are needed, not {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"labels must be integers, not {labels.dtype}")
    if labels.size and labels.min() < -1:
        raise InputError(f"labels must be at least -1 (outside), not {labels.min()}")
    shape = labels.shape[1:]
    points = np.indices(shape).reshape(len(shape), -1).T
    joins = edges(points, neighbour_offsets(len(shape), connectivity))
    owners, _ = region_sizes(labels.reshape(len(labels), len(points)), joins)
    return np.bincount(owners, minlength=len(labels))


def region_sizes(labels: np.ndarray, joins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every region as the subspace it lies in and the number of lattice points it holds.

    labels: integers (S, P), -1 outside; joins: int64 (E, 2), the pairs of points that are neighbours, the same for all
    subspaces. Returns (owners, sizes), both int64 (R,), R the number of regions in all subspaces, owners ascending.
    """
    count, width = labels.shape
    step = max(1, GRAPH_SIZE // (width + len(joins)))
    owners, sizes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start in range(0, count, step):
        chunk = labels[start : start + step]
        inside = chunk >= 0
        # Joins of equal labels need no look at the outside: a point inside never has the label of one outside.
        row, join = np.nonzero(chunk[:, joins[:, 0]] == chunk[:, joins[:, 1]])
        source, target = row * width + joins[join, 0], row * width + joins[join, 1]
        graph = coo_array((np.ones(len(source), np.int8), (source, target)), shape=(chunk.size, chunk.size))
        number, component = connected_components(graph, directed=False)
        component = component[inside.ravel()]
        size = np.bincount(component, minlength=number)
        owner = np.zeros(number, np.int64)
        owner[component] = start + np.nonzero(inside)[0]
        owners.append(owner[size > 0])
        sizes.append(size[size > 0])
    owners, sizes = np.concatenate(owners), np.concatenate(sizes)
    order = np.argsort(owners, kind="stable")
    return owners[order], sizes[order]
