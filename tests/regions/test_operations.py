"""Operations that exact counts follow, each in a small random network, compared with labels on a dense lattice."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzz_planes import wrong_plane
from torch import nn
from torch.nn import functional

from regioncount.errors import InputError
from regioncount.regions import exact, exporting, operations, progress
from regioncount.regions.bounds import bounded_lines
from regioncount.regions.exact import exact_lines
from regioncount.regions.piecewise import trace
from regioncount.regions.triangles import exact_planes

pytestmark = pytest.mark.usefixtures("one_trace_per_model")

WIDTH = 12


class Around(nn.Module):
    """A function of 12 values between two linear layers, with constants of its own."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.first, self.last = nn.Linear(3, WIDTH), nn.LazyLinear(3)
        self.constant = nn.Parameter(torch.randn(WIDTH))
        self.matrix = nn.Parameter(torch.randn(WIDTH, WIDTH) / 3)
        self.kernel = nn.Parameter(torch.randn(64))
        self.register_buffer("order", torch.randperm(WIDTH))
        self.register_buffer("mask", torch.rand(WIDTH) < 0.5)

    def forward(self, x):
        return self.last(functional.leaky_relu(self.function(self, self.first(x)).flatten(1), 0.3))


def network(function, seed):
    torch.manual_seed(seed)
    model = Around(function).eval()
    with torch.no_grad():
        model(torch.zeros(1, 3))  # the lazy layer gets its width
        logits = model(2 * torch.randn(256, 3))
        model.last.weight /= logits.std(0).unsqueeze(1)  # standardized, so that each class is predicted somewhere
        model.last.bias.copy_((model.last.bias - logits.mean(0)) / logits.std(0))
    return model


def image(x):
    return x.view(-1, 2, 2, 3)


def sequence(x):
    return x.view(-1, 2, 6)


def volume(x):
    return x.view(-1, 1, 2, 2, 3)


def assigned(s, x):
    y = torch.zeros_like(x)
    y[:, 1] = x[:, 0]
    y[:, 2:8] = 2 * x[:, 4:10]
    y[:, [8, 11]] += x[:, :2]
    y.clamp_(min=-0.2)
    return y


# Maxima, minima and activations: exact on lines and in planes, and bounded.
CONTINUOUS = {
    "clamp to tensors": lambda s, x: x.clamp(s.constant, s.constant + 0.5),
    "clamp to crossed tensors": lambda s, x: x.clamp(s.constant, s.constant.flip(0)),
    "clamp to values": lambda s, x: x.clamp(x.flip(1) - 1, 0.5 * x.roll(1, 1) + 0.5),
    "clamp_min, clamp_max": lambda s, x: torch.clamp_min(x, 0.1) - torch.clamp_max(x, -0.2),
    "clamp_min, clamp_max of tensors": lambda s, x: torch.clamp_min(x, s.constant) - torch.clamp_max(x, s.constant[0]),
    "maximum of two values": lambda s, x: torch.maximum(x, x @ s.matrix),
    "minimum of two values": lambda s, x: torch.minimum(x @ s.matrix, -x),
    "max and min of a constant": lambda s, x: torch.max(x, s.constant) - torch.min(x, s.constant * 0.5),
    "maximum with a broadcast value": lambda s, x: torch.maximum(x, x.mean(1, keepdim=True)),
    "maximum with batch-sized constant": lambda s, x: torch.maximum(x, s.constant.expand(x.size(0), -1) - 0.1),
    "hardtanh, ReLU6": lambda s, x: functional.hardtanh(x, -0.3, 0.8) + functional.relu6(3 * x),
    "PReLU": lambda s, x: functional.prelu(x, s.constant.abs()),
    "hard sigmoid": lambda s, x: functional.hardsigmoid(3 * x),
    "continuous threshold": lambda s, x: functional.threshold(x, 0.2, 0.2),
    "RReLU": lambda s, x: functional.rrelu(x, 0.1, 0.4),
    "max_pool1d": lambda s, x: functional.max_pool1d(sequence(x), 3, 2, 1),
    "max_pool1d, ceil_mode": lambda s, x: functional.max_pool1d(x.view(-1, 1, 12), 4, 3, 1, ceil_mode=True),
    "max_pool2d, ceil_mode": lambda s, x: functional.max_pool2d(x.view(-1, 1, 3, 4), 2, 2, ceil_mode=True),
    "max_pool2d, dilation": lambda s, x: functional.max_pool2d(x.view(-1, 1, 3, 4), (2, 2), 1, 1, dilation=(2, 1)),
    "max_pool2d with indices": lambda s, x: functional.max_pool2d(image(x), 2, return_indices=True)[0],
    "max_pool3d": lambda s, x: functional.max_pool3d(volume(x), 2, 1, (0, 1, 0)),
    "adaptive_max_pool1d": lambda s, x: functional.adaptive_max_pool1d(x.view(-1, 1, 12), 5),
    "adaptive_max_pool2d": lambda s, x: functional.adaptive_max_pool2d(image(x), (1, 2)),
    "adaptive_max_pool3d": lambda s, x: functional.adaptive_max_pool3d(volume(x), (2, 1, 2)),
    "amax over two dimensions": lambda s, x: image(x) - image(x).amax((1, 3), keepdim=True),
    "max over a dimension": lambda s, x: sequence(x).max(dim=1).values,
    "min over a dimension": lambda s, x: sequence(x).min(-1, keepdim=True)[0] + sequence(x),
    "aminmax": lambda s, x: torch.cat(torch.aminmax(sequence(x), dim=1), 1),
}

# Not monotone: exact, but not bounded.
FOLDED = {
    "PReLU of both signs": lambda s, x: functional.prelu(x, s.constant),
    "abs": lambda s, x: (x - s.constant).abs(),
}

# Affine operations: exact on lines and in planes, and bounded.
AFFINE = {
    "conv_transpose1d": lambda s, x: functional.conv_transpose1d(sequence(x), s.kernel[:12].view(2, 2, 3), stride=2),
    "conv_transpose2d": lambda s, x: functional.conv_transpose2d(image(x), s.kernel[:24].view(2, 3, 2, 2), padding=1),
    "conv_transpose3d": lambda s, x: functional.conv_transpose3d(volume(x), s.kernel[:16].view(1, 2, 2, 2, 2)),
    "einsum": lambda s, x: torch.einsum("bij,kj,k->bik", sequence(x), s.kernel[:24].view(4, 6), s.constant[:4]),
    "matmul, both sides": lambda s, x: (s.matrix[:2, :2] @ sequence(x)) @ s.matrix[:6, :6],
    "bmm": lambda s, x: torch.bmm(sequence(x), (s.matrix[:6, :6] - s.matrix[6:, 6:]).expand(x.size(0), 6, 6)),
    "addmm, mm": lambda s, x: torch.addmm(s.constant, torch.mm(x, s.matrix), s.matrix.T, beta=-2),
    "baddbmm": lambda s, x: torch.baddbmm(sequence(x), s.matrix[:2, :2].expand(x.size(0), 2, 2), sequence(x)),
    "tensordot": lambda s, x: torch.tensordot(x, s.matrix, 1),
    "bilinear": lambda s, x: functional.bilinear(x, s.constant[:2].expand(x.size(0), 2), s.kernel[:48].view(2, 12, 2)),
    "index": lambda s, x: x[:, s.order] - x[:, [0, -2, 1, 3, 3, 5, 7, 7, 8, -1, 10, 0]],
    "index of two dimensions": lambda s, x: image(x)[:, [0, 1, 1], [1, 0, 0]],
    "index of the batch": lambda s, x: x + sequence(x)[torch.arange(x.size(0)), 1, 2].unsqueeze(1),
    "boolean index": lambda s, x: x[:, torch.arange(WIDTH) % 3 == 0],
    "index_select, gather": lambda s, x: x.index_select(1, s.order.flip(0)) - x.gather(1, s.order.expand(x.size(0), -1)),
    "roll, flip, rot90": lambda s, x: x.roll(3, 1) - x.flip(1) + image(x).rot90(1, (2, 3)).flatten(1),
    "repeat, tile, repeat_interleave": lambda s, x: x.repeat(1, 2) - x.tile(2) - 2 * x.repeat_interleave(2, 1),
    "movedim, mT, swapaxes": lambda s, x: image(x).movedim(1, 3).flatten(1) + sequence(x).mT.flatten(1),
    "cumsum": lambda s, x: x.cumsum(1) - x.flip(1).cumsum(1),
    "padding": lambda s, x: functional.pad(image(x), (1, 1, 1, 0), mode="reflect"),
    "padding by the edge": lambda s, x: functional.pad(image(x), (1, 1, 1, 0), mode="replicate"),
    "circular padding": lambda s, x: functional.pad(image(x), (1, 1, 1, 0), mode="circular"),
    "unfold": lambda s, x: functional.unfold(image(x), 2) + sequence(x).unfold(2, 2, 4).flatten(1).unsqueeze(2),
    "fold": lambda s, x: functional.fold(x.view(-1, 4, 3), (2, 4), 2, stride=(1, 1)),
    "pixel_unshuffle": lambda s, x: functional.pixel_unshuffle(x.view(-1, 1, 2, 6), 2),
    "upsampling": lambda s, x: functional.interpolate(sequence(x), scale_factor=1.5, mode="linear"),
    "upsampling of volumes": lambda s, x: functional.interpolate(volume(x), size=(3, 2, 4), mode="trilinear"),
    "upsampling with antialiasing": lambda s, x: functional.interpolate(image(x), (1, 2), mode="bilinear", antialias=True),
    "assignments": assigned,
    "scatter": lambda s, x: (
        x.scatter(1, s.order.expand(x.size(0), -1), 2 * x) - x.scatter_add(1, s.order.expand(x.size(0), -1), x)
    ),
    "lerp": lambda s, x: torch.lerp(x, x.flip(1), 1.5) + torch.lerp(x, s.constant, s.constant),
    "addcmul": lambda s, x: torch.addcmul(x, x, s.constant, value=-0.5),
    "where, masked_fill of a constant": lambda s, x: torch.where(s.mask, x, x.flip(1)) + x.masked_fill(s.mask, 0.3),
    "product with ones_like": lambda s, x: x * torch.full_like(x, 0.5) + x.new_ones(x.size(0), 1),
    "triangles, diagonals": lambda s, x: torch.cat(
        [image(x).tril().flatten(1), torch.diag_embed(sequence(x)).sum(1).flatten(1), image(x).diagonal(0, 1, 2).flatten(1)],
        1,
    ),
    "instance normalization": lambda s, x: functional.instance_norm(
        sequence(x), s.constant[:2], s.constant[2:4] ** 2 + 0.3, s.kernel[:2], s.kernel[2:4], use_input_stats=False
    ),
    "batch-sized zeros and cat": lambda s, x: torch.cat([torch.zeros(x.size(0), 2), x, s.constant.expand(x.size(0), -1)], 1),
}

# Both signs within one operation: exact, but not bounded.
SIGNED = {
    "diff": lambda s, x: x.diff(dim=1, append=x[:, :1]),
    "bicubic upsampling": lambda s, x: functional.interpolate(image(x), scale_factor=2, mode="bicubic"),
    "sampling at a constant grid": lambda s, x: functional.grid_sample(
        image(x), s.kernel[:24].view(1, 3, 4, 2).expand(x.size(0), 3, 4, 2), align_corners=False
    ),
}

# Comparisons: exact on lines only.
JUMPS = {
    "where, continuous": lambda s, x: torch.where(x > 0, x, 0.2 * x),
    "where, of values": lambda s, x: torch.where(x >= x.flip(1), x, s.constant),
    "where, of a constant": lambda s, x: torch.where(x < s.constant, 0.5, -x),
    "where, nested": lambda s, x: torch.where((x > 0.1) & ~(x.relu() > 0.6), torch.where(x > 0.4, 1 - x, x), -0.3),
    "mask": lambda s, x: x * (x > 0.2) - (x.mean(1, keepdim=True) <= 0).to(x.dtype) * s.constant,
    "mask of a convolution": lambda s, x: image(x) * (functional.avg_pool2d(image(x), 3, 1, 1) > 0.1),
    "masked_fill": lambda s, x: x.masked_fill(x > 0.5, 0.5).masked_fill(torch.logical_or(x < -0.5, x > 0.2), -0.5),
    "assigned to a mask": lambda s, x: assign_mask(x),
    "sign": lambda s, x: x.sign() * s.constant + x.abs(),
    "threshold": lambda s, x: functional.threshold(x, 0.1, -0.5),
    "hardshrink, softshrink": lambda s, x: functional.hardshrink(x, 0.3) + functional.softshrink(x.flip(1), 0.2),
    "a maximum of jumps": lambda s, x: (
        functional.max_pool1d((x * (x > 0.2)).unsqueeze(1), 2) - (x > 0).double().sum(1).view(-1, 1, 1)
    ),
    # Values that an operation holds constant, or equal to another value, up to their own crossing.
    "relu is above 0": lambda s, x: (x.relu() > 0).to(x.dtype),
    "sign of relu, of relu": lambda s, x: ((x.relu() @ s.matrix).relu() @ s.matrix).relu().sign(),
    "relu is at least relu": lambda s, x: (x.relu() >= (x.relu() @ s.matrix - 0.1).relu()).to(x.dtype),
    "clamp is at its ends": lambda s, x: 2 * (x.clamp(-0.3, 0.7) >= 0.7).to(x.dtype) + (x.clamp(-0.3, 0.7) > -0.3),
    "hardtanh, relu6, hardsigmoid at their ends": lambda s, x: (
        (functional.hardtanh(x) < 1).to(x.dtype) + (functional.relu6(6 * x) >= 6) + (functional.hardsigmoid(3 * x) < 1)
    ),
    "abs, leaky_relu, prelu are the value": lambda s, x: (
        (x.abs() > x) * s.constant
        + (functional.leaky_relu(x, 0.2) > x).to(x.dtype)
        + (functional.prelu(x, s.kernel[:1] ** 2 / 20) <= x).to(x.dtype)
    ),
    "maximum, minimum are the value": lambda s, x: (
        (torch.maximum(x, x.flip(1)) > x) * s.constant + (torch.minimum(x, s.constant) < s.constant).to(x.dtype)
    ),
    "amax, amin are the value": lambda s, x: (
        (x.relu().amax(1, keepdim=True) > x.relu()) * s.constant + (x.amin(1, keepdim=True) < x).to(x.dtype)
    ),
    "a pooling of views is the value": lambda s, x: functional.max_pool1d(x[:, None], 3, 1, 1)[:, 0].gt(x).to(x.dtype),
    "a mask is relu": lambda s, x: (x * (x > 0) > x.relu()) + x,
    "a filled maximum": lambda s, x: sequence(x.masked_fill(x < 0.1, -torch.inf)).amax(2).clamp(min=-1),
}


def assign_mask(x):
    y = x.clone()
    y[y < 0] = 0.4
    return y


EVERY = {**CONTINUOUS, **FOLDED, **AFFINE, **SIGNED, **JUMPS}


def labels_at(model, line, positions):
    weight = torch.as_tensor(positions, dtype=torch.float64).unsqueeze(1)
    with torch.no_grad():
        return model(torch.lerp(line[0].double(), line[1].double(), weight)).argmax(1).numpy()


def check_labels(model, line, start, stop, label):
    """Compare intervals with labels on a dense lattice, in their middles, and on both sides of each boundary."""
    positions = np.linspace(0, 1, 3001)
    clear = np.abs(positions[:, None] - np.append(start, 1)).min(axis=1) > 1e-9
    expected = label[np.searchsorted(start, positions, side="right") - 1]
    assert (labels_at(model, line, positions) == expected)[clear].all()
    near = np.minimum(1e-7, (stop - start) / 3)
    for inside in ((start + stop) / 2, start + near, stop - near):
        assert (labels_at(model, line, inside) == label).all()


@pytest.mark.parametrize("name", EVERY)
def test_regions_of_each_operation(name):
    seed = sum(map(ord, name))
    torch.set_default_dtype(torch.float64)  # of constants that the network creates
    try:
        model, generator = network(EVERY[name], seed).double(), torch.Generator().manual_seed(seed)
        lines = 3 * torch.randn(6, 2, 3, generator=generator)
        result = exact_lines(model, lines)
        assert (result.proved == 1).all()
        for number, line in enumerate(lines):
            own = result.line == number
            check_labels(model, line, result.start[own], result.stop[own], result.label[own])
        assert result.counts.max() > 1

        if name in CONTINUOUS or name in AFFINE:
            bounded = bounded_lines(model, lines)
            assert (bounded.label == result.label).all()
            assert np.allclose(bounded.start, result.start, rtol=0, atol=1e-10)
            partial = bounded_lines(model, lines, budget=24)
            assert (partial.counts <= result.counts).all()
            assert (partial.most >= result.counts).all()
        else:
            with pytest.raises(InputError, match=r"^method=bounds cannot follow .*; use method=exact$"):
                bounded_lines(model, lines)

        triangle = torch.randn(1, 3, 3, generator=generator)
        if name in JUMPS:
            with pytest.raises(InputError, match=r"^an exact count in planes cannot follow .*; use method=grid$"):
                exact_planes(model, triangle)
        else:
            (plane,) = exact_planes(model, triangle)
            assert wrong_plane(model, triangle[0], plane) == ""
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("threshold", [0.1, 0.2, 0.3, 0.7, -0.9])
@pytest.mark.parametrize("slope", [0.1, 0.3, 0.7, 1.1, 3.0])
def test_logits_that_relu_holds_equal_have_the_lowest_label(slope, threshold):
    class Tied(nn.Module):
        def forward(self, x):
            held = (slope * x - threshold).relu()
            return torch.cat([torch.zeros_like(held), held], 1)

    result = exact_lines(Tied(), torch.tensor([[[-10.0], [10.0]], [[10.0], [-10.0]]], dtype=torch.float64))
    assert result.label.tolist() == [0, 1, 1, 0]
    boundary = (threshold / slope + 10) / 20
    assert np.allclose(result.stop[[0, 2]], [boundary, 1 - boundary], rtol=0, atol=1e-12)


@pytest.mark.parametrize("limit", [0.3, 0.7])
def test_a_comparison_with_a_number_jumps_at_that_number_in_float64(limit):
    class Above(nn.Module):
        def forward(self, x):
            above = (x > limit).to(x.dtype)
            return torch.cat([1 - above, above], 1)

    result = exact_lines(Above(), torch.tensor([[[0.0], [1.0]]], dtype=torch.float64))
    assert result.boundaries(0).tolist() == [pytest.approx(limit, abs=1e-15)]


def test_a_comparison_that_rounding_decides_is_refused():
    class Rounded(nn.Module):
        def forward(self, x):
            above = (0.1 * x + 0.2 * x > 0.3 * x).to(x.dtype)
            return torch.cat([1 - above, above + 0 * x], 1)

    lines = torch.tensor([[[0.5], [1.0]], [[-1.0], [3.0]]], dtype=torch.float64)
    with pytest.raises(InputError, match=r"gt compares values that are equal up to rounding.*use method=grid$"):
        exact_lines(Rounded(), lines)


def test_a_wrong_result_of_a_comparison_inside_a_region_is_noticed(monkeypatch):
    """The network has three regions; without the crossings, it seems to have one, whose middle and ends have its label."""

    class Spike(nn.Module):
        def forward(self, x):
            inside = ((x > 0.2) & (x < 0.3)).to(x.dtype)
            return torch.cat([1 - inside, inside], 1)

    line = torch.tensor([[[0.0], [1.0]]], dtype=torch.float64)
    assert exact_lines(Spike(), line).counts.tolist() == [3]
    original = exact.compare

    def never(operation, constants, points):
        result = original(operation, constants, points)
        values = result.values
        return replace(result, values={**values, operation.node: torch.zeros_like(values[operation.node])})

    monkeypatch.setattr(exact, "compare", never)
    with pytest.raises(InputError, match="disagrees with the network at"):
        exact_lines(Spike(), line)


# The same function by other names of torch and by the operations of the tables above.
ALIASES = {
    "values": (
        lambda s, x: torch.cat(
            [
                torch.absolute(x) + x.clone().absolute_() + torch.clip(x, -0.3, 0.5) + x.clip(s.constant),
                torch.divide(torch.negative(x), 2.0) + torch.divide(x, s.constant) + x.clone().negative_(),
                torch.subtract(x, s.constant, alpha=2) + x.subtract(1.0) + x.clone().subtract_(s.constant).divide_(3),
                torch.fmax(x, s.constant) - torch.fmin(x, x.flip(1)) + torch.broadcast_tensors(x, s.constant)[0],
            ],
            1,
        ),
        lambda s, x: torch.cat(
            [
                2 * x.abs() + x.clamp(-0.3, 0.5) + x.clamp(s.constant),
                -x / 2 + x / s.constant - x,
                x - 2 * s.constant + (x - 1) + (x - s.constant) / 3,
                torch.maximum(x, s.constant) - torch.minimum(x, x.flip(1)) + x,
            ],
            1,
        ),
    ),
    "comparisons": (
        lambda s, x: (
            x * torch.greater(x, 0.2)
            + torch.where(x.greater_equal(x.flip(1)), s.constant, 0.0)
            + torch.where(torch.less_equal(x, s.constant), 0.5, x)
            + x * torch.not_equal(x.less(0), x.flip(1).less(0.3))
        ),
        lambda s, x: (
            x * (x > 0.2)
            + torch.where(x >= x.flip(1), s.constant, 0.0)
            + torch.where(x <= s.constant, 0.5, x)
            + x * torch.ne(x < 0, x.flip(1) < 0.3)
        ),
    ),
    "products and joins": (
        lambda s, x: torch.concatenate(
            [
                torch.linalg.matmul(x, s.matrix) + torch.inner(x, s.matrix) + torch.outer(x[:, 0], s.constant),
                torch.row_stack([x]) + torch.meshgrid(x[:, 1], s.constant, indexing="ij")[0],
                torch.column_stack([x, x.relu()]) + torch.dstack([x, x.relu()]).flatten(1),
                torch.linalg.vecdot(sequence(x), s.kernel[:6])
                + torch.trapezoid(sequence(x))
                + torch.ger(x[:, 0], s.kernel[:2]),
                torch.cumulative_trapezoid(x, dx=2.0) + sequence(x).sum_to_size(x.size(0), 2, 1)[:, :1, 0],
                torch.unsafe_chunk(x, 2, 1)[1] + torch.unsafe_split(x, 6, 1)[0],
                torch.atleast_2d([x, s.constant])[0] + torch.atleast_3d([x])[0][..., 0] + torch.atleast_1d([x])[0],
            ],
            1,
        ),
        lambda s, x: torch.cat(
            [
                x @ s.matrix + x @ s.matrix.T + x[:, :1] * s.constant,
                x + x[:, 1:2].expand(-1, WIDTH),
                torch.cat([x, x.relu()], 1) + torch.stack([x, x.relu()], 2).flatten(1),
                sequence(x) @ s.kernel[:6]
                + (sequence(x)[..., 1:] + sequence(x)[..., :-1]).sum(2) / 2
                + x[:, :1] * s.kernel[:2],
                (x[:, 1:] + x[:, :-1]).cumsum(1) + sequence(x).sum(2)[:, :1],
                x[:, 6:] + x[:, :6],
                3 * x,
            ],
            1,
        ),
    ),
}


@pytest.mark.parametrize("name", ALIASES)
def test_other_names_of_operations_have_the_same_regions(name):
    torch.set_default_dtype(torch.float64)
    try:
        lines = 3 * torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(1))
        models = [network(function, 1).double() for function in ALIASES[name]]
        result, expected = (exact_lines(model, lines) for model in models)
    finally:
        torch.set_default_dtype(torch.float32)
    assert expected.counts.max() > 1
    assert (result.label == expected.label).all()
    assert np.allclose(result.start, expected.start, rtol=0, atol=1e-9)


def test_every_other_name_that_the_exact_counts_know_is_tested():
    tested = Path(__file__).read_text().partition("ALIASES = {")[2].partition("\n}\n")[0]
    assert [name for name in exporting.ALIASES if name.removeprefix("linalg_") not in tested] == []


@pytest.mark.parametrize("last", [nn.Softmax(dim=1), nn.LogSoftmax(dim=-1)])
def test_a_softmax_at_the_end_changes_no_region(last):
    torch.manual_seed(0)
    model, vertices = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3)), 4 * torch.randn(6, 3, 2)
    with_softmax = nn.Sequential(model, last)
    for count in (exact_lines, bounded_lines):
        expected, result = count(model, vertices[:, :2]), count(with_softmax, vertices[:, :2])
        assert expected.counts.max() > 1
        assert (result.label == expected.label).all()
        assert np.array_equal(result.start, expected.start)
    (expected,), (result,) = exact_planes(model, vertices[:1]), exact_planes(with_softmax, vertices[:1])
    assert (result.labels == expected.labels).all()


def test_a_jump_is_a_boundary():
    class Jump(nn.Module):
        def forward(self, x):
            return torch.cat([torch.where(x > 0.25, x + 3, x), torch.where(x >= 0.5, 5.0, 1.0)], 1)

    result = exact_lines(Jump(), torch.tensor([[[0.0], [1.0]]]))
    assert result.label.tolist() == [1, 0, 1]
    assert np.allclose(result.boundaries(0), [0.25, 0.5], rtol=0, atol=1e-12)
    assert result.pieces.tolist() == [3]


def test_a_logit_that_is_infinite_on_a_part_of_a_line():
    class Masked(nn.Module):
        def forward(self, x):
            return torch.cat([x.masked_fill(x > 0.5, -torch.inf), x - 0.1], 1)

    result = exact_lines(Masked(), torch.tensor([[[0.0], [1.0]]]))
    assert result.label.tolist() == [0, 1]
    assert np.allclose(result.boundaries(0), [0.5], rtol=0, atol=1e-12)


def test_a_softmax_of_infinite_logits_is_refused():
    class Infinite(nn.Module):
        def forward(self, x):
            return torch.cat([x, torch.full_like(x, torch.inf)], 1).softmax(1)

    with pytest.raises(InputError, match="not a number"):
        exact_lines(Infinite(), torch.tensor([[[0.0], [1.0]]]))


def test_an_operation_that_the_tables_describe_wrongly_is_refused(monkeypatch):
    monkeypatch.setitem(operations.FORMS, "square", operations.Form(summands=(0,)))

    class Square(nn.Module):
        def forward(self, x):
            return x.square()

    with pytest.raises(InputError, match="an exact count cannot follow square: it is not affine"):
        trace(Square(), torch.Size((2,)))


def test_chunks_do_not_change_the_regions_of_a_network_that_jumps(monkeypatch):
    model, lines = network(JUMPS["where, of values"], 0), 3 * torch.randn(4, 2, 3)
    expected = exact_lines(model, lines)
    monkeypatch.setitem(exact.CHUNK_VALUES, "cpu", 300)
    result = exact_lines(model, lines)
    assert (result.counts == expected.counts).all()
    assert (result.pieces == expected.pieces).all()
    assert np.allclose(result.start, expected.start, rtol=0, atol=1e-11)


def advance_through(total, unit, steps, description=""):
    with progress.progress(total, unit, "use X") as advance:
        for done in steps:
            advance(done, description)


def test_a_long_count_is_announced_once(monkeypatch):
    clock = iter(range(0, 10**6, 30))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with pytest.warns(UserWarning, match="the exact count of 100 lines needs about 50 minutes in all, .*; use X") as record:
        advance_through(100, "lines", [1.0, 1.1, 1.2])
    assert len(record) == 1
    with pytest.warns(UserWarning, match="unknown time: after 90 s, the first has 9 vertices; use X"):
        advance_through(2, "triangles", [0.0, 0.0, 0.0], "the first has 9 vertices")


@pytest.mark.filterwarnings("error")
def test_a_short_count_is_not_announced(monkeypatch):
    clock = iter(range(0, 10**6, 30))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    advance_through(10, "lines", [4, 7, 10])


@pytest.mark.parametrize("count", [exact_lines, bounded_lines])
def test_counts_report_their_progress(count, monkeypatch):
    monkeypatch.setattr(progress, "ESTIMATED_AFTER", 0)
    monkeypatch.setattr(progress, "LONG", -1)
    monkeypatch.setitem(exact.CHUNK_VALUES, "cpu", 300)
    with pytest.warns(UserWarning, match="the exact count of .* lines needs about 0 minutes in all"):
        count(network(CONTINUOUS["hard sigmoid"], 0), 3 * torch.randn(4, 2, 3))


def test_planes_report_their_progress(monkeypatch):
    monkeypatch.setattr(progress, "ESTIMATED_AFTER", 0)
    monkeypatch.setattr(progress, "UNKNOWN_AFTER", -1)
    with pytest.warns(UserWarning, match="the exact count of 2 triangles needs unknown time: .* the first has 3 vertices"):
        exact_planes(network(CONTINUOUS["hard sigmoid"], 0), torch.randn(2, 3, 3))
