"""Training runs that take a fraction of a second: a small network on 130 images of 8 x 8 pixels."""

import torch

from regioncount import data, models, training
from regioncount.config import RunConfig, parse_run

CPU = torch.device("cpu")
DIGITS = data.load("digits", train_size=130)


def configuration(**changes) -> RunConfig:
    plain = {
        "dataset": {"name": "digits", "train_size": 130},
        "model": {"name": "mlp", "width": 12, "depth": 1},
        "optimizer": {"name": "sgd", "learning_rate": 0.1, "weight_decay": 1e-3, "momentum": 0.9, "nesterov": False},
        "schedule": {"name": "cosine"},
        "batch_size": 32,
        "epochs": 4,
    }
    return parse_run({**plain, **changes})


def with_sam(rho: float, **changes) -> RunConfig:
    options = {"learning_rate": 0.1, "weight_decay": 1e-3, "momentum": 0.9, "nesterov": False}
    return configuration(optimizer={"name": "sam", "rho": rho, **options}, **changes)


def new_model(config: RunConfig):
    options = {key: value for key, value in config.model.items() if key != "name"}
    return training.initialize(
        lambda: models.build(config.model["name"], 10, DIGITS.in_channels, image_size=DIGITS.image_size, **options),
        config.seed,
    )


def train(config: RunConfig, **more):
    model = new_model(config)
    history = training.fit(model, DIGITS, config, device=CPU, precision="float32", **more)
    return model, history


def assert_same_weights(one, other):
    for (name, first), second in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(first, second), name
