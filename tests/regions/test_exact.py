"""Exact counts on lines and in triangles, compared with closed forms and with dense lattices."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_configuration import PLAIN
from torch import nn
from torch.nn import functional

import regioncount as rc
from regioncount.commands import compose, hydra_ready
from regioncount.config import parse_run
from regioncount.errors import InputError
from regioncount.regions import exact
from regioncount.regions.bounds import bounded_lines
from regioncount.regions.exact import exact_lines
from regioncount.regions.piecewise import trace
from regioncount.regions.points import upper_envelope
from regioncount.regions.triangles import exact_planes
from regioncount.runs import describe, runner
from regioncount.runs.measurements import measured_values

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_trace_per_model")]

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
    """Build a network whose weights and batch statistics make several regions likely."""
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


def labels_at(model: nn.Module, line: torch.Tensor, positions) -> np.ndarray:
    model = model.double().eval()
    weight = torch.as_tensor(positions).view(-1, *[1] * (line.dim() - 1))
    with torch.no_grad():
        return model(torch.lerp(line[0].double(), line[1].double(), weight)).argmax(dim=1).numpy()


def check(model: nn.Module, lines: torch.Tensor, result: exact.ExactLines, points: int = 400) -> None:
    """Check the labels at lattice points, in the middle of each region, and on both sides of each boundary."""
    assert (result.proved == 1).all()
    for number, line in enumerate(lines):
        own = result.line == number
        start, stop, label = result.start[own], result.stop[own], result.label[own]
        assert start[0] == 0
        assert stop[-1] == 1
        assert (start[1:] == stop[:-1]).all()
        assert (label[1:] != label[:-1]).all()
        assert len(label) == result.counts[number]
        positions = np.linspace(0, 1, points)
        clear = np.abs(positions[:, None] - np.append(start, stop)[1:-1]).min(axis=1, initial=1) > 1e-9
        expected = label[np.searchsorted(start, positions, side="right") - 1]
        assert (labels_at(model, line, positions) == expected)[clear].all()
        assert (labels_at(model, line, (start + stop) / 2) == label).all()
        near = np.minimum(1e-7, (stop - start) / 3)
        assert (labels_at(model, line, stop - near) == label).all()
        assert (labels_at(model, line, start + near) == label).all()


@settings(max_examples=20)  # each is traced
@given(name=st.sampled_from(sorted(NETWORKS)), seed=st.integers(0, 10**6))
def test_regions_have_the_labels_of_the_network(name, seed):
    model = network(name, seed)
    lines = 3 * torch.randn(10, 2, *SHAPE)
    check(model, lines, exact_lines(model, lines))


def affine_pieces(model: nn.Module, line: torch.Tensor, points: int) -> int:
    """Count changes of activation on a lattice: the number of pieces, if none is shorter than a lattice step."""
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


def test_pieces_equal_those_on_a_dense_lattice():
    model, lines = network("mlp", 3), torch.randn(5, 2, *SHAPE)
    pieces = exact_lines(model, lines).pieces
    assert [affine_pieces(model, line, 20_000) for line in lines] == pieces.tolist()
    assert pieces.min() > 5


def tent(depth: int) -> nn.Sequential:
    """Return the tent map on [0, 1], composed `depth` times; label 1 is where its value exceeds a half."""
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
def test_regions_of_the_composed_tent_map(depth):
    """The map crosses a half once on each of its 2^depth pieces, at (i + 1/2) / 2^depth."""
    result = exact_lines(tent(depth), torch.tensor([[[0.0], [1.0]]]))
    assert result.pieces.tolist() == [2**depth]
    assert result.counts.tolist() == [2**depth + 1]
    assert np.allclose(result.boundaries(0), (np.arange(2**depth) + 0.5) / 2**depth, rtol=0, atol=1e-12)
    shares = np.array([0.5, *[1.0] * (2**depth - 1), 0.5]) / 2**depth
    assert np.isclose(result.entropies[0], -(shares * np.log(shares)).sum())


def test_a_region_thinner_than_a_lattice_step_is_detected():
    width = 1e-6

    class Spike(nn.Module):
        def forward(self, x):
            return torch.cat([(x - 0.3).abs(), torch.full_like(x, width / 2)], dim=1)

    model = Spike()
    lines = torch.tensor([[[0.0], [1.0]]], dtype=torch.float64)
    assert rc.count_regions(model, lines, method="grid").counts.tolist() == [1]
    result = rc.count_regions(model, lines, method="exact")
    assert result.counts.tolist() == [3]
    assert np.allclose(result.exact.boundaries(0), [0.3 - width / 2, 0.3 + width / 2], rtol=0, atol=1e-12)


def test_ties_go_to_the_lowest_index():
    class Tied(nn.Module):
        def forward(self, x):
            return torch.cat([x - x, (x - 0.5).relu(), (x - 0.5).relu(), (x - 0.5).relu() - (x - 2).relu()], dim=1)

    result = exact_lines(Tied(), torch.tensor([[[0.0], [1.0]]]))
    assert result.label.tolist() == [0, 1]
    assert result.boundaries(0).tolist() == [0.5]


def test_a_line_of_length_zero_is_one_region():
    model = network("mlp", 0)
    lines = torch.randn(1, 1, *SHAPE).repeat(1, 2, 1, 1, 1)
    result = exact_lines(model, lines)
    assert result.counts.tolist() == result.pieces.tolist() == [1]


@settings(max_examples=20)  # each is traced
@given(seed=st.integers(0, 10**6), values=st.integers(100, 3000), name=st.sampled_from(["mlp", "pooled"]))
def test_chunks_do_not_change_exact_counts(seed, values, name):
    model = network(name, seed)
    lines = torch.randn(4, 2, *SHAPE)
    complete = exact_lines(model, lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(exact.CHUNK_VALUES, "cpu", values)
        chunked = exact_lines(model, lines)
    assert (chunked.counts == complete.counts).all()
    assert (chunked.pieces == complete.pieces).all()
    assert (chunked.proved == 1).all()
    assert np.allclose(chunked.start, complete.start, rtol=0, atol=1e-11)


@settings(max_examples=20)  # each is traced
@given(budget=st.integers(1, 400), seed=st.integers(0, 10**6))
def test_a_budget_proves_a_part_of_the_regions(budget, seed):
    model = network("mlp", seed)
    lines = 3 * torch.randn(5, 2, *SHAPE)
    complete = exact_lines(model, lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(exact.CHUNK_VALUES, "cpu", 600)
        partial = exact_lines(model, lines, budget)
    assert (partial.counts <= complete.counts).all()
    assert (partial.pieces <= complete.pieces).all()
    assert ((partial.proved >= 0) & (partial.proved <= 1)).all()
    assert (np.isnan(partial.entropies) == (partial.proved < 1)).all()
    covered = np.bincount(partial.line, weights=partial.stop - partial.start, minlength=5)
    assert np.allclose(covered, partial.proved, rtol=0, atol=1e-9)
    for line, start, stop, label in zip(partial.line, partial.start, partial.stop, partial.label, strict=True):
        inside = (complete.line == line) & (complete.start < stop - 1e-9) & (complete.stop > start + 1e-9)
        assert (complete.label[inside] == label).all()
    if 3 * complete.evaluations <= budget:  # points at which chunks meet are evaluated twice
        assert (partial.proved == 1).all()


@settings(max_examples=20)  # each is traced
@given(name=st.sampled_from(sorted(NETWORKS)), seed=st.integers(0, 10**6), length=st.sampled_from([0.01, 0.3, 3.0]))
def test_bounds_give_the_exact_regions(name, seed, length):
    model = network(name, seed)
    lines = torch.randn(6, 2, *SHAPE)
    lines[:, 1] = lines[:, 0] + length * lines[:, 1]  # shorter lines are proved with fewer cuts
    result, expected = bounded_lines(model, lines), exact_lines(model, lines)
    assert (result.line == expected.line).all()
    assert (result.label == expected.label).all()
    assert np.allclose(result.start, expected.start, rtol=0, atol=1e-10)
    assert np.allclose(result.entropies, expected.entropies, rtol=0, atol=1e-8)
    assert (result.counts == expected.counts).all()
    assert (result.most == expected.counts).all()
    assert (result.proved == 1).all()


@settings(max_examples=20)  # each is traced
@given(budget=st.integers(1, 600), seed=st.integers(0, 10**6), name=st.sampled_from(["mlp", "pooled", "signs"]))
def test_with_a_budget_the_count_lies_between_the_bounds(budget, seed, name):
    model, lines = network(name, seed), 2 * torch.randn(5, 2, *SHAPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(exact.CHUNK_VALUES, "cpu", 3000)
        partial = bounded_lines(model, lines, budget)
    complete = exact_lines(model, lines)
    assert (partial.counts <= complete.counts).all()
    assert (partial.most >= complete.counts).all()
    assert (partial.most[partial.proved == 1] == complete.counts[partial.proved == 1]).all()
    covered = np.bincount(partial.line, weights=partial.stop - partial.start, minlength=5)
    assert np.allclose(covered, partial.proved, rtol=0, atol=1e-9)
    for line, start, stop, label in zip(partial.line, partial.start, partial.stop, partial.label, strict=True):
        inside = (complete.line == line) & (complete.start < stop - 1e-9) & (complete.stop > start + 1e-9)
        assert (complete.label[inside] == label).all()


def test_a_linear_network_has_at_most_two_regions_between_two_labels():
    line = torch.tensor([[[-1.0], [1.0]]])
    linear = nn.Linear(1, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        linear.bias.zero_()
    result = bounded_lines(nn.Sequential(linear), line, budget=4)  # enough for the bounds, not for the boundary
    assert result.proved.tolist() == [0]
    assert (result.counts.tolist(), result.most.tolist()) == ([1], [2])


def test_bounds_need_fewer_evaluations_than_pieces():
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(2, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(64, 64, 3), nn.ReLU()]
    model, lines = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(64, 3)), torch.randn(4, 2, *SHAPE)
    result, expected = bounded_lines(model, lines), exact_lines(model, lines)
    assert (result.counts == expected.counts).all()
    assert result.evaluations < expected.pieces.sum() / 2


@pytest.mark.parametrize(
    ("activation", "named"), [(torch.abs, "abs"), (lambda x: functional.leaky_relu(x, -0.5), "leaky_relu")]
)
def test_bounds_reject_activations_that_are_not_monotone(activation, named):
    class Folded(nn.Module):
        def forward(self, x):
            return activation(x.flatten(1))

    with pytest.raises(InputError, match=f"method=bounds cannot follow {named}, which decreases"):
        bounded_lines(Folded(), torch.randn(1, 2, *SHAPE))
    assert exact_lines(Folded(), torch.randn(1, 2, *SHAPE)).proved.tolist() == [1]


def test_a_small_budget_leaves_parts_of_lines_unproved():
    model, lines = network("mlp", 0), torch.randn(5, 2, *SHAPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(exact.CHUNK_VALUES, "cpu", 600)
        partial = exact_lines(model, lines, 30)
    assert 0 < partial.proved.mean() < 1
    assert (partial.counts >= 1).all()


@given(
    st.integers(1, 5).flatmap(lambda lines: st.lists(st.tuples(*[st.integers(-4, 4)] * 2 * lines), min_size=1, max_size=4))
)
def test_upper_envelope(sets):
    ends = torch.tensor(sets, dtype=torch.float64)
    first, last = ends.chunk(2, dim=1)
    row, begin, top = upper_envelope(first, last)
    for number in range(len(first)):
        own = [(float(begin[i]), int(top[i])) for i in range(len(row)) if row[i] == number]
        own.sort()
        assert own[0][0] == 0
        positions = [*(left for left, _ in own), 1.0]
        for (left, line), right in zip(own, positions[1:], strict=True):
            for share in (0.25, 0.5, 0.75):
                position = left + share * (right - left)
                heights = torch.lerp(first[number], last[number], torch.tensor(position, dtype=torch.float64))
                assert heights[line] >= heights.max() - 1e-12
        assert len({line for _, line in own}) == len(own)  # an overtaken line stays below


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
        (lambda x: functional.softmax(x, dim=1) * 2, "softmax"),
        (lambda x: functional.log_softmax(x, dim=0), "softmax"),
        (lambda x: functional.softmax(x, dim=1, dtype=torch.float32), "softmax"),
        (lambda x: x * x, "mul"),
        (lambda x: functional.linear(x, x), "linear"),
        (functional.hardswish, "hardswish"),
        (lambda x: torch.where(x == 0, x, 1.0), "eq"),
        (lambda x: torch.where(x > 0, x, 1.0) * x, "mul"),
        (lambda x: x / (x > 0), "div"),
        (lambda x: x.max(dim=1, keepdim=True).indices * x, "max"),
        (lambda x: x - x.amax(0, keepdim=True), "amax over the inputs of a batch"),
        (lambda x: x.sort(dim=1).values, "sort"),
        (lambda x: x.roll(1, 0), "roll: its result for an input depends on the other inputs"),
        (lambda x: x.cumsum(0), "cumsum: its result for an input depends on the other inputs"),
        (lambda x: functional.rrelu(x, training=True), "rrelu in training mode"),
        (lambda x: x / x.abs(), "div"),
        (lambda x: x.relu() @ x.T, "permute|transpose|numpy_T"),
        (lambda x: x - x.mean(dim=0, keepdim=True), "mean"),
        (lambda x: functional.layer_norm(x, (4,)), "layer_norm"),
        (lambda x: x.argmax(dim=1), "argmax|logits"),
        (lambda x: x if x.sum() > 0 else -x, "trace"),
        (lambda x: functional.max_pool2d(x.view(-1, 1, 2, 2), 2, 3, 1, dilation=3).flatten(1), "padding only"),
    ],
)
def test_unsupported_operations_are_named(function, named):
    with pytest.raises(InputError, match=named):
        trace(Functional(function), torch.Size((4,)))
    with pytest.raises(InputError):
        exact_lines(Functional(function), torch.randn(1, 2, 4))


@pytest.mark.parametrize("name", ["senet18", "efficientnet_b0", "vision_transformer"])
def test_networks_with_gates_or_attention_are_rejected(name):
    model = rc.models.build(name, image_size=(32, 32), width=16)
    with pytest.raises(InputError, match="an exact count cannot follow"):
        trace(model, torch.Size((3, 32, 32)))


@pytest.mark.parametrize("name", ["resnet18", "shufflenetv2", "simple_dla", "small_cnn"])
def test_piecewise_linear_networks_of_the_registry(name):
    torch.manual_seed(0)
    model = rc.models.build(name, image_size=(8, 8), width=4)
    lines = torch.randn(1, 2, 3, 8, 8)
    check(model, lines, exact_lines(model, lines), points=50)


def test_unsupported_arguments_are_rejected():
    lines = torch.randn(1, 2, 4)
    with pytest.raises(InputError, match="torch module"):
        rc.count_regions(lambda x: x, lines, method="exact")
    with pytest.raises(InputError, match="vertices of shape"):
        exact_lines(nn.Linear(4, 2), torch.randn(1, 3, 4))
    with pytest.raises(InputError, match="vertices of shape"):
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


def test_the_model_is_not_changed():
    model = network("pooled", 0).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    exact_lines(model, torch.randn(1, 2, *SHAPE))
    assert all(module.training for module in model.modules())
    assert all(value.dtype == before[name].dtype and value.equal(before[name]) for name, value in model.state_dict().items())


def configured(tmp_path, *options):
    small = ["model=mlp", "model.width=16", "dataset.train_size=60", "dataset.test_size=50", "epochs=1", "regions=[line]"]
    with hydra_ready():
        return parse_run(compose("train", [*small, "regions.method=exact", f"results={tmp_path}", *options]))


def test_a_run_is_measured_exactly_and_a_bound_is_not_reported_as_a_count(tmp_path):
    complete, bounded = configured(tmp_path), configured(tmp_path, "regions.budget=1")
    job = runner.prepare(complete)
    run = runner.run_or_resume(job)
    row = measured_values(run, complete, job.dataset)
    assert row["region_share_proved_line"] == 1
    assert row["region_count_line"] >= 1
    arrays = run.region_arrays()
    (settings_key,) = (key.removesuffix("/line") for key in arrays if key.endswith("/line"))
    assert np.bincount(arrays[f"{settings_key}/line"]).mean() == row["region_count_line"]
    assert "proved line %" in describe.describe(run, complete, job.dataset, [1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(exact.CHUNK_VALUES, "cpu", 600)
        run = runner.run_or_resume(runner.prepare(bounded))
    row = measured_values(run, bounded, job.dataset)
    assert row["region_share_proved_line"] < 1
    assert row["region_count_line_at_least"] >= 1
    assert "region_count_line" not in row
    assert "region_count_line_at_most" not in row
    assert "at least" in describe.describe(run, bounded, job.dataset, [1])


def test_a_run_is_measured_by_bounds(tmp_path):
    exactly = configured(tmp_path)
    job = runner.prepare(exactly)
    expected = measured_values(runner.run_or_resume(job), exactly, job.dataset)
    config = configured(tmp_path, "regions.method=bounds")
    row = measured_values(runner.run_or_resume(runner.prepare(config)), config, job.dataset)
    assert row["region_count_line"] == expected["region_count_line"]
    assert "affine_pieces_line" not in row

    config = configured(tmp_path, "regions.method=bounds", "regions.budget=1")
    run = runner.run_or_resume(runner.prepare(config))
    row = measured_values(run, config, job.dataset)
    assert row["region_count_line_at_least"] <= expected["region_count_line"] <= row["region_count_line_at_most"]
    assert "region_count_line" not in row
    description = describe.describe(run, config, job.dataset, [1])
    assert "at least" in description
    assert f"at most {row['region_count_line_at_most']:.4g}" in description


def test_a_recorded_exact_count_with_options_of_a_lattice_is_read():
    record = {**PLAIN, "regions": {"method": "exact", "connectivity": "lattice", "line": {"resolution": 20}}}
    assert parse_run(record, recorded=True).regions.connectivity == "lattice"
    with pytest.raises(rc.InputError, match="uses no lattice"):
        parse_run(record)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["regions=[line,simplex_3]"], "regions.simplex_3: regions.method=exact counts on lines and in planes"),
        (["regions.line.resolution=20"], "regions.line.resolution=20: regions.method=exact uses no lattice"),
        (["regions.connectivity=lattice"], "regions.connectivity=lattice: regions.method=exact uses no lattice"),
        (["regions=[plane]", "regions.method=bounds"], "regions.plane: regions.method=bounds counts on lines;"),
        (["regions=[plane]", "regions.budget=9"], "regions.plane: regions.budget=9 applies to lines"),
        (["model=senet18"], "model=senet18: an exact count cannot follow the operation sigmoid"),
        (["model=decision_tree"], "model=decision_tree: regions.method=exact supports networks only"),
        (["regions.method=auto", "regions.budget=9"], "regions.budget=9: only regions.method=exact"),
        (["regions.budget=0"], "regions.budget=0"),
    ],
)
def test_unsupported_exact_counts_are_rejected_before_training(tmp_path, options, named):
    overrides = ["regions=[line]", "regions.method=exact", f"results={tmp_path}", *options]
    with pytest.raises(InputError) as error, hydra_ready():
        runner.prepare(parse_run(compose("train", overrides)))
    assert str(error.value).startswith(named)
    assert not any(tmp_path.iterdir())


def exact_plane(model: nn.Module, triangle: torch.Tensor):
    (result,) = exact_planes(model, triangle.unsqueeze(0))
    return result


def area(polygon: np.ndarray) -> float:
    """Return the area of a convex polygon, from a fan of triangles."""
    (x, y), (u, v) = (polygon[1:-1] - polygon[0]).T, (polygon[2:] - polygon[0]).T
    return float(abs(x * v - y * u).sum() / 2)


@settings(max_examples=10)
@given(name=st.sampled_from(["linear", "mlp", "leaky", "kinks"]), seed=st.integers(0, 10**6))
def test_polygons_cover_the_triangle_and_have_the_labels_of_the_network(name, seed):
    model = network(name, seed)
    triangle = 3 * torch.randn(3, *SHAPE)
    result = exact_plane(model, triangle)
    assert np.isclose(sum(map(area, result.polygons)), 0.5, rtol=1e-9)
    generator = np.random.default_rng(seed)
    positions = np.stack([generator.dirichlet(np.ones(len(polygon))) @ polygon for polygon in result.polygons])
    weights = torch.from_numpy(np.column_stack([1 - positions.sum(axis=1), positions]))
    with torch.no_grad():
        inputs = torch.einsum("pk,k...->p...", weights, triangle.double())
        labels = model.double().eval()(inputs).argmax(dim=1).numpy()
    assert np.allclose(result.areas, [2 * area(polygon) for polygon in result.polygons], rtol=0, atol=1e-9)
    assert (labels == result.labels)[result.areas > 1e-9].all()
    assert result.pieces <= len(result.polygons)
    for region in range(result.count):
        assert len({*result.labels[result.regions == region]}) == 1


def test_regions_of_a_triangle_equal_those_on_a_dense_lattice():
    """Skip triangles with regions that are too thin for the lattice."""
    compared = []
    for seed in range(12):
        model = network("kinks", seed).double()
        triangle = 3 * torch.randn(3, *SHAPE, dtype=torch.float64)
        result = exact_plane(model, triangle)
        sizes = np.bincount(result.regions, weights=[area(polygon) for polygon in result.polygons])
        if sizes.min() > 0.002:
            lattice = rc.count_regions(model, triangle[None], resolution=150, method="grid", connectivity="lattice")
            compared.append((result.count, lattice.counts[0]))
    assert len(compared) >= 5
    assert max(compared)[0] >= 3
    assert all(one == other for one, other in compared)


def test_an_edge_of_a_triangle_has_the_regions_of_its_line():
    model = network("mlp", 5)
    triangle = 3 * torch.randn(3, *SHAPE)
    result, line = exact_plane(model, triangle), exact_lines(model, triangle[None, :2])
    edges = []
    for polygon, label in zip(result.polygons, result.labels, strict=True):
        ends = polygon[polygon[:, 1] == 0, 0]
        if len(ends) > 1:
            edges.append((ends.min(), label))
    edges.sort()
    labels = [label for _, label in edges]
    assert [label for i, label in enumerate(labels) if i == 0 or labels[i - 1] != label] == line.label.tolist()


class Diamond(nn.Module):
    """Label 1 where |x - 1/4| + |y - 1/4| < 1/8 or |x - 1/2| + |y - 1/4| < 1/16, up to a constant of 1e-3."""

    def forward(self, x):
        first = 0.125 - (x - torch.tensor([0.25, 0.25], dtype=x.dtype)).abs().sum(dim=1)
        second = 0.0625 - (x - torch.tensor([0.5, 0.25], dtype=x.dtype)).abs().sum(dim=1)
        inside = first.relu() + second.relu()
        return torch.stack([torch.full_like(inside, 1e-3), inside], dim=1)


def test_counts_and_entropies_of_several_triangles():
    model, triangles = network("mlp", 3), 3 * torch.randn(4, 3, *SHAPE)
    result = rc.count_regions(model, triangles, method="exact")
    for number, triangle in enumerate(triangles):
        alone = exact_plane(model, triangle)
        sizes = np.bincount(alone.regions, weights=[2 * area(polygon) for polygon in alone.polygons])
        assert result.counts[number] == len(sizes) == result.exact[number].count
        assert np.isclose(result.entropies[number], -(sizes * np.log(sizes)).sum(), rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="method=exact counts on lines and in planes, not in 3 dimensions"):
        rc.count_regions(model, torch.randn(1, 4, *SHAPE), method="exact")
    with pytest.raises(InputError, match="budget=5: exact counts in triangles accept no budget"):
        rc.count_regions(model, triangles, method="exact", budget=5)


def test_a_network_that_is_too_large_for_exact_planes_is_rejected(monkeypatch):
    monkeypatch.setattr("regioncount.regions.triangles.MAX_VALUES", 2000)
    with pytest.raises(InputError, match="needs a smaller network"):
        exact_plane(network("mlp", 0), 3 * torch.randn(3, *SHAPE))


def test_a_run_is_measured_exactly_in_planes(tmp_path):
    config = configured(tmp_path, "regions=[line,plane]", "regions.plane.number=3", "model.width=4")
    job = runner.prepare(config)
    run = runner.run_or_resume(job)
    row = measured_values(run, config, job.dataset)
    assert row["region_count_plane"] >= row["region_count_line"] >= 1
    assert row["affine_pieces_plane"] >= row["affine_pieces_line"]
    assert "affine pieces plane" in describe.describe(run, config, job.dataset, [1])


def test_two_diamonds_are_two_regions_inside_a_third():
    result = exact_plane(Diamond(), torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64))
    sizes = sorted(np.bincount(result.regions, weights=[area(polygon) for polygon in result.polygons]))
    assert result.count == 3
    expected = [2 * (0.0625 - 1e-3) ** 2, 2 * (0.125 - 1e-3) ** 2]
    assert np.allclose(sizes[:2], expected, rtol=1e-9)
    assert np.isclose(sizes[2], 0.5 - sum(expected))


class TiedLogits(nn.Module):
    """Has two logits that are equal wherever one hidden value is zero, and all logits zero wherever all of them are."""

    def __init__(self, seed, rectify):
        super().__init__()
        torch.manual_seed(seed)
        self.hidden, self.rectify, self.logits = nn.Linear(3, 6), rectify, nn.Linear(3, 3, bias=False)
        with torch.no_grad():
            self.logits.weight[1] = self.logits.weight[0]
            self.logits.weight[1, 0] += 1.0

    def forward(self, inputs):
        return self.logits(self.rectify(self.hidden(inputs)))


RECTIFIERS = {
    "relu": lambda x: x[:, :3].relu(),
    "maximum": lambda x: torch.maximum(x[:, :3], x.new_zeros(())),
    "pooling": lambda x: functional.max_pool1d(x.relu()[:, None], 2)[:, 0],
}


@pytest.mark.parametrize("rectify", RECTIFIERS.values(), ids=RECTIFIERS)
def test_ties_of_logits_on_a_whole_cell_have_the_label_of_the_network(rectify):
    for seed in range(12):
        model = TiedLogits(seed, rectify).double().eval()
        triangle = 2 * torch.randn(3, 3, dtype=torch.float64)
        (plane,) = exact_planes(model, triangle[None])
        centroids = torch.from_numpy(np.array([polygon.mean(axis=0) for polygon in plane.polygons]))
        weights = torch.column_stack([1 - centroids.sum(dim=1), centroids])
        labels = model(weights @ triangle).argmax(dim=1).numpy()
        inside = plane.areas > 1e-9
        assert (labels == plane.labels)[inside].all()
