"""The training loop: its updates, its reproducibility, and resuming."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import CPU, DIGITS, assert_same_weights, configuration, new_model, train
from torch.nn.functional import cross_entropy

from regioncount import data, models, registry, training
from regioncount.training import seeding

OPTIONS = {"momentum": 0.9, "nesterov": False, "betas": [0.9, 0.99], "alpha": 0.9, "rho": 0.9}


@pytest.mark.parametrize(
    ("schedule", "rates", "sizes"),
    [
        ({"name": "multistep", "milestones": [2, 3], "gamma": 0.5}, [0.1, 0.1, 0.05, 0.025], [32] * 4),
        ({"name": "growing_batch", "step_size": 1, "gamma": 0.5}, [0.1] * 4, [32, 64, 128, 130]),
    ],
)
def test_sgd_with_momentum_matches_the_textbook_update(schedule, rates, sizes):
    """Compare with the update written out, v = m v + (g + wd w), w = w - lr v, over the batches that the seed determines."""
    config = configuration(schedule=schedule)
    model, history = train(config)
    reference = new_model(config)
    weights = list(reference.parameters())
    velocity = [torch.zeros_like(w) for w in weights]
    images, labels = DIGITS.normalize(DIGITS.train.images), DIGITS.train.labels
    for epoch, rate, size in zip(range(1, 5), rates, sizes, strict=True):
        assert math.isclose(history[epoch - 1]["learning_rate"], rate)
        assert history[epoch - 1].get("batch_size", 32) == size
        generator = torch.Generator().manual_seed(seeding.epoch_seed(config.seed, epoch))
        order = torch.randperm(130, generator=generator)
        losses = []
        for batch in order.split(size):
            loss = cross_entropy(reference(images[batch]), labels[batch])
            losses += [loss.item()] * len(batch)
            for w, v, g in zip(weights, velocity, torch.autograd.grad(loss, weights), strict=True):
                v.mul_(0.9).add_(g + 1e-3 * w.detach())
                w.data.sub_(rate * v)
        assert len(losses) == 130  # the last, partial batch is used
        assert math.isclose(history[epoch - 1]["train_loss"], sum(losses) / 130, rel_tol=1e-5)
    for fast, w in zip(model.parameters(), weights, strict=True):
        assert torch.allclose(fast, w, atol=1e-5)


@pytest.mark.parametrize("optimizer", registry.optimizers.names())
@pytest.mark.parametrize("augmentation", registry.augmentations.names())
def test_resuming_from_any_checkpoint_gives_the_weights_of_an_uninterrupted_run(optimizer, augmentation):
    options = {name: OPTIONS[name] for name in OPTIONS if name in registry.optimizers[optimizer].options.model_fields}
    config = configuration(
        optimizer={"name": optimizer, "learning_rate": 0.01, "weight_decay": 1e-4, **options}, augmentation=augmentation
    )
    assert_resuming_changes_nothing(config)


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": {"name": "growing_batch", "step_size": 1, "gamma": 0.5}},
        {"schedule": {"name": "constant", "warmup": 3}},
        {"pruning": {"sparsity": 0.5, "epoch": 0}},
        {"pruning": {"sparsity": 0.5, "epoch": 2}},
    ],
)
def test_resuming_changes_nothing_with_growing_batches_warm_up_or_pruning(changes):
    assert_resuming_changes_nothing(configuration(**changes))


def assert_resuming_changes_nothing(config):
    states = []
    uninterrupted, history = train(config, on_epoch=lambda row, state: states.append(copy.deepcopy(state())))
    assert all(math.isfinite(row["train_loss"]) for row in history)
    for state in states[:-1]:
        resumed = new_model(configuration(seed=5))  # the checkpoint replaces these initial weights
        rest = training.fit(resumed, DIGITS, config, device=CPU, precision="float32", checkpoint=state)
        assert_same_weights(resumed, uninterrupted)
        plain = [{key: value for key, value in row.items() if key != "seconds"} for row in (*rest, *history)]
        assert repr(plain[:4]) == repr(plain[4:])


def test_dropout_is_reproducible_and_the_callers_random_state_does_not_change():
    config = configuration(model={"name": "efficientnet_b0", "width": 8}, epochs=1)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    one, _ = train(config)
    assert torch.equal(torch.rand(1), expected)
    other, _ = train(config)
    assert_same_weights(one, other)


def test_seeds_change_weights_and_batches():
    one, _ = train(configuration(seed=0))
    other, _ = train(configuration(seed=1))
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


def test_a_resumed_run_decodes_the_same_random_crops(tmp_path):
    for split, label, number in itertools.product(("train", "test"), ("cat", "dog"), range(6)):
        path = tmp_path / split / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (20 + 5 * number, 50 - 5 * number, 3)
        Image.fromarray(np.random.default_rng(number).integers(256, size=shape, dtype=np.uint8)).save(path)
    config = configuration(augmentation="random_resized_crop", batch_size=5, epochs=3)

    def fit(workers, **more):
        dataset = data.load("imagenet", root=tmp_path, resize=12, workers=workers)
        model = training.initialize(lambda: models.build("mlp", 2, 3, image_size=12, width=8, depth=1), seed=0)
        training.fit(model, dataset, config, device=CPU, precision="float32", **more)
        return model

    states = []
    uninterrupted = fit(0, on_epoch=lambda row, state: states.append(copy.deepcopy(state())))
    for state in states[:-1]:
        assert_same_weights(fit(1, checkpoint=state), uninterrupted)
