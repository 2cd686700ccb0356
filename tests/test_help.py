"""The text of --help: every option with its meaning, choices and limits, without torch."""

import re
import subprocess
import sys
from dataclasses import fields

import pytest
import yaml
from omegaconf import OmegaConf

from regioncount import registry
from regioncount.composition import compose, hydra_ready
from regioncount.config import MeasuringConfig, RunConfig, SweepOptions
from regioncount.config.descriptions import (
    TABLES,
    choices_of,
    describe_options,
    describe_parts,
    measure_names,
)
from regioncount.config_files import CONFIGS, group_choices
from regioncount.help import help_text


@pytest.fixture(scope="module")
def texts():
    return {name: help_text(name, f"{name}.py") for name in ("train", "measure", "sweep")}


def test_the_flag_prints_the_help_without_torch(texts):
    code = "import sys; sys.modules['torch'] = None; sys.modules['pandas'] = None\n"
    code += "from regioncount.commands import train, measure, sweep\n"
    code += "for command in (train, measure, sweep):\n"
    code += "    sys.argv = [f'{command.__name__}.py', '--help']\n    assert command() == 0"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout == "".join(f"{text}\n" for text in texts.values())


@pytest.mark.parametrize("name", ["train", "measure", "sweep"])
def test_every_option_of_the_composed_configuration_is_listed_with_its_default(name, texts):
    with hydra_ready():
        composed = OmegaConf.to_container(compose(name, []))

    def options(mapping, prefix=""):
        for key, value in mapping.items():
            if isinstance(value, dict) and value and key not in ("line",):
                yield from options(value, f"{prefix}{key}.")
            elif key not in ("name", "mode", "experiment", "scale", "line") or prefix == "sweep.":
                yield f"{prefix}{key}"

    words = {line.split("=")[0].strip() for line in texts[name].splitlines() if re.match(r"  \S+=", line)}
    missing = [option for option in options(composed) if option not in words]
    assert missing == []
    assert ("sweep.time_budget" in words) == (name == "sweep")
    assert {"regions.NAME.number", "regions.NAME.resolution"} <= words


def test_the_examples_compose(texts):
    for name, text in texts.items():
        examples = [line.split() for line in text.splitlines() if line.startswith(f"  {name}.py ")]
        assert len(examples) == 3
        for example in examples:
            overrides = [word for word in example[1:] if "," not in word or "[" in word]
            with hydra_ready():
                compose(name, [word.replace("~", "home") for word in overrides if not word.startswith("model._target_")])


def test_every_option_has_a_meaning():
    for name in ("train", "measure", "sweep"):
        for option, description in describe_options(name).items():
            assert description.meaning.endswith("."), option
    for group in TABLES:
        for part, options in describe_parts(group).items():
            for option, description in options.items():
                assert description.meaning.endswith((".", "]")), (group, part, option)


def test_every_field_of_the_schemas_is_described():
    described = {option.partition(".")[0] for option in describe_options("sweep")} | {*TABLES, "plugin_sources"}
    assert {field.name for field in fields(RunConfig)} <= described
    assert {field.name for field in fields(SweepOptions)} == {
        option.removeprefix("sweep.") for option in describe_options("sweep") if option.startswith("sweep.")
    }
    described = {option.partition(".")[0] for option in describe_options("measure")} | {*TABLES, "plugin_sources"}
    assert {field.name for field in fields(MeasuringConfig)} - {"batch_size"} <= described


def test_the_names_of_measures_are_those_of_the_registry():
    built_in = {name for name in registry.measures if registry.measures[name].plugin is None}
    assert set(measure_names()) == built_in
    assert len(measure_names()) == len(built_in)


@pytest.mark.parametrize(
    ("option", "choices"),
    [
        ("augmentation", ("none", "crop_flip", "random_resized_crop", "mixup")),
        ("compile", ("auto", "true", "false")),
        ("precision", ("auto", "float32", "bfloat16")),
        ("model.stem", ("cifar", "imagenet")),
        ("regions.line.split", ("train", "test")),
        ("optimizer.nesterov", ("true", "false")),
        ("seed", ()),
        ("nonsense", ()),
    ],
)
def test_choices_are_those_of_the_schemas(option, choices):
    assert choices_of(option) == choices


def test_choices_of_groups_are_the_files(texts):
    for group in ("model", "experiment", "regions"):
        names = [path.relative_to(CONFIGS / group).with_suffix("").as_posix() for path in (CONFIGS / group).rglob("*.yaml")]
        assert group_choices(group) == sorted(name for name in names if "/_" not in name)
        shown = " ".join(texts["train"].split())
        assert f"[{', '.join(group_choices(group))}]" in shown


def test_limits_and_defaults_of_parts_are_shown(texts):
    shown = " ".join(texts["train"].split())
    assert "(number, above 0, at most 1)" in shown
    rates = {path.stem: yaml.safe_load(path.read_text())["learning_rate"] for path in (CONFIGS / "optimizer").glob("*.yaml")}
    listed = re.search(r"optimizer\.learning_rate=\.\.\. .*? For ([^=]*)\.  ?optimizer", shown.replace(". opt", ".  opt"))
    assert listed is not None
    assert dict(pair.split(": ") for pair in listed[1].split(", ")) == {name: str(rate) for name, rate in rates.items()}
