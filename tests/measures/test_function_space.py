"""Measures of the function, compared with loops over points and with closed forms for one neuron."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from regioncount import models, sample_simplices
from regioncount.errors import InputError
from regioncount.measures import function_space, value
from regioncount.measures.measured_model import from_tensors


def measured_with(model, points=40, shape=(4,), seed=0):
    torch.manual_seed(seed)
    return from_tensors(model, (torch.randn(points, *shape), torch.randint(0, 2, (points,))))


def two_layers(activation=nn.ReLU):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), activation(), nn.Linear(8, 6), activation(), nn.Linear(6, 3))


def segments_of(measured, number):
    generator = torch.Generator().manual_seed(function_space.SEED)
    return sample_simplices(measured.sample[0], 1, number, generator)


def points_on(segment, number):
    steps = torch.arange(number, dtype=torch.float64).view(-1, *[1] * (segment.dim() - 1)) / (number - 1)
    return ((1 - steps) * segment[0] + steps * segment[1]).to(segment)


def jacobian_norm_at(model, point):
    jacobian = torch.autograd.functional.jacobian(lambda x: model(x[None]).softmax(dim=1)[0], point)
    return jacobian.double().norm().item()


def activation_changes(measured):
    return function_space.activation_changes(measured)["activation_changes"]


def test_jacobian_norms_equal_those_of_single_points():
    model = models.build("small_cnn", num_classes=5, in_channels=2, width=3)
    measured = measured_with(model, shape=(2, 8, 8), points=250)
    model.eval()
    inputs = torch.cat([inputs for inputs, _ in measured.sample_batches(points=200)])
    assert len(inputs) == 200
    expected = np.mean([jacobian_norm_at(model, point) for point in inputs])
    assert function_space.jacobian_norm(measured) == pytest.approx(expected, rel=1e-5)
    points = torch.cat([points_on(segment, 10) for segment in segments_of(measured, 50)])
    means = np.array([jacobian_norm_at(model, point) for point in points]).reshape(50, 10).mean(axis=1)
    columns = function_space.jacobian_norm_on_lines(measured)
    assert columns["jacobian_norm_on_lines"] == pytest.approx(means.mean(), rel=1e-5)
    error = means.std(ddof=1) / np.sqrt(50)
    assert columns["jacobian_norm_on_lines_standard_error"] == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize("activation", [nn.ReLU, lambda: nn.ReLU(inplace=True), nn.LeakyReLU, nn.ReLU6, nn.PReLU])
def test_activation_changes_by_loops_over_hooks(activation):
    model = two_layers(activation)
    measured = measured_with(model)
    patterns, changes = [], 0
    for layer in (model[0], model[2]):
        layer.register_forward_hook(lambda _, inputs, output: patterns.append((output > 0).clone()))
        if activation is nn.ReLU6:
            layer.register_forward_hook(lambda _, inputs, output: patterns.append((output > 6).clone()))
    segments = segments_of(measured, function_space.PATTERN_SEGMENTS)
    for segment in segments:
        previous = None
        for point in points_on(segment, function_space.PATTERN_POINTS):
            patterns.clear()
            model(point[None])
            pattern = torch.cat(patterns, dim=1)
            changes += 0 if previous is None else int((pattern != previous).sum())
            previous = pattern
    assert changes > 0
    # Rounding may move a point at a threshold to either side of it.
    assert activation_changes(measured) == pytest.approx(changes / len(segments), abs=0.05)


class OneNeuron(nn.Module):
    """Changes its slope once, where the first coordinate is zero."""

    def __init__(self, rectify):
        super().__init__()
        self.rectify = rectify

    def forward(self, x):
        bent = self.rectify(x[:, :1].clone())
        return torch.cat([bent, -bent], dim=1)


RECTIFIERS = {
    "relu": functional.relu,
    "relu_": functional.relu_,
    "torch.relu": torch.relu,
    "leaky_relu": functional.leaky_relu,
    "leaky_relu_": functional.leaky_relu_,
    "threshold": lambda x: functional.threshold(x, 0.0, 0.0),
    "rrelu": functional.rrelu,
    "relu6": lambda x: functional.relu6(x * 1e-3),
    "hardtanh": lambda x: functional.hardtanh(x * 1e-3, 0.0, 1.0),
    "clamp": lambda x: x.clamp(min=0),
    "clamp_": lambda x: x.clamp_(min=0),
    "clamp_min": lambda x: x.clamp_min(0),
    "clamp_max": lambda x: x.clamp_max(0),
    "prelu": lambda x: functional.prelu(x, torch.tensor([0.1])),
}


@pytest.mark.parametrize("rectify", RECTIFIERS.values(), ids=RECTIFIERS)
def test_every_rectifier_is_counted(rectify):
    measured = measured_with(OneNeuron(rectify))
    segments = segments_of(measured, function_space.PATTERN_SEGMENTS)
    crossings = (segments[:, 0, 0] * segments[:, 1, 0] < 0).sum().item()
    assert 0 < crossings < len(segments)
    share, number = crossings / len(segments), len(segments)
    columns = function_space.activation_changes(measured)
    assert columns["activation_changes"] == share
    assert columns["activation_changes_standard_error"] == pytest.approx(np.sqrt(share * (1 - share) / (number - 1)))


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (lambda x: torch.maximum(x, torch.zeros_like(x)), "maximum"),
        (lambda x: -torch.minimum(-x, torch.zeros(())), "minimum"),
        (lambda x: torch.where(x > 0, x, 0.0), "where"),
        (lambda x: torch.max(x, torch.zeros(())), "maximum"),
    ],
)
def test_a_rectifier_that_is_not_counted_is_named(written, name):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), Function(written), nn.Linear(8, 3))
    with pytest.warns(
        UserWarning, match=rf"activation_changes does not count torch\.{name}; write rectifiers as torch\.relu"
    ):
        activation_changes(measured_with(network))
    alone = nn.Sequential(nn.Linear(4, 8), Function(written), nn.Linear(8, 3))
    with pytest.raises(InputError, match=r"torch\.maximum and torch\.where, are not counted"):
        activation_changes(measured_with(alone))


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_batches_share_their_ends(monkeypatch):
    measured = measured_with(two_layers())
    expected = activation_changes(measured)
    for size in (1, 2, 7, 199, 200):
        monkeypatch.setattr(function_space, "evaluation_batch", lambda device, values, size=size: size)
        assert activation_changes(measured) == pytest.approx(expected, abs=0.05)


def test_models_without_a_rectifier_are_an_error():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    result = value("activation_changes", measured_with(linear))
    assert "no rectifier" in result["activation_changes_error"]
    with pytest.raises(InputError, match="no rectifier"):
        activation_changes(measured_with(two_layers(nn.Tanh)))
    assert activation_changes(measured_with(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))) > 0


@pytest.mark.parametrize("name", sorted(set(models.names()) - {"torchvision", "timm", "huggingface", "mlp"}))
def test_rectifiers_of_every_network(name):
    torch.manual_seed(0)
    measured = measured_with(models.build(name, width=8), points=2, shape=(3, 32, 32))
    counter = function_space.ActivationChangeCounter(batch=2)
    with torch.no_grad(), counter:
        measured.model.eval()(measured.sample[0])
    assert (counter.calls > 0) == (name not in ("efficientnet_b0", "vision_transformer"))  # their activations are smooth


@pytest.mark.parametrize("name", ["jacobian_norm", "jacobian_norm_on_lines", "activation_changes"])
def test_the_model_is_not_changed_and_values_are_reproducible(name):
    model = models.build("small_cnn", num_classes=5, in_channels=1, width=2).train()
    measured = measured_with(model, shape=(1, 8, 8))
    before = {key: entry.clone() for key, entry in model.state_dict().items()}
    with torch.no_grad():
        result = getattr(function_space, name)(measured)
    torch.manual_seed(99)
    assert result == getattr(function_space, name)(measured)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(entry, before[key]) for key, entry in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_clamped_weight_is_not_an_activation():
    class Tempered(nn.Linear):
        def forward(self, x):
            return super().forward(x) * self.bias.sum().clamp(min=0.1) * self.weight.clamp(min=0).sum()

    with pytest.raises(InputError, match="no rectifier"):
        activation_changes(measured_with(Tempered(4, 3)))


def test_one_point_has_no_lines():
    measured = measured_with(two_layers(), points=1)
    for name in ("jacobian_norm_on_lines", "activation_changes"):
        with pytest.raises(InputError, match="span"):
            getattr(function_space, name)(measured)
