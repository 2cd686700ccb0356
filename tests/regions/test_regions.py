"""Subspaces and counting, for functions whose regions are known in closed form."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import regioncount as rc
from regioncount.regions import default_resolution, label_planes, plane_grid, planes, sample_indices
from regioncount.regions.outputs import to_labels


def stripes(width):
    """Return a classifier of the plane whose label is the index of the stripe that contains x."""
    return lambda inputs: torch.floor(inputs[:, 0] / width).long()


def segment(*ends):
    return torch.tensor([ends], dtype=torch.float64)


def test_a_line_has_as_many_regions_as_stripes_that_it_crosses():
    generator = torch.Generator().manual_seed(0)
    vertices = 10 * torch.rand(200, 2, 2, generator=generator, dtype=torch.float64)
    result = rc.count_regions(stripes(1.0), vertices, resolution=4000)
    expected = np.abs(np.diff(np.floor(vertices[:, :, 0].numpy()), axis=1))[:, 0] + 1
    # A line nearly parallel to the stripes may enter and leave one between two lattice points; none of these does.
    assert result.counts.tolist() == expected.tolist()
    assert result.mean == expected.mean()


@pytest.mark.parametrize("dimension", [1, 2, 3, 4])
@pytest.mark.parametrize("connectivity", ["paper", "lattice"])
def test_slices_of_a_simplex(dimension, connectivity):
    """Cutting a simplex into k slabs along the first lattice coordinate gives k connected regions."""
    vertices = torch.cat([torch.zeros(1, dimension), torch.eye(dimension)])[None].double()
    for slabs in (1, 2, 4):
        model = lambda x, slabs=slabs: (x[:, 0] * slabs * 0.999).floor().long()  # noqa: E731
        result = rc.count_regions(model, vertices, resolution=13, connectivity=connectivity)
        assert result.counts.tolist() == [slabs]


def test_two_separate_intervals_of_one_label_are_two_regions():
    model = lambda x: ((x[:, 0] - 0.5).abs() < 0.2).long()  # noqa: E731  label 0, then 1, then 0 again
    result = rc.count_regions(model, segment([0.0], [1.0]))
    assert result.counts.tolist() == [3]
    shares = np.array([60, 80, 60]) / 200
    assert math.isclose(result.entropy, -(shares * np.log(shares)).sum(), rel_tol=0.02)


def test_entropy_of_known_shares():
    thirds = lambda x: (x[:, 0] * 3).floor().clamp(max=2).long()  # noqa: E731
    result = rc.count_regions(thirds, segment([0.0], [1.0]), resolution=300)
    assert math.isclose(result.entropy, math.log(3), rel_tol=1e-12)
    constant = rc.count_regions(lambda x: torch.zeros(len(x), dtype=torch.long), segment([0.0], [1.0]))
    assert (constant.mean, constant.entropy) == (1.0, 0.0)


def test_ties_go_to_the_lowest_index():
    tied = lambda x: torch.stack([x[:, 0] * 0, x[:, 0] * 0, x[:, 0] * 0], dim=1)  # noqa: E731
    assert to_labels(tied(torch.zeros(7, 1)), 7)[0].tolist() == [0] * 7
    assert rc.count_regions(tied, segment([0.0], [1.0])).counts.tolist() == [1]


@given(st.integers(1, 4), st.integers(0, 1000))
def test_counts_equal_those_of_explicitly_evaluated_points(dimension, seed):
    """Label explicit points with random networks, and count their components."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4)).double()
    vertices = 3 * torch.randn(3, dimension + 1, 2, 3, dtype=torch.float64)
    n = 6
    result = rc.count_regions(model, vertices, resolution=n, batch_size=7, method="grid")
    box = np.full((3, *[n] * dimension), -1)
    for index in np.ndindex(*[n] * dimension):
        if sum(index) <= n - 1:
            weights = torch.tensor([n - 1 - sum(index), *index], dtype=torch.float64) / (n - 1)
            points = (weights.view(1, -1, 1, 1) * vertices).sum(dim=1)
            box[(slice(None), *index)] = model(points).argmax(dim=1).numpy()
    assert result.counts.tolist() == rc.count_components(box).tolist()
    checked = 2 * 8 * len(vertices) + 16 + 8  # a sample, twice, and 8 points in pairs and alone, for the check
    assert result.evaluations == checked + 3 * int((box[0] >= 0).sum())


def test_negative_labels_are_not_treated_as_outside():
    model = lambda x: torch.sign(x[:, 0] - 0.5).long()  # noqa: E731  labels -1 and 1
    assert rc.count_regions(model, segment([0.0], [1.0])).counts.tolist() == [2]


def test_blocks_and_batches_do_not_change_counts(monkeypatch):
    vertices = 5 * torch.rand(30, 3, 2)
    one_block = rc.count_regions(stripes(0.7), vertices)
    monkeypatch.setattr("regioncount.regions.labelling.BLOCK_VALUES", 100)
    many_blocks = rc.count_regions(stripes(0.7), vertices, batch_size=13)
    assert one_block.counts.tolist() == many_blocks.counts.tolist()
    assert np.array_equal(one_block.entropies, many_blocks.entropies)


@pytest.mark.parametrize("connectivity", ["paper", "lattice"])
@pytest.mark.parametrize("method", ["grid", "auto"])
@pytest.mark.parametrize(("dimension", "n"), [(1, 30), (2, 9), (3, 5)])
def test_counts_in_boxes_equal_those_of_explicitly_evaluated_points(dimension, n, method, connectivity):
    torch.manual_seed(dimension)
    model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 4)).double()
    vertices = 4 * torch.randn(8, dimension + 1, 5, dtype=torch.float64)
    options = {"resolution": n, "method": method, "connectivity": connectivity}
    result = rc.count_regions(model, vertices, lattice="box", **options)
    box = np.empty((8, *[n] * dimension), int)
    for index in np.ndindex(*[n] * dimension):
        steps = torch.tensor(index, dtype=torch.float64).view(1, -1, 1) / (n - 1)
        points = vertices[:, 0] + (steps * (vertices[:, 1:] - vertices[:, :1])).sum(dim=1)
        box[(slice(None), *index)] = model(points).argmax(dim=1).numpy()
    assert result.counts.tolist() == rc.count_components(box, connectivity).tolist()
    triangle = rc.count_regions(model, vertices, **options)
    assert (triangle.counts.tolist() == result.counts.tolist()) == (dimension == 1)
    if dimension > 1:
        with pytest.raises(rc.InputError, match="differ in lattice, box and simplex"):
            result.paired_difference(triangle)


def test_models_that_return_numpy_labels_are_supported():
    model = lambda x: (x.numpy()[:, 0] > 0.5).astype(int)  # noqa: E731
    assert rc.count_regions(model, segment([0.0], [1.0])).counts.tolist() == [2]


def test_a_module_is_evaluated_in_evaluation_mode_and_restored():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    model[1].eval()
    before = [module.training for module in model.modules()]
    statistics = model[1].running_mean.clone()
    vertices = torch.randn(5, 2, 4)
    first, second = (rc.count_regions(model, vertices).counts.tolist() for _ in range(2))
    assert first == second  # no dropout
    assert [module.training for module in model.modules()] == before
    assert torch.equal(model[1].running_mean, statistics)


def test_counting_is_in_float32_under_autocast():
    """Autocast does not change the precision of the model's layers."""
    dtypes = []

    class Fine(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 2)

        def forward(self, x):
            dtypes.append(self.layer(x).dtype)
            return self.layer(x)

    with torch.autocast("cpu", torch.bfloat16):
        rc.count_regions(Fine(), torch.rand(1, 2, 1), method="grid")
    assert set(dtypes) == {torch.float32}


def test_settings_of_torch_are_restored():
    torch.set_float32_matmul_precision("high")
    try:
        rc.count_regions(nn.Linear(2, 2), torch.rand(1, 2, 2))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_whole_numbers_and_arrays_of_every_kind_are_accepted():
    vertices = np.random.default_rng(0).normal(size=(4, 2, 2)).astype(np.float32)
    expected = rc.count_regions(stripes(3), torch.from_numpy(vertices), resolution=50).counts.tolist()
    for array in (vertices, vertices[:, ::-1], np.asfortranarray(vertices), vertices.tolist()):
        counts = rc.count_regions(stripes(3), array, resolution=np.int64(50), batch_size=np.int64(3)).counts
        assert counts.tolist() == expected


def test_interval_and_standard_error():
    counts = np.array([1, 2, 2, 3, 5, 4])
    result = rc.RegionCount(counts, np.zeros(6), 1, 200, "paper", "grid", 1200)
    from scipy import stats

    low, high = stats.t.interval(0.9, 5, loc=counts.mean(), scale=stats.sem(counts))
    assert np.allclose(result.confidence_interval(0.9), (low, high))
    assert math.isclose(result.standard_error, stats.sem(counts))
    assert math.isnan(rc.RegionCount(counts[:1], np.zeros(1), 1, 200, "paper", "grid", 200).standard_error)


COUNT = rc.RegionCount(np.array([1, 2]), np.zeros(2), 1, 200, "paper", "grid", 400)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: rc.count_regions(stripes(1), torch.rand(2, 2, 2), resolution=1), "resolution=1"),
        (lambda: rc.count_regions(stripes(1), torch.rand(2, 2, 2), method="fast"), "method=fast"),
        (lambda: rc.count_regions(stripes(1), torch.rand(2, 2, 2), connectivity="all"), "connectivity=all"),
        (lambda: rc.count_regions(stripes(1), torch.rand(2, 2, 2), lattice="cube"), "lattice=cube"),
        (lambda: rc.count_regions(stripes(1), torch.rand(2, 6, 2), lattice="box", resolution=100), "10,000,000 points"),
        (lambda: rc.count_regions(nn.Linear(2, 2), torch.rand(2, 3, 2), lattice="box", method="exact"), "lattice=box"),
        (lambda: rc.count_regions(stripes(1), torch.rand(2, 1, 2)), "vertices of shape"),
        (lambda: rc.count_regions(stripes(1), torch.rand(2, 2)), "vertices of shape"),
        (lambda: rc.count_regions(stripes(1), torch.zeros(2, 2, 2, dtype=torch.uint8)), "floating point"),
        (lambda: rc.count_regions(lambda x: x[:, 0], torch.rand(2, 2, 2)), "integer labels"),
        (lambda: rc.count_regions(lambda x: x[:, :, None], torch.rand(2, 2, 2)), "shape"),
        (lambda: rc.count_regions(lambda x: x * math.nan, torch.rand(2, 2, 2)), "not a number"),
        (lambda: rc.sample_simplices(torch.rand(3, 2), 3), "4 are needed"),
        (lambda: rc.sample_simplices(torch.rand(3, 2), 0), "dimension=0"),
        (lambda: rc.sample_simplices(torch.rand(3, 2), 1, 0), "number=0"),
        (lambda: rc.extend_segments(torch.rand(2, 2, 3), 1.0, 1.0), "start"),
        (lambda: rc.shorten_segments(torch.rand(2, 3, 3)), "segments of shape"),
        (lambda: rc.random_directions(torch.rand(3, 2), 0.0), "scale"),
        (lambda: rc.count_regions(stripes(1), np.ma.masked_equal(np.float32([[[0], [99]]]), 99)), "masked array"),
        (lambda: rc.count_regions(lambda x: np.ma.ones(len(x), int), torch.rand(2, 2, 2)), "masked array"),
        (lambda: rc.count_regions(stripes(1), torch.rand(2, 2, 2).to(torch.float8_e5m2)), "float8"),
        (lambda: rc.count_regions(lambda x: x.to(torch.float8_e5m2), torch.rand(2, 2, 2)), "float8"),
        (lambda: rc.count_regions(lambda x: x.to("meta"), torch.rand(2, 2, 2)), "without values"),
        (lambda: rc.count_regions(lambda x: nn.Linear(2, 2, device="meta")(x), torch.rand(2, 2, 2)), "without values"),
        (lambda: rc.count_regions(lambda x: nn.LazyLinear(2)(x), torch.rand(2, 2, 2)), "without values"),
        (lambda: rc.count_regions(nn.Linear(2, 2), torch.rand(2, 2, 2), connectivity=np.array(["a", "b"])), "connectivity"),
        (lambda: rc.count_regions(nn.Linear(2, 2), torch.rand(2, 2, 2), method=np.array(["a", "b"])), "method"),
        (lambda: label_planes(None, torch.rand(2, 3, 2)), "the model is NoneType"),
        (lambda: label_planes(nn.Linear, torch.rand(2, 3, 2)), "the class Linear"),
        (lambda: rc.sample_simplices(torch.rand(3, 2), 1, None), "number=None"),
        (lambda: rc.sample_simplices(torch.tensor(1.0)), "N, "),
        (lambda: rc.sample_simplices(torch.rand(3, 2).to_sparse()), "dense"),
        (lambda: rc.shorten_segments(torch.rand(2, 2, 3), 0), "generator"),
        (lambda: rc.random_directions(torch.rand(3, 2), 0.1, 0), "generator"),
        (lambda: rc.random_directions(torch.tensor(1.0)), "of shape"),
        (lambda: rc.random_directions(torch.rand(3, 2), math.inf), "scale=inf"),
        (lambda: rc.random_directions(torch.rand(3, 2), True), "scale=True"),
        (lambda: rc.extend_segments(torch.rand(2, 2, 3), 0, math.inf), "stop=inf"),
        (lambda: rc.extend_segments(torch.rand(2, 2, 3), "0", "1"), "start='0'"),
        (lambda: COUNT.confidence_interval(None), "level=None"),
        (lambda: COUNT.confidence_interval([0.9]), "level"),
        (lambda: COUNT.paired_difference(None), "other"),
        (lambda: rc.measure(nn.Linear(2, 2), (torch.rand(3, 2, device="meta"), torch.zeros(3, dtype=int))), "no values"),
        (lambda: rc.measure(nn.Linear(2, 2), (torch.rand(3, 2), np.ma.zeros(3, int))), "masked"),
    ],
)
def test_invalid_input_raises_a_one_line_error(call, reason):
    with pytest.raises(rc.InputError, match=reason) as error:
        call()
    assert "\n" not in str(error.value)


@given(st.integers(2, 40), st.integers(1, 5), st.integers(1, 50), st.integers(0, 2**32))
def test_sampled_vertices_are_distinct_and_nested(population, dimension, number, seed):
    if population <= dimension:
        return
    indices = sample_indices(population, dimension, number, torch.Generator().manual_seed(seed))
    assert indices.shape == (number, dimension + 1)
    assert indices.min() >= 0
    assert indices.max() < population
    assert all(len(set(row)) == dimension + 1 for row in indices.tolist())
    longer = sample_indices(population, dimension, number + 7, torch.Generator().manual_seed(seed))
    assert torch.equal(longer[:number], indices)


def test_every_choice_of_vertices_is_equally_likely():
    indices = sample_indices(4, 2, 24_000, torch.Generator().manual_seed(0))
    from scipy.stats import chisquare

    ordered = (indices * torch.tensor([16, 4, 1])).sum(dim=1)
    _, counts = ordered.unique(return_counts=True)
    assert len(counts) == 4 * 3 * 2
    assert chisquare(counts.numpy()).pvalue > 1e-4


def test_segments_of_each_kind_have_the_right_ends():
    images = torch.randn(10, 3, 4, 4)
    g = torch.Generator().manual_seed(0)
    lines = rc.sample_simplices(images, 1, 20, g)
    long = rc.extend_segments(lines, -1, 2)
    assert torch.allclose(long[:, 0], 2 * lines[:, 0] - lines[:, 1], atol=1e-6)
    assert torch.allclose(long[:, 1], 2 * lines[:, 1] - lines[:, 0], atol=1e-6)
    short = rc.shorten_segments(lines, g)
    direction = lines[:, 1] - lines[:, 0]
    for end in range(2):  # (point - start) = t * direction with one t in [0, 1] for all coordinates
        t = ((short[:, end] - lines[:, 0]) * direction).flatten(1).sum(1) / direction.flatten(1).square().sum(1)
        assert ((t >= 0) & (t <= 1)).all()
        assert torch.allclose(short[:, end], lines[:, 0] + t.view(-1, 1, 1, 1) * direction, atol=1e-5)
    rays = rc.random_directions(images, 0.1, g)
    assert torch.equal(rays[:, 0], images)
    assert abs((rays[:, 1] - rays[:, 0]).std().item() - 0.1) < 0.02


def test_default_resolutions_are_the_papers():
    assert [default_resolution(d) for d in (1, 2, 3, 5)] == [200, 10, 5, 5]


def test_plane_grid_returns_the_positions_of_the_inputs():
    triangle = torch.randn(3, 2, 5, dtype=torch.float64)
    weights, positions = plane_grid(triangle, resolution=40)
    assert np.allclose(weights.sum(axis=1), 1)
    grid = (weights @ triangle.flatten(1).numpy()).reshape(40, 40, -1)
    step = np.linalg.norm(grid[0, 1] - grid[0, 0])
    assert np.isclose(np.linalg.norm(grid[1, 0] - grid[0, 0]), step)  # undistorted
    for corner, (x, y) in zip(triangle.flatten(1).numpy(), positions, strict=True):
        along, up = grid[0, 1] - grid[0, 0], grid[1, 0] - grid[0, 0]
        assert np.allclose(grid[0, 0] + x * along + y * up, corner)


@pytest.mark.parametrize("method", ["grid", "adaptive"])
def test_label_planes_shows_its_progress(monkeypatch, method):
    shown = []

    class Bar:
        def __init__(self, total, unit, delay):
            self.total, self.delay, self.done = total, delay, 0
            shown.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *raised):
            pass

        def update(self, points):
            self.done += points

    monkeypatch.setattr(planes, "progress_bar", Bar)
    label_planes(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.rand(2, 3, 2, 2), 30, method)
    (bar,) = shown
    assert bar.total == 2 * 30 * 30
    assert bar.delay > 0
    assert bar.done == bar.total if method == "grid" else 0 < bar.done < bar.total


def test_label_planes_labels_the_points_of_each_plane_grid():
    triangles = torch.randn(3, 3, 2, 5, dtype=torch.float64)
    labels, positions = label_planes(lambda x: (x.flatten(1)[:, 0] > 0).long(), triangles, 40)
    for triangle, plane_labels, vertex_positions in zip(triangles, labels, positions, strict=True):
        weights, expected = plane_grid(triangle, 40)
        assert np.array_equal(vertex_positions, expected)
        inputs = (weights @ triangle.flatten(1).numpy()).reshape(40, 40, -1)
        assert plane_labels.tolist() == (inputs[:, :, 0] > 0).astype(int).tolist()


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_a_lattice_that_is_too_large_is_refused(dimension):
    vertices = torch.zeros(1, dimension + 1, 3)
    for resolution in (10**8, 2**70):
        with pytest.raises(rc.InputError, match=rf"resolution={resolution}: the lattice of a {dimension}-dimensional"):
            rc.count_regions(nn.Identity(), vertices, resolution=resolution)


@pytest.mark.parametrize("method", ["exact", "bounds"])
def test_a_network_without_operations_is_one_piece(method):
    lines = torch.randn(6, 2, 4, generator=torch.Generator().manual_seed(0))
    expected = rc.count_regions(nn.Flatten(), lines, method="grid", resolution=5000).counts
    assert rc.count_regions(nn.Flatten(), lines, method=method).counts.tolist() == expected.tolist()


@pytest.mark.parametrize(
    "call",
    [
        lambda images: rc.sample_simplices(images, dimension=1.0),
        lambda images: rc.sample_simplices(images, dimension="1"),
        lambda images: rc.sample_simplices(images, dimension=0),
        lambda images: rc.sample_simplices(images, number=2.5),
        lambda images: rc.sample_simplices(images, number=True),
        lambda images: rc.sample_simplices(images, generator=0),
        lambda images: rc.sample_simplices("images"),
        lambda images: rc.random_directions((10 * images).long()),
        lambda images: rc.random_directions(images.long().numpy()),
        lambda images: rc.random_directions(images, scale="a"),
        lambda images: rc.random_directions(images, scale=0),
        lambda images: rc.shorten_segments((10 * images[:, None].repeat(1, 2, 1)).long()),
        lambda images: rc.extend_segments(images.numpy()),
    ],
)
def test_invalid_arguments_of_subspaces_are_refused_in_one_line(call):
    with pytest.raises(rc.InputError) as refused:
        call(torch.rand(10, 4))
    assert "\n" not in str(refused.value)


def test_the_error_of_a_difference_is_paired():
    from scipy import stats

    one, other = np.array([1, 2, 2, 3, 5, 4]), np.array([2, 2, 3, 3, 6, 6])
    results = [rc.RegionCount(counts, np.zeros(6), 1, 200, "paper", "grid", 1200) for counts in (one, other)]
    difference, error = results[0].paired_difference(results[1])
    assert difference == pytest.approx(one.mean() - other.mean())
    assert difference / error == pytest.approx(stats.ttest_rel(one, other).statistic)
    assert error < math.hypot(*(result.standard_error for result in results))
    with pytest.raises(rc.InputError, match="differ in resolution, 200 and 100"):
        results[0].paired_difference(rc.RegionCount(other, np.zeros(6), 1, 100, "paper", "grid", 600))
    with pytest.raises(rc.InputError, match="6 and 5 subspaces"):
        results[0].paired_difference(rc.RegionCount(other[1:], np.zeros(5), 1, 200, "paper", "grid", 1000))


def test_arrays_of_images_span_the_simplices_of_tensors():
    images = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    drawn = [rc.sample_simplices(i, 2, 5, torch.Generator().manual_seed(1)) for i in (images, images.numpy())]
    assert torch.equal(*drawn)
    for change in (rc.shorten_segments, rc.random_directions):
        changed = [
            change(i[:8].reshape(4, 2, 2), generator=torch.Generator().manual_seed(1)) for i in (images, images.numpy())
        ]
        assert torch.equal(*changed)
    assert torch.equal(*(rc.extend_segments(i[:8].reshape(4, 2, 2)) for i in (images, images.numpy())))
    with pytest.raises(rc.InputError, match=r"generator=3: pass a generator, such as torch.Generator\(\).manual_seed\(3\)"):
        rc.sample_simplices(images, generator=3)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("model", "remedy"),
    [
        (lambda x: x[:, 0], "lambda x: model(x)[:, None]"),
        (lambda x: (x[:, :1] > 0).long(), "lambda x: model(x).squeeze(1)"),
    ],
)
def test_outputs_of_another_shape_are_refused_with_a_remedy(model, remedy):
    segments = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(rc.InputError, match=re.escape(remedy)):
        rc.count_regions(model, segments)
    fixed = eval(remedy, {"model": model})
    assert rc.count_regions(fixed, segments).mean >= 1
