"""Magnitude pruning: which weights are pruned, and that they remain zero."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_training import DIGITS, configuration, new_model, train, with_sam

from regioncount.errors import InputError
from regioncount.training import UnusableCheckpoint
from regioncount.training.pruning import prunable_weights, prune
from regioncount.training.trial import check_layers

SMALL_CNN = {"name": "small_cnn", "width": 4}


@given(st.floats(0, 0.999), st.integers(0, 2**32))
def test_the_smallest_magnitudes_of_all_tensors_together_are_pruned(sparsity, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(shape, generator=generator) * scale for shape, scale in (((3, 5), 1.0), ((7,), 0.1))]
    before = torch.cat([weight.flatten() for weight in weights]).tolist()
    kept = prune(weights, sparsity)
    after = torch.cat([weight.flatten() for weight in weights]).tolist()
    order = sorted(range(22), key=lambda index: abs(before[index]))
    pruned = set(order[: round(sparsity * 22)])
    assert after == [0.0 if index in pruned else value for index, value in enumerate(before)]
    assert torch.cat([mask.flatten() for mask in kept]).tolist() == [index not in pruned for index in range(22)]


def test_the_weights_of_convolutions_and_linear_layers_are_pruned():
    model = new_model(configuration(model=SMALL_CNN))
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]  # neither biases nor normalizations
    assert [id(weight) for weight in prunable_weights(model)] == [id(parameter) for parameter in matrices]


@pytest.mark.parametrize("epoch", [0, 2, 4])
def test_pruned_weights_remain_zero(epoch):
    config = configuration(model=SMALL_CNN, pruning={"sparsity": 0.7, "epoch": epoch})
    masks = [[weight != 0 for weight in prunable_weights(new_model(config))]]

    def record(row, state):
        copied = new_model(config)
        copied.load_state_dict(copy.deepcopy(state()["model"]))
        masks.append([weight != 0 for weight in prunable_weights(copied)])

    train(config, on_epoch=record)
    sparse = [1 - sum(mask.sum().item() for mask in epoch) / sum(mask.numel() for mask in epoch) for epoch in masks]
    assert sparse[1:] == pytest.approx([0.7 if e >= epoch else 0 for e in range(1, 5)], abs=1e-3)
    for mask, final in zip(masks[max(1, epoch)], masks[-1], strict=True):
        assert torch.equal(mask, final)


def test_pruning_after_the_last_epoch_keeps_the_other_weights_of_the_dense_network():
    dense, _ = train(configuration())
    sparse, _ = train(configuration(pruning={"sparsity": 0.7, "epoch": 4}))
    for one, other in zip(sparse.parameters(), dense.parameters(), strict=True):
        assert torch.equal(one, torch.where(one == 0, one, other))


def test_the_stop_rule_applies_from_the_epoch_of_pruning_on():
    stop = {"train_loss": 10.0}
    assert len(train(configuration(stop=stop))[1]) == 1
    assert len(train(configuration(stop=stop, pruning={"sparsity": 0.1, "epoch": 3}))[1]) == 3


@pytest.mark.parametrize(
    ("pruning", "reason"),
    [
        ({"sparsity": 0.5}, "epoch is missing"),
        ({"sparsity": 0.5, "epoch": 5}, "last epoch is 4"),
        ({"sparsity": 1.0, "epoch": 1}, "below 1"),
        ({"sparsity": -0.1, "epoch": 1}, "at least 0"),
    ],
)
def test_invalid_pruning_is_refused(pruning, reason):
    with pytest.raises(InputError, match=reason):
        configuration(pruning=pruning)


def test_a_network_without_weights_to_prune_is_refused(monkeypatch):
    config = configuration(pruning={"sparsity": 0.5, "epoch": 1})
    check_layers(config, DIGITS)
    monkeypatch.setattr("regioncount.training.trial.build_for", lambda model, dataset: torch.nn.Flatten())
    with pytest.raises(InputError, match="no convolutions or linear layers"):
        check_layers(config, DIGITS)


def test_a_weight_that_is_computed_from_others_is_refused(monkeypatch):
    config = configuration(pruning={"sparsity": 0.5, "epoch": 1})
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(64, 10)))
    monkeypatch.setattr("regioncount.training.trial.build_for", lambda model, dataset: network)
    with pytest.raises(InputError, match="the layer 1 is no parameter"):
        check_layers(config, DIGITS)


def test_attentions_are_pruned():
    attention = torch.nn.MultiheadAttention(8, 2)
    pruned = {id(weight) for weight in prunable_weights(attention)}
    assert pruned == {id(parameter) for parameter in attention.parameters() if parameter.ndim > 1}


def test_sam_is_refused_because_it_would_move_pruned_weights():
    with pytest.raises(InputError, match="optimizer=sam has a training step of its own"):
        with_sam(0.05, pruning={"sparsity": 0.5, "epoch": 1})
    with_sam(0.05, pruning={"sparsity": 0.0, "epoch": 1})


def test_masks_of_a_checkpoint_are_checked():
    config = configuration(pruning={"sparsity": 0.3, "epoch": 1})
    states = []
    train(config, on_epoch=lambda row, state: states.append(copy.deepcopy(state())))
    for masks in ([mask[:1] for mask in states[1]["masks"]], ["a"], [mask.float() for mask in states[1]["masks"]], "masks"):
        with pytest.raises(UnusableCheckpoint, match="masks"):
            train(config, checkpoint=states[1] | {"masks": masks})
