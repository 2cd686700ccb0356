"""Identities of runs and keys of measurements must never change, so that those on disk are found."""

import functools
import json
from pathlib import Path
from types import SimpleNamespace

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra

from regioncount.config import as_mapping, parse_run
from regioncount.runs.identity import measurement_key, run_identity
from regioncount.runs.measurements import measurement_settings

REPOSITORY = Path(__file__).resolve().parents[2]
PUBLISHED = sorted((REPOSITORY / "results" / "published").glob("*/runs/*/run.json"))

# Arbitrary.
FINGERPRINTS = {"train": "0123456789abcdef" * 4, "test": "fedcba9876543210" * 4}

# Computed by version 0.1.0 before options were declared in registries (commit 16629ac), with the data fingerprint above.
# They also depend on the defaults in configs/: changing a default changes its identities.
IDENTITIES = [
    ("seed=0", "f785fdeeec15affa"),
    ("seed=1", "c173f2be72292acb"),
    (
        "model=mlp model.width=64 optimizer.learning_rate=0.01 optimizer.weight_decay=1e-4 batch_size=128 epochs=10",
        "da4e7b193e16e111",
    ),
    ("model=mlp optimizer=sam optimizer.rho=0.1", "9af9a82158c00810"),
    ("model=mlp optimizer=adam optimizer.weight_decay=1e-5 schedule=constant", "004bc5c510d2b856"),
    ("model=mlp optimizer=adamw schedule=exponential", "9f94ef1061c51f6e"),
    ("model=mlp optimizer=adagrad schedule=step schedule.step_size=10", "206371e2ecdb7752"),
    ("model=mlp optimizer=adadelta schedule=multistep schedule.milestones=[10,20]", "93751b8b74326875"),
    ("model=mlp optimizer=rmsprop optimizer.momentum=0.9", "1a315f57fba88708"),
    ("model=resnet18 model.width=16 augmentation=crop_flip", "2d97565c36e16f31"),
    ("model=vision_transformer augmentation=mixup", "69ed82211e9d8c10"),
    ("model=small_cnn stop.train_accuracy=1.0 epochs=200", "f89fa33e73cc6a3d"),
    ("model=small_cnn stop.train_loss=0.01", "a5c7aecaa48834a1"),
    ("model=two_layer", "002b6d06745741f7"),
    ("model=random_forest seed=3", "d6fd9c28577caeb9"),
    ("model=support_vector_machine", "c9123574c7d99c1f"),
    ("model=torchvision model.architecture=resnet50", "af981d20758ba81a"),
]

# Keys of measurements at epoch 30, computed in the same way.
ALL_SUBSPACES = "regions=[line,plane,short_segment,random_direction,wider_scope] regions.seed=1"
KEYS = [
    (
        f"{ALL_SUBSPACES} measures=[accuracy,output_margin,parameter_norm,sharpness,seed_agreement]",
        {
            "accuracy": "3e8d94864a460532",
            "output_margin": "062bd91f2f152a7e",
            "parameter_norm": "aa1ff7bcb848a2a4",
            "sharpness": "386d3949b072a256",
            "seed_agreement": "f501f8b32a28c4bc",
            "line": "b2fcac313be2d088",
            "plane": "5f1162f116c5d24f",
            "short_segment": "6e87cc2d15ec641e",
            "random_direction": "b2e1b2641b6744a1",
            "wider_scope": "fde26bb483eb9fa2",
        },
    ),
    (
        "regions=[line] regions.method=exact regions.budget=1000 measures=[seed_agreement,theorem]",
        {"seed_agreement": "f4854d94319c914d", "theorem": "dfb8a6c5932c225b", "line": "7b7c1de59d59ff32"},
    ),
]


@pytest.fixture(scope="module")
def compose():
    """Return a function from overrides to the configuration that train.py gives for them."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(REPOSITORY / "configs"), version_base="1.3"):
        yield lambda overrides: parse_run(hydra.compose("train", overrides.split()))


@functools.cache
def read(path):
    record = json.loads(path.read_text())
    entries = json.loads(path.with_name("measures.json").read_text())["entries"]
    return record, parse_run(record["config"], recorded=True), entries


def test_published_runs_exist():
    assert len(PUBLISHED) >= 108


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.parent.name)
def test_published_runs_keep_their_identity(path):
    record, config, _ = read(path)
    environment = record["environment"]
    identity = run_identity(as_mapping(config), record["data"], environment["precision"], environment.get("compiled", False))
    assert identity == record["identity"]
    assert path.parent.name == f"{record['name']}-{identity}"


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.parent.name)
def test_published_measurements_keep_their_keys(path):
    _, config, entries = read(path)
    fingerprints = {}
    for key, entry in entries.items():
        assert measurement_key(entry["settings"], entry["epoch"]) == key
        data = entry["settings"]["data"]
        fingerprints |= data if isinstance(data, dict) else {}
    settings = measurement_settings(config, SimpleNamespace(fingerprints=fingerprints))
    for entry in entries.values():
        assert entry["settings"] in settings.values()
    for setting in settings.values():
        assert any(entry["settings"] == setting for entry in entries.values())


@pytest.mark.parametrize(("overrides", "identity"), IDENTITIES)
def test_configurations_keep_their_identity(compose, overrides, identity):
    assert run_identity(as_mapping(compose(overrides)), FINGERPRINTS["train"], "float32", compiled=False) == identity


@pytest.mark.parametrize(
    "defaults", [["schedule.epochs=100"], ["schedule.epochs=null"], ["schedule.warmup=0"], ["schedule.final=0"]]
)
def test_later_options_at_their_defaults_do_not_change_the_identity(compose, defaults):
    """A run that was trained before an option existed is found with the option at its default."""
    plain, given = (as_mapping(compose(f"model=resnet18 epochs=100 {option}")) for option in ("", *defaults))
    assert given["schedule"] == plain["schedule"] == {"name": "cosine"}
    assert as_mapping(compose("model=resnet18 epochs=100 schedule.epochs=200"))["schedule"] == {
        "name": "cosine",
        "epochs": 200,
    }


def test_the_standard_variant_of_the_vision_transformer_is_left_out_of_the_identity(compose):
    plain, standard, other = (
        as_mapping(compose(f"model=vision_transformer {option}"))["model"]
        for option in ("", "model.variant=standard", "model.variant=vit_cifar")
    )
    assert plain == standard
    assert other == plain | {"variant": "vit_cifar"}


def test_precision_and_compilation_change_the_identity(compose):
    config = as_mapping(compose("model=resnet18"))
    assert run_identity(config, FINGERPRINTS["train"], "bfloat16", compiled=False) == "19d328150d9e1f6f"
    assert run_identity(config, FINGERPRINTS["train"], "float32", compiled=True) == "ff3cfc0cdf7474ce"


@pytest.mark.parametrize(("overrides", "keys"), KEYS)
def test_measurements_keep_their_keys(compose, overrides, keys):
    settings = measurement_settings(compose(overrides), SimpleNamespace(fingerprints=FINGERPRINTS))
    assert {name: measurement_key(setting, 30) for name, setting in settings.items()} == keys
