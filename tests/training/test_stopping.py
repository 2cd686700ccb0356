"""Stop rules, and the evaluation of the training set that they need."""

import math

import pytest
import torch
from tiny_training import CPU, DIGITS, configuration, new_model, train
from torch.nn.functional import cross_entropy

from regioncount import training
from regioncount.config import Stop
from regioncount.measures import from_dataset, value
from regioncount.measures.outputs import evaluate, split_batches
from regioncount.training.stopping import meets_target, near_target, screened_accuracy


def test_stopping_at_a_train_accuracy_of_the_whole_training_set():
    model, history = train(configuration(epochs=200, stop={"train_accuracy": 0.97}, schedule={"name": "constant"}))
    accuracy = evaluate(model, split_batches(DIGITS, DIGITS.train, CPU)).accuracy
    assert len(history) < 200
    assert history[-1]["train_accuracy"] == accuracy >= 0.97
    assert all(not row["train_accuracy"] >= 0.97 for row in history[:-1])


@pytest.mark.parametrize("stop", [{"train_accuracy": 0.97}, {"train_loss": 0.2}])
def test_training_in_bfloat16_stops_as_soon_as_the_rule_is_met_in_float32(stop):
    slow = {"name": "sgd", "learning_rate": 0.02, "weight_decay": 0.0, "momentum": 0.9, "nesterov": False}
    config = configuration(epochs=200, stop=stop, schedule={"name": "constant"}, optimizer=slow)
    model, met = new_model(config), []

    def on_epoch(row, state):
        outputs = evaluate(model, split_batches(DIGITS, DIGITS.train, CPU))
        met.append(outputs.accuracy >= 0.97 if "train_accuracy" in stop else outputs.loss <= 0.2)

    training.fit(model, DIGITS, config, device=CPU, precision="bfloat16", on_epoch=on_epoch)
    assert met == [False] * (len(met) - 1) + [True]


def sampled_margins(monkeypatch, every):
    """Train a network; return it, its outputs in float32, and margins with errors of up to 1, observed on some images."""
    model, _ = train(configuration(epochs=3))
    outputs = evaluate(model, split_batches(DIGITS, DIGITS.train, CPU))
    errors = 2 * torch.rand(130, generator=torch.Generator().manual_seed(0)) - 1
    errors[::every] = errors[::every].sign()
    monkeypatch.setattr("regioncount.training.stopping.evenly_spaced", lambda number: torch.arange(0, number, every))
    return model, outputs, outputs.margins + errors


def test_the_accuracy_from_inexact_margins_is_that_in_float32(monkeypatch):
    model, outputs, margins = sampled_margins(monkeypatch, every=10)
    assert (margins > 0).double().mean().item() != outputs.accuracy
    assert screened_accuracy(model, DIGITS, margins, CPU) == outputs.accuracy
    assert screened_accuracy(model, DIGITS, torch.full_like(margins, math.nan), CPU) == outputs.accuracy


def test_a_margin_with_a_larger_error_than_twice_those_of_the_sample_is_missed(monkeypatch):
    model, outputs, margins = sampled_margins(monkeypatch, every=10)
    margins[1] = -100 * outputs.margins[1].sign()
    assert abs(screened_accuracy(model, DIGITS, margins, CPU) - outputs.accuracy) == pytest.approx(1 / 130)


def test_training_does_not_end_because_of_an_estimate(monkeypatch):
    monkeypatch.setattr("regioncount.training.stopping.screened_accuracy", lambda *_: 1.0)
    config = configuration(epochs=200, stop={"train_accuracy": 0.97}, schedule={"name": "constant"})
    model = new_model(config)
    history = training.fit(model, DIGITS, config, device=CPU, precision="bfloat16")
    assert len(history) < 200
    assert evaluate(model, split_batches(DIGITS, DIGITS.train, CPU)).accuracy == history[-1]["train_accuracy"] >= 0.97


def test_only_images_with_a_small_margin_are_evaluated_in_float32(monkeypatch):
    config = configuration(epochs=20)
    model, _ = train(config)
    outputs = evaluate(model, split_batches(DIGITS, DIGITS.train, CPU), bfloat16=True)
    monkeypatch.setattr("regioncount.training.stopping.evenly_spaced", lambda number: torch.arange(0, number, 10))
    evaluated = []
    model.register_forward_hook(lambda module, inputs, logits: evaluated.append(len(logits)))
    screened_accuracy(model, DIGITS, outputs.margins, CPU)
    assert 13 <= sum(evaluated) < 130 / 2


def test_stopping_at_a_train_loss():
    model, history = train(configuration(epochs=200, stop={"train_loss": 0.2}, schedule={"name": "constant"}))
    loss = evaluate(model, split_batches(DIGITS, DIGITS.train, CPU)).loss
    assert len(history) < 200
    assert loss <= 0.2


def test_a_loss_that_is_not_finite_ends_training():
    config = configuration(optimizer={"name": "sgd", "learning_rate": 1e12, "weight_decay": 0.0, "momentum": 0.9}, epochs=50)
    _, history = train(config)
    assert training.diverged(history)
    assert len(history) < 50


def test_evaluation_averages_over_every_image(monkeypatch):
    model = new_model(configuration(model={"name": "small_cnn", "width": 8})).train()
    monkeypatch.setattr("regioncount.measures.outputs.evaluation_batch", lambda device, values: 37)
    outputs = evaluate(model, split_batches(DIGITS, DIGITS.train, CPU))
    assert model.training
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(DIGITS.normalize(DIGITS.train.images[i : i + 1])) for i in range(130)])
    assert outputs.loss == pytest.approx(cross_entropy(logits, DIGITS.train.labels).item(), rel=1e-5)
    assert outputs.accuracy == (logits.argmax(1) == DIGITS.train.labels).double().mean().item()


def test_padding_of_batches_changes_no_output_and_leaves_few_sizes(monkeypatch):
    model = new_model(configuration(model={"name": "small_cnn", "width": 8}))
    monkeypatch.setattr("regioncount.measures.outputs.evaluation_batch", lambda device, values: 40)
    expected = evaluate(model, split_batches(DIGITS, DIGITS.train, CPU))
    sizes = []
    model.register_forward_hook(lambda module, inputs, logits: sizes.append(len(logits)))
    monkeypatch.setattr("regioncount.measures.outputs.PADDED_DEVICES", ("cpu",))
    for number in (130, 117, 40, 3):
        split = DIGITS.train.select(torch.arange(number))
        outputs = evaluate(model, split_batches(DIGITS, split, CPU))
        torch.testing.assert_close(outputs.margins, expected.margins[:number])
        assert outputs.accuracy == (expected.margins[:number] > 0).double().mean().item()
    assert set(sizes) == {40, 10}


@pytest.mark.parametrize("stop", [{"train_accuracy": 0.97}, {"train_loss": 0.2}])
def test_the_measured_accuracy_is_that_of_the_stop_rule_without_another_evaluation(stop):
    model, history = train(configuration(epochs=200, stop=stop, schedule={"name": "constant"}))
    measured = from_dataset(model, DIGITS, CPU, history=lambda: history)
    inputs, evaluated = [], from_dataset(model, DIGITS, CPU)
    expected = value("accuracy", evaluated)
    model.register_forward_hook(lambda module, args, logits: inputs.append(len(logits)))
    assert value("accuracy", measured) == pytest.approx(expected, rel=1e-12)
    assert sum(inputs) == len(DIGITS.test)
    # After another epoch, the stop rule's values would be those of other weights.
    later = from_dataset(model, DIGITS, CPU, history=lambda: [*history, history[0]])
    assert value("accuracy", later) == expected
    assert sum(inputs) == 2 * len(DIGITS.test) + 130


@pytest.mark.parametrize(
    ("stop", "accuracy", "loss", "met", "nearly_met"),
    [
        (Stop(), 1.0, 0.0, False, False),
        (Stop(train_accuracy=0.9), 0.9, 5.0, True, True),
        (Stop(train_accuracy=0.9), 0.89, 5.0, False, True),
        (Stop(train_accuracy=0.9), 0.8, 0.0, False, False),
        (Stop(train_loss=0.1), 0.0, 0.1, True, True),
        (Stop(train_loss=0.1), 1.0, 0.15, False, True),
        (Stop(train_loss=0.1), 1.0, 0.25, False, False),
        (Stop(train_accuracy=0.9, train_loss=0.1), 0.5, 0.1, True, True),
        (Stop(train_accuracy=0.9), math.nan, math.inf, False, False),
    ],
)
def test_a_stop_rule_is_met_by_either_target_and_nearly_met_within_the_slack(stop, accuracy, loss, met, nearly_met):
    assert meets_target(stop, accuracy, loss) == met
    assert near_target(stop, accuracy, loss, False) == nearly_met
    with_rule = stop.train_accuracy is not None or stop.train_loss is not None
    assert near_target(stop, accuracy, loss, True) == (with_rule and math.isfinite(loss))
