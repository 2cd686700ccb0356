"""The numbers of a sweep: from its plan and what is on disk to tables of runs, correlations and rankings."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from regioncount import analysis, registry
from regioncount.errors import InputError
from regioncount.reporting import published
from regioncount.runs import plans, store
from regioncount.runs.identity import measurement_key
from regioncount.runs.measurements import (
    epochs_to_measure,
    measured_values,
    measurement_settings,
    seed_agreement,
)
from regioncount.runs.plans import RESERVED, Plan, PlannedRun

# Columns that differ between repetitions of one sweep.
LAST_COLUMNS = ("error", "seconds", "directory")


@dataclass(frozen=True)
class Sweep:
    """All that is reported of a sweep, as numbers.

    runs: a row a run. counts: a row a run, subspace and epoch. environments: a row a trained run, where and when that was,
    with training_seconds and measuring_seconds. configurations: seeds averaged, with the standard errors over them.
    correlations, ranking and regression: as of `regioncount.analysis`, for each group by itself; without rows where nothing
    is measured. early: the same correlations of counts at each epoch measured with the final gap. comparison: as of
    `published.compare`.
    """

    plan: Plan
    runs: pd.DataFrame
    counts: pd.DataFrame
    environments: pd.DataFrame
    configurations: pd.DataFrame
    correlations: pd.DataFrame
    ranking: pd.DataFrame
    comparison: pd.DataFrame
    early: pd.DataFrame
    regression: pd.DataFrame


@dataclass(frozen=True)
class Group:
    """The finished runs of one data set, network and measuring setting: what is comparable.

    name: these by column. title: in words. short: what tells it from the other groups. suffix: what the names of its files
    end in. rows: of `Sweep.runs`.
    """

    name: dict
    title: str
    short: str
    suffix: str
    rows: pd.DataFrame

    def of(self, table: pd.DataFrame, **further) -> pd.DataFrame:
        """The rows of a table that are this group's."""
        wanted = self.name | further
        return table[(table[list(wanted)] == list(wanted.values())).all(axis=1)] if len(table) else table


def collect(plan: Plan) -> Sweep:
    """Read what is on disk of a sweep's runs, and compute its statistics."""
    rows, counts, environments = [], [], []
    begun = store.unfinished_names(Path(plan.runs[0].config.results))
    for planned in plan.runs:
        found, status, error = _look_up(planned, begun)
        config = planned.config
        labels = {
            "identity": planned.identity,
            "dataset": planned.dataset.name,
            "model": config.model["name"],
            "learning_rate": config.optimizer.get("learning_rate", math.nan),  # a classical classifier has none of these
            "batch_size": config.batch_size or math.nan,
            "weight_decay": config.optimizer.get("weight_decay", math.nan),
            "seed": config.seed,
            **{column: value for column, value in planned.varied.items() if column not in RESERVED},
        }
        row = {**labels, "status": status, "num_classes": planned.dataset.num_classes} | ({"error": error} if error else {})
        if found is not None:
            row |= {"epochs_trained": found.epochs_trained, "precision": planned.precision}
            row |= {"seconds": found.summary.get("seconds"), "directory": str(found.directory)}
            environments.append(_environment(planned, found))
            if found.status == "finished":
                row |= measured_values(found, config, planned.dataset)
                counts += _counts_through_training(planned, found, labels)
        if (reason := plans.read_failure(plan.directory, planned.identity)) is not None:
            row |= {"status": "failed", "error": reason}
        rows.append(row)
    _add_seed_agreement(rows, plan)
    table = pd.DataFrame(rows)
    if "train_accuracy" in table:
        table = analysis.mark(table)
    last = [column for column in LAST_COLUMNS if column in table]
    table = table[[column for column in table if column not in last] + last]
    correlations, options = _correlations(table, plan), plan.options
    compared = bool(options.published) and len(correlations) > 0
    return Sweep(
        plan,
        table,
        pd.DataFrame(counts),
        pd.DataFrame(environments),
        _configurations(table, plan),
        correlations,
        _ranking(table, plan),
        published.compare(correlations, table, options.published, plan.hyperparameters) if compared else pd.DataFrame(),
        _early(table, pd.DataFrame(counts), plan),
        _regression(table, plan) if options.regression else pd.DataFrame(),
    )


def _look_up(planned: PlannedRun, begun: set[str]) -> tuple[store.Run | None, str, str | None]:
    """A run as it is on disk, its status, and what is wrong with it."""
    try:
        found = planned.find_run()
    except InputError as damage:
        return None, "damaged", str(damage)
    if found is None:
        return None, "running" if f"{planned.name}-{planned.identity}" in begun else "missing", None
    return found, found.status, next(iter(found.damaged.values()), None)


def groups(table: pd.DataFrame, plan: Plan) -> list[Group]:
    """The groups there are among the finished runs, in the order of the grid."""
    columns = ["dataset", "model", *plan.measuring_columns]
    found = [
        (dict(zip(columns, values, strict=True)), rows)
        for values, rows in table[table["status"] == "finished"].groupby(columns, sort=False)
    ]
    telling = [column for column in columns if len({name[column] for name, _ in found}) > 1]
    taken, result = set(), []
    for name, rows in found:
        # A data set may be called anything; a file may not.
        plain = "".join(f"_{re.sub(r'[^A-Za-z0-9.]+', '-', str(name[column])).strip('-.')[:60]}" for column in telling)
        suffix = plain if plain not in taken else f"{plain}_{len(taken)}"
        taken.add(suffix)
        words = {c: str(value) if c in ("dataset", "model") else f"{c} {value}" for c, value in name.items()}
        short = ", ".join(words[column] for column in telling)
        result.append(Group(name, ", ".join(words.values()), short, suffix, rows))
    return result


def region_measures(table: pd.DataFrame) -> list[str]:
    """The columns that are mean region counts."""
    return [column for column in table if column.startswith("region_count_") and _is_mean(column)]


def heat_map_measures(rows: pd.DataFrame) -> list[str]:
    """What is shown over the grid: region counts, the gap and the test accuracy, as far as they were measured."""
    shown = [*region_measures(rows), "generalization_gap", "test_accuracy"]
    return [column for column in shown if column in rows and rows[column].notna().any()]


def counts_in(counts: pd.DataFrame, plan: Plan, group: Group, subspace: str) -> pd.DataFrame:
    """A group's counts in one kind of subspace: a row a run and epoch. counts: as of `Sweep`."""
    settings = {column: group.name[column] for column in plan.measuring_columns} | {"subspace": subspace}
    chosen = (counts[list(settings)] == list(settings.values())).all(axis=1)
    return counts[chosen & counts["identity"].isin(group.rows["identity"])]


def _environment(planned: PlannedRun, found: store.Run) -> dict:
    """Where and when a run was trained, and how long it and its measurements took."""
    settings = measurement_settings(planned.config, planned.dataset).values()
    epochs = epochs_to_measure(planned.config, found.epochs_trained)
    entries = [found.measures.get(measurement_key(setting, epoch)) for setting in settings for epoch in epochs]
    times = {"training_seconds": found.summary.get("seconds")}
    times |= {"measuring_seconds": sum(entry.get("how", {}).get("seconds", 0) for entry in entries if entry)}
    return {"identity": found.identity} | found.record["environment"] | times


def _counts_through_training(planned: PlannedRun, found: store.Run, labels: dict) -> Iterator[dict]:
    epochs = epochs_to_measure(planned.config, found.epochs_trained)
    for epoch in epochs:
        values = measured_values(found, planned.config, planned.dataset, epoch)
        for subspace in planned.config.regions.subspaces:
            yield labels | {
                "subspace": subspace,
                "epoch": epoch,
                "mean": values.get(f"region_count_{subspace}", math.nan),
                "standard_error": values.get(f"region_count_{subspace}_standard_error", math.nan),
                "entropy": values.get(f"region_entropy_{subspace}", math.nan),
            }


def _add_seed_agreement(rows: list[dict], plan: Plan) -> None:
    """Where it is asked for: among the runs of a configuration, whose labels are on disk."""
    configurations = {}
    for position, planned in enumerate(plan.runs):
        if "seed_agreement" in planned.config.measures:
            row = {column: value for column, value in planned.varied.items() if column != "seed"}
            configurations.setdefault(json.dumps(row), []).append(position)
    for positions in configurations.values():
        shares = seed_agreement([plan.runs[position] for position in positions])
        for position, share in zip(positions, shares, strict=True):
            rows[position]["seed_agreement"] = share


def _configurations(table: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """A row a configuration of finished runs: what varies, how many runs, their means with standard errors over runs."""
    finished = table[table["status"] == "finished"]
    if finished.empty:
        return pd.DataFrame()
    several = [column for column in ("dataset", "model") if table[column].nunique() > 1]
    names = [*several, *plan.varied_columns] or ["dataset", "model"]
    by = finished.groupby(names, dropna=False)
    columns = {"runs": by.size()}
    if "fitted" in finished:
        columns["fitted"] = by["fitted"].sum().astype(int)
    columns["epochs_trained"] = by["epochs_trained"].mean()
    for column in ("train_accuracy", "test_accuracy", "generalization_gap", *region_measures(finished)):
        if column in finished:
            columns |= {column: by[column].mean(), f"{column}_standard_error": by[column].sem()}
    return pd.DataFrame(columns).reset_index().sort_values(names, key=_as_numbers, kind="stable", ignore_index=True)


def _as_numbers(column: pd.Series) -> pd.Series:
    """A column of numbers, which may be written as texts, as numbers; any other as it is."""
    numbers = pd.to_numeric(column, errors="coerce")
    return column if numbers.isna().any() else numbers


def _correlations(table: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Correlations of all measures with the targets, seeds averaged, for each group by itself."""
    measures = _measures(table)
    if not measures or "train_accuracy" not in table:
        return pd.DataFrame()
    results = []
    targets = list(dict.fromkeys(["generalization_gap", "test_error", *plan.options.targets]))
    for group in groups(table, plan):
        found = analysis.correlations(group.rows, measures, targets, group_by=plan.hyperparameters)
        results.append(_named(found[found["measure"] != found["target"]], group.name))
    return pd.concat(results, ignore_index=True) if results else pd.DataFrame()


def _early(table: pd.DataFrame, counts: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """How well the region count at each epoch that every run was measured at tells the final gap."""
    if "train_accuracy" not in table or counts.empty:
        return pd.DataFrame()
    results = []
    for group in groups(table, plan):
        for measure in region_measures(group.rows):
            own = counts_in(counts, plan, group, measure.removeprefix("region_count_"))
            for epoch, at in own.groupby("epoch"):
                if len(at) < len(group.rows) or own["epoch"].nunique() == 1:
                    continue
                then = at[["identity", "mean"]].rename(columns={"mean": measure})
                rows = group.rows.drop(columns=measure).merge(then, on="identity")
                found = analysis.correlations(rows, [measure], ["generalization_gap"], group_by=plan.hyperparameters)
                results.append(_named(found, group.name | {"epoch": epoch, "mean_count": at["mean"].mean()}))
    return pd.concat(results, ignore_index=True) if results else pd.DataFrame()


def _regression(table: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """The test error on the measures that the sweep names, for each group by itself."""
    if not set(plan.options.regression) <= set(table):
        return pd.DataFrame()
    results = [
        _named(analysis.regression(group.rows, plan.options.regression, group_by=plan.hyperparameters), group.name)
        for group in groups(table, plan)
    ]
    return pd.concat(results, ignore_index=True) if results else pd.DataFrame()


def _ranking(table: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """All measures by all statistics against the gap: among all runs and, where these differ, among those that fit and
    those that are not degenerate. Nothing where region counts are all that was measured.
    """
    measures = _measures(table)
    if "train_accuracy" not in table or not set(measures) & set(registry.measures.names()):
        return pd.DataFrame()
    results = []
    for group in groups(table, plan):
        test_size = plan.runs[group.rows.index[0]].dataset.test_size
        for selection in analysis.SELECTIONS:
            chosen = analysis.select(group.rows, selection)
            if selection == "all" or 0 < len(chosen) < len(group.rows):
                result = analysis.ranking(chosen, measures, group_by=plan.hyperparameters, test_size=test_size)
                results.append(_named(result, group.name | {"selection": selection}))
    return pd.concat(results, ignore_index=True) if results else pd.DataFrame()


def _measures(table: pd.DataFrame) -> list[str]:
    """The columns that are measures of a model, besides its accuracies and gap."""
    regions = [column for column in table if column.startswith(("region_count_", "region_entropy_")) and _is_mean(column)]
    others = [name for name in registry.measures.names() if name in table]
    return [*regions, *(["train_loss", *others] if others else [])]


def _named(result: pd.DataFrame, name: dict) -> pd.DataFrame:
    """A table with columns in front that say what it is of."""
    for position, (column, value) in enumerate(name.items()):
        result.insert(position, column, value)
    return result


def _is_mean(column: str) -> bool:
    return not column.endswith(("_standard_error", "_error"))
