"""Parsing of configurations: types, names, and records from untrusted sources."""

import copy
import json
import math
import re
from pathlib import Path

import fake_sweeps
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from regioncount.commands import compose, hydra_ready
from regioncount.config import as_mapping, parse_dataset, parse_measuring, parse_run, parse_sweep
from regioncount.errors import InputError
from regioncount.runs import files, plans

PLAIN = {
    "dataset": {"name": "digits"},
    "model": {"name": "mlp"},
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
    "schedule": {"name": "constant"},
    "batch_size": 32,
    "epochs": 20,
    "regions": {"seed": 0, "line": {"dimension": 1}, "noise": {"kind": "random_direction"}},
}


def changed(name, value):
    """Return the plain mapping with one option, named as on the command line, set to a value."""
    mapping = copy.deepcopy(PLAIN)
    *groups, last = name.split(".")
    options = mapping
    for group in groups:
        options = options.setdefault(group, {})
    options[last] = value
    return mapping


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("dataset.root", 2024, "2024"),
        ("dataset.root", True, "True"),
        ("dataset.title", 0.5, "0.5"),
        ("dataset.root", Path("a") / "b", "a/b"),
        ("dataset.label_noise", 1, 1.0),
        ("dataset.label_noise", "0.25", 0.25),
        ("stop.train_accuracy", 1, 1.0),
        ("seed", "7", 7),
        ("snapshots.epochs", (1, "2"), [1, 2]),
        ("snapshots.keep", "on", True),
        ("snapshots.keep", 0, False),
        ("dataset.train_size", None, None),
        ("regions.noise.scale", 2, 2.0),
        ("measures", ["accuracy"], ["accuracy"]),
    ],
)
def test_equivalent_spellings_of_a_value_are_converted(name, given, expected):
    group = as_mapping(parse_run(changed(name, given)))
    for part in name.split("."):
        group = group[part]
    assert group == expected
    assert type(group) is type(expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", True),
        ("batch_size", 3.5),
        ("batch_size", None),
        ("seed", 1.0),
        ("seed", "one"),
        ("epochs", [1]),
        ("dataset.seed", None),
        ("dataset.train_size", False),
        ("dataset.label_noise", True),
        ("dataset.label_noise", math.nan),
        ("dataset.label_noise", 10**400),
        ("dataset.root", ["a"]),
        ("dataset.nonsense", 1),
        ("dataset", "digits"),
        ("stop.train_loss", math.inf),
        ("stop.nonsense", None),
        ("stop", None),
        ("snapshots.epochs", [1, 2.5]),
        ("snapshots.epochs", 5),
        ("snapshots.keep", "perhaps"),
        ("snapshots.keep", 0.0),
        ("optimizer.learning_rate", 10**400),
        ("optimizer.learning_rate", math.nan),
        ("regions.line.number", "many"),
        ("regions.line.number", 3.5),
        ("regions.line.stop", math.inf),
        ("regions.line.start", -math.inf),
        ("regions.line.nonsense", 1),
        ("regions.line", "x"),
        ("regions.seed", True),
        ("regions", ["line"]),
        ("measures", "accuracy"),
        ("model", "mlp"),
        ("tracker.mode", {"name": "wandb"}),
        ("nonsense", 1),
        ("nonsense\nwith a second line", 1),
        ("device", "${oc.env:HOME}"),
    ],
)
def test_an_invalid_value_is_named_in_one_line(name, value):
    with pytest.raises(InputError) as refused:
        parse_run(changed(name, value))
    message = str(refused.value)
    assert re.match(rf"{re.escape(' '.join(name.split()))}(=| is |: )", message), message
    assert len(message.splitlines()) == 1
    assert "subspaces" not in message.split(":")[0]


def test_all_measures_keep_those_that_are_named_beside_them():
    every = parse_run(changed("measures", ["all"])).measures
    assert {"accuracy", "sharpness"} < set(every)
    assert "root_inverse_margin" not in every
    assert parse_run(changed("measures", ["root_inverse_margin", "all", "accuracy"])).measures == [
        *every,
        "root_inverse_margin",
    ]


def test_the_name_of_a_subspace_must_be_safe_in_file_names():
    with pytest.raises(InputError, match=r"^regions\.\.\./line: "):
        parse_run({**PLAIN, "regions": {"../line": {"dimension": 1}}})


def test_an_option_without_a_default_is_required():
    for name in ("batch_size", "epochs"):
        with pytest.raises(InputError, match=f"^{name} is missing: give"):
            parse_run({key: value for key, value in PLAIN.items() if key != name})


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "a ${seed} b", "???", "${", "${oc.decode:${oc.env:HOME}}"])
@pytest.mark.parametrize(
    "name", ["dataset.root", "model.name", "optimizer.momentum", "compile", "measures", "regions.line.kind"]
)
def test_interpolations_in_a_record_are_rejected(name, text, monkeypatch):
    monkeypatch.setenv("HOME", "0.5")
    value = [text] if name == "measures" else text
    with pytest.raises(InputError, match=f"^{re.escape(name)}="):
        parse_run(changed(name, value))
    with pytest.raises(InputError, match=r"^dataset\.root="):
        parse_dataset({"name": "digits", "root": text})
    with pytest.raises(InputError, match=r"^sweep\.name="):
        parse_sweep({"name": text}, parse_run(PLAIN))
    with pytest.raises(InputError, match=r"^run="):
        parse_measuring({"run": text})


def test_interpolations_on_the_command_line_are_resolved(monkeypatch):
    monkeypatch.setenv("PLACE", "somewhere")
    with hydra_ready():
        config = parse_run(
            compose("train", ["dataset=cifar10", "dataset.root=${oc.env:PLACE}", "results=${dataset.root}/results"])
        )
    assert (config.dataset.root, config.results) == ("somewhere", "somewhere/results")
    assert parse_dataset({"name": "digits"}, ["dataset.root=${oc.env:PLACE}"]).root == "somewhere"
    with pytest.raises(InputError, match="batch_size"):
        parse_run(OmegaConf.create({**PLAIN, "batch_size": "???"}))


def test_deep_nesting_is_rejected():
    deep = []
    for _ in range(900):
        deep = [deep]
    with pytest.raises(InputError, match=r"^model\.options: "):
        parse_run(changed("model.options", deep))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["${seed}", "???", "10"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
OPTIONS = [
    *("dataset.root", "dataset.train_size", "dataset.label_noise", "model.name", "optimizer.betas", "optimizer.name"),
    *("batch_size", "stop", "snapshots.epochs", "snapshots.keep", "regions", "regions.line", "regions.line.number"),
    *("measures", "tracker.mode", "compile", "results", "schedule", "schedule.gamma", "nonsense"),
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(OPTIONS), json_values)
def test_any_record_is_parsed_completely_or_rejected(name, value):
    """Any JSON value raises an InputError or gives a configuration whose record parses to the same configuration."""
    try:
        mapping = as_mapping(parse_run(changed(name, value)))
    except InputError:
        return
    assert as_mapping(parse_run(json.loads(json.dumps(mapping)))) == mapping
    assert "${" not in json.dumps(mapping)


def test_a_plan_with_an_interpolation_is_damaged(tmp_path):
    directory = fake_sweeps.write_sweep(tmp_path)
    record = files.read_json(directory / plans.FILE)
    record["runs"][3]["config"]["dataset"]["title"] = "${oc.env:HOME}"
    files.write_json(directory / plans.FILE, record)
    with pytest.raises(InputError, match=r"plan\.json is damaged: dataset\.title=\$\{oc\.env:HOME\}"):
        plans.read(directory)
