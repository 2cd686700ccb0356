"""Adaptive labels and screening, compared with the full grid."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import regioncount as rc
from regioncount import models
from regioncount.regions import adaptive, screening
from regioncount.regions.adaptive import adaptive_labels
from regioncount.regions.lattice import index_grid, simplex_lattice

CPU = torch.device("cpu")


def box(dimension, resolution):
    return np.arange(resolution**dimension).reshape([resolution] * dimension)


def triangle(dimension, resolution):
    return index_grid(simplex_lattice(dimension, resolution), resolution)


def lookup(logits):
    """Return a function that looks up logits (S, P, C), and the list of the points it has evaluated."""
    evaluated = []

    def evaluate(subspace, point, expected):
        assert len(expected) == len(subspace)
        evaluated.extend(zip(subspace.tolist(), point.tolist(), strict=True))
        return logits[subspace, point]

    return evaluate, evaluated


shapes = st.sampled_from([(box, 1, 2), (box, 1, 50), (box, 2, 23), (box, 3, 9), (triangle, 2, 30), (triangle, 3, 21)])


@given(shapes, st.integers(2, 5), st.integers(0, 1000))
def test_every_point_is_evaluated_once_if_no_cell_is_certified(shape, classes, seed):
    """With a prohibitive safety factor, every lattice point must be evaluated exactly once."""
    kind, dimension, resolution = shape
    table = kind(dimension, resolution)
    logits = torch.rand(3, int(table.max()) + 1, classes, generator=torch.Generator().manual_seed(seed))
    evaluate, evaluated = lookup(logits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaptive, "SAFETY", (1e9, 1e9, 1e9))
        labels = adaptive_labels(evaluate, 3, table, CPU)
    assert torch.equal(labels, logits.argmax(dim=2))
    assert len(evaluated) == len(set(evaluated)) == 3 * (int(table.max()) + 1)


@given(shapes, st.integers(2, 5), st.integers(0, 1000))
def test_affine_logits_are_labelled_exactly(shape, classes, seed):
    """Regions of affine logits are convex: a cell whose corners share a label lies in one region."""
    kind, dimension, resolution = shape
    table = kind(dimension, resolution)
    points = torch.tensor(np.argwhere(table >= 0)[np.argsort(table[table >= 0])], dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    slopes = torch.randn(4, dimension, classes, generator=generator, dtype=torch.float64)
    logits = (points - points.mean(dim=0)) @ slopes + torch.randn(4, 1, classes, generator=generator, dtype=torch.float64)
    evaluate, evaluated = lookup(logits)
    labels = adaptive_labels(evaluate, 4, table, CPU)
    assert torch.equal(labels, logits.argmax(dim=2))
    assert len(evaluated) == len(set(evaluated))


@pytest.mark.parametrize(
    ("kind", "dimension", "resolution", "share"), [(box, 1, 2000, 0.02), (box, 2, 200, 0.06), (triangle, 2, 200, 0.15)]
)
def test_few_points_are_evaluated_where_labels_change_once(kind, dimension, resolution, share):
    table = kind(dimension, resolution)
    points = torch.tensor(np.argwhere(table >= 0)[np.argsort(table[table >= 0])], dtype=torch.float64) / (resolution - 1)
    lead = points.sum(dim=1) - 0.4
    logits = torch.stack([lead, -lead], dim=1)[None]
    evaluate, evaluated = lookup(logits)
    assert torch.equal(adaptive_labels(evaluate, 1, table, CPU), logits.argmax(dim=2))
    assert len(evaluated) < share * logits.shape[1]


def test_a_thin_region_between_coarse_corners_is_detected():
    """The bump is one and a half lattice steps wide; its flanks reach the corners of the coarse sub-lattice."""
    t = torch.arange(200, dtype=torch.float64)
    bump = 5 * torch.exp(-(((t - 101) / 20) ** 2)) - 4.98
    logits = torch.stack([torch.zeros(200, dtype=torch.float64), bump], dim=1)[None]
    evaluate, evaluated = lookup(logits)
    labels = adaptive_labels(evaluate, 1, box(1, 200), CPU)
    assert 1 <= (logits.argmax(dim=2) == 1).sum() <= 5
    assert torch.equal(labels, logits.argmax(dim=2))
    assert len(evaluated) < 60


class Network(nn.Module):
    """A small convolutional network with batch normalization whose statistics are as after training."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.norm = nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16)
        self.second, self.head = nn.Conv2d(16, 16, 3), nn.Linear(16, 4)
        self.norm(self.first(torch.randn(64, 1, 8, 8)))  # running statistics
        with torch.no_grad():
            self.norm.weight.uniform_(0.5, 2)
            self.head.weight.mul_(10)
        self.eval()

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        return self.head(torch.relu(self.second(x)).mean(dim=(2, 3)))


VERTICES = 2 * torch.randn(60, 2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def with_bfloat16(monkeypatch):
    """Enable bfloat16 screening on any hardware."""
    monkeypatch.setattr(screening, "fast_bfloat16", lambda device: True)


@pytest.mark.usefixtures("with_bfloat16")
@pytest.mark.parametrize("seed", range(5))
def test_auto_agrees_with_grid_and_does_not_change_the_model(seed):
    model = Network(seed)
    before = copy.deepcopy(model.state_dict())
    model.train()
    grid, auto = (rc.count_regions(model, VERTICES, method=method) for method in ("grid", "auto"))
    assert auto.counts.tolist() == grid.counts.tolist()
    assert np.allclose(auto.entropies, grid.entropies)
    assert (auto.method, grid.method) == ("adaptive", "grid")
    assert auto.screening_bound > 0
    assert grid.screening_bound is None
    assert auto.evaluations < grid.evaluations / 2
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.usefixtures("with_bfloat16")
def test_points_near_a_boundary_get_their_label_from_float32():
    """bfloat16 rounds these logits to ties: bfloat16 labels alone would move the boundary."""

    class Close(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return torch.stack([100 + 0 * x[:, 0], 100 + self.weight * (x[:, 0] - 0.3)], dim=1)

    vertices = torch.tensor([[[-10.0], [10.0]]])
    grid, auto = (rc.count_regions(Close(), vertices, method=method) for method in ("grid", "auto"))
    assert auto.counts.tolist() == grid.counts.tolist() == [2]
    assert auto.entropies == pytest.approx(grid.entropies)


OTHERS = ("mlp", "torchvision", "timm", "huggingface", "vision_transformer")
WITH_BATCH_NORMALIZATION = [n for n in models.names() if n not in OTHERS]


@pytest.mark.parametrize("name", WITH_BATCH_NORMALIZATION)
def test_folding_does_not_change_the_function(name):
    torch.manual_seed(0)
    model = models.build(name, width=8)
    model.train()(torch.randn(32, 3, 32, 32))  # running statistics that are not 0 and 1
    model.eval()
    inputs = torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        logits = model(inputs)
        prepared = screening.prepare(screening.Preparation(model), inputs, logits, batch_size=8)
        assert prepared.float32 is not model
        assert torch.allclose(prepared.float32(inputs), logits, rtol=1e-3, atol=1e-5 * logits.abs().max().item())
    normalizations = [sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) for net in (model, prepared.float32)]
    assert normalizations[1] < normalizations[0]


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_auto_agrees_with_grid_for_folded_convolutions_of_any_dimension(dimensions):
    torch.manual_seed(dimensions)
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
    normalization = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dimensions - 1]
    model = nn.Sequential(convolution(1, 4, 3), normalization(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
    inputs = torch.randn(64, 1, *[6] * dimensions)
    model(inputs)  # in training mode, which updates the running statistics
    model.eval()
    with torch.no_grad():
        prepared = screening.prepare(screening.Preparation(model), inputs, model(inputs), batch_size=16)
    assert not any(isinstance(module, normalization) for module in prepared.float32.modules())
    vertices = rc.sample_simplices(3 * inputs, 1, 20, torch.Generator().manual_seed(0))
    auto, grid = (rc.count_regions(model, vertices, method=method) for method in ("auto", "grid"))
    assert (auto.counts == grid.counts).all()
    assert grid.mean > 1


def test_a_module_that_cannot_be_folded_is_counted_without_folding():
    class Shared(nn.Module):
        """Two normalizations follow one convolution: folding both into it would be wrong."""

        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 4, 3)
            self.first, self.second = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
            self.first.running_mean += 0.5
            self.second.running_var += 2

        def forward(self, x):
            return (self.first(self.layer(x)).relu() - self.second(self.layer(x))).mean(dim=(2, 3))

    class Branching(Shared):
        def forward(self, x):
            return super().forward(x if x.mean() < 100 else -x)

    for model in (Shared(), Branching()):
        grid, auto = (rc.count_regions(model, VERTICES, method=method) for method in ("grid", "auto"))
        assert auto.method == "adaptive"
        assert auto.counts.tolist() == grid.counts.tolist()


@pytest.mark.usefixtures("with_bfloat16")
def test_a_module_that_does_not_support_bfloat16_is_not_screened():
    class Strict(Network):
        def forward(self, x):
            if self.head.weight.dtype == torch.bfloat16:
                raise RuntimeError("not implemented for BFloat16")
            return super().forward(x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screening, "folded", lambda model: None)
        result = rc.count_regions(Strict(), VERTICES)
    assert result.screening_bound is None
    assert result.counts.tolist() == rc.count_regions(Strict(), VERTICES, method="grid").counts.tolist()


def test_auto_uses_grid_unless_a_module_returns_logits():
    class Labels(nn.Module):
        def forward(self, x):
            return (x.flatten(1)[:, 0] > 0).long()

    for model in (Labels(), Labels().forward, Network().forward):
        assert rc.count_regions(model, VERTICES[:3]).method == "grid"
    assert rc.count_regions(Network().forward, VERTICES[:3], method="adaptive").method == "adaptive"
    with pytest.raises(rc.InputError, match="needs logits"):
        rc.count_regions(Labels(), VERTICES[:3], method="adaptive")


@pytest.mark.parametrize("method", ["auto", "grid", "adaptive"])
def test_nan_logits_are_rejected(method):
    model = Network()
    with torch.no_grad():
        model.head.bias[0] = torch.nan
    with pytest.raises(rc.InputError, match="not a number"):
        rc.count_regions(model, VERTICES[:3], method=method)


def test_batches_have_few_shapes():
    shapes = set()
    model = Network()
    model.register_forward_pre_hook(lambda module, inputs: shapes.add(len(inputs[0])))
    rc.count_regions(model, VERTICES, method="adaptive", batch_size=32)
    assert shapes <= {1, 2, 8, 16, 24, 32}  # 1 and 2 in the check of the model


def test_blocks_do_not_change_adaptive_counts(monkeypatch):
    one_block = rc.count_regions(Network(), VERTICES)
    monkeypatch.setattr("regioncount.regions.labelling.BLOCK_VALUES", 8000)
    many_blocks = rc.count_regions(Network(), VERTICES)
    assert one_block.counts.tolist() == many_blocks.counts.tolist()
    assert one_block.screening_bound == many_blocks.screening_bound


@pytest.mark.parametrize("dimension", [2, 3])
def test_adaptive_counts_in_planes_and_simplices(dimension):
    vertices = 2 * torch.randn(5, dimension + 1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    resolution = {2: 60, 3: 24}[dimension]
    grid, auto = (rc.count_regions(Network(), vertices, resolution=resolution, method=m) for m in ("grid", "auto"))
    assert auto.counts.tolist() == grid.counts.tolist()
    assert auto.evaluations < grid.evaluations
