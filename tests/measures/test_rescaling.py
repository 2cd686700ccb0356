"""Every measure when one layer is multiplied by a and the next by 1/a, which does not change the function."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import regioncount as rc
from regioncount import models, registry
from regioncount.measures import function_space, value
from regioncount.measures.measured_model import from_tensors

# Powers of two, so that floating point rounds both networks alike. They are large enough for the constant in
# magnitude-aware noise to have an effect, but too small for this constant alone to lower the accuracy.
FACTORS = {"mlp": 256.0, "small_cnn": 8.0}
POINTS = 120

ENTRIES = {name: registry.measures[name] for name in registry.measures.names()}
MEASURES = {name: entry.load() for name, entry in ENTRIES.items() if not entry.traits.get("suite")}
UNCHANGED = [name for name in MEASURES if ENTRIES[name].traits["scale_invariant"] is True]
CHANGED = [name for name in MEASURES if ENTRIES[name].traits["scale_invariant"] is False]


def rescaled(model: nn.Module, name: str) -> nn.Module:
    model = copy.deepcopy(model)
    # The first and second layer of the perceptron, or the first normalization and the next convolution.
    first, following = (model[1], model[3]) if name == "mlp" else (model[0][1], model[2][0])
    with torch.no_grad():
        first.weight *= FACTORS[name]
        first.bias *= FACTORS[name]
        following.weight /= FACTORS[name]
    return model


def built(name: str) -> tuple[nn.Module, nn.Module, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Return a network before and after training, and its training and test set."""
    torch.manual_seed(0)
    options = {"width": 12} if name == "mlp" else {"width": 4}
    initial = models.build(name, num_classes=3, in_channels=1, image_size=8, **options)
    inputs = torch.randn(2 * POINTS, 1, 8, 8)
    labels = (inputs.flatten(1) @ torch.randn(64, 3)).argmax(dim=1)
    model = copy.deepcopy(initial)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        cross_entropy(model(inputs[:POINTS]), labels[:POINTS]).backward()
        optimizer.step()
    return initial.eval(), model.eval(), [(inputs[:POINTS], labels[:POINTS]), (inputs[POINTS:], labels[POINTS:])]


def values(model, initial, data):
    measured = from_tensors(model, *data, initial)
    measured.history = lambda: [{"epoch": 3, "running_accuracy": 1.0}]
    return {name: value(name, measured) for name in MEASURES}


@pytest.fixture(scope="module", params=["mlp", "small_cnn"])
def both(request):
    initial, model, data = built(request.param)
    return values(model, initial, data), values(rescaled(model, request.param), initial, data)


def test_every_measure_documents_the_effect_of_rescaling():
    assert sorted(UNCHANGED + CHANGED) == sorted(MEASURES)
    for name, function in MEASURES.items():
        assert "escaling" in function.__doc__, name


@pytest.mark.parametrize("name", UNCHANGED)
def test_unchanged(name, both):
    before, after = both[0][name], both[1][name]
    assert not any(isinstance(number, str) for number in before.values()), before
    if MEASURES[name].__module__ == function_space.__name__ or name.startswith("adaptive"):
        assert before == after
    else:
        assert before == pytest.approx(after, rel=1e-6)


@pytest.mark.parametrize("name", CHANGED)
def test_changed(name, both):
    before, after = both[0][name], both[1][name]
    assert before.keys() == after.keys() <= {name, f"{name}_standard_error"}
    assert abs(after[name] - before[name]) > 0.01 * abs(before[name])


@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
@pytest.mark.parametrize("dimension", [1, 2])
def test_region_counts_are_unchanged(name, dimension):
    _, model, ((inputs, _), _) = built(name)
    simplices = rc.sample_simplices(inputs, dimension, 30, torch.Generator().manual_seed(0))
    before, after = (rc.count_regions(network, simplices).counts for network in (model, rescaled(model, name)))
    assert torch.equal(torch.as_tensor(before), torch.as_tensor(after))
    assert torch.as_tensor(before).max() > 1
