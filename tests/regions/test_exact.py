"""Exact counts on lines, held against closed forms and against dense lattices."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import regioncount as rc
from regioncount.commands import compose, hydra_ready
from regioncount.config import parse_run
from regioncount.errors import InputError
from regioncount.regions import exact
from regioncount.regions.bounds import bounded_lines
from regioncount.regions.exact import exact_lines, upper_envelope
from regioncount.regions.piecewise import trace
from regioncount.regions.triangles import exact_planes
from regioncount.runs import describe, runner
from regioncount.runs.measurements import measured_values

pytestmark = pytest.mark.slow

SHAPE = (2, 6, 6)


class Residual(nn.Module):
    """Sums, concatenation, slices, shuffled channels and functional calls."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
        self.normalize, self.last = nn.BatchNorm2d(4), nn.Linear(4 * 9, 3)

    def forward(self, x):
        x = functional.relu(self.normalize(self.first(x)))
        left, right = x.chunk(2, dim=1)
        x = torch.cat([left, torch.relu_(self.second(right)) + right], dim=1)
        x = x.view(x.size(0), 2, 2, 6, 6).transpose(1, 2).reshape(x.size(0), 4, 6, 6)
        x = functional.max_pool2d(functional.pad(x, (0, 1, 0, 1)), 2, 2, padding=1)[:, :, :3, :3]
        return self.last((2 * x - 0.1).flatten(1)).clamp(-0.5, 0.6)


class Signs(nn.Module):
    """Differences and products, of either sign."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 4, 3), nn.Linear(32, 3)
        self.factors = nn.Parameter(torch.randn(16, 16))

    def forward(self, x):
        x = functional.leaky_relu(self.first(x), 0.2)
        x = (x[:, :2] - x[:, 2:] / -3).flatten(1)
        x = torch.relu(0.5 - torch.stack([x[:, :16] @ self.factors, x[:, 16:] * self.factors[0]], dim=2))
        return -self.last(x.flatten(1) - x.mean(dim=(1, 2)).unsqueeze(1))


NETWORKS = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 4)),
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 9), nn.ReLU(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 4)),
    "leaky": lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 9), nn.LeakyReLU(0.3), nn.Linear(9, 3)),
    "kinks": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(72, 9), nn.PReLU(9), nn.Linear(9, 9), nn.ReLU6(), nn.Linear(9, 3)
    ),
    "pooled": lambda: nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.MaxPool2d(3, 2, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(inplace=True),
        nn.Conv2d(3, 4, 3, bias=False),
        nn.AvgPool2d(1),
        nn.Hardtanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(4, 3),
    ),
    "dilated": lambda: nn.Sequential(nn.MaxPool2d(2, 1, dilation=2), nn.Flatten(), nn.Linear(32, 3)),
    "residual": Residual,
    "signs": Signs,
}


def network(name: str, seed: int) -> nn.Module:
    """Weights, and statistics of batch normalization, that make several regions likely."""
    torch.manual_seed(seed)
    model = NETWORKS[name]()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.2, 2)
                module.weight.normal_(1, 0.3)
            if isinstance(module, nn.Linear):
                module.weight.mul_(3)
                module.bias.normal_()
    return model


def labels_at(model: nn.Module, line: torch.Tensor, places) -> np.ndarray:
    model = model.double().eval()
    weight = torch.as_tensor(places).view(-1, *[1] * (line.dim() - 1))
    with torch.no_grad():
        return model(torch.lerp(line[0].double(), line[1].double(), weight)).argmax(dim=1).numpy()


def check(model: nn.Module, lines: torch.Tensor, found: exact.ExactLines, points: int = 400) -> None:
    """The labels at lattice points, in the middle of each region, and on both sides of each boundary."""
    assert (found.proved == 1).all()
    for number, line in enumerate(lines):
        own = found.line == number
        start, stop, label = found.start[own], found.stop[own], found.label[own]
        assert start[0] == 0
        assert stop[-1] == 1
        assert (start[1:] == stop[:-1]).all()
        assert (label[1:] != label[:-1]).all()
        assert len(label) == found.counts[number]
        places = np.linspace(0, 1, points)
        clear = np.abs(places[:, None] - np.append(start, stop)[1:-1]).min(axis=1, initial=1) > 1e-9
        expected = label[np.searchsorted(start, places, side="right") - 1]
        assert (labels_at(model, line, places) == expected)[clear].all()
        assert (labels_at(model, line, (start + stop) / 2) == label).all()
        near = np.minimum(1e-7, (stop - start) / 3)
        assert (labels_at(model, line, stop - near) == label).all()
        assert (labels_at(model, line, start + near) == label).all()


@settings(max_examples=20)  # each is traced
@given(name=st.sampled_from(sorted(NETWORKS)), seed=st.integers(0, 10**6))
def test_regions_have_the_labels_that_the_network_gives_there(name, seed):
    model = network(name, seed)
    lines = 3 * torch.randn(10, 2, *SHAPE)
    check(model, lines, exact_lines(model, lines))


def affine_pieces(model: nn.Module, line: torch.Tensor, points: int) -> int:
    """Signs of all hidden units that follow each other on a lattice: a number that is right where no piece is too short."""
    signs = []
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: signs.append(inputs[0] > 0))
        for module in model.modules()
        if isinstance(module, nn.ReLU)
    ]
    labels_at(model, line, np.linspace(0, 1, points))
    for hook in hooks:
        hook.remove()
    pattern = torch.cat(signs, dim=1)
    return 1 + int((pattern[1:] != pattern[:-1]).any(dim=1).sum())


def test_pieces_are_those_that_a_dense_lattice_sees():
    model, lines = network("mlp", 3), torch.randn(5, 2, *SHAPE)
    pieces = exact_lines(model, lines).pieces
    assert [affine_pieces(model, line, 20_000) for line in lines] == pieces.tolist()
    assert pieces.min() > 5


def tent(depth: int) -> nn.Sequential:
    """The tent map composed `depth` times, from [0, 1] to [0, 1], with the label whether it is above a half."""
    layers = []
    for _ in range(depth):
        up, down = nn.Linear(1, 2), nn.Linear(2, 1, bias=False)
        up.weight.data, up.bias.data = torch.tensor([[1.0], [1.0]]), torch.tensor([0.0, -0.5])
        down.weight.data = torch.tensor([[2.0, -4.0]])
        layers += [up, nn.ReLU(), down]
    last = nn.Linear(1, 2)
    last.weight.data, last.bias.data = torch.tensor([[0.0], [1.0]]), torch.tensor([0.5, 0.0])
    return nn.Sequential(*layers, last)


@pytest.mark.parametrize("depth", [1, 2, 5, 12])
def test_the_composed_tent_map_has_its_regions(depth):
    """It passes a half once on each of its 2^depth pieces, (i + 1/2) / 2^depth from the left."""
    found = exact_lines(tent(depth), torch.tensor([[[0.0], [1.0]]]))
    assert found.pieces.tolist() == [2**depth]
    assert found.counts.tolist() == [2**depth + 1]
    assert np.allclose(found.boundaries(0), (np.arange(2**depth) + 0.5) / 2**depth, rtol=0, atol=1e-12)
    shares = np.array([0.5, *[1.0] * (2**depth - 1), 0.5]) / 2**depth
    assert np.isclose(found.entropies[0], -(shares * np.log(shares)).sum())


def test_a_region_thinner_than_the_lattice_is_found():
    width = 1e-6

    class Spike(nn.Module):
        def forward(self, x):
            return torch.cat([(x - 0.3).abs(), torch.full_like(x, width / 2)], dim=1)

    model = Spike()
    lines = torch.tensor([[[0.0], [1.0]]], dtype=torch.float64)
    assert rc.count_regions(model, lines, method="grid").counts.tolist() == [1]
    found = rc.count_regions(model, lines, method="exact")
    assert found.counts.tolist() == [3]
    assert np.allclose(found.exact.boundaries(0), [0.3 - width / 2, 0.3 + width / 2], rtol=0, atol=1e-12)


def test_ties_go_to_the_lowest_index():
    class Tied(nn.Module):
        def forward(self, x):
            return torch.cat([x - x, (x - 0.5).relu(), (x - 0.5).relu(), (x - 0.5).relu() - (x - 2).relu()], dim=1)

    found = exact_lines(Tied(), torch.tensor([[[0.0], [1.0]]]))
    assert found.label.tolist() == [0, 1]
    assert found.boundaries(0).tolist() == [0.5]


def test_a_line_of_no_length_is_one_region():
    model = network("mlp", 0)
    lines = torch.randn(1, 1, *SHAPE).repeat(1, 2, 1, 1, 1)
    found = exact_lines(model, lines)
    assert found.counts.tolist() == found.pieces.tolist() == [1]


@settings(max_examples=20)  # each is traced
@given(seed=st.integers(0, 10**6), values=st.integers(100, 3000), name=st.sampled_from(["mlp", "pooled"]))
def test_how_many_points_are_carried_at_once_changes_nothing(seed, values, name):
    model = network(name, seed)
    lines = torch.randn(4, 2, *SHAPE)
    whole = exact_lines(model, lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(exact.CHUNK_VALUES, "cpu", values)
        parts = exact_lines(model, lines)
    assert (parts.counts == whole.counts).all()
    assert (parts.pieces == whole.pieces).all()
    assert (parts.proved == 1).all()
    assert np.allclose(parts.start, whole.start, rtol=0, atol=1e-11)


@settings(max_examples=20)  # each is traced
@given(budget=st.integers(1, 400), seed=st.integers(0, 10**6))
def test_a_budget_proves_less_and_claims_no_more(budget, seed):
    model = network("mlp", seed)
    lines = 3 * torch.randn(5, 2, *SHAPE)
    whole = exact_lines(model, lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(exact.CHUNK_VALUES, "cpu", 600)
        part = exact_lines(model, lines, budget)
    assert (part.counts <= whole.counts).all()
    assert (part.pieces <= whole.pieces).all()
    assert ((part.proved >= 0) & (part.proved <= 1)).all()
    assert (np.isnan(part.entropies) == (part.proved < 1)).all()
    covered = np.bincount(part.line, weights=part.stop - part.start, minlength=5)
    assert np.allclose(covered, part.proved, rtol=0, atol=1e-9)
    for line, start, stop, label in zip(part.line, part.start, part.stop, part.label, strict=True):
        inside = (whole.line == line) & (whole.start < stop - 1e-9) & (whole.stop > start + 1e-9)
        assert (whole.label[inside] == label).all()
    if 3 * whole.evaluations <= budget:  # points at which parts meet are evaluated twice
        assert (part.proved == 1).all()


@settings(max_examples=30)  # each is traced
@given(name=st.sampled_from(sorted(NETWORKS)), seed=st.integers(0, 10**6), length=st.sampled_from([0.01, 0.3, 3.0]))
def test_bounds_give_the_exact_regions(name, seed, length):
    model = network(name, seed)
    lines = torch.randn(6, 2, *SHAPE)
    lines[:, 1] = lines[:, 0] + length * lines[:, 1]  # the shorter, the more is proved without cutting
    found, expected = bounded_lines(model, lines), exact_lines(model, lines)
    assert (found.line == expected.line).all()
    assert (found.label == expected.label).all()
    assert np.allclose(found.start, expected.start, rtol=0, atol=1e-10)
    assert np.allclose(found.entropies, expected.entropies, rtol=0, atol=1e-8)
    assert (found.counts == expected.counts).all()
    assert (found.most == expected.counts).all()
    assert (found.proved == 1).all()


@settings(max_examples=30)  # each is traced
@given(budget=st.integers(1, 600), seed=st.integers(0, 10**6), name=st.sampled_from(["mlp", "pooled", "signs"]))
def test_with_a_budget_the_count_lies_between_the_bounds(budget, seed, name):
    model, lines = network(name, seed), 2 * torch.randn(5, 2, *SHAPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(exact.CHUNK_VALUES, "cpu", 3000)
        part = bounded_lines(model, lines, budget)
    whole = exact_lines(model, lines)
    assert (part.counts <= whole.counts).all()
    assert (part.most >= whole.counts).all()
    assert (part.most[part.proved == 1] == whole.counts[part.proved == 1]).all()
    covered = np.bincount(part.line, weights=part.stop - part.start, minlength=5)
    assert np.allclose(covered, part.proved, rtol=0, atol=1e-9)
    for line, start, stop, label in zip(part.line, part.start, part.stop, part.label, strict=True):
        inside = (whole.line == line) & (whole.start < stop - 1e-9) & (whole.stop > start + 1e-9)
        assert (whole.label[inside] == label).all()


def test_where_no_neuron_passes_zero_two_labels_are_two_regions():
    line = torch.tensor([[[-1.0], [1.0]]])
    linear = nn.Linear(1, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        linear.bias.zero_()
    found = bounded_lines(nn.Sequential(linear), line, budget=4)  # enough for bounds, not for where the boundary is
    assert found.proved.tolist() == [0]
    assert (found.counts.tolist(), found.most.tolist()) == ([1], [2])


def test_bounds_take_fewer_evaluations_than_there_are_pieces():
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(2, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(64, 64, 3), nn.ReLU()]
    model, lines = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(64, 3)), torch.randn(4, 2, *SHAPE)
    found, expected = bounded_lines(model, lines), exact_lines(model, lines)
    assert (found.counts == expected.counts).all()
    assert found.evaluations < expected.pieces.sum() / 2


@pytest.mark.parametrize(
    ("activation", "named"), [(torch.abs, "abs"), (lambda x: functional.leaky_relu(x, -0.5), "leaky_relu")]
)
def test_bounds_refuse_what_is_not_monotone(activation, named):
    class Folded(nn.Module):
        def forward(self, x):
            return activation(x.flatten(1))

    with pytest.raises(InputError, match=f"method=bounds cannot follow {named}, which decreases"):
        bounded_lines(Folded(), torch.randn(1, 2, *SHAPE))
    assert exact_lines(Folded(), torch.randn(1, 2, *SHAPE)).proved.tolist() == [1]


def test_a_budget_that_is_too_small_leaves_something_open():
    model, lines = network("mlp", 0), torch.randn(5, 2, *SHAPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(exact.CHUNK_VALUES, "cpu", 600)
        part = exact_lines(model, lines, 30)
    assert 0 < part.proved.mean() < 1
    assert (part.counts >= 1).all()


@given(
    st.integers(1, 5).flatmap(lambda lines: st.lists(st.tuples(*[st.integers(-4, 4)] * 2 * lines), min_size=1, max_size=4))
)
def test_the_upper_envelope_is_the_highest_line(sets):
    ends = torch.tensor(sets, dtype=torch.float64)
    first, last = ends.chunk(2, dim=1)
    row, begin, top = upper_envelope(first, last)
    for number in range(len(first)):
        own = [(float(begin[i]), int(top[i])) for i in range(len(row)) if row[i] == number]
        own.sort()
        assert own[0][0] == 0
        places = [*(at for at, _ in own), 1.0]
        for (at, line), until in zip(own, places[1:], strict=True):
            for share in (0.25, 0.5, 0.75):
                place = at + share * (until - at)
                heights = torch.lerp(first[number], last[number], torch.tensor(place, dtype=torch.float64))
                assert heights[line] >= heights.max() - 1e-12
        assert len({line for _, line in own}) == len(own)  # a line that was overtaken stays below


class Functional(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function, self.linear = function, nn.Linear(4, 4)

    def forward(self, x):
        return self.function(self.linear(x))


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (torch.sigmoid, "sigmoid"),
        (functional.gelu, "gelu"),
        (functional.silu, "silu"),
        (lambda x: functional.softmax(x, dim=1), "softmax"),
        (lambda x: x * x, "mul"),
        (lambda x: functional.linear(x, x), "linear"),
        (lambda x: x.clamp(max=torch.ones(4, dtype=x.dtype)), "clamp"),
        (lambda x: x / x.abs(), "div"),
        (lambda x: x.relu() @ x.T, "permute|transpose|numpy_T"),
        (lambda x: x - x.mean(dim=0, keepdim=True), "mean"),
        (lambda x: functional.layer_norm(x, (4,)), "layer_norm"),
        (lambda x: x.argmax(dim=1), "argmax|logits"),
        (lambda x: x if x.sum() > 0 else -x, "trace"),
        (lambda x: functional.max_pool2d(x.view(-1, 1, 2, 2), 2, ceil_mode=True).flatten(1), "ceil_mode"),
    ],
)
def test_other_operations_are_refused_by_name(function, named):
    with pytest.raises(InputError, match=named):
        exact_lines(Functional(function), torch.randn(1, 2, 4))


@pytest.mark.parametrize("name", ["senet18", "efficientnet_b0", "vision_transformer"])
def test_networks_with_gates_or_attention_are_refused(name):
    model = rc.models.build(name, image_size=(32, 32), width=16)
    with pytest.raises(InputError, match="an exact count cannot follow"):
        trace(model, torch.Size((3, 32, 32)))


@pytest.mark.parametrize("name", ["resnet18", "shufflenetv2", "simple_dla", "small_cnn"])
def test_our_networks_are_followed(name):
    torch.manual_seed(0)
    model = rc.models.build(name, image_size=(8, 8), width=4)
    lines = torch.randn(1, 2, 3, 8, 8)
    check(model, lines, exact_lines(model, lines), points=50)


def test_callables_and_lattices_are_refused():
    lines = torch.randn(1, 2, 4)
    with pytest.raises(InputError, match="torch module"):
        rc.count_regions(lambda x: x, lines, method="exact")
    with pytest.raises(InputError, match="lines need vertices"):
        exact_lines(nn.Linear(4, 2), torch.randn(1, 3, 4))
    with pytest.raises(InputError, match="triangles need vertices"):
        exact_planes(nn.Linear(4, 2), torch.randn(1, 2, 4))
    with pytest.raises(InputError, match="resolution=200"):
        rc.count_regions(nn.Linear(4, 2), lines, method="exact", resolution=200)
    with pytest.raises(InputError, match="budget=5"):
        rc.count_regions(nn.Linear(4, 2), lines, budget=5)
    with pytest.raises(InputError, match="budget=0"):
        rc.count_regions(nn.Linear(4, 2), lines, method="exact", budget=0)
    broken = nn.Linear(4, 2)
    broken.weight.data[0, 0] = torch.nan
    with pytest.raises(InputError, match="not a number"):
        rc.count_regions(broken, lines, method="exact")


def test_the_model_is_left_as_it_was():
    model = network("pooled", 0).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    exact_lines(model, torch.randn(1, 2, *SHAPE))
    assert all(module.training for module in model.modules())
    assert all(value.dtype == before[name].dtype and value.equal(before[name]) for name, value in model.state_dict().items())


def configured(tmp_path, *options):
    small = ["model=mlp", "model.width=16", "dataset.train_size=60", "dataset.test_size=50", "epochs=1", "regions=[line]"]
    with hydra_ready():
        return parse_run(compose("train", [*small, "regions.method=exact", f"results={tmp_path}", *options]))


def test_a_run_is_measured_exactly_and_a_bound_is_no_count(tmp_path):
    whole, bounded = configured(tmp_path), configured(tmp_path, "regions.budget=1")
    job = runner.prepare(whole)
    found = runner.run_or_resume(job)
    row = measured_values(found, whole, job.dataset)
    assert row["region_share_proved_line"] == 1
    assert row["region_count_line"] >= 1
    arrays = found.region_arrays()
    (kept,) = (key.removesuffix("/line") for key in arrays if key.endswith("/line"))
    assert np.bincount(arrays[f"{kept}/line"]).mean() == row["region_count_line"]
    assert "proved line %" in describe.describe(found, whole, job.dataset, [1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(exact.CHUNK_VALUES, "cpu", 600)
        found = runner.run_or_resume(runner.prepare(bounded))
    row = measured_values(found, bounded, job.dataset)
    assert row["region_share_proved_line"] < 1
    assert row["region_count_line_at_least"] >= 1
    assert "region_count_line" not in row
    assert "region_count_line_at_most" not in row
    assert "at least" in describe.describe(found, bounded, job.dataset, [1])


def test_a_run_is_measured_by_bounds(tmp_path):
    exactly = configured(tmp_path)
    job = runner.prepare(exactly)
    expected = measured_values(runner.run_or_resume(job), exactly, job.dataset)
    config = configured(tmp_path, "regions.method=bounds")
    row = measured_values(runner.run_or_resume(runner.prepare(config)), config, job.dataset)
    assert row["region_count_line"] == expected["region_count_line"]
    assert "affine_pieces_line" not in row

    config = configured(tmp_path, "regions.method=bounds", "regions.budget=1")
    found = runner.run_or_resume(runner.prepare(config))
    row = measured_values(found, config, job.dataset)
    assert row["region_count_line_at_least"] <= expected["region_count_line"] <= row["region_count_line_at_most"]
    assert "region_count_line" not in row
    told = describe.describe(found, config, job.dataset, [1])
    assert "at least" in told
    assert f"at most {row['region_count_line_at_most']:.4g}" in told


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["regions=[line,simplex_3]"], "regions.simplex_3: regions.method=exact counts on lines and in planes"),
        (["regions=[plane]", "regions.method=bounds"], "regions.plane: regions.method=bounds counts on lines;"),
        (["regions=[plane]", "regions.budget=9"], "regions.plane: regions.budget=9 applies to lines"),
        (["model=senet18"], "model=senet18: an exact count cannot follow the operation sigmoid"),
        (["model=decision_tree"], "model=decision_tree: regions.method=exact supports networks only"),
        (["regions.method=auto", "regions.budget=9"], "regions.budget=9: only regions.method=exact"),
        (["regions.budget=0"], "regions.budget=0"),
    ],
)
def test_what_cannot_be_counted_exactly_is_refused_before_training(tmp_path, options, named):
    overrides = ["regions=[line]", "regions.method=exact", f"results={tmp_path}", *options]
    with pytest.raises(InputError) as refused, hydra_ready():
        runner.prepare(parse_run(compose("train", overrides)))
    assert str(refused.value).startswith(named)
    assert not any(tmp_path.iterdir())


def exact_plane(model: nn.Module, triangle: torch.Tensor):
    (found,) = exact_planes(model, triangle.unsqueeze(0))
    return found


def area(polygon: np.ndarray) -> float:
    """By fans of triangles from the first vertex."""
    (x, y), (u, v) = (polygon[1:-1] - polygon[0]).T, (polygon[2:] - polygon[0]).T
    return float(abs(x * v - y * u).sum() / 2)


@settings(max_examples=10)
@given(name=st.sampled_from(["linear", "mlp", "leaky", "kinks"]), seed=st.integers(0, 10**6))
def test_polygons_cover_the_triangle_and_have_the_labels_of_the_points_in_them(name, seed):
    model = network(name, seed)
    triangle = 3 * torch.randn(3, *SHAPE)
    found = exact_plane(model, triangle)
    assert np.isclose(sum(map(area, found.polygons)), 0.5, rtol=1e-9)
    generator = np.random.default_rng(seed)
    places = np.stack([generator.dirichlet(np.ones(len(polygon))) @ polygon for polygon in found.polygons])
    weights = torch.from_numpy(np.column_stack([1 - places.sum(axis=1), places]))
    with torch.no_grad():
        inputs = torch.einsum("pk,k...->p...", weights, triangle.double())
        labels = model.double().eval()(inputs).argmax(dim=1).numpy()
    assert np.allclose(found.areas, [2 * area(polygon) for polygon in found.polygons], rtol=0, atol=1e-9)
    assert (labels == found.labels)[found.areas > 1e-9].all()
    assert found.pieces <= len(found.polygons)
    for region in range(found.count):
        assert len({*found.labels[found.regions == region]}) == 1


def test_the_regions_of_a_triangle_are_those_that_a_dense_lattice_sees():
    """Where none of them is so thin that a lattice misses it, or sees it in parts."""
    compared = []
    for seed in range(12):
        model = network("kinks", seed).double()
        triangle = 3 * torch.randn(3, *SHAPE, dtype=torch.float64)
        found = exact_plane(model, triangle)
        sizes = np.bincount(found.regions, weights=[area(polygon) for polygon in found.polygons])
        if sizes.min() > 0.002:
            lattice = rc.count_regions(model, triangle[None], resolution=150, method="grid", connectivity="lattice")
            compared.append((found.count, lattice.counts[0]))
    assert len(compared) >= 5
    assert max(compared)[0] >= 3
    assert all(one == other for one, other in compared)


def test_along_its_edges_a_triangle_has_the_regions_of_these_lines():
    model = network("mlp", 5)
    triangle = 3 * torch.randn(3, *SHAPE)
    found, line = exact_plane(model, triangle), exact_lines(model, triangle[None, :2])
    edges = []
    for polygon, label in zip(found.polygons, found.labels, strict=True):
        ends = polygon[polygon[:, 1] == 0, 0]
        if len(ends) > 1:
            edges.append((ends.min(), label))
    edges.sort()
    labels = [label for _, label in edges]
    assert [label for i, label in enumerate(labels) if i == 0 or labels[i - 1] != label] == line.label.tolist()


class Diamond(nn.Module):
    """Label 1 where |x - 1/4| + |y - 1/4| < 1/8, and where |x - 1/2| + |y - 1/4| < 1/16."""

    def forward(self, x):
        first = 0.125 - (x - torch.tensor([0.25, 0.25], dtype=x.dtype)).abs().sum(dim=1)
        second = 0.0625 - (x - torch.tensor([0.5, 0.25], dtype=x.dtype)).abs().sum(dim=1)
        inside = first.relu() + second.relu()
        return torch.stack([torch.full_like(inside, 1e-3), inside], dim=1)


def test_triangles_are_counted_together_and_compared_by_area():
    model, triangles = network("mlp", 3), 3 * torch.randn(4, 3, *SHAPE)
    found = rc.count_regions(model, triangles, method="exact")
    for number, triangle in enumerate(triangles):
        alone = exact_plane(model, triangle)
        sizes = np.bincount(alone.regions, weights=[2 * area(polygon) for polygon in alone.polygons])
        assert found.counts[number] == len(sizes) == found.exact[number].count
        assert np.isclose(found.entropies[number], -(sizes * np.log(sizes)).sum(), rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="method=exact counts on lines and in planes, not in 3 dimensions"):
        rc.count_regions(model, torch.randn(1, 4, *SHAPE), method="exact")
    with pytest.raises(InputError, match="budget=5: exact counts in triangles have none"):
        rc.count_regions(model, triangles, method="exact", budget=5)


def test_a_network_that_is_too_large_for_exact_planes_is_given_up(monkeypatch):
    monkeypatch.setattr("regioncount.regions.triangles.MAX_VALUES", 2000)
    with pytest.raises(InputError, match="needs a smaller network"):
        exact_plane(network("mlp", 0), 3 * torch.randn(3, *SHAPE))


def test_a_run_is_measured_exactly_in_planes(tmp_path):
    config = configured(tmp_path, "regions=[line,plane]", "regions.plane.number=3", "model.width=4")
    job = runner.prepare(config)
    found = runner.run_or_resume(job)
    row = measured_values(found, config, job.dataset)
    assert row["region_count_plane"] >= row["region_count_line"] >= 1
    assert row["affine_pieces_plane"] >= row["affine_pieces_line"]
    assert "affine pieces plane" in describe.describe(found, config, job.dataset, [1])


def test_two_diamonds_are_two_regions_in_a_third():
    found = exact_plane(Diamond(), torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64))
    sizes = sorted(np.bincount(found.regions, weights=[area(polygon) for polygon in found.polygons]))
    assert found.count == 3
    expected = [2 * (0.0625 - 1e-3) ** 2, 2 * (0.125 - 1e-3) ** 2]
    assert np.allclose(sizes[:2], expected, rtol=1e-9)
    assert np.isclose(sizes[2], 0.5 - sum(expected))
