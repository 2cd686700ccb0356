"""Registries and plugins: registration, suggestions for typos, and identities."""

import math
import subprocess
import sys
import textwrap

import pytest
import torch

import regioncount as rc
from regioncount import data, registry
from regioncount.config import as_mapping, parse_run
from regioncount.data.subspaces import draw_vertices
from regioncount.errors import InputError
from regioncount.options import Options, validate_options
from regioncount.runs.identity import run_identity

PLAIN = {
    "dataset": {"name": "digits"},
    "model": {"name": "mlp"},
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
    "schedule": {"name": "constant"},
    "batch_size": 32,
    "epochs": 2,
    "regions": {"line": {}},
}


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Return a function that writes a plugin module; its registrations are removed after the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    tables = (registry.models, registry.datasets, registry.optimizers, registry.schedules, registry.subspaces)
    tables += (registry.measures, registry.trackers)
    for table in tables:
        table.names()
        monkeypatch.setattr(table, "_entries", dict(table._entries))

    def write(name, source):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        sys.modules.pop(name, None)
        registry._plugins.pop(name, None)

    yield write
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)
        registry._plugins.pop(path.stem, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "resnet81"}}, "model=resnet81: no such choice; .*did you mean resnet18"),
        ({"dataset": {"name": "cifar"}}, "dataset=cifar: no such choice; .*did you mean cifar10"),
        ({"optimizer": {"name": "adamm", "learning_rate": 1}}, "optimizer=adamm: .*did you mean adam"),
        ({"schedule": {"name": "cosin"}}, "schedule=cosin: .*did you mean cosine"),
        ({"measures": ["acuracy"]}, "measures=acuracy: .*did you mean accuracy"),
        ({"model": {"name": "mlp", "widht": 3}}, r"model\.widht: mlp has no such option; .*did you mean width"),
        ({"regions": {"line": {"kind": "simplx"}}}, r"regions\.line\.kind=simplx: .*did you mean simplex"),
    ],
)
def test_a_typo_gets_a_suggestion(changes, message):
    with pytest.raises(InputError, match=message) as refused:
        parse_run(PLAIN | changes)
    assert "\n" not in str(refused.value)


def test_an_unused_plugin_does_not_change_the_identity(plugin):
    plugin("bystander", "import regioncount as rc\nrc.register_optimizer('mine', 'torch.optim:SGD')\n")
    plain, with_plugin = parse_run(PLAIN), parse_run(PLAIN | {"plugins": ["bystander"]})
    identities = [run_identity(as_mapping(c), "data", "float32", False) for c in (plain, with_plugin)]
    assert identities[0] == identities[1]
    assert as_mapping(plain) == as_mapping(with_plugin)


@pytest.mark.parametrize("part", ["model", "optimizer", "schedule", "dataset"])
def test_the_source_of_a_plugin_that_supplies_a_part_enters_the_identity(plugin, part):
    source = f"""
        import regioncount as rc

        rc.register_{part}("mine", {{
            "model": "regioncount.models.mlp:mlp",
            "optimizer": "torch.optim:SGD",
            "schedule": "regioncount.training.optimizers:constant",
            "dataset": "regioncount.data.sources:read_digits",
        }}["{part}"])
    """
    group = {"name": "mine", "learning_rate": 0.1} if part == "optimizer" else {"name": "mine"}
    if part == "model":
        group |= {"width": 4, "depth": 1}
    identities = []
    for comment in ("", "# a change"):
        plugin("supplier", source + f"    {comment}\n")
        registry.models._entries.pop("mine", None)
        config = parse_run(PLAIN | {part: group, "plugins": ["supplier"]})
        assert config.plugin_sources[part].startswith("supplier:")
        identities.append(run_identity(as_mapping(config), "data", "float32", False))
    assert identities[0] != identities[1]


def test_a_record_imports_no_plugin_and_keeps_its_options(plugin):
    plugin("stranger", "raise RuntimeError('this was imported')\n")
    record = PLAIN | {
        "plugins": ["stranger"],
        "model": {"name": "Net", "_target_": "stranger.Net", "width": 3},
        "optimizer": {"name": "strange", "learning_rate": 0.5, "twist": 2},
        "dataset": {"name": "odd", "twist": 3},
        "regions": {"odd": {"kind": "strange", "twist": 1.5, "resolution": 7}},
        "measures": ["unheard_of"],
        "plugin_sources": {"model": "stranger:00"},
    }
    config = parse_run(record, recorded=True)
    assert config.model == record["model"]
    assert config.optimizer == record["optimizer"]
    assert config.regions.subspaces["odd"].model_dump()["twist"] == 1.5
    assert parse_run(as_mapping(config), recorded=True) == config
    assert "stranger" not in sys.modules
    with pytest.raises(InputError, match=r"plugins=\[stranger\]: .*this was imported"):
        parse_run(record)


def test_a_name_cannot_be_registered_twice(plugin):
    plugin("taker", "import regioncount as rc\nrc.register_model('resnet18', 'a:b')\n")
    with pytest.raises(InputError, match=r"model=resnet18: .*choose another"):
        registry.load_plugins(["taker"])


def test_a_measure_cannot_end_like_a_column_beside_another(plugin):
    plugin("calibration", "import regioncount as rc\nrc.register_measure(name='calibration_error')(lambda measured: 0.0)\n")
    with pytest.raises(InputError, match=r"measures=calibration_error: .*_error"):
        parse_run(PLAIN | {"plugins": ["calibration"]})
    assert "calibration_error" not in registry.measures


def test_a_measure_of_a_plugin_returns_a_number_and_keeps_the_model(plugin):
    plugin(
        "various",
        """
        import torch
        import regioncount as rc

        rc.register_measure(name="tensor")(lambda measured: torch.tensor(2.5))
        rc.register_measure(name="words")(lambda measured: "many")
        rc.register_measure(name="broken")(lambda measured: {}["key"])
        rc.register_measure(name="zeroing")(lambda measured: float(measured.model.weight.data.zero_().sum()))
        """,
    )
    registry.load_plugins(["various"])
    data = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    values = rc.measure(torch.nn.Linear(4, 3), data, ["tensor", "words", "broken"])
    assert values["tensor"] == 2.5
    assert math.isnan(values["words"])
    assert values["words_error"] == "the measure returned str, not a number"
    assert values["broken_error"] == "KeyError: 'key'"
    with pytest.raises(InputError, match="measures=zeroing: the measure of the plugin various changes the model"):
        rc.measure(torch.nn.Linear(4, 3), data, ["zeroing"])


def test_a_subspace_of_a_plugin_has_the_declared_shape(plugin):
    plugin("half", "import regioncount as rc\nrc.register_subspace('half')(lambda images, options, _: images[::2])\n")
    config = parse_run(PLAIN | {"plugins": ["half"], "regions": {"odd": {"kind": "half", "number": 4}}})
    with pytest.raises(InputError, match=r"half of the plugin half is \(2, 2, 1, 8, 8\); return vertices \(4, 2, 1, 8, 8\)"):
        draw_vertices(config.regions.subspaces["odd"], data.load("digits"), seed=0)


def test_a_subspace_cannot_have_the_name_of_a_measure():
    with pytest.raises(InputError, match=r"regions\.accuracy: the measure accuracy has the same name"):
        parse_run(PLAIN | {"regions": {"accuracy": {"kind": "simplex"}}, "measures": ["accuracy"]})


def test_an_option_written_as_text_is_the_same_as_a_number():
    configs = [parse_run(PLAIN | {"model": {"name": "decision_tree", "max_depth": depth}}) for depth in (7, "7")]
    assert configs[0].model == configs[1].model == {"name": "decision_tree", "max_depth": 7}


def test_options_are_inferred_from_a_signature():
    class Part:
        def __init__(self, params, *, lr, weight_decay, momentum: float, steps=3, name="a", fast=False):
            pass

    entry = registry.Entry("part", Part)
    model = validate_options(entry, {"momentum": 0.5}, "optimizer")
    assert model.model_dump() == {"momentum": 0.5, "steps": 3, "name": "a", "fast": False}
    for wrong in ({}, {"momentum": "x"}, {"momentum": 0.5, "steps": 1.5}, {"momentum": 0.5, "lr": 1}):
        with pytest.raises(InputError, match=r"^optimizer\."):
            validate_options(entry, wrong, "optimizer")


def test_every_part_declares_its_options():
    for table in (registry.models, registry.datasets, registry.optimizers, registry.schedules, registry.subspaces):
        for name in table.names():
            assert table[name].options is not None, name
            assert issubclass(registry.resolve(table[name].options), Options)


@pytest.mark.parametrize("module", ["regioncount.regions", "regioncount.measures", "regioncount.analysis"])
def test_a_library_imports_nothing_of_the_suite(module):
    refused = ["hydra", "omegaconf", "wandb", "matplotlib", "plotly", "pydantic", "jinja2", "sklearn", "torchvision"]
    code = f"""
        import sys
        for name in {refused}:
            sys.modules[name] = None
        import {module} as library
        [getattr(library, name) for name in library.__all__]
        assert not any(n.startswith(("regioncount.config", "regioncount.runs", "regioncount.data")) for n in sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_a_record_is_parsed_without_torch():
    code = f"""
        import sys
        sys.modules["torch"] = None
        from regioncount.config import parse_run
        import regioncount.runs.measurements, regioncount.runs.identity, regioncount.columns
        parse_run({PLAIN!r}, recorded=True)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
