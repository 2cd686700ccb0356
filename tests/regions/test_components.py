"""Connected components, compared with a flood fill that follows the paper's definition point by point."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regioncount import InputError, count_components
from regioncount.regions.components import region_sizes
from regioncount.regions.lattice import barycentric, neighbour_offsets, neighbour_pairs, simplex_lattice


def are_neighbours(one: tuple, other: tuple, connectivity: str) -> bool:
    """Return whether two points are neighbours, by the definitions of the paper and of docs/reference.md."""
    difference = np.subtract(one, other)
    dimension = len(difference)
    if connectivity == "paper":
        if dimension == 2:
            return bool(difference.any() and np.abs(difference).max() <= 1)
        return int(np.abs(difference).sum()) == 1
    full = np.append(difference, -difference.sum())  # the change of all d + 1 barycentric coordinates
    return sorted(full[full != 0].tolist()) == [-1, 1]


def flood_fill(labels: np.ndarray, connectivity: str) -> list[int]:
    """Return the sorted sizes of the regions of one label array."""
    points = [p for p in itertools.product(*map(range, labels.shape)) if labels[p] != -1]
    remaining, sizes = set(points), []
    while remaining:
        queue = [remaining.pop()]
        size = 0
        while queue:
            point = queue.pop()
            size += 1
            neighbours = [q for q in remaining if labels[q] == labels[point] and are_neighbours(point, q, connectivity)]
            remaining.difference_update(neighbours)
            queue += neighbours
        sizes.append(size)
    return sorted(sizes)


SIDES = {1: 12, 2: 6, 3: 4, 4: 3, 5: 2}


@pytest.mark.parametrize("connectivity", ["paper", "lattice"])
@pytest.mark.parametrize("dimension", SIDES)
def test_counts_equal_a_flood_fill_on_random_arrays(dimension, connectivity):
    """The arrays have few or many labels, unequal sides, and points outside."""
    generator = np.random.default_rng(dimension)
    for _ in range(8):
        shape = tuple(generator.integers(1, SIDES[dimension] + 1, size=dimension))
        labels = generator.integers(-1, generator.integers(1, 4), size=(30, *shape))
        expected = [flood_fill(array, connectivity) for array in labels]
        assert count_components(labels, connectivity).tolist() == [len(sizes) for sizes in expected]


@pytest.mark.parametrize("connectivity", ["paper", "lattice"])
@pytest.mark.parametrize(("dimension", "resolution"), [(1, 9), (2, 5), (3, 4), (4, 3), (5, 3)])
def test_regions_of_a_simplex_equal_a_flood_fill(dimension, resolution, connectivity):
    """Compare the lattice of a simplex with the same labels in a box that is -1 outside the simplex."""
    points = simplex_lattice(dimension, resolution)
    pairs = neighbour_pairs(points, neighbour_offsets(dimension, connectivity))
    labels = np.random.default_rng(0).integers(0, 2, size=(40, len(points)))
    subspaces, sizes = region_sizes(labels, pairs)
    box = np.full((40, *[resolution] * dimension), -1)
    for point, column in zip(points, labels.T, strict=True):
        box[(slice(None), *point)] = column
    for simplex in range(40):
        assert sorted(sizes[subspaces == simplex].tolist()) == flood_fill(box[simplex], connectivity)


@given(st.integers(1, 4), st.integers(2, 6))
def test_simplex_lattice_contains_every_point_once(dimension, resolution):
    expected = [p for p in itertools.product(range(resolution), repeat=dimension) if sum(p) <= resolution - 1]
    points = simplex_lattice(dimension, resolution)
    assert [tuple(p) for p in points.tolist()] == expected
    weights = barycentric(points, resolution)
    assert weights.min() >= 0
    assert np.allclose(weights.sum(axis=1), 1, rtol=0, atol=1e-15)


def test_lattice_sizes_of_the_paper():
    assert [len(simplex_lattice(d, n)) for d, n in [(1, 200), (2, 10), (3, 5), (4, 5), (5, 5)]] == [200, 55, 35, 70, 126]


@given(st.data())
def test_lattice_connectivity_treats_all_vertices_alike(data):
    """Permuting the d + 1 barycentric coordinates does not change the count."""
    dimension = data.draw(st.integers(1, 3))
    resolution = data.draw(st.integers(2, 4))
    points = simplex_lattice(dimension, resolution)
    labels = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(points), max_size=len(points))))
    order = data.draw(st.permutations(range(dimension + 1)))
    full = np.column_stack([resolution - 1 - points.sum(axis=1), points])
    index_of = {tuple(row): i for i, row in enumerate(full.tolist())}
    permuted = labels[[index_of[tuple(row)] for row in full[:, order].tolist()]]
    pairs = neighbour_pairs(points, neighbour_offsets(dimension, "lattice"))
    assert len(region_sizes(labels[None], pairs)[0]) == len(region_sizes(permuted[None], pairs)[0])


@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_count_does_not_depend_on_label_names_or_on_other_arrays(seed, dimension):
    generator = np.random.default_rng(seed)
    labels = generator.integers(-1, 3, size=(5, *[4] * dimension))
    renamed = np.where(labels == -1, -1, np.array([7, 0, 100])[labels])
    counts = count_components(labels)
    assert counts.tolist() == count_components(renamed).tolist()
    assert counts.tolist() == [count_components(labels[i : i + 1])[0] for i in range(5)]


def test_chunks_do_not_change_counts(monkeypatch):
    labels = np.random.default_rng(1).integers(-1, 3, size=(50, 7, 7))
    expected = count_components(labels)
    monkeypatch.setattr("regioncount.regions.components.GRAPH_SIZE", 500)
    assert count_components(labels).tolist() == expected.tolist()


def test_special_arrays():
    assert count_components(torch.zeros(3, 10, dtype=torch.int32)).tolist() == [1, 1, 1]
    assert count_components(np.full((2, 4, 4), -1)).tolist() == [0, 0]
    assert count_components(np.arange(20).reshape(2, 10)).tolist() == [10, 10]
    checkers = np.indices((8, 8)).sum(axis=0)[None] % 2
    assert count_components(checkers, "paper").tolist() == [2]  # diagonal steps join each colour
    assert count_components(checkers, "lattice").tolist() == [15]  # an antidiagonal step joins each of the 15 antidiagonals
    assert count_components(np.zeros((0, 5), dtype=int)).tolist() == []


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (np.zeros(5, dtype=int), "shape"),
        (np.zeros((2, 0), dtype=int), "shape"),
        (np.zeros((2, 5)), "integers"),
        (np.full((2, 5), -2), "at least -1"),
        (np.ma.masked_equal([[1, 1, 2, 2]], 2), "masked array"),
        ([[1, 2], [1]], "not an array of one shape"),
        (torch.zeros(2, 5, dtype=torch.bfloat16), "integers"),
        (torch.zeros(2, 5, dtype=int, device="meta"), "with values"),
        (torch.zeros(2, 5, dtype=int).to_sparse(), "dense"),
    ],
)
def test_invalid_labels_are_rejected(labels, reason):
    with pytest.raises(InputError, match=reason):
        count_components(labels)


def test_unknown_connectivity_is_rejected():
    with pytest.raises(InputError, match="connectivity=diagonal"):
        count_components(np.zeros((1, 5), dtype=int), "diagonal")
