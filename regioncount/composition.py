"""Compose configurations with Hydra, and convert its errors to one-line InputErrors."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from regioncount.errors import InputError, one_line
from regioncount.registry import suggest, unknown_choice

PACKAGE = Path(__file__).resolve().parent
# In a wheel, the configuration files are inside the package; in a checkout, they are beside it.
CONFIGS = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parent / "configs"


@contextmanager
def hydra_ready() -> Iterator[None]:
    """Initialize Hydra to compose the files in `CONFIGS`; raise its errors as one-line InputErrors."""
    GlobalHydra.instance().clear()
    with one_line_errors(), hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        yield


def compose(config_name: str, overrides: Sequence[str], with_hydra: bool = False) -> DictConfig:
    """Compose a configuration, inside a `hydra_ready` block."""
    try:
        return hydra.compose(config_name, list(overrides), return_hydra_config=with_hydra)
    except ValueError as error:  # such as for dataset=null
        raise InputError(one_line(error)) from error


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Raise Hydra's and OmegaConf's errors as one-line InputErrors."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_one_line(error)) from error


def _one_line(error: Exception) -> str:
    """Return the first line of Hydra's message, which names the problem, with the available choices and the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if "Could not find '" in lines[0]:
        choices = [line for line in lines[1:] if not line.endswith(":") and "://" not in line and " " not in line]
        name = lines[0].split("'")[-2].rpartition("/")[2]
        return f"{lines[0].split(': ', 1)[-1]}; choose one of {', '.join(choices)}{suggest(name, choices)}"
    if "Could not load '" in lines[0]:
        group, _, name = lines[0].split("'")[-2].rpartition("/")
        choices = sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
        return unknown_choice(group, name, choices)
    if option := re.match(r"Could not override '([\w.]+)'", lines[0]):
        group, _, name = option[1].rpartition(".")
        return f"{option[1]}: no such option{suggest(name, _option_names(group))}; --cfg job prints the options"
    if ambiguous := re.match(r"Ambiguous value for argument '([^=]*)=(.*)'", lines[0]):
        option, value = ambiguous.groups()
        lists = f"for a list, write {option}=[{value}]; for text, write \"{option}='{value}'\""
        return f"{option}={value}: only a sweep takes several values; {lists}"
    cause = str(error.__cause__ or "").splitlines()[:1]
    kept = [
        line for line in (*lines[:2], *cause) if not line.startswith(("To append", "Set the env", "See http", "full_key"))
    ]
    return ". ".join(dict.fromkeys(line.rstrip(".") for line in kept))


def _option_names(group: str) -> list[str]:
    """Return the names of all options in a group's configuration files; for "", of groups and options outside groups."""
    paths = CONFIGS.rglob("*.yaml") if group else CONFIGS.glob("*.yaml")
    text = "\n".join(path.read_text() for path in paths)
    folders = set() if group else {path.name for path in CONFIGS.iterdir() if path.is_dir()}
    return sorted(folders | {*re.findall(rf"(?m)^{' *' if group else ''}([a-z]\w*):", text)})
