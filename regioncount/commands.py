"""The commands regioncount-train, regioncount-measure and regioncount-sweep, also as train.py, measure.py and sweep.py.

Each function runs one command with the arguments in sys.argv and returns the exit status. Hydra composes the
configuration from these arguments. An error in the user's input is printed as one line on standard error, and the exit
status is 2.
"""

import errno
import signal
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.utils import env_override
from omegaconf import DictConfig, OmegaConf

from regioncount import __version__
from regioncount.arguments import parse_arguments, printing_flags
from regioncount.composition import compose, hydra_ready, one_line_errors
from regioncount.config_files import CONFIGS
from regioncount.errors import DISK_ERRORS, InputError, one_line, say
from regioncount.sweeps import run_cell


def train() -> int:
    """Train a model and measure it; with -m, run a sweep."""
    return _run("train", _train)


def measure() -> int:
    """Measure a finished run, a file of weights or a pretrained model, print a table, and draw its decision regions."""
    return _run("measure", _measure)


def sweep() -> int:
    """Train and measure a grid of runs and write its report."""
    return _run("sweep", _sweep)


class Terminated(KeyboardInterrupt):
    """The process received SIGTERM, which a cluster sends before it reclaims a node, or SIGHUP: its terminal was closed.

    The argument is the number of the signal.
    """


def _train(overrides: list[str]) -> None:
    from regioncount.programs import prepare_run

    prepared, varied = prepare_run(overrides)

    from regioncount.runs import runner
    from regioncount.runs.describe import describe

    if varied:
        say(f"one run of the experiment; sweep.py runs its grid ({', '.join(varied)})", sys.stderr)
    run = runner.run_or_resume(prepared)
    say(describe(run, prepared.config, prepared.dataset, [run.epochs_trained]))


def _measure(overrides: list[str]) -> None:
    # A run's record names its data set. Options on the command line, such as dataset.root, override the recorded ones.
    has_run = any(override.lstrip("+").startswith("run=") for override in overrides)
    changes = [override for override in overrides if has_run and override.lstrip("+").startswith("dataset.")]
    keys = [override.lstrip("+~").partition("=")[0] for override in overrides if has_run]
    if ignored := [key for key in keys if key.partition(".")[0] in ("model", "results") or key == "dataset"]:
        raise InputError(
            f"{ignored[0]}: a run has its own model, data set and results; omit the option, or pass checkpoint=FILE"
        )
    with hydra_ready():
        composed = compose("measure", [override for override in overrides if override not in changes])

    from regioncount import training
    from regioncount.config import parse_measuring
    from regioncount.reporting import plots
    from regioncount.runs import decision_planes, measuring
    from regioncount.runs.describe import describe

    config = parse_measuring(composed)
    device = training.choose_device(config.device)
    run, dataset = measuring.open_for_measuring(config, changes)
    epochs = measuring.measure_epochs(run, config, dataset, device)
    say(describe(run, config, dataset, epochs))
    labels, positions = decision_planes.decision_regions(run, dataset, device, config.regions.seed)
    figure = plots.decision_regions([labels], [dataset.name], dataset.classes, [positions])
    for suffix in plots.FORMATS:
        plots.save(figure, run.directory / f"decision_regions{suffix}")
    say(f"decision regions: {run.directory / 'decision_regions.png'}")


def _sweep(overrides: list[str]) -> int:
    from regioncount.programs import run_sweep

    return run_sweep(overrides)[1]


def _run(config_name: str, body: Callable[[list[str]], int | None]) -> int:
    """Handle the flags, call `body` with the overrides, and turn exceptions into messages and exit statuses."""
    command = Path(sys.argv[0]).name
    signal.signal(signal.SIGTERM, _terminate)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # nohup ignores it
        signal.signal(signal.SIGHUP, _terminate)
    try:
        flags, overrides = parse_arguments(config_name, sys.argv[1:])
        if flags.version:
            return _print_version()
        if flags.help:
            from regioncount.help import help_text

            say(help_text(config_name, command))
            return 0
        if flags.shell_completion:
            from regioncount.completion import shell_completion

            say(shell_completion(config_name, overrides[0]))
            return 0
        if flags.multirun:
            config_name, body = "sweep", _sweep
        if hydra_flags := printing_flags(flags):
            return _print(config_name, flags, hydra_flags, overrides)
        with one_line_errors(config_name, overrides):
            return body(overrides) or 0
    except InputError as error:
        say(f"{command}: {one_line(error)}", sys.stderr)
        return 2
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            say(f"{command}: {error.filename}: {error.strerror}; use another path or a shorter name", sys.stderr)
            return 2
        if error.errno not in DISK_ERRORS:
            raise
        problem = f"{error.strerror}: {error.filename or 'results'}"
        advice = "Fix this or pass results=DIR, then rerun the same command to resume."
        say(f"{command}: {problem}. {advice}", sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a further one would add a traceback
        advice = "Rerun the same command to resume from the last checkpoint."
        say(" ".join([f"{command}: interrupted.", *getattr(interrupt, "__notes__", [advice])]), sys.stderr)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # it ends the process, which may still wait for a tracker
        return 128 + (interrupt.args[0] if isinstance(interrupt, Terminated) else signal.SIGINT)


def _terminate(number, frame):
    raise Terminated(number)


def _print(config_name: str, flags: Namespace, hydra_flags: list[str], overrides: list[str]) -> int:
    """Print what Hydra's flags such as --cfg request; return the exit status."""
    if flags.hydra_help:
        overrides = []
    else:
        with hydra_ready():
            composed = compose(config_name, overrides, with_hydra=True)
            package = OmegaConf.select(composed, flags.package) if flags.package else composed
        if not OmegaConf.is_config(package):
            raise InputError(f"--package={flags.package}: give a group of the configuration, such as {_groups(composed)}")
    former = sys.argv
    sys.argv = [sys.argv[0], *hydra_flags, *overrides]
    try:
        with one_line_errors(config_name, overrides), env_override({"HYDRA_FULL_ERROR": "1"}):  # Hydra raises its errors
            hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)(run_cell)()
    except SystemExit as exit:
        return exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    finally:
        sys.argv = former
    return 0


def _groups(composed: DictConfig) -> str:
    return ", ".join(str(key) for key, value in composed.items_ex(resolve=False) if OmegaConf.is_config(value))


def _print_version() -> int:
    say(f"regioncount {__version__}")
    return 0
