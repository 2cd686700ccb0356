"""The training step: SAM's gradient, precision and compilation."""

import copy
import functools
import math

import pytest
import torch
from tiny_training import CPU, DIGITS, assert_same_weights, configuration, new_model, train, with_sam
from torch import nn
from torch.nn.functional import cross_entropy

from regioncount import training
from regioncount.errors import InputError
from regioncount.training import seeding, steps


def test_sam_is_sgd_with_the_gradient_at_the_perturbed_weights():
    """Compare with Foret et al. 2020, equations 2 and 3, written out.

    Batch normalization is in training mode in both passes; its running statistics are those of the first pass.
    """
    config = with_sam(0.5, model={"name": "small_cnn", "width": 4}, epochs=2, schedule={"name": "constant"})
    model, history = train(config)
    reference = new_model(config).train()
    weights = list(reference.parameters())
    velocity = [torch.zeros_like(w) for w in weights]
    images, labels = DIGITS.normalize(DIGITS.train.images), DIGITS.train.labels
    for epoch in (1, 2):
        generator = torch.Generator().manual_seed(seeding.epoch_seed(config.seed, epoch))
        losses = []
        for batch in torch.randperm(130, generator=generator).split(32):
            loss = cross_entropy(reference(images[batch]), labels[batch])
            losses += [loss.item()] * len(batch)
            slopes = torch.autograd.grad(loss, weights)
            length = sum(g.square().sum() for g in slopes).sqrt()
            perturbed = copy.deepcopy(reference)
            for w, g in zip(perturbed.parameters(), slopes, strict=True):
                w.data.add_(0.5 * g / length)
            loss = cross_entropy(perturbed(images[batch]), labels[batch])
            for w, v, g in zip(weights, velocity, torch.autograd.grad(loss, perturbed.parameters()), strict=True):
                v.mul_(0.9).add_(g + 1e-3 * w.detach())
                w.data.sub_(0.1 * v)
        assert math.isclose(history[epoch - 1]["train_loss"], sum(losses) / 130, rel_tol=1e-4)
    for (name, fast), expected in zip(model.state_dict().items(), reference.state_dict().values(), strict=True):
        assert torch.allclose(fast.float(), expected.float(), rtol=1e-3, atol=1e-4), name


def test_sam_approaches_sgd_as_rho_approaches_zero():
    changes = {"model": {"name": "small_cnn", "width": 4}, "epochs": 1}
    plain = dict(train(configuration(**changes))[0].state_dict())
    distances = []
    for rho in (1e-1, 1e-3, 1e-5):
        state = train(with_sam(rho, **changes))[0].state_dict()
        distances.append(max((state[name].float() - plain[name].float()).abs().max().item() for name in plain))
    assert distances[0] > distances[1] > distances[2] > 0
    assert distances[2] < 1e-3 * distances[0]


def test_sam_does_not_move_weights_whose_gradient_is_zero():
    """An unused layer has no gradient, and the gradient of a batch may be zero."""
    model = nn.Linear(3, 2)
    model.unused = nn.Linear(2, 2)
    before = copy.deepcopy(model)
    (0 * model(torch.ones(1, 3)).sum()).backward()
    with steps.sam_perturbation(model, 0.05):
        assert_same_weights(model, before)
    assert_same_weights(model, before)


def test_sam_returns_the_unperturbed_loss_if_the_step_reuses_its_output_memory(monkeypatch):
    """A CUDA graph reuses it."""
    compute_gradient, outputs = steps._compute_gradient, []

    def in_place(*args, **options):
        results = compute_gradient(*args, **options)
        if not outputs:
            outputs.extend(result.clone() for result in results)
        for output, result in zip(outputs, results, strict=True):
            output.copy_(result)
        return tuple(outputs)

    config = with_sam(0.5, batch_size=130, epochs=2)
    model, history = train(config)
    monkeypatch.setattr(steps, "_compute_gradient", in_place)
    other, rows = train(config)
    assert_same_weights(model, other)
    assert [row["train_loss"] for row in rows] == [row["train_loss"] for row in history]
    assert [row["running_accuracy"] for row in rows] == [row["running_accuracy"] for row in history]


@pytest.mark.parametrize("make", [configuration, functools.partial(with_sam, 0.05)])
def test_bfloat16_is_close_but_not_equal_to_float32(make):
    config = make(model={"name": "small_cnn", "width": 8})
    losses = {}
    for precision in ("float32", "bfloat16"):
        model = new_model(config)
        history = training.fit(model, DIGITS, config, device=CPU, precision=precision)
        losses[precision] = history[-1]["train_loss"]
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert losses["float32"] != losses["bfloat16"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.2)


@pytest.mark.parametrize("make", [configuration, functools.partial(with_sam, 0.05)])
def test_compiled_training_equals_plain_training_and_can_be_resumed(make):
    config = make(model={"name": "small_cnn", "width": 4}, epochs=3)  # 130 images: the last batch has 2
    try:
        compiled = training.choose_compilation(True, CPU, 0)
    except InputError:
        pytest.skip("there is no C++ compiler")
    states = []
    model, history = train(config, compiled=compiled, on_epoch=lambda row, state: states.append(copy.deepcopy(state())))
    _, expected = train(config)
    assert [row["train_loss"] for row in history] == pytest.approx([row["train_loss"] for row in expected], rel=1e-3)
    resumed, _ = train(config, compiled=compiled, checkpoint=states[1])
    assert_same_weights(model, resumed)
