"""The flags and overrides of the commands train, measure and sweep."""

import argparse
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from regioncount.composition import one_line_errors
from regioncount.config_files import group_choices, group_names, search_folders
from regioncount.errors import InputError

# Options whose values are always one path, also if they contain the commas and brackets of Hydra's lists.
PATH_OPTIONS = ("results", "run", "checkpoint")
VALUE_FLAGS = {
    "--package": "-p",
    "--config-path": "-cp",
    "--config-name": "-cn",
    "--config-dir": "-cd",
    "--experimental-rerun": None,
    "--cfg": "-c",
    "--info": "-i",
}
SWITCHES = {
    "--help": "-h",
    "--version": None,
    "--hydra-help": None,
    "--resolve": None,
    "--run": "-r",
    "--multirun": "-m",
    "--shell-completion": "-sc",
}
# Options of Hydra that regioncount's own sweeps do not use, and what to do instead.
REPLACED_HYDRA_OPTIONS = {
    "hydra.run": "a run is stored in results/runs; pass results=DIR",
    "hydra.sweep": "a sweep is stored in results/sweeps; pass results=DIR or sweep.name=NAME",
    "hydra.job.chdir": "jobs keep the working directory; pass results=DIR",
    "hydra.verbose": "there is no log with levels; omit it",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        unknown = re.search(r"unrecognized arguments:.*? --([\w.-]+)", message)
        advice = f"; for an option, write {unknown[1]}=VALUE" if unknown else ""
        raise InputError(f"{message}{advice} (--help lists the flags)")


def parse_arguments(config_name: str, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Split a command line into flags and normalized overrides.

    The flags are Hydra's; those that the command does not support are rejected. --config-dir becomes an override, as does
    --OPTION=VALUE, and model._target_=... without a model adds the override model=custom; likewise for dataset._target_.
    Paths, and other values that are not valid in Hydra's grammar, are quoted.

    Returns:
        The flags, and the overrides.

    Raises:
        InputError: A flag is unknown or not supported, or an override names no option or has no value.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    for name, short in SWITCHES.items():
        parser.add_argument(*filter(None, (name, short)), action="store_true")
    choices = {
        "--cfg": {"choices": ["job", "hydra", "all"]},
        "--info": {
            "nargs": "?",
            "const": "all",
            "choices": ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"],
        },
    }
    for name, short in VALUE_FLAGS.items():
        parser.add_argument(*filter(None, (name, short)), **choices.get(name, {}))
    parser.add_argument("overrides", nargs="*")
    flags = parser.parse_intermixed_args(_without_dashes(arguments))

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
    if flags.shell_completion:
        if len(flags.overrides) != 1 or not flags.overrides[0].startswith(actions):
            raise InputError("--shell-completion needs install=bash, uninstall=bash or query=bash")
        return flags, flags.overrides
    if (flags.package or flags.resolve) and not flags.cfg:
        raise InputError(f"{'--package' if flags.package else '--resolve'} needs --cfg job")

    for override in flags.overrides:
        if override.lstrip("+~").startswith("=") or not override.strip("+~ "):
            raise InputError(f"'{override}' names no option; write for example seed=3")
        if "=" not in override and not override.startswith("~"):
            example = shlex.join([f"run={override}"]) if config_name == "measure" else f"{override}=VALUE"
            raise InputError(f"'{override}' has no value; write for example {example}")
    custom = _choose_custom("dataset", _choose_custom("model", flags.overrides))
    overrides = [_quote(override) for override in custom]
    is_sweep = config_name == "sweep" or bool(flags.multirun)
    _check_hydra_options(overrides, is_sweep)
    overrides = _add_search_path(overrides, flags.config_dir)
    _refuse_removals(overrides)
    return flags, overrides


def _refuse_removals(overrides: Sequence[str]) -> None:
    """Check that no override removes an option, such as ~optimizer.momentum. Groups and subspaces can be removed.

    Raises:
        InputError: One does. What applies without the option may not be its documented default.
    """
    for override in (override for override in overrides if override.startswith("~")):
        key = override[1:].partition("=")[0].strip()
        group, _, name = key.partition(".")
        folders = search_folders(overrides)
        is_subspace = group == "regions" and name in group_choices("regions", folders)
        is_group = key in group_names(folders) or "/" in key or "@" in key
        if not is_subspace and not is_group and group != "hydra":
            raise InputError(f"{override}: an option cannot be removed; give its value, {key}=VALUE")


def _without_dashes(arguments: Sequence[str]) -> list[str]:
    """Return arguments with --OPTION=VALUE, as W&B's agent writes overrides, as OPTION=VALUE. Flags are unchanged."""
    before = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    own = (*VALUE_FLAGS, "--hydra-help", "--help", "--version", "--resolve", "--multirun", "--shell-completion")
    changed = [
        part[2:] if re.match(r"--[+~]*[A-Za-z]", part) and "=" in part and part.partition("=")[0] not in own else part
        for part in before
    ]
    return [*changed, *arguments[len(before) :]]


def _check_hydra_options(overrides: Sequence[str], is_sweep: bool) -> None:
    """Check that the command uses each given option of Hydra.

    Raises:
        InputError: It does not.
    """
    keys = [override.lstrip("+~").partition("=")[0].partition("@")[0].replace("/", ".") for override in overrides]
    other_sweeper = "hydra.sweeper" in keys and "hydra/sweeper=regioncount" not in overrides
    for override, key in zip(overrides, keys, strict=True):
        replaced = next((name for name in REPLACED_HYDRA_OPTIONS if f"{key}.".startswith(f"{name}.")), None)
        if key == "hydra.mode":
            raise InputError(f"{override}: use train.py or regioncount-train for one run, sweep.py or -m for a grid")
        if replaced and not (is_sweep and other_sweeper):
            raise InputError(f"{override} has no effect: {REPLACED_HYDRA_OPTIONS[replaced]}")
        if not is_sweep and key.partition(".")[0] == "hydra" and key != "hydra.searchpath":
            raise InputError(f"{override} has no effect on one run, only on sweeps; omit it")


def printing_flags(flags: argparse.Namespace) -> list[str]:
    """Return the flags that make Hydra print something instead of running the command."""
    with_value = [(f"--{name}", getattr(flags, name)) for name in ("cfg", "package", "info")]
    switches = [f"--{name}" for name in ("resolve", "hydra-help")]
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


def _add_search_path(overrides: list[str], directory: str | None) -> list[str]:
    """Return overrides with a directory added to hydra.searchpath, which launchers also use to compose a sweep's cells.

    Returns:
        The overrides, in which the directories are absolute.

    Raises:
        InputError: The directory, or one in hydra.searchpath, does not exist.
    """
    key = "hydra.searchpath="
    replaced = [override for override in overrides if override.startswith(key)]
    with one_line_errors():
        paths = OverridesParser.create().parse_override(replaced[-1]).value() if replaced else []
    if not isinstance(paths, list):  # one path, several, or a list that is not in Hydra's grammar, as [~/mine]
        paths = replaced[-1].removeprefix(key).strip("'\"[]").replace("null", "").split(",")
    folders = [(str(path).strip(), "hydra.searchpath") for path in paths if path]
    folders += [(directory, "--config-dir")] if directory is not None else []
    if not folders:
        return overrides
    quoted = []
    for path, option in folders:
        if not path.startswith("pkg://"):
            folder = Path(path.removeprefix("file://")).expanduser().resolve()
            if not folder.is_dir():
                raise InputError(f"{option}={path}: the directory does not exist")
            path = f"file://{folder}"
        quoted.append(QuotedString(path, Quote.single).with_quotes())
    return [*(override for override in overrides if override not in replaced), f"{key}[{','.join(quoted)}]"]
