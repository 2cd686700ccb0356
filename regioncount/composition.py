"""Compose configurations with Hydra, and convert its errors to one-line InputErrors."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from regioncount.config_files import CONFIGS, group_choices, group_names, search_folders
from regioncount.errors import InputError, how_to_install, one_line
from regioncount.suggestions import is_initials, most_similar, suggest
from regioncount.sweeps.cell_options import CellError

MAX_CHOICES = 30  # in a message


@contextmanager
def hydra_ready() -> Iterator[None]:
    """Initialize Hydra to compose the files in `CONFIGS`; raise its errors as one-line InputErrors.

    Afterwards, Hydra is in its former state, also if the caller is another application of Hydra.
    """
    former = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with one_line_errors(), hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = former


def compose(config_name: str, overrides: Sequence[str], with_hydra: bool = False) -> DictConfig:
    """Compose a configuration, inside a `hydra_ready` block.

    Args:
        config_name: "train", "measure" or "sweep".
        overrides: The overrides.
        with_hydra: Whether to include the node `hydra`.

    Returns:
        The configuration.

    Raises:
        InputError: An override is invalid.
    """
    with one_line_errors(config_name, overrides):
        try:
            return hydra.compose(config_name, list(overrides), return_hydra_config=with_hydra)
        except ValueError as error:  # such as for dataset=null
            raise InputError(one_line(error)) from error


def option_names(config_name: str, overrides: Sequence[str]) -> list[str]:
    """Return the names of all options of the configuration that the overrides choose, such as "optimizer.momentum".

    Args:
        config_name: "train", "measure" or "sweep".
        overrides: The overrides. Those that choose no existing file of a group, and those of options, are ignored.
    """
    folders = search_folders(overrides)
    kept = []
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        chosen = value.strip("[]").split(",") if value.startswith("[") else [value]
        exist = key in group_names(folders) and {name.strip() for name in chosen} <= {*group_choices(key, folders)}
        if key == "hydra.searchpath" or exist:
            kept.append(override)
    for chosen in (kept, []):
        try:
            with hydra_ready():
                return list(_names(OmegaConf.to_container(hydra.compose(config_name, chosen), resolve=False)))
        except (InputError, ValueError):  # these files do not fit together
            continue
    return []


def _names(config: Any, prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value and name not in ("grid", "sweep.published"):
            yield from _names(value, f"{name}.")
        elif key != "name" or prefix == "sweep.":
            yield name


@contextmanager
def one_line_errors(config_name: str = "train", overrides: Sequence[str] = ()) -> Iterator[None]:
    """Raise Hydra's and OmegaConf's errors as one-line InputErrors.

    Args:
        config_name: The configuration that is composed, for the suggestions in messages.
        overrides: The overrides.

    Raises:
        InputError: Hydra or OmegaConf has raised an error.
    """
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_one_line(error, config_name, overrides)) from error


def _one_line(error: Exception, config_name: str, overrides: Sequence[str]) -> str:
    """Return the first line of Hydra's message, which names the problem, with the available choices and the cause."""
    if isinstance(error, CellError) and isinstance(error.__cause__, Exception):
        message = _one_line(error.__cause__, config_name, [*overrides, *error.cell])
        return f"{message} (in the cell {' '.join(error.varying)})" if error.varying else message
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if missing := re.search(r"Could not (?:find|load) '([^']*)'", lines[0]):
        group, _, name = missing[1].partition("/")
        if group == "hydra":  # the group has two parts, such as hydra/launcher
            part, _, name = name.partition("/")
            choices = [line for line in lines[1:] if not line.endswith(":") and "://" not in line and " " not in line]
            return _unknown_file(f"hydra/{part}", name, choices)
        return _unknown_file(group, name, group_choices(group, search_folders(overrides)))
    if option := re.match(r"Could not override '([^']*)'", lines[0]):
        subspace = re.match(r"regions\.([^.]+)\.", option[1])
        names = option_names(config_name, overrides)
        if subspace and subspace[1] in group_choices("regions", search_folders(overrides)):
            own = [name.split(".") for name in names if name.startswith("regions.")]
            chosen = dict.fromkeys(parts[1] for parts in own if len(parts) > 2)
            if subspace[1] not in chosen:
                both = ",".join([*chosen, subspace[1]])
                return f"{option[1]}: {subspace[1]} is not among the subspaces that are chosen; pass regions=[{both}]"
        return _unknown_option(option[1].partition("@")[0], names)
    if ambiguous := re.match(r"Ambiguous value for argument '([^=]*)=(.*)'", lines[0]):
        name, value = ambiguous.groups()
        grid = "only a grid takes several values: run sweep.py, regioncount-sweep or rc.sweep"
        if config_name == "measure":
            grid = "this command measures one run, so an option has one value"
        elif config_name == "sweep":
            grid = "one configuration is composed here, so an option has one value"
        return f"{name}={value}: {grid}; for a list, write {name}=[{value}]; for text, write \"{name}='{value}'\""
    cause = str(error.__cause__ or "").splitlines()[:1]
    kept = [
        line for line in (*lines[:2], *cause) if not line.startswith(("To append", "Set the env", "See http", "full_key"))
    ]
    return ". ".join(dict.fromkeys(line.rstrip(".") for line in kept))


def _unknown_file(group: str, name: str, choices: Sequence[str]) -> str:
    """Return the message for a choice of a config group that does not exist."""
    if group == "hydra/launcher" and name.startswith("submitit"):
        return f"{group}={name} needs hydra-submitit-launcher: {how_to_install('hydra-submitit-launcher', 'submitit')}"
    if group == "hydra/sweeper" and name == "optuna":
        return f"{group}={name} needs hydra-optuna-sweeper: {how_to_install('hydra-optuna-sweeper')}"
    end = suggest(name, choices)
    if not end and (same := [choice for choice in choices if choice.rpartition("/")[2].startswith(name)]):
        end = f"; did you mean {same[0]}?"
    listed = ", ".join(choices) if len(choices) <= MAX_CHOICES else "those that --help lists"
    return f"{group}={name}: no such choice; choose one of {listed}{end}"


def _unknown_option(option: str, names: Sequence[str]) -> str:
    """Return the message for an option that does not exist, with the most similar one of the names of all options."""
    group, _, name = option.rpartition(".")
    siblings = [known.removeprefix(f"{group}.") for known in names if known.rpartition(".")[0] == group]
    elsewhere = [known for known in names if known.rpartition(".")[2] == name or is_initials(name, known.rpartition(".")[2])]
    groups = {known.partition(".")[0] for known in names} | set(group_names())
    if similar := most_similar(name, siblings if group else [*groups, *siblings]):
        similar = f"{group}.{similar}" if group else similar
    elif elsewhere:
        similar = elsewhere[0]
    elif not siblings:
        similar = most_similar(option, names)
    if similar:
        return f"{option}: no such option; did you mean {similar}?"
    if group and siblings:
        return f"{option}: no such option; the options of {group} are {', '.join(siblings)}"
    return f"{option}: no such option; --help lists the options"
