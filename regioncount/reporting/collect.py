"""Collect the results of a sweep: tables of its runs and their statistics, from the plan and the runs on disk."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regioncount import analysis
from regioncount.columns import RUN_COLUMNS, Column
from regioncount.errors import InputError
from regioncount.reporting import statistics
from regioncount.reporting.groups import Group, find_groups
from regioncount.reporting.result_columns import ResultColumns, result_columns
from regioncount.runs import plans, store
from regioncount.runs.identity import measurement_key
from regioncount.runs.measurements import (
    epochs_to_measure,
    measured_values,
    measurement_settings,
    plane_labels,
    seed_agreement,
)
from regioncount.runs.plans import Plan, PlannedRun
from regioncount.runs.record import Run

# Columns that differ between repetitions of one sweep.
LAST_COLUMNS = ("error", "seconds", "directory")


@dataclass(frozen=True, eq=False)
class SweepResults:
    """The results of a sweep. A table is empty if the values that it needs were not measured."""

    plan: Plan
    columns: ResultColumns
    """The columns of the tables that are region counts and measures."""
    runs: pd.DataFrame
    """One row per run."""
    counts: pd.DataFrame
    """Region counts through training: one row per run, subspace and epoch."""
    snapshots: pd.DataFrame
    """All measured values through training: one row per epoch of each run that was measured at several epochs."""
    environments: pd.DataFrame
    """One row per environment of each trained run: hardware, versions and date; and, in the row of the latest,
    training_seconds and measuring_seconds."""
    configurations: pd.DataFrame
    """One row per configuration: means over seeds, with their standard errors."""
    correlations: pd.DataFrame
    """`analysis.correlations` for each group of runs."""
    ranking: pd.DataFrame
    """`analysis.ranking` for each group and selection of runs."""
    reliability: pd.DataFrame
    """`analysis.reliability` of region counts for each group of runs, of all configurations and in cells."""
    comparison: pd.DataFrame
    """The correlations beside published ones; see `published.compare`."""
    early: pd.DataFrame
    """Correlations of each measure at each measured epoch with the final gap."""
    regression: pd.DataFrame
    """`analysis.regression` for each group of runs."""

    @cached_property
    def groups(self) -> list[Group]:
        """The groups of comparable finished runs."""
        return find_groups(self.runs, self.plan)

    def describe_cell(self, position: int) -> str:
        """Return the options that identify a run in the grid, given its position in the table of runs."""
        planned = self.plan.runs[position]
        return " ".join(f"{column}={value}" for column, value in planned.varied.items()) or planned.identity


def collect(plan: Plan) -> SweepResults:
    """Read a sweep's runs from disk and compute its statistics."""
    counts, snapshots, environments = [], [], []
    finished: list[tuple[PlannedRun, Run]] = []
    runs, table = collect_runs(plan)
    for planned, names, run in zip(plan.runs, plan.names, runs, strict=True):
        if run is None:
            continue
        environments += _environments(planned, run)
        if run.status == "finished":
            settings = _settings(planned, names)
            finished.append((planned, run))
            counts += _counts_through_training(planned, run, settings)
            epochs = epochs_to_measure(planned.config, run.epochs_trained)
            for epoch in epochs if len(epochs) > 1 else ():
                at_epoch = measured_values(run, planned.config, planned.dataset, epoch)
                snapshots.append(settings | {"epoch": epoch} | at_epoch)
    columns = result_columns(plan, finished)
    snapshot_table = pd.DataFrame(snapshots)
    groups = find_groups(table, plan)
    correlations = statistics.correlations(groups, columns, plan)
    return SweepResults(
        plan,
        columns,
        table,
        pd.DataFrame(counts),
        snapshot_table,
        pd.DataFrame(environments),
        statistics.configurations(table, columns, plan),
        correlations,
        statistics.ranking(groups, columns, plan),
        statistics.reliability(groups, columns, plan),
        statistics.comparison(correlations, table, columns, plan),
        statistics.early(groups, snapshot_table, columns, plan),
        statistics.regression(groups, plan),
    )


def collect_runs(plan: Plan) -> tuple[list[Run | None], pd.DataFrame]:
    """Read a sweep's runs from disk.

    Returns:
        The runs whose training has ended, None for the others; and the table of all runs, as in runs.csv.
    """
    runs, rows = [], []
    unfinished = store.unfinished_names(Path(plan.runs[0].config.results))
    for planned, names in zip(plan.runs, plan.names, strict=True):
        run, status, error = _find_run(planned, unfinished)
        row = _settings(planned, names) | {"status": status, "num_classes": planned.dataset.num_classes}
        if error:
            row["error"] = error
        if run is not None:
            row |= {"epochs_trained": run.epochs_trained, "precision": planned.precision}
            row |= {"seconds": run.summary.get("seconds"), "directory": str(run.directory)}
            if run.status == "finished":
                row |= (values := measured_values(run, planned.config, planned.dataset))
                if not values and (planned.config.measures or planned.config.regions.subspaces) and not error:
                    row |= {"status": "damaged", "error": f"{run.directory} has no measurements: rerun the sweep"}
        failure = plans.failure_path(plan.directory, planned.identity, planned.varied)
        if (reason := plans.read_failure(failure)) is not None:
            row |= {"status": "failed", "error": reason}
        runs.append(run)
        rows.append(row)
    _add_seed_agreement(rows, plan)
    return runs, _as_table(rows)


def _settings(planned: PlannedRun, names: dict[str, str]) -> dict[str, Any]:
    """Return the columns that identify a run in tables. Training options of classical classifiers are NaN.

    Args:
        planned: The run.
        names: The names of its data set and model; see `Plan.names`.
    """
    config = planned.config
    return {
        "identity": planned.identity,
        **names,
        "learning_rate": config.optimizer.get("learning_rate", math.nan),
        "batch_size": config.batch_size or math.nan,
        "weight_decay": config.optimizer.get("weight_decay", math.nan),
        "seed": config.seed,
        **{column: value for column, value in planned.varied.items() if column not in RUN_COLUMNS},
    }


def _find_run(planned: PlannedRun, unfinished: set[str]) -> tuple[Run | None, str, str | None]:
    """Return a run if it is on disk, its status, and a description of any damage."""
    try:
        run = planned.find_run()
    except InputError as damage:
        return None, "damaged", str(damage)
    if run is None:
        return None, "running" if f"{planned.name}-{planned.identity}" in unfinished else "missing", None
    damage = next(iter(run.damaged.values()), None)
    return run, "damaged" if damage else run.status, damage


def _environments(planned: PlannedRun, run: Run) -> list[dict[str, Any]]:
    """Return the hardware, versions and dates of a run's training; the last entry also has the times."""
    settings = measurement_settings(planned.config, planned.dataset).values()
    epochs = epochs_to_measure(planned.config, run.epochs_trained)
    entries = [run.measures.get(measurement_key(setting, epoch)) for setting in settings for epoch in epochs]
    times = {"training_seconds": run.summary.get("seconds")}
    times |= {"measuring_seconds": sum(entry.get("how", {}).get("seconds", 0) for entry in entries if entry)}
    *earlier, last = run.environments()
    return [
        *({"identity": run.identity} | environment for environment in earlier),
        {"identity": run.identity} | last | times,
    ]


def _counts_through_training(planned: PlannedRun, run: Run, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for epoch in epochs_to_measure(planned.config, run.epochs_trained):
        values = measured_values(run, planned.config, planned.dataset, epoch)
        for subspace in planned.config.regions.subspaces:
            count, entropy = Column("region_count", subspace), Column("region_entropy", subspace)
            yield settings | {
                "subspace": subspace,
                "epoch": epoch,
                "mean": values.get(count.key, math.nan),
                "standard_error": values.get(count.with_part("standard_error").key, math.nan),
                "entropy": values.get(entropy.key, math.nan),
            }


def _add_seed_agreement(rows: list[dict[str, Any]], plan: Plan) -> None:
    """Add the agreement of each run with the other seeds of its configuration, if the measure is requested."""
    configurations: dict[str, list[int]] = {}
    for position, planned in enumerate(plan.runs):
        if "seed_agreement" in planned.config.measures:
            configuration = {column: value for column, value in planned.varied.items() if column != "seed"}
            configurations.setdefault(json.dumps(configuration), []).append(position)
    for positions in configurations.values():
        labels: list[np.ndarray | None] = []
        for position in positions:
            planned = plan.runs[position]
            try:
                run = planned.find_run()
                labels.append(plane_labels(run, planned.config, planned.dataset) if run else None)
            except InputError as damage:
                labels.append(None)
                rows[position] |= {"status": "damaged", "error": str(damage)}
        for position, share in zip(positions, seed_agreement(labels), strict=True):
            rows[position]["seed_agreement"] = share


def _as_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the table of runs with the marks fitted and degenerate; columns that vary between repetitions are last."""
    table = pd.DataFrame(rows)
    if "train_accuracy" in table:
        table = analysis.mark(table)
    last = [column for column in LAST_COLUMNS if column in table]
    return table[[column for column in table if column not in last] + last]
