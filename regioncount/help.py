"""The text of --help, from the schemas of the options, the registries and the configuration files."""

import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

from regioncount.config.descriptions import TABLES, Description, describe_options, describe_parts
from regioncount.config_files import CONFIGS, LAUNCHERS, group_choices

EXAMPLES = {
    "train": """\
Train a model and measure it. A run that is finished is not trained again, and an interrupted one resumes.
  {} dataset=digits model=resnet18 optimizer.learning_rate=0.1
  {} dataset=cifar10 dataset.root=~/data model=vgg19 epochs=100 schedule.warmup=5 regions=[line,plane]
  {} dataset=image_folder dataset.root=DIR dataset.resize=32 model._target_=my_module.MyNet""",
    "measure": """\
Measure a finished run (run=DIR) or a file of weights (checkpoint=FILE dataset=... model=...). Print a table and draw
the model's decision regions in the plane through three training images.
  {} run=results/runs/NAME regions=[line,plane]
  {} run=results/runs/NAME snapshots=all measures=[accuracy,sharpness]
  {} checkpoint=weights.pt dataset=cifar10 model=resnet18 regions.line.number=1000""",
    "sweep": """\
Train and measure a grid of runs, and correlate their measures. An experiment or lists of values on the command line
define the grid. Rerunning a sweep trains and measures only what is missing.
  {} experiment=quickstart
  {} optimizer.learning_rate=0.1,0.01 batch_size=64,256 seed=0,1,2
  {} experiment=paper/cifar10 scale=small dataset.root=DIR hydra.launcher.n_jobs=2""",
}
FLAGS = {
    "-h, --help": "Print this help.",
    "--version": "Print the version of regioncount.",
    "-m, --multirun": "Run a grid of runs, as the command sweep does.",
    "--config-dir DIR": "Also read configuration files from DIR, such as DIR/experiment/mine.yaml.",
    "--cfg job": "Print the composed configuration (--package GROUP: one group; --resolve: interpolations resolved).",
    "--info defaults": "Print the files of the composed configuration (also all, config, plugins, searchpath).",
    "--shell-completion install=bash": "Print a script that completes options and choices in bash (docs/reference.md).",
    "--hydra-help": "Print Hydra's own help.",
}
GROUPS = {
    "dataset": "The data set.",
    "model": "The model. custom: your own, given by model._target_.",
    "optimizer": "The optimizer.",
    "schedule": "The schedule of the learning rate.",
    "regions": "The subspaces in which regions are counted, a list.",
    "tracker": "Where runs are logged besides the results directory.",
    "experiment": "A file of configs/experiment: the options of an experiment, and the grid of its sweep.",
    "scale": "Scales an experiment down to ten minutes to an hour on two cores (docs/experiments.md).",
}
SECTIONS = {
    "Data": ("dataset",),
    "Model": ("run", "checkpoint", "checkpoint_key", "model"),
    "Training": (
        *("optimizer", "schedule", "augmentation", "batch_size", "epochs", "seed", "stop", "ghost_batch_size", "pruning"),
        *("device", "precision", "compile"),
    ),
    "Measurements": ("regions", "measures", "snapshots"),
    "Experiments": ("experiment", "scale", "sweep", "hydra/launcher"),
    "Results": ("results", "tracker", "plugins"),
}
LAUNCHER = Description(
    "How the runs are launched: hydra.launcher.n_jobs at a time, by default one per core, but one after another on a GPU "
    "(parallel), one after another (basic), by joblib, or on a cluster (docs/cluster.md).",
    LAUNCHERS,
)
COLUMN, WIDTH = 30, 120


def help_text(config_name: str, command: str) -> str:
    """Return the text of --help: examples, all options in sections, and flags.

    Args:
        config_name: "train", "measure" or "sweep".
        command: The name of the command, for the examples.
    """
    config = _load(f"{config_name.replace('sweep', 'train')}.yaml")
    chosen = {group: choice for entry in config["defaults"] if isinstance(entry, dict) for group, choice in entry.items()}
    if "tracker" in chosen:
        config["tracker"] = _load(f"tracker/{chosen['tracker']}.yaml")
    if config_name == "sweep":
        config["sweep"] = _load("sweep.yaml")["sweep"]
    options = describe_options(config_name)
    lines = [f"usage: {command} [flags] GROUP=CHOICE ... OPTION=VALUE ...", ""]
    lines += [EXAMPLES[config_name].replace("{}", command), ""]
    lines += ["Options with their defaults, meanings, [choices] and (types and limits):", ""]
    for section, names in SECTIONS.items():
        rows = []
        for name in names:
            if name in chosen:
                rows += _group_rows(name, _text(chosen[name]))
            if name == "hydra/launcher" and config_name == "sweep":
                rows += _row(name, "parallel", LAUNCHER)
            for option, description in options.items():
                if option == name or option.startswith(f"{name}."):
                    rows += _row(option, _default(config, option), description)
        lines += [section, *rows, ""] if rows else []
    lines.append("Flags")
    flags = {flag: text for flag, text in FLAGS.items() if config_name == "train" or "--multirun" not in flag}
    return "\n".join([*lines, *(line for flag, text in flags.items() for line in _lines(flag, text))])


def _group_rows(group: str, default: str) -> Iterator[str]:
    """Yield the rows of a config group: its choices, and the options of its parts with their defaults."""
    yield from _row(group, default, Description(GROUPS[group], tuple(group_choices(group))))
    if group not in TABLES:
        return
    files = {path.stem: _load(f"{group}/{path.name}") for path in sorted((CONFIGS / group).glob("*.yaml"))}
    # The options of several parts that have the same meaning are one row, with the default of each part.
    rows: dict[tuple[str, Description], dict[str, str]] = {}
    for part, options in describe_parts(group).items():
        for option, description in options.items():
            holders = [part] if group != "regions" else [n for n, c in files.items() if c.get("kind") == part]
            for name in holders:
                if option in files.get(name, {}):
                    rows.setdefault((option, description), {})[name] = _text(files[name].get(option))
    parts = len({name for holders in rows.values() for name in holders})
    for (option, description), defaults in rows.items():
        prefix = "regions.NAME" if group == "regions" else group
        values = set(defaults.values())
        names = (
            ", ".join(defaults) if len(values) == 1 else ", ".join(f"{name}: {value}" for name, value in defaults.items())
        )
        scope = f" For {names}." if len(values) > 1 or len(defaults) < parts else ""
        default = next(iter(values)) if len(values) == 1 else "..."
        yield from _row(f"{prefix}.{option}", default, description, scope)


def _row(option: str, default: str, description: Description, scope: str = "") -> list[str]:
    choices = f" [{', '.join(description.choices)}]" if description.choices else ""
    limits = f" ({description.limits})" if description.limits else ""
    return _lines(f"{option}={default}", f"{description.meaning}{choices}{limits}{scope}")


def _lines(left: str, text: str) -> list[str]:
    """Return a row of two columns, wrapped."""
    wrapped = textwrap.wrap(text, WIDTH - COLUMN - 2, break_long_words=False, break_on_hyphens=False)
    indented = [f"{'':{COLUMN + 2}}{line}" for line in wrapped]
    if len(left) < COLUMN and indented:
        return [f"  {left:{COLUMN}}{wrapped[0]}", *indented[1:]]
    return [f"  {left}", *indented]


def _default(config: Any, option: str) -> str:
    for part in option.split("."):
        config = config[part]
    return _text(config)


def _load(path: str) -> dict[str, Any]:
    """Return the content of a configuration file."""
    return yaml.load((CONFIGS / path).read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _text(value: object) -> str:
    """Return a default as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value).replace(" ", "").replace("'", "")
