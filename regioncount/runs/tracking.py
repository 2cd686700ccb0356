"""What a tracker gets to know of a run: its name, configuration, history, measurements by epoch, and final values.

A name has one meaning in all of these: `learning_rate` is the hyperparameter, `train_loss` is measured in evaluation mode.
"""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import pandas as pd

from regioncount import analysis
from regioncount.config import as_mapping
from regioncount.models.kinds import title
from regioncount.runs.environment import environment
from regioncount.runs.measurements import epochs_to_measure, measured_values
from regioncount.runs.prepared import PreparedRun
from regioncount.runs.record import Run
from regioncount.runs.trackers import Tracker, start

# Columns of history.csv whose names have another meaning among hyperparameters and final values.
HISTORY_NAMES = {
    "learning_rate": "scheduled_learning_rate",
    "batch_size": "scheduled_batch_size",
    "train_loss": "running_loss",
    "seconds": "epoch_seconds",
}
MAX_NAME_LENGTH = 128


def start_tracker(
    prepared: PreparedRun, run: Run | None, varied: Mapping[str, str] | None
) -> AbstractContextManager[Tracker]:
    """Start the tracker of a run.

    Args:
        prepared: The run.
        run: The run on disk, if it has been trained.
        varied: The options that the run's sweep varies; None for a single run, which announces where it is logged.

    Returns:
        The tracker, to be opened by `with`.
    """
    options = prepared.config.tracker
    return start(
        options.mode,
        identity=prepared.identity,
        name=run_name(prepared, varied),
        config=_config(prepared, run),
        directory=prepared.results,
        project=options.project,
        entity=options.entity,
        group=options.group,
        tags=options.tags,
        notes=options.notes,
        announce=varied is None,
    )


def destination(prepared: PreparedRun) -> str:
    """Return where a run is logged, "mode:project:group" and more, as it is recorded in run.json.

    Each trial of W&B's agent is a run of W&B of its own, which gets the values also if our run is complete.
    """
    tracker = prepared.config.tracker
    parts = [tracker.mode, tracker.project, tracker.group, *filter(None, [tracker.entity])]
    return ":".join(map(str, [*parts, *_agent_trial(tracker.mode)]))


def run_name(prepared: PreparedRun, varied: Mapping[str, str] | None) -> str:
    """Return the name of a run: the options that its sweep varies, or else data, network and main options; and the seed."""
    config = prepared.config
    shown: dict[str, Any] = {"learning_rate": config.optimizer.get("learning_rate"), "batch_size": config.batch_size}
    shown = dict(varied) if varied else {name: value for name, value in shown.items() if value is not None}
    shown |= {"seed": config.seed}
    first = [] if varied else [prepared.name]
    return " ".join([*first, *(f"{name}={value}" for name, value in shown.items())])[:MAX_NAME_LENGTH]


def log_epoch(tracker: Tracker, row: Mapping[Any, Any]) -> None:
    """Log a row of the history."""
    tracker.log(_metrics(row), step=int(row["epoch"]))


def log_history(tracker: Tracker, run: Run) -> None:
    """Log the history of a run that is on disk."""
    for row in run.history().to_dict("records"):
        log_epoch(tracker, row)


def log_snapshots(tracker: Tracker, prepared: PreparedRun, run: Run) -> None:
    """Log the numbers that were measured at each of several epochs, except those that the history has at this epoch."""
    epochs = epochs_to_measure(prepared.config, run.epochs_trained)
    if len(epochs) == 1 or run.status != "finished":
        return
    logged = {int(row["epoch"]): set(_metrics(row)) for row in run.history().to_dict("records")}
    for epoch in epochs:
        values = measured_values(run, prepared.config, prepared.dataset, epoch)
        known = logged.get(epoch, set())
        numbers = {name: value for name, value in values.items() if not isinstance(value, str) and name not in known}
        tracker.log_snapshot(numbers, epoch)


def log_summary(tracker: Tracker, prepared: PreparedRun, run: Run) -> None:
    """Log the final values of a run: how training ended, what was measured, and whether it fits and is degenerate."""
    values = measured_values(run, prepared.config, prepared.dataset)
    marks: dict[str, bool] = {}
    if "train_accuracy" in values:
        row = analysis.mark(pd.DataFrame([values | {"num_classes": len(prepared.dataset.classes)}])).iloc[0]
        marks = {name: bool(row[name]) for name in ("fitted", "degenerate")}
    tracker.summarize({"status": run.status, **run.summary, **values, **marks})


def _agent_trial(mode: str) -> list[str]:
    sweep, trial = os.environ.get("WANDB_SWEEP_ID"), os.environ.get("WANDB_RUN_ID")
    return [f"{sweep}/{trial}"] if mode.startswith("wandb") and sweep and trial else []


def _config(prepared: PreparedRun, run: Run | None) -> dict[str, Any]:
    """Return the configuration and, at its top level, what runs are grouped by, and what identifies and produced the run."""
    config = prepared.config
    produced = run.record["environment"] if run else environment(prepared.device, prepared.precision)
    columns: dict[str, Any] = {"data": prepared.dataset.name, "network": title(config.model)}
    columns["training_precision"] = prepared.precision
    columns |= {name: config.optimizer[name] for name in ("learning_rate", "weight_decay") if name in config.optimizer}
    columns |= {"identity": prepared.identity, "commit": produced.get("commit"), "hardware": produced.get("device")}
    return as_mapping(config) | columns


def _metrics(row: Mapping[Any, Any]) -> dict[str, float]:
    return {
        HISTORY_NAMES.get(str(name), str(name)): value for name, value in row.items() if name != "epoch" and value == value
    }
