"""Connected components of equal labels, in all subspaces at once."""

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from regioncount.errors import InputError
from regioncount.regions.checks import as_array
from regioncount.regions.lattice import neighbour_offsets, neighbour_pairs

# Largest number of lattice points and neighbour pairs in one graph, which limits memory to a few hundred megabytes.
GRAPH_SIZE = 4_000_000


def count_components(labels: np.ndarray | Tensor, connectivity: str = "paper") -> np.ndarray:
    """Count the connected regions of equal label in each of S label arrays (Li et al. 2025, section 3).

    Args:
        labels: Integers (S, n) or (S, n, n, ...); -1 marks points outside, which belong to no region.
        connectivity: "paper" (neighbours on a line; 8 neighbours in the plane; 2 d neighbours in higher dimensions) or
            "lattice"; see `regioncount.regions.lattice.neighbour_offsets`.

    Returns:
        Counts, int64 (S,). An array with no point inside has count 0.

    Raises:
        InputError: If the shape or type of `labels` is wrong, a label is below -1, or the connectivity is unknown.
    """
    if isinstance(labels, Tensor):
        if labels.is_meta or labels.layout != torch.strided or labels.is_floating_point():
            raise InputError("labels must be integers in a dense tensor with values")
        labels = labels.detach().cpu().numpy()
    else:
        labels = as_array("labels", labels)
    if labels.ndim < 2 or 0 in labels.shape[1:]:
        raise InputError(f"labels must have shape (S, n) or (S, n, n, ...), not {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"labels must be integers, not {labels.dtype}")
    if labels.size and labels.min() < -1:
        raise InputError(f"labels must be at least -1 (outside), not {labels.min()}")
    shape = labels.shape[1:]
    points = np.indices(shape).reshape(len(shape), -1).T
    pairs = neighbour_pairs(points, neighbour_offsets(len(shape), connectivity))
    subspaces, _ = region_sizes(labels.reshape(len(labels), len(points)), pairs)
    return np.bincount(subspaces, minlength=len(labels))


def region_sizes(labels: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the subspace and the number of lattice points of every region.

    Args:
        labels: Integers (S, P), -1 outside.
        pairs: Pairs of neighbouring points, int64 (E, 2), the same for all subspaces.

    Returns:
        The subspace of each region, int64 (R,) in ascending order, and its number of lattice points, int64 (R,), where R is
        the number of regions in all subspaces.
    """
    count, width = labels.shape
    first, second = pairs.T
    step = max(1, GRAPH_SIZE // (width + len(pairs)))
    subspaces, sizes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start in range(0, count, step):
        chunk = labels[start : start + step]
        inside = chunk >= 0
        # Points outside share the label -1, so they are linked only to each other. Their components are dropped below.
        row, linked = np.nonzero(chunk[:, first] == chunk[:, second])
        source, target = row * width + first[linked], row * width + second[linked]
        graph = coo_array((np.ones(len(source), np.int8), (source, target)), shape=(chunk.size, chunk.size))
        number, component = connected_components(graph, directed=False)
        component = component[inside.ravel()]
        size = np.bincount(component, minlength=number)
        subspace = np.zeros(number, np.int64)
        subspace[component] = start + np.nonzero(inside)[0]
        subspaces.append(subspace[size > 0])
        sizes.append(size[size > 0])
    all_subspaces, all_sizes = np.concatenate(subspaces), np.concatenate(sizes)
    order = np.argsort(all_subspaces, kind="stable")
    return all_subspaces[order], all_sizes[order]
