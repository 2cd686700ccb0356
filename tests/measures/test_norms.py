"""Norms and margins, compared with slow explicit computations on small networks."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

import regioncount as rc
from regioncount import data, models, registry
from regioncount.errors import InputError
from regioncount.measures import distances, margins, norms, performance, value
from regioncount.measures.measured_model import MeasuredModel, from_tensors

INPUTS = torch.randn(40, 3, 6, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(40) % 4


def convolutional() -> nn.Module:
    """Return a network with batch normalization before and after convolutions, a stride and groups."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.BatchNorm2d(3),
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(54, 4),
    )
    return as_if_trained(model)


def as_if_trained(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


def perceptron() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Flatten(), nn.Linear(90, 5), nn.ReLU(), nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 4))


def measured_model(model: nn.Module, **more) -> MeasuredModel:
    """Return a model with inputs that it labels itself, so that margins are positive."""
    with torch.no_grad():
        labels = model.eval()(INPUTS).argmax(dim=1)
    return from_tensors(model, (INPUTS, labels), **more)


@pytest.mark.parametrize(
    "name", ["resnet18", "senet18", "vgg19", "mobilenet", "shufflenetv2", "efficientnet_b0", "simple_dla"]
)
def test_folding_normalization_does_not_change_the_function(name):
    torch.manual_seed(0)
    model = as_if_trained(models.build(name, width=8))
    inputs = torch.randn(3, 3, 32, 32)
    network = from_tensors(model, (inputs, torch.zeros(3, dtype=torch.long))).network
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    with torch.no_grad():
        expected = model(inputs)
        assert torch.allclose(network(inputs), expected, atol=1e-4 * expected.abs().max())


def test_operator_norms_are_the_largest_singular_values_of_the_layers_matrices():
    """The matrix of a layer has one column per input value."""
    measured = measured_model(convolutional())
    result = norms.operator_norms(measured)
    activations = INPUTS[:1]
    expected = []
    for module in measured.network.children():
        if isinstance(module, nn.Conv2d | nn.Linear):
            basis = torch.eye(activations.numel()).view(-1, *activations.shape[1:])
            with torch.no_grad():
                matrix = (module(basis) - module(torch.zeros_like(basis))).flatten(1).T
            expected.append(np.linalg.svd(matrix.double().numpy(), compute_uv=False)[0])
        activations = module(activations).detach()
    assert len(expected) == 4
    assert result.numpy() == pytest.approx(np.array(expected), rel=1e-4)
    assert norms.log_product_operator(measured) == pytest.approx(2 * np.log(expected).sum(), rel=1e-4)


def test_a_single_layer_is_a_network():
    layer = nn.Linear(6, 3)
    measured = from_tensors(layer, (torch.randn(20, 6), torch.arange(20) % 3))
    expected = torch.linalg.matrix_norm(layer.weight.detach().double(), 2).item()
    assert norms.log_product_spectral(measured) == pytest.approx(2 * math.log(expected))
    assert norms.log_product_operator(measured) == pytest.approx(2 * math.log(expected))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(1, 1, 2), (1, 2, 2)),  # one output
        (nn.Conv2d(1, 2, 2), (1, 2, 2)),
        (nn.Conv2d(1, 30, 1), (1, 1, 1)),  # one input
        (nn.Conv2d(3, 2, 3, stride=2), (3, 5, 5)),
        (nn.Conv2d(4, 4, 3, padding=1, groups=4), (4, 2, 2)),
        (nn.Conv1d(2, 3, 3, padding=1), (2, 3)),
    ],
)
def test_operator_norms_of_tiny_layers_are_those_of_their_matrices(layer, shape):
    linear = copy.deepcopy(layer)
    linear.bias = None
    model = nn.Sequential(layer, nn.Flatten())
    inputs = torch.randn(20, *shape)
    outputs = model(inputs).shape[1]
    model.append(nn.Linear(outputs, 3))
    basis = torch.eye(inputs[0].numel()).view(-1, *shape)
    with torch.no_grad():
        expected = np.linalg.svd(linear(basis).flatten(1).double().numpy(), compute_uv=False)[0]
    measured = from_tensors(model, (inputs, torch.arange(20) % 3))
    assert norms.operator_norms(measured)[0].item() == pytest.approx(expected, rel=1e-5)


def as_matrix(layer):
    """Return a layer's weight as a matrix; that of a grouped convolution is block-diagonal."""
    weight = layer.weight.detach().double()
    blocks = weight.split(len(weight) // getattr(layer, "groups", 1))
    return torch.block_diag(*(block.flatten(1) for block in blocks)).numpy()


def test_norms_of_matrices_follow_from_their_singular_values():
    measured = measured_model(convolutional())
    gamma = margins.output_margin(measured)
    values = [np.linalg.svd(as_matrix(layer), compute_uv=False) for layer in measured.layers.values()]
    depth = len(values)
    frobenius = math.prod((singular**2).sum() for singular in values)
    spectral = math.prod(singular[0] ** 2 for singular in values)
    expected = {
        "log_product_frobenius": math.log(frobenius),
        "log_product_frobenius_over_margin": math.log(frobenius / gamma**2),
        "sum_frobenius": depth * frobenius ** (1 / depth),
        "sum_frobenius_over_margin": depth * (frobenius / gamma**2) ** (1 / depth),
        "log_product_spectral": math.log(spectral),
        "log_product_spectral_over_margin": math.log(spectral / gamma**2),
        "sum_spectral": depth * spectral ** (1 / depth),
        "sum_spectral_over_margin": depth * (spectral / gamma**2) ** (1 / depth),
        "frobenius_over_spectral": sum((singular**2).sum() / singular[0] ** 2 for singular in values),
        "margin_over_spectral_product": gamma / math.sqrt(spectral),
        "log_product_operator_over_margin": norms.log_product_operator(measured) - 2 * math.log(gamma),
    }
    assert {name: getattr(norms, name)(measured) for name in expected} == pytest.approx(expected, rel=1e-9)


def before_and_after() -> tuple[nn.Module, nn.Module]:
    """Return a perceptron, and the same one with noise added to its parameters."""
    before, after = perceptron(), perceptron()
    with torch.no_grad():
        for parameter in after.parameters():
            parameter.add_(torch.randn_like(parameter))
    return before, after


def test_norms_and_distances_of_all_parameters():
    before, after = before_and_after()
    measured = measured_model(after, initial=before)
    pairs = list(zip(after.parameters(), before.parameters(), strict=True))
    differences = [(one - other).detach().double().numpy() for one, other in pairs]
    assert norms.parameter_count(measured) == 90 * 5 + 5 + 5 * 3 + 3 + 3 * 4 + 4
    length = math.sqrt(sum((one.detach().double().numpy() ** 2).sum() for one, _ in pairs))
    assert norms.parameter_norm(measured) == pytest.approx(length)
    assert norms.margin_over_norm(measured) == pytest.approx(margins.output_margin(measured) / length)
    squares = [(difference**2).sum() for difference in differences]
    assert norms.distance_from_initialization(measured) == pytest.approx(math.sqrt(sum(squares)))
    assert norms.frobenius_distance(measured) == pytest.approx(sum(squares[::2]))  # without biases


def test_relative_distances_follow_from_the_weights_of_each_layer():
    before, after = before_and_after()
    measured = measured_model(after, initial=before)
    pairs = [
        (trained.weight.detach().double().numpy(), start.weight.detach().double().numpy())
        for trained, start in zip(after.modules(), before.modules(), strict=True)
        if isinstance(trained, nn.Linear)
    ]
    squares = [(((w - start) ** 2).sum(), (w**2).sum()) for w, start in pairs]
    relative = sum(distance / norm for distance, norm in squares)
    assert distances.root_relative_distance(measured) == pytest.approx(math.sqrt(relative))
    assert distances.root_log_relative_distance(measured) == pytest.approx(math.sqrt(math.log(relative)))
    logarithm = math.log(sum(map(sum, squares)))
    assert distances.root_log_distance_plus_norm(measured) == pytest.approx(math.sqrt(logarithm))
    spectral = sum(np.linalg.norm(w, 2) ** 2 for w, _ in pairs)
    expected = math.sqrt(logarithm - math.log(spectral))
    assert distances.root_log_distance_plus_norm_over_spectral(measured) == pytest.approx(expected)
    distance = math.sqrt(sum(squared for squared, _ in squares))
    assert distances.root_frobenius_distance(measured) == pytest.approx(distance)
    inverse = margins.inverse_margin(measured) ** 0.5
    assert distances.root_inverse_margin(measured) == pytest.approx(inverse)
    assert distances.root_inverse_margin_over_distance(measured) == pytest.approx(inverse / distance)


def test_path_norm_is_the_sum_over_all_paths():
    measured = measured_model(perceptron())
    first, second, third = (module for module in measured.network.modules() if isinstance(module, nn.Linear))
    weights = [[[w**2 for w in row] for row in layer.weight.tolist()] for layer in (first, second, third)]
    biases = [[b**2 for b in layer.bias.tolist()] for layer in (first, second, third)]
    total = 0.0
    for k, j, i in itertools.product(range(4), range(3), range(5)):
        product = weights[2][k][j] * weights[1][j][i]
        total += product * biases[0][i] + sum(product * weights[0][i][pixel] for pixel in range(90))
    total += sum(weights[2][k][j] * biases[1][j] for k in range(4) for j in range(3)) + sum(biases[2])
    assert norms.log_path_norm(measured) == pytest.approx(math.log(total), rel=1e-6)
    gamma = margins.output_margin(measured)
    assert norms.log_path_norm_over_margin(measured) == pytest.approx(math.log(total / gamma**2), rel=1e-6)


def test_fisher_rao_norm_from_the_gradient_of_each_point():
    measured = measured_model(convolutional())
    weights = [weight.requires_grad_() for weight in measured.network.parameters()]
    squares = []
    for image, label in zip(*measured.sample, strict=True):
        loss = nn.functional.cross_entropy(measured.network(image[None]), label[None])
        slopes = torch.autograd.grad(loss, weights)
        squares.append(sum((slope * weight).sum().item() for slope, weight in zip(slopes, weights, strict=True)) ** 2)
    assert norms.fisher_rao_norm(measured) == pytest.approx(math.sqrt(np.mean(squares)), rel=1e-4)


def test_output_margins_of_each_point():
    model = convolutional()
    measured = from_tensors(model, (INPUTS, LABELS))
    expected = []
    for logits, label in zip(model(INPUTS).tolist(), LABELS.tolist(), strict=True):
        expected.append(logits[label] - max(logit for k, logit in enumerate(logits) if k != label))
    assert margins.output_margin(measured) == pytest.approx(np.quantile(expected, 0.1), rel=1e-4)
    assert margins.output_margin(measured) < 0
    with pytest.raises(InputError, match="not positive"):
        margins.inverse_margin(measured)
    measured = measured_model(model)
    gamma = margins.output_margin(measured)
    assert margins.inverse_margin(measured) == pytest.approx(1 / gamma)
    assert margins.inverse_squared_margin(measured) == pytest.approx(1 / gamma**2)


def test_input_margin_of_a_linear_model_is_the_distance_to_its_boundary():
    model = nn.Sequential(nn.Flatten(), nn.Linear(90, 4))
    measured = measured_model(model)
    weight, bias = model[1].weight.detach().double().numpy(), model[1].bias.detach().double().numpy()
    distances = []
    for point in INPUTS.flatten(1).double().numpy():
        scores = weight @ point + bias
        best = scores.argmax()
        # the gradient of m belongs to the two highest logits, and so does the nearest boundary
        other = max((k for k in range(4) if k != best), key=lambda k: scores[k])
        distances.append((scores[best] - scores[other]) / np.linalg.norm(weight[best] - weight[other]))
    assert margins.input_margin(measured) == pytest.approx(np.quantile(distances, 0.1), rel=1e-4)


def test_epochs_to_fit_is_the_first_epoch_of_99_percent():
    history = [{"epoch": epoch, "running_accuracy": accuracy} for epoch, accuracy in ((1, 0.5), (2, 0.992), (3, 0.999))]
    measured = measured_model(perceptron())
    measured.history = lambda: history
    assert performance.epochs_to_fit(measured) == 2
    measured.history = lambda: history[:1]
    with pytest.raises(InputError, match="no epoch"):
        performance.epochs_to_fit(measured)
    measured.history = None
    with pytest.raises(InputError, match="history"):
        performance.epochs_to_fit(measured)


def test_a_measure_that_fails_gives_the_reason_and_does_not_affect_others():
    class Branching(nn.Module):
        """A module that torch.fx cannot trace."""

        def __init__(self):
            super().__init__()
            self.layers = convolutional()

        def forward(self, x):
            return self.layers(x) if x.sum() > -1e9 else self.layers(-x)

    model = Branching().eval()
    names = ["parameter_norm", "parameter_count", "output_margin", "frobenius_distance"]
    result = rc.measure(model, (INPUTS, LABELS), names)
    assert math.isnan(result["parameter_norm"])
    assert "torch.fx cannot trace" in result["parameter_norm_error"]
    assert "parameter_count_error" not in result
    assert result["parameter_count"] == sum(p.numel() for p in model.parameters())
    assert "output_margin_error" not in result
    zero = perceptron()
    nn.init.zeros_(zero[3].weight)
    assert "zero" in value("log_product_spectral", from_tensors(zero, (INPUTS, LABELS)))["log_product_spectral_error"]
    assert "before training" in value("frobenius_distance", from_tensors(zero, (INPUTS, LABELS)))["frobenius_distance_error"]


def test_measuring_does_not_change_the_model():
    model = convolutional().train()
    before = copy.deepcopy(model.state_dict())
    rc.measure(model, (INPUTS, LABELS), ["parameter_norm", "output_margin", "log_product_operator", "fisher_rao_norm"])
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_unknown_measure_is_rejected():
    with pytest.raises(InputError, match="measure 'norm' is unknown"):
        rc.measure(perceptron(), (INPUTS, LABELS), ["norm"])


@pytest.mark.parametrize(
    ("labels", "message"),
    [(LABELS[:5], "40 inputs and 5 labels"), (LABELS.float(), "labels int64"), (LABELS[:, None], "labels int64")],
)
def test_data_of_the_wrong_shape_or_type_are_rejected(labels, message):
    with pytest.raises(InputError, match=message):
        rc.measure(perceptron(), (INPUTS, labels), ["output_margin"])


def test_a_data_set_gives_the_same_values_as_its_tensors():
    digits = data.load("digits", train_size=60)
    model = models.build("mlp", 10, 1, image_size=8, width=8)
    splits = [(digits.normalize(split.images), split.labels) for split in (digits.train, digits.test)]
    names = ["accuracy", "output_margin", "parameter_norm", "distance_from_initialization"]
    whole = rc.measure(model, digits, names, initial=model)
    assert whole == pytest.approx(rc.measure(model, splits[0], names, test=splits[1], initial=model))
    assert whole["distance_from_initialization"] == 0


def test_running_out_of_memory_is_raised(monkeypatch):
    def too_large(measured):
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setitem(registry.measures._entries, "output_margin", registry.Entry("measures", "output_margin", too_large))
    with pytest.raises(torch.OutOfMemoryError):
        rc.measure(perceptron(), (INPUTS, LABELS), ["output_margin"])
