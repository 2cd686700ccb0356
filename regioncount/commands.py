"""From a command line to a composed configuration, through Hydra, with one line for every mistake."""

import errno
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from regioncount.errors import InputError, one_line

# A disk that is full, over quota or cannot be written: nothing to trace, but something to mend.
UNUSABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)
CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def run_command(config_name: str, body: Callable[[list[str]], int | None]) -> int:
    """Call body(overrides) with the command line's overrides; returns the exit status.

    What cannot be used is one line on standard error and status 2. Hydra's own flags (--help, --cfg job, ...) are left to
    Hydra.
    """
    arguments = sys.argv[1:]
    command = Path(sys.argv[0]).name
    if flags := [argument for argument in arguments if argument.startswith("-")]:
        if {"-m", "--multirun"} & set(flags):
            print(f"{command}: {flags[0]} is not taken: sweep.py runs grids", file=sys.stderr)
            return 2
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)(lambda config: None)()
        return 0
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return body(arguments) or 0
    except InputError as error:
        print(f"{command}: {one_line(error)}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in UNUSABLE:
            raise
        said = f"{error.strerror}: {error.filename or 'results'}"
        print(f"{command}: {said}; mend that, or give another results=DIR: the same command goes on", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        print(f"{command}: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return exit_status(stopped)


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM), as a cluster does before it takes a node away."""


def exit_status(stopped: KeyboardInterrupt) -> int:
    """What a shell gives a process that ended by the signal."""
    return 128 + (signal.SIGTERM if isinstance(stopped, Terminated) else signal.SIGINT)


def _terminate(number, frame):
    raise Terminated


@contextmanager
def hydra_ready() -> Iterator[None]:
    """Hydra set up to compose the configurations of configs/."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"), one_line_errors():
        yield


def compose(config_name: str, overrides: Sequence[str], with_hydra: bool = False) -> DictConfig:
    """A composed configuration; call it under `hydra_ready`. InputError, in one line, where Hydra has several."""
    return hydra.compose(config_name, list(overrides), return_hydra_config=with_hydra)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn Hydra's and OmegaConf's errors into InputErrors of one line."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_one_line(error)) from error


def _one_line(error: Exception) -> str:
    """Hydra's first line says what is wrong; of the rest, the choices there are and the cause are worth keeping."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if "Could not find '" in lines[0]:
        choices = [line for line in lines[1:] if not line.endswith(":") and "://" not in line and " " not in line]
        return f"{lines[0].split(': ', 1)[-1]}; there are {', '.join(choices)}"
    if "Could not load '" in lines[0]:
        group, _, name = lines[0].split("'")[-2].rpartition("/")
        choices = sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
        return f"{group}={name}: no such choice; one of {', '.join(choices)}"
    cause = str(error.__cause__ or "").splitlines()[:1]
    kept = [
        line for line in (*lines[:2], *cause) if not line.startswith(("To append", "Set the env", "See http", "full_key"))
    ]
    return ". ".join(dict.fromkeys(line.rstrip(".") for line in kept))
