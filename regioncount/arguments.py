"""The flags and overrides of the commands train, measure and sweep, and the text of --help."""

import argparse
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from regioncount.composition import CONFIGS, one_line_errors
from regioncount.errors import InputError

DESCRIPTIONS = {
    "train": """\
Train a model and measure it. For example:
  {} dataset=digits model=resnet18 optimizer.learning_rate=0.1""",
    "measure": """\
Measure a finished run (run=DIR) or a file of weights (checkpoint=FILE dataset=... model=...). Print a table and draw
the model's decision regions in the plane through three training images. For example:
  {} run=results/runs/NAME regions=[line,plane]""",
    "sweep": """\
Train and measure a grid of runs, and correlate their measures. An experiment or lists of values on the command line
define the grid. Rerunning a sweep trains and measures only what is missing. For example:
  {} experiment=quickstart
  {} optimizer.learning_rate=0.1,0.01 batch_size=64,256 seed=0,1,2""",
}
FLAGS = """\
Flags:
  -h, --help         print this help
  --version          print the version of regioncount
  --config-dir DIR   also read configuration files from DIR, such as DIR/experiment/mine.yaml
  --cfg job          print the composed configuration (--package GROUP: one group; --resolve: interpolations resolved)
  --info defaults    print the files of the composed configuration (other choices: all, config, plugins, searchpath)
  --hydra-help       print Hydra's own help"""
# Options whose values are always one path, also if they contain the commas and brackets of Hydra's lists.
PATH_OPTIONS = ("results", "run", "checkpoint")
SWEEP_FLAG = "  -m, --multirun     run a grid of runs, as the command sweep does"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (--help lists the flags)")


def parse_arguments(config_name: str, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Split a command line into flags and normalized overrides.

    The flags are Hydra's; those that the command does not support are rejected. --config-dir becomes an override, and
    model._target_=... without a model adds the override model=custom; likewise for dataset._target_. Paths, and other
    values that are not valid in Hydra's grammar, are quoted.

    Returns:
        The flags, and the overrides.

    Raises:
        InputError: A flag is unknown or not supported, or an override names no option or has no value.
    """
    parser = _Parser(add_help=False)
    for names in (
        "--help -h",
        "--version",
        "--hydra-help",
        "--resolve",
        "--run -r",
        "--multirun -m",
        "--shell-completion -sc",
    ):
        parser.add_argument(*names.split(), action="store_true")
    for names in ("--package -p", "--config-path -cp", "--config-name -cn", "--config-dir -cd", "--experimental-rerun"):
        parser.add_argument(*names.split())
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    info_choices = ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"]
    parser.add_argument("--info", "-i", nargs="?", const="all", choices=info_choices)
    parser.add_argument("overrides", nargs="*")
    flags = parser.parse_intermixed_args(arguments)

    if flags.config_name is not None or flags.config_path is not None:
        flag = "--config-name" if flags.config_name is not None else "--config-path"
        advice = "use --config-dir=DIR to add your own files, such as DIR/experiment/mine.yaml"
        raise InputError(f"{flag} is not supported: this command composes {config_name}.yaml; {advice}")
    if flags.experimental_rerun is not None:
        raise InputError("--experimental-rerun is not supported: rerun the same command to resume")
    if flags.multirun and config_name == "measure":
        raise InputError("--multirun is not supported: this command measures one run; use a sweep to measure a grid")
    if flags.run and (flags.multirun or config_name == "sweep"):
        raise InputError("--run is not supported: a sweep runs a grid; use train.py or regioncount-train for one run")
    only_prints = flags.cfg or flags.info or flags.hydra_help or flags.shell_completion
    if flags.multirun and only_prints and config_name == "train":
        raise InputError(
            "--multirun is not supported with flags that only print: pass those to sweep.py or regioncount-sweep"
        )
    actions = ("install=", "uninstall=", "query=")
    if flags.shell_completion and not any(override.startswith(actions) for override in flags.overrides):
        raise InputError("--shell-completion needs install=bash (or zsh, fish), uninstall=... or query=...")
    if (flags.package or flags.resolve) and not flags.cfg:
        raise InputError(f"{'--package' if flags.package else '--resolve'} needs --cfg job")

    for override in flags.overrides:
        if override.lstrip("+~").startswith("=") or not override:
            raise InputError(f"'{override}' names no option; write for example seed=3")
        if "=" not in override and not override.startswith("~"):
            example = shlex.join([f"run={override}"]) if config_name == "measure" else f"{override}=VALUE"
            raise InputError(f"'{override}' has no value; write for example {example}")
    custom = _choose_custom("dataset", _choose_custom("model", flags.overrides))
    overrides = [_quote(override) for override in custom]
    if flags.config_dir is not None:
        overrides = _add_search_path(overrides, Path(flags.config_dir))
    return flags, overrides


def printing_flags(flags: argparse.Namespace) -> list[str]:
    """Return the flags that make Hydra print something instead of running the command."""
    with_value = [(f"--{name}", getattr(flags, name)) for name in ("cfg", "package", "info")]
    switches = [f"--{name}" for name in ("resolve", "hydra-help", "shell-completion")]
    switches = [switch for switch in switches if getattr(flags, switch[2:].replace("-", "_"))]
    return switches + [part for flag, value in with_value if value is not None for part in (flag, value)]


def _quote(override: str) -> str:
    """Quote the value of an override if it is a path, or if Hydra cannot parse it."""
    option, separator, value = override.partition("=")
    quoted = f"{option}={QuotedString(value, Quote.single).with_quotes()}"
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if option.lstrip("+") in PATH_OPTIONS and value not in ("", "null") and "${" not in value and not is_quoted:
        return quoted
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return quoted if separator else override
    return override


def _choose_custom(group: str, overrides: list[str]) -> list[str]:
    """Add GROUP=custom if GROUP._target_ is set; prefix the group's other options with ++, as no file lists them."""
    choices = [override for override in overrides if override.startswith(f"{group}=")]
    has_target = any(override.startswith(f"{group}._target_=") for override in overrides)
    if not has_target or choices not in ([], [f"{group}=custom"]):
        return overrides
    options = [
        f"++{override}" if re.match(rf"{group}\.(?!_target_=)", override) else override
        for override in overrides
        if override != f"{group}=custom"
    ]
    return [f"{group}=custom", *options]


def _add_search_path(overrides: list[str], directory: Path) -> list[str]:
    """Add a directory to hydra.searchpath, which launchers also use to compose the cells of a sweep."""
    if not directory.is_dir():
        raise InputError(f"--config-dir={directory}: the directory does not exist")
    directory = directory.resolve()
    key = "hydra.searchpath="
    replaced = [override for override in overrides if override.startswith(key)]
    with one_line_errors():
        paths = OverridesParser.create().parse_override(replaced[-1]).value() if replaced else []
    paths = [*paths, f"file://{directory}"] if isinstance(paths, list) else [f"file://{directory}"]
    quoted = ",".join(QuotedString(str(path), Quote.single).with_quotes() for path in paths)
    return [*(override for override in overrides if override not in replaced), f"{key}[{quoted}]"]


def help_text(config_name: str, command: str) -> str:
    """Return the text of --help: groups with their choices, options with their defaults, and flags."""
    names = [config_name, "train"] if config_name == "sweep" else [config_name]
    texts = {name: (CONFIGS / f"{name}.yaml").read_text() for name in names}
    groups = [path.name for path in sorted(CONFIGS.iterdir()) if path.is_dir() and path.name != "hydra"]
    groups = [group for group in groups if any(re.search(rf"^  - {group}:", text, re.MULTILINE) for text in texts.values())]
    choices = "\n".join(f"  {group}: {', '.join(_choices(group))}" for group in groups)
    options = "\n\n".join(_options(text) for text in texts.values())
    flags = FLAGS if config_name != "train" else f"{FLAGS}\n{SWEEP_FLAG}"
    return f"""\
usage: {command} [flags] GROUP=CHOICE ... OPTION=VALUE ...

{DESCRIPTIONS[config_name].replace("{}", command)}

Groups and their choices:
{choices}

Options and their defaults (--cfg job also prints those of the chosen groups, such as optimizer.learning_rate):
{options}

{flags}"""


def _choices(group: str) -> list[str]:
    """Return the choices of a config group, without files whose names begin with _, which only others include."""
    paths = (CONFIGS / group).rglob("*.yaml")
    return sorted(str(path.relative_to(CONFIGS / group).with_suffix("")) for path in paths if path.name[0] != "_")


def _options(text: str) -> str:
    """Return the options in a configuration file with their comments, without `defaults` and `hydra`."""
    body = re.sub(r"^(defaults|hydra):\n(?:(?:[ #].*)?\n)*", "", text, flags=re.MULTILINE)
    lines = [line for line in body.splitlines() if line and not line.startswith("#")]
    return "\n".join(f"  {line}" for line in lines)
