"""What a sweep says: its tables, correlations and figures, on disk, on the screen and to the tracker."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from regioncount import analysis, measuring, plots, runs, tracking
from regioncount.measures import NAMES
from regioncount.sweeping import RESERVED, Plan, collect


def report(plan: Plan) -> int:
    """Write and print a sweep's tables and figures; returns the exit status: 0, or 1 where a run failed or is missing."""
    table, counts = collect(plan)
    if "train_accuracy" in table:
        table = analysis.mark(table)
    last = [column for column in ("error", "seconds", "directory") if column in table]  # what differs between repetitions
    table = table[[column for column in table if column not in last] + last]
    correlations, rankings = correlate(table, plan), rank(table, plan)
    runs.write_csv(plan.directory / "runs.csv", table)
    runs.write_csv(plan.directory / "region_counts.csv", counts)
    runs.write_csv(plan.directory / "correlations.csv", correlations)
    if len(rankings):
        runs.write_csv(plan.directory / "ranking.csv", rankings)
    print(f"\n{summarize(table, plan)}\n\n{describe_correlations(correlations)}\n", flush=True)
    for name, ranking in _rankings(rankings):
        print(f"{name}: {analysis.describe_ranking(ranking)}\n", flush=True)
    groups = list(_groups(table, plan))
    telling = [column for column in groups[0][0] if len({name[column] for name, _ in groups}) > 1] if groups else []
    figures = []
    for name, rows in groups:
        suffix = "".join(f"_{name[column]}" for column in telling).replace("/", "-").replace(" ", "-")
        figures += _draw(name, rows, suffix, counts, correlations, rankings, plan)
    print(f"tables and figures: {plan.directory}")
    _track(plan, table, correlations, rankings, figures)
    bad = table[~table["status"].isin(["finished", "diverged"])]
    for position, row in bad.iterrows():
        cell = " ".join(f"{column}={value}" for column, value in plan.varied[position].items()) or row["identity"]
        reason = row.get("error")
        print(f"{row['status']}: {cell}{'' if pd.isna(reason) else f', {reason}'}", file=sys.stderr)
    return 1 if len(bad) else 0


def correlate(table: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Correlations of all measures with the targets, seeds averaged.

    Each data set, network and measuring setting is correlated by itself.
    """
    measures = _measures(table)
    if not measures or "train_accuracy" not in table:
        return pd.DataFrame()
    results = []
    for name, rows in _groups(table, plan):
        result = analysis.correlations(rows, measures, group_by=_hyperparameters(plan))
        results.append(_named(result, name))
    return pd.concat(results, ignore_index=True) if results else pd.DataFrame()


def rank(table: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """All measures by all statistics against the gap: among all runs and, where these differ, among those that fit and
    those that are not degenerate. Nothing where region counts are all that was measured."""
    measures = _measures(table)
    if "train_accuracy" not in table or not set(measures) & set(NAMES):
        return pd.DataFrame()
    results = []
    for name, rows in _groups(table, plan):
        test_size = len(plan.jobs[rows.index[0]].dataset.test)
        for selection in ("all", "fitted", "nondegenerate"):
            chosen = analysis.select(rows, selection)
            if selection == "all" or 0 < len(chosen) < len(rows):
                result = analysis.ranking(chosen, measures, group_by=_hyperparameters(plan), test_size=test_size)
                results.append(_named(result, name | {"selection": selection}))
    return pd.concat(results, ignore_index=True) if results else pd.DataFrame()


def summarize(table: pd.DataFrame, plan: Plan) -> str:
    """The table a sweep prints: a line a configuration, averaged over seeds, accuracies in percent."""
    finished = table[table["status"] == "finished"]
    lines = []
    if len(finished):
        varied = [column for column in ("dataset", "model") if table[column].nunique() > 1] + _varied(plan)
        groups = finished.groupby(varied or ["dataset", "model"], dropna=False)
        shown = pd.DataFrame({"runs": groups.size(), "epochs": groups["epochs_trained"].mean().round(1)})
        for column in ("train_accuracy", "test_accuracy", "generalization_gap"):
            if column in finished:
                shown[f"{column} %"] = (100 * groups[column].mean()).round(2)
        for column in [column for column in finished if column.startswith("region_count_") and _is_mean(column)]:
            errors = groups[column].std() / groups.size() ** 0.5
            pairs = zip(groups[column].mean(), errors, strict=True)
            shown[column] = [f"{mean:.3f}" + ("" if math.isnan(error) else f" ± {error:.3f}") for mean, error in pairs]
        lines = [shown.reset_index().to_string(index=False), "(± is the standard error over seeds)"]
    if "fitted" in finished:
        fitted, degenerate = int(finished["fitted"].sum()), int(finished["degenerate"].sum())
        lines.append(f"{fitted} of {len(finished)} finished runs fit their training set (train accuracy of at least 99 %)")
        lines.append(f"{degenerate} of them are degenerate (at chance level, or one region on most subspaces)")
    lines += [f"{count} {status}" for status, count in table["status"].value_counts().items() if status != "finished"]
    return "\n".join(lines)


def describe_correlations(correlations: pd.DataFrame) -> str:
    """Every correlation with its interval and the numbers behind it."""
    lines = []
    for _, row in correlations.iterrows():
        if not row["measure"].startswith("region_"):
            continue  # of these the ranking tells
        lines.append(f"{row['measure']} and {row['target']} ({row['dataset']}, {row['model']})")
        numbers = f"{row['configurations']} configurations, {row['runs']} runs"
        lines.append(f"  all:    {_statistics(row, '')} ({numbers})")
        if row["fitted"] < row["runs"]:
            numbers = f"{row['configurations_fitted']} configurations, {row['fitted']} runs"
            lines.append(f"  fitted: {_statistics(row, '_fitted')} ({numbers})")
    return "\n".join(lines) or "no correlations: no run has both accuracies and region counts"


def _statistics(row: pd.Series, suffix: str) -> str:
    if row[f"note{suffix}"]:
        return row[f"note{suffix}"]
    return ", ".join(
        f"{name.capitalize()} {row[name + suffix]:.3f} [{row[f'{name}_low{suffix}']:.3f}, {row[f'{name}_high{suffix}']:.3f}]"
        for name in analysis.STATISTICS
    )


def _measures(table: pd.DataFrame) -> list[str]:
    """The columns that are measures of a model, besides its accuracies and gap."""
    regions = [column for column in table if column.startswith(("region_count_", "region_entropy_")) and _is_mean(column)]
    others = [name for name in NAMES if name in table]
    return [*regions, *(["train_loss", *others] if others else [])]


def _hyperparameters(plan: Plan) -> list[str]:
    """The columns that make a configuration."""
    further = [column for column in _varied(plan) if column not in (*RESERVED, *plan.measuring_columns)]
    return ["learning_rate", "batch_size", "weight_decay", *further]


def _named(result: pd.DataFrame, name: dict) -> pd.DataFrame:
    """A table with columns in front that say what it is of."""
    for position, (column, value) in enumerate(name.items()):
        result.insert(position, column, value)
    return result


def _rankings(rankings: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    if rankings.empty:
        return
    columns = list(rankings.columns[: rankings.columns.get_loc("measure")])
    for values, ranking in rankings.groupby(columns, sort=False):
        yield ", ".join(map(str, values)), ranking


def _is_mean(column: str) -> bool:
    return not column.endswith(("_standard_error", "_error"))


def _varied(plan: Plan) -> list[str]:
    """The columns that vary besides the seed, learning rate and batch size first."""
    varied = [column for column in plan.varied[0] if column not in ("seed", "model", "dataset")]
    first = [column for column in ("learning_rate", "batch_size") if column in varied]
    return first + [column for column in varied if column not in first]


def _groups(table: pd.DataFrame, plan: Plan) -> Iterator[tuple[dict, pd.DataFrame]]:
    """The finished runs of each data set, network and measuring setting: what is comparable."""
    columns = ["dataset", "model", *plan.measuring_columns]
    for values, rows in table[table["status"] == "finished"].groupby(columns, sort=False):
        yield dict(zip(columns, values, strict=True)), rows


def _draw(
    name: dict,
    rows: pd.DataFrame,
    suffix: str,
    counts: pd.DataFrame,
    correlations: pd.DataFrame,
    rankings: pd.DataFrame,
    plan: Plan,
) -> list[Path]:
    """The figures of one group of comparable runs."""
    title = ", ".join(map(str, name.values()))
    group_by = [column for column in _varied(plan) if column not in plan.measuring_columns] or ["learning_rate"]
    drawn = []

    def save(figure, kind: str) -> None:
        path = plan.directory / f"{kind}{suffix}.png"
        plots.save(figure, path)
        drawn.append(path)

    measures = [column for column in rows if column.startswith("region_count_") and _is_mean(column)]
    for measure in measures:
        subspace = measure.removeprefix("region_count_")
        if "train_accuracy" in rows:
            wanted = name | {"measure": measure, "target": "generalization_gap"}
            correlation = correlations[_equal(correlations, wanted)].iloc[0].to_dict()
            figure = plots.count_against_gap(rows, measure, group_by=group_by, correlation=correlation, title=title)
            save(figure, f"count_against_gap_{subspace}")
        settings = {column: name[column] for column in plan.measuring_columns} | {"subspace": subspace}
        through = counts[_equal(counts, settings) & counts["identity"].isin(rows["identity"])]
        if through["epoch"].nunique() > 1:
            save(plots.count_through_training(through, group_by=group_by), f"count_through_training_{subspace}")
    if len(rankings):
        ranking = rankings[_equal(rankings, name | {"selection": "all"})]
        save(plots.measures_against_gap(rows, ranking, group_by=group_by, title=title), "measures_against_gap")
    shown = measures + [column for column in ("test_accuracy",) if column in rows]
    if shown:
        save(plots.heat_maps(rows, shown, group_by=group_by), "heat_maps")
    save(_draw_decision_regions(rows, plan), "decision_regions")
    return drawn


def _equal(table: pd.DataFrame, values: dict) -> pd.Series:
    return (table[list(values)] == list(values.values())).all(axis=1)


def _draw_decision_regions(rows: pd.DataFrame, plan: Plan):
    """Decision regions at the smallest and the largest learning rate, all else equal; of classical classifiers, which have
    none, of the first and the last one of the grid."""
    groups = [group for _, group in rows.groupby(["batch_size", "weight_decay", "seed"], dropna=False)]
    alike = max(groups, key=lambda group: group["learning_rate"].nunique()).sort_values("learning_rate", kind="stable")
    one = len(alike) == 1 or alike["learning_rate"].nunique() == 1
    ends = [alike.index[0]] if one else [alike.index[0], alike.index[-1]]
    pictures = []
    for position in ends:
        job = plan.jobs[position]
        pictures.append(measuring.decision_regions(job.find_run(), job.dataset, job.device, job.config.regions.seed))
    labels, positions = zip(*pictures, strict=True)
    titles = [_title(rows.loc[position, "learning_rate"], plan.varied[position]) for position in ends]
    return plots.decision_regions(labels, titles, plan.jobs[ends[0]].dataset.classes, positions)


def _title(learning_rate: float, varied: dict[str, str]) -> str:
    if math.isnan(learning_rate):
        return ", ".join(f"{column} {value}" for column, value in varied.items() if column != "seed")
    return f"learning rate {learning_rate:g}"


def _track(plan: Plan, table: pd.DataFrame, correlations: pd.DataFrame, rankings: pd.DataFrame, figures: list[Path]) -> None:
    config = plan.jobs[0].config
    with tracking.start(
        config.tracker.mode,
        identity=runs.identity({"sweep": plan.directory.name}),
        name=plan.directory.name,
        config={"runs": len(plan.jobs), "varied": list(plan.varied[0])},
        directory=Path(config.results),
        project=config.tracker.project,
        entity=config.tracker.entity,
        group=plan.directory.name,
        job_type="sweep",
    ) as track:
        track.table("runs", table)
        track.table("correlations", correlations)
        if len(rankings):
            track.table("ranking", rankings)
        for figure in figures:
            track.figure(figure.stem, figure)
