"""What a sweep says: its tables, pages and figures, on disk, on the screen and to the tracker.

python -m regioncount.report DIR makes them again from what is on disk, without data or models. DIR is the directory of a
sweep or of several, by default results/sweeps.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from regioncount import analysis, training
from regioncount.errors import InputError, one_line
from regioncount.reporting import page, plots, tables, tracking
from regioncount.reporting.collect import Group, Sweep, collect, counts_in, groups, heat_map_measures, region_measures
from regioncount.reporting.columns import column_label, value_text
from regioncount.runs import files, measuring, plans
from regioncount.runs.identity import identity_of, measurement_key
from regioncount.runs.loading import load_dataset
from regioncount.runs.measurements import measurement_settings

SUMMARY = "report.json"

# Tables that many sweeps have no rows for.
OPTIONAL = ("ranking", "comparison", "early", "regression")

# Decision regions drawn side by side, at most.
MOST_PANELS = 5


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    parser = _Parser(prog="python -m regioncount.report", description="Make the report of a sweep again.")
    parser.add_argument("directory", type=Path, nargs="?", default=Path("results/sweeps"), help="of a sweep, or of sweeps")
    try:
        directory = parser.parse_args(arguments).directory
        sweeps = sorted(path.parent for path in directory.glob(f"*/{plans.FILE}"))
        if (directory / plans.FILE).is_file() or not sweeps:
            return report(directory)
        statuses = []
        for sweep in sweeps:
            try:
                statuses.append(report(sweep))
            except InputError as error:
                statuses.append(_complain(error))
        return max(statuses)
    except InputError as error:
        return _complain(error)
    except OSError as error:
        return _complain(f"{error.filename}: {error.strerror}")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        raise InputError(f"{message} (--help lists the options)")


def report(directory: Path, *, after_sweep: bool = False) -> int:
    """Write and print a sweep's tables, pages and figures; returns the exit status, 1 where a run failed or is missing.

    after_sweep: data and models are at hand. Then decision regions are drawn, which else stay as they are, and the tracker
    is told. Raises InputError where the directory is not a sweep's.
    """
    sweep = collect(plans.read(directory))
    plan, table = sweep.plan, sweep.runs
    found = groups(table, plan)
    for name in ("runs", "region_counts", "configurations", "correlations", *OPTIONAL):
        content = {"region_counts": sweep.counts}.get(name, getattr(sweep, name, None))
        if name not in OPTIONAL or len(content):
            files.write_csv(plan.directory / f"{name}.csv", content)
    print(f"\n{plan.name}, on {tables.ran_on(sweep)}\n\n{summarize(sweep)}\n", flush=True)
    print(f"{tables.headline(sweep)}\n", flush=True)
    for told in (tables.correlations, tables.comparison, tables.early, tables.regression):
        if len(cells := told(sweep).cells):
            print(
                f"{told(sweep).caption}:\n{cells.rename(columns=tables.column_title).to_string(index=False)}\n", flush=True
            )
    for group in found:
        for selection in analysis.SELECTIONS:
            ranking = group.of(sweep.ranking, selection=selection)
            if len(ranking):
                print(f"{group.title}, {selection}: {analysis.describe_ranking(ranking)}\n", flush=True)
    figures = [figure for group in found for figure in _draw(sweep, group, after_sweep)]
    _write_tables(sweep, found)
    files.write_text(plan.directory / "report.html", page.build(sweep))
    files.write_json(plan.directory / SUMMARY, page.summary(sweep))
    write_index(plan.directory.parent)
    print(f"report: {plan.directory / 'report.html'}")
    if after_sweep:
        _track(sweep, found, figures)
    left = table["status"].isin(["missing", "running"]) & bool(plan.options.time_budget)
    if left.any():
        print(f"{left.sum()} runs are left: the time budget is {plan.options.time_budget}; the same command goes on")
    bad = table[~table["status"].isin(["finished", "diverged"]) & ~left]
    for position, row in bad.iterrows():
        cell = " ".join(f"{column}={value}" for column, value in plan.runs[position].varied.items()) or row["identity"]
        reason = row.get("error")
        print(f"{row['status']}: {cell}{'' if pd.isna(reason) else f', {one_line(reason)}'}", file=sys.stderr)
    return 1 if len(bad) else 0


def write_index(directory: Path) -> None:
    """Write the page that lists the sweeps of a directory, from what their reports have left there."""
    summaries = {path.parent.name: _read_summary(path.parent / SUMMARY) for path in directory.glob(f"*/{plans.FILE}")}
    files.write_text(directory / "index.html", page.build_index(summaries))


def summarize(sweep: Sweep) -> str:
    """The table a sweep prints: a line a configuration, averaged over seeds, accuracies in percent."""
    table = sweep.runs
    finished = table[table["status"] == "finished"]
    lines = []
    if len(finished):
        cells = tables.configurations(sweep).cells
        lines = [cells.to_string(index=False), "(± is the standard error over seeds)"]
    if "fitted" in finished:
        fitted, degenerate = int(finished["fitted"].sum()), int(finished["degenerate"].sum())
        lines.append(f"{fitted} of {len(finished)} finished runs fit their training set (train accuracy of at least 99 %)")
        lines.append(f"{degenerate} of them are degenerate (at chance level, or one region on most subspaces)")
    lines += [f"{count} {status}" for status, count in table["status"].value_counts().items() if status != "finished"]
    return "\n".join(lines)


def _write_tables(sweep: Sweep, found: Sequence[Group]) -> None:
    """The tables for a paper: tables.md and tables.tex."""
    written = [tables.overview(sweep)] if len(found) > 1 else []
    only = found[0] if len(found) == 1 else None
    written += [tables.comparison(sweep), tables.configurations(sweep, only), tables.correlations(sweep, only)]
    written += [tables.early(sweep, only), tables.regression(sweep, only)]
    written += [table for group in found for table in tables.rankings(sweep, group)]
    written = [table for table in written if len(table.cells)]
    heading = f"{sweep.plan.name}, on {tables.ran_on(sweep)}: {tables.headline(sweep)}"
    texts = [tables.markdown(table) for table in written]
    files.write_text(sweep.plan.directory / "tables.md", "\n".join([tables.escape_markdown(heading), "", *texts]))
    texts = [tables.latex(table, f"{sweep.plan.name}-{table.name}") for table in written]
    needed = "% \\usepackage{booktabs,graphicx}\n"
    files.write_text(sweep.plan.directory / "tables.tex", "\n".join([needed, *texts]))


def _draw(sweep: Sweep, group: Group, after_sweep: bool) -> list[Path]:
    """The figures of one group of comparable runs."""
    rows, plan, columns = group.rows, sweep.plan, sweep.plan.drawn_columns
    drawn = []

    def save(figure, kind: str) -> None:
        path = plan.directory / f"{kind}{group.suffix}.png"
        plots.save(figure, path)
        drawn.append(path)

    measures = region_measures(rows)
    for measure in measures:
        subspace = measure.removeprefix("region_count_")
        if "train_accuracy" in rows:
            correlation = group.of(sweep.correlations, measure=measure, target="generalization_gap").iloc[0].to_dict()
            figure = plots.count_against_gap(rows, measure, group_by=columns, correlation=correlation, title=group.title)
            save(figure, f"count_against_gap_{subspace}")
        through = counts_in(sweep.counts, sweep.plan, group, subspace)
        if through["epoch"].nunique() > 1:
            save(plots.count_through_training(through, group_by=columns), f"count_through_training_{subspace}")
    if len(sweep.ranking):
        ranking = group.of(sweep.ranking, selection="all")
        save(plots.measures_against_gap(rows, ranking, group_by=columns, title=group.title), "measures_against_gap")
    if shown := heat_map_measures(rows):
        save(plots.heat_maps(rows, shown, group_by=columns), "heat_maps")
    if "theorem_learning_rate" in rows:
        save(plots.theorem(rows, _trajectories(sweep, rows)), "theorem")
    if after_sweep:
        try:
            save(_draw_decision_regions(sweep, group), "decision_regions")
        except InputError as error:
            print(f"no decision regions of {group.title}: {error}", file=sys.stderr)
    return drawn


def _trajectories(sweep: Sweep, rows: pd.DataFrame) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Learning rate, steps and Hessian eigenvalues of the first run of each learning rate at the largest width."""
    found = []
    widest = rows[rows["theorem_width"] == rows["theorem_width"].max()]
    for rate, alike in widest.groupby("theorem_learning_rate"):
        planned = sweep.plan.runs[alike.index[0]]
        run, settings = planned.find_run(), measurement_settings(planned.config, planned.dataset)
        key = measurement_key(settings["theorem"], run.epochs_trained)
        arrays = run.region_arrays()
        found.append((rate, arrays[f"{key}/steps"], arrays[f"{key}/eigenvalues"]))
    return found


def _draw_decision_regions(sweep: Sweep, group: Group):
    """Decision regions at each learning rate, all else equal, or at some of many; of classical classifiers, which have none,
    of the first and the last one of the grid.
    """
    alike = [rows for _, rows in group.rows.groupby(["batch_size", "weight_decay", "seed"], dropna=False)]
    rows = max(alike, key=lambda rows: rows["learning_rate"].nunique()).sort_values("learning_rate", kind="stable")
    if rows["learning_rate"].isna().all():
        chosen = list(dict.fromkeys([rows.index[0], rows.index[-1]]))
    else:
        each = rows.drop_duplicates("learning_rate").index
        chosen = list(each[np.unique(np.linspace(0, len(each) - 1, MOST_PANELS).round().astype(int))])
    pictures = []
    for position in chosen:
        planned = sweep.plan.runs[position]
        dataset, device = load_dataset(planned.config.dataset), training.choose_device(planned.config.device)
        pictures.append(measuring.decision_regions(planned.find_run(), dataset, device, planned.config.regions.seed))
    labels, positions = zip(*pictures, strict=True)
    titles = [_title(rows.loc[position, "learning_rate"], sweep.plan.runs[position].varied) for position in chosen]
    return plots.decision_regions(labels, titles, sweep.plan.runs[chosen[0]].dataset.classes, positions)


def _title(learning_rate: float, varied: dict[str, str]) -> str:
    if math.isnan(learning_rate):
        return ", ".join(f"{column} {value}" for column, value in varied.items() if column != "seed")
    return f"learning rate {value_text(learning_rate)}"


def _track(sweep: Sweep, found: Sequence[Group], figures: Sequence[Path]) -> None:
    """The same to the tracker: tables, charts where there are interactive ones, and pictures of what else was drawn."""
    config, plan = sweep.plan.runs[0].config, sweep.plan
    if config.tracker.mode == "disabled":
        return
    with tracking.start(
        config.tracker.mode,
        identity=identity_of({"sweep": plan.directory.name}),
        name=plan.directory.name,
        config={"runs": len(plan.runs), "varied": list(plan.runs[0].varied)},
        directory=Path(config.results),
        project=config.tracker.project,
        entity=config.tracker.entity,
        group=plan.directory.name,
        job_type="sweep",
    ) as track:
        for name in ("runs", "configurations", "correlations", *OPTIONAL):
            if len(table := getattr(sweep, name)):
                track.table(name, table)
        charted = [name for group in found for name in _track_charts(track, sweep, group)]
        for figure in figures:
            if figure.stem not in charted:
                track.figure(figure.stem, figure)
        track.summarize({"headline": tables.headline(sweep)})


def _track_charts(track: tracking.Tracker, sweep: Sweep, group: Group) -> Iterator[str]:
    """The interactive charts of a group, to the tracker; yields the names of the figures that these stand for."""
    from regioncount.reporting import charts

    columns = sweep.plan.drawn_columns
    for measure in region_measures(group.rows):
        subspace = measure.removeprefix("region_count_")
        if "train_accuracy" in group.rows:
            name = f"count_against_gap_{subspace}{group.suffix}"
            shown = group.rows[["identity", *columns, "seed", measure, "generalization_gap", "fitted"]]
            track.scatter(name, shown, measure, "generalization_gap", f"{column_label(measure)}, {group.title}")
            yield name
        through = counts_in(sweep.counts, sweep.plan, group, subspace)
        if through["epoch"].nunique() > 1:
            name = f"count_through_training_{subspace}{group.suffix}"
            track.chart(name, charts.count_through_training(through, measure, columns))
            yield name
    for measure in heat_map_measures(group.rows):
        if (figure := charts.heat_map(group.rows, measure, columns)) is not None:
            track.chart(f"heat_map_{measure}{group.suffix}", figure)
            yield f"heat_maps{group.suffix}"


def _read_summary(path: Path) -> dict | None:
    """What a report has left for the list of sweeps; None where it has left nothing that can be used."""
    kinds = {"name": str, "date": str, "datasets": list, "networks": list, "runs": int, "finished": int, "headline": str}
    try:
        told = files.read_json(path)
    except InputError:
        return None
    whole = all(type(told.get(key)) is kind for key, kind in kinds.items())
    return told if whole and all(isinstance(name, str) for name in told["datasets"] + told["networks"]) else None


def _complain(reason) -> int:
    print(f"regioncount.report: {one_line(reason)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
