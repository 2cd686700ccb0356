"""Run one cell of a sweep: the job that a launcher starts."""

import math
import sys
import time
import traceback
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from regioncount.columns import Column
from regioncount.config import parse_run
from regioncount.errors import InputError, one_line, raised_by_signal, say
from regioncount.runs import files, plans, runner, store
from regioncount.runs.measurements import measured_values
from regioncount.runs.plans import Plan
from regioncount.runs.prepared import PreparedRun

POSTPONED = "postponed"


def run(config: DictConfig) -> str | float:
    """Train and measure one cell.

    With a plan, an exception is recorded as the cell's failure and not raised, so the other cells still run.

    Args:
        config: The composed configuration of the cell, to which regioncount's sweeper adds options of its own:
            `sweep.directory`, which contains the plan; `sweep.cell`, the cell's number in the grid; `sweep.line`, the index
            of its line in cells.jsonl; `sweep.deadline`, the time after which no training starts; and `sweep.wait`.
            Without a directory (with another sweeper), the run is trained without a plan and exceptions are raised.

    Returns:
        With a plan, "finished"; "failed"; "skipped" if the deadline has passed or another process has taken over the run;
        or `POSTPONED` if another process has locked the run and `sweep.wait` is false. Without a plan, the run's test error,
        which another sweeper can minimize: infinity if training diverged, NaN if it was not measured.

    Raises:
        InputError: There is no plan, and the configuration is invalid or lacks what the sweeper minimizes.
        SystemExit: A handler of a signal raised it: Submitit's, because the job is to be requeued.
    """
    if "directory" not in config.sweep:
        return _run_unplanned(config)
    directory = Path(config.sweep.directory)
    planned, cells = plans.read_cell(directory, config.sweep.line)
    cell = cell_title(config.sweep.cell, cells, planned["varied"])
    failure = plans.failure_path(directory, planned["identity"], planned["varied"])
    try:
        prepared = runner.prepare(parse_run(config))
        if prepared.identity != planned["identity"]:
            # The launcher composes each cell again right before it runs it.
            raise InputError("this is not the planned run: configuration files, data or hardware have changed")
        is_late = time.time() > config.sweep.get("deadline", math.inf)
        if is_late and not _exists(prepared):
            say(f"{cell}: not started, the time budget is used up")
            return "skipped"
        run = runner.run_or_resume(prepared, config.sweep.get("wait", True), planned["varied"])
        failure.unlink(missing_ok=True)
        say(f"{cell}: {_outcome(prepared, run)}{'' if run.updated else ' (already complete)'}")
        return "finished"
    except store.Busy:
        say(f"{cell}: another process is working on this run; postponed to the end of the sweep")
        return POSTPONED
    except store.Superseded as error:
        say(f"{cell}: {error}", sys.stderr)
        return "skipped"
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and raised_by_signal(error):  # submitit requeues a preempted job
            raise
        reason = one_line(f"{type(error).__name__}: {error}")
        say(f"{cell}: failed, {reason}", sys.stderr)
        plans.record_failure(failure, reason, traceback.format_exc())
        return "failed"


def skip_complete(plan: Plan, number: int, prepared: PreparedRun) -> bool:
    """Return whether a cell of a plan is complete. If so, print its results and clear its recorded failure."""
    try:
        if (run := _find_complete(plan, prepared)) is None:
            return False
        outcome = _outcome(prepared, run)
    except Exception:  # running the cell records the failure
        return False
    plans.failure_path(plan.directory, prepared.identity, plan.runs[number].varied).unlink(missing_ok=True)
    title = cell_title(number, len(plan.runs), plan.runs[number].varied)
    say(f"{title}: {outcome} (already complete)")
    return True


def print_state(plan: Plan, number: int, prepared: PreparedRun, unfinished: Collection[str]) -> bool:
    """Print whether a cell of a plan is complete and, if not, what there is of its run.

    Args:
        plan: The plan of the sweep.
        number: The cell's number in it.
        prepared: The cell's run.
        unfinished: The runs that were interrupted; see `store.unfinished_names`.

    Returns:
        Whether a sweep would run the cell.
    """
    with suppress(files.Damaged):
        if _find_complete(plan, prepared) is not None:
            say(f"{cell_title(number, len(plan.runs), plan.runs[number].varied)}: complete")
            return False
    resumes = f"{prepared.name}-{prepared.identity}" in unfinished
    state = "trained, not measured or logged" if _exists(prepared) else "interrupted" if resumes else "not trained"
    say(f"{cell_title(number, len(plan.runs), plan.runs[number].varied)}: {state}")
    return True


def _find_complete(plan: Plan, prepared: PreparedRun) -> store.Run | None:
    logged_as_cell = replace(prepared.config, tracker=replace(prepared.config.tracker, group=plan.directory.name))
    return runner.find_complete(replace(prepared, config=logged_as_cell))


def cell_title(number: int, cells: int, varied: Mapping[str, str]) -> str:
    """Return the number and the options of a cell: "[1/4] seed=0"."""
    return " ".join([f"[{number + 1}/{cells}]", *(f"{key}={value}" for key, value in varied.items())])


def _run_unplanned(config: DictConfig) -> float:
    parsed = parse_run(config)
    sweeper = HydraConfig.get().runtime.choices.get("hydra/sweeper")
    if config.sweep.dry_run:
        raise InputError(f"sweep.dry_run=true has no effect with hydra/sweeper={sweeper}; omit one of the two")
    if sweeper != "basic" and "accuracy" not in parsed.measures:  # the basic sweeper ignores what a run returns
        raise InputError(f"hydra/sweeper={sweeper} minimizes the test error: add accuracy to measures=[...]")
    prepared = runner.prepare(parsed)
    run = runner.run_or_resume(prepared)
    say(f"{run.directory}: {_outcome(prepared, run)}{'' if run.updated else ' (already complete)'}")
    if run.status == "diverged":
        return math.inf  # Optuna accepts no NaN
    return measured_values(run, prepared.config, prepared.dataset).get("test_error", math.nan)


def _exists(prepared: PreparedRun) -> bool:
    """Return whether the run is on disk, undamaged."""
    with suppress(files.Damaged):
        return prepared.find_run() is not None
    return False


def _outcome(prepared: PreparedRun, run: store.Run) -> str:
    """Describe a run's training and main results in one line."""
    if run.status != "finished":
        return f"{run.status} after {run.epochs_trained} epochs"
    values = measured_values(run, prepared.config, prepared.dataset)
    parts = [f"{run.epochs_trained} epochs, {run.summary['seconds']:.1f} s"]
    if "test_accuracy" in values:
        parts.append(f"train {values['train_accuracy']:.2%}, test {values['test_accuracy']:.2%}")
    for subspace in prepared.config.regions.subspaces:
        column = Column("region_count", subspace)
        if (count := values.get(column.key)) is not None:
            error = values[column.with_part("standard_error").key]
            parts.append(f"{count:.2f} ± {error:.2f} regions per {subspace}")
    return ", ".join(parts)
