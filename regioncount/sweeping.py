"""A sweep: a grid of runs through a Hydra launcher, then tables, correlations and figures from what is on disk."""

import json
import math
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import hydra
import pandas as pd
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig

from regioncount import analysis, jobs, measuring, plots, runs, tracking
from regioncount.command_line import CONFIGS, compose, hydra_ready
from regioncount.config import parse_run
from regioncount.errors import InputError
from regioncount.jobs import Job

# Columns of every table of runs; an option of another group by such a name keeps its whole one.
RESERVED = ("identity", "status", "dataset", "model", "learning_rate", "batch_size", "weight_decay", "seed")


@dataclass(frozen=True)
class Plan:
    """A checked sweep: its runs, and for each of them the columns and values that vary in the grid."""

    name: str
    directory: Path
    jobs: list[Job]
    varied: list[dict[str, str]]

    @property
    def tracker(self):
        return self.jobs[0].config.tracker


def make_plan(overrides: Sequence[str]) -> Plan:
    """Check every cell of the grid before any of them starts, and work out which run each one is.

    Raises InputError, naming the cell, where one is not valid.
    """
    with hydra_ready():
        given = OverridesParser.create().parse_overrides(list(overrides))
        base = compose("sweep", [o.input_line for o in given if not o.is_sweep_override()], with_hydra=True)
        if not base.hydra.sweeper._target_.endswith(".BasicSweeper"):
            raise InputError("hydra/sweeper: a sweep takes grids alone, hydra/sweeper=basic")
        params = [f"{key}={value}" for key, value in (base.hydra.sweeper.params or {}).items()]
        grid = OverridesParser.create().parse_overrides(params) + [o for o in given if not _of_hydra(o)]
        try:
            cells = BasicSweeper.split_arguments(grid, None)[0]
        except HydraException as error:
            raise InputError(f"the grid: {error}") from error
        fixed = [o.input_line for o in given if _of_hydra(o)]
        planned = [_plan_cell([*fixed, *cell]) for cell in cells]

    name = base.sweep.name or (base.hydra.runtime.choices.get("experiment") or "sweep").replace("/", "-")
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name.startswith("."):
        raise InputError(f"sweep.name={name}: letters, digits, dashes, underscores and dots make a name")
    content = [[job.identity, measuring.measuring_settings(job.config, job.dataset)] for job in planned]
    if len({json.dumps(entry) for entry in content}) < len(content):
        raise InputError("the grid names the same run twice: its cells must differ in what is trained or measured")
    grid_hash = runs.identity({"grid": sorted(content, key=json.dumps)})[:8]
    directory = Path(planned[0].config.results) / "sweeps" / f"{name}-{grid_hash}"
    return Plan(name, directory, planned, _varied(cells))


def launch(plan: Plan, overrides: Sequence[str]) -> bool:
    """Run the sweep through Hydra and its launcher; returns whether it was interrupted.

    Whatever happens to single runs, or to the launcher, is seen afterwards in what is on disk.
    """
    plan.directory.mkdir(parents=True, exist_ok=True)
    runs.write_json(plan.directory / "plan.json", {"name": plan.name, "runs": _planned_runs(plan)})
    sys.argv = [
        sys.argv[0],
        *overrides,
        f"hydra.sweep.dir='{plan.directory / 'hydra'}'",
        f"sweep.directory='{plan.directory}'",
        f"tracker.group='{plan.directory.name}'",
    ]
    try:
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="sweep")(run_cell)()
    except KeyboardInterrupt:
        return True
    except SystemExit as stopped:
        print(f"the launcher stopped early (status {stopped.code}); reporting what is there", file=sys.stderr)
    return False


def run_cell(composed: DictConfig) -> None:
    """One cell of the grid, in the launcher's process. A failure is recorded, and the rest of the sweep goes on."""
    config = parse_run(composed)
    directory = Path(composed.sweep.directory)
    plan = runs.read_json(directory / "plan.json")["runs"]
    number = HydraConfig.get().job.num
    cell = " ".join([f"[{number + 1}/{len(plan)}]", *(f"{key}={value}" for key, value in plan[number]["varied"].items())])
    failures = directory / "failures"
    job = None
    try:
        job = jobs.prepare(config)
        known = job.find_run()
        found = jobs.run(job)
        failure_file(failures, job).unlink(missing_ok=True)
        again = known is not None and known.record == found.record
        print(f"{cell}: {_one_line(job, found)}{' (there already)' if again else ''}", flush=True)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        print(f"{cell}: failed, {reason}", file=sys.stderr, flush=True)
        if job is not None:
            runs.write_json(failure_file(failures, job), {"error": reason, "traceback": traceback.format_exc()})


def collect(plan: Plan) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of a sweep, from what is on disk: a row a run; and a row a run, subspace and epoch."""
    rows, counts = [], []
    for job, varied in zip(plan.jobs, plan.varied, strict=True):
        found = job.find_run()
        config = job.config
        row = {
            "identity": job.identity,
            "status": "missing" if found is None else found.status,
            "dataset": job.dataset.name,
            "model": config.model["name"],
            "learning_rate": config.optimizer["learning_rate"],
            "batch_size": config.batch_size,
            "weight_decay": config.optimizer["weight_decay"],
            "seed": config.seed,
            **{column: value for column, value in varied.items() if column not in RESERVED},
            "num_classes": job.dataset.num_classes,
        }
        failure = failure_file(plan.directory / "failures", job)
        if failure.is_file():
            row |= {"status": "failed", "error": runs.read_json(failure).get("error")}
        if found is not None and found.status != "running":
            row |= {"epochs_trained": found.epochs_trained, "precision": found.record["environment"].get("precision")}
            if found.status == "finished":
                row |= measuring.values(found, config, job.dataset)
                counts += _counts_through_training(job, found, row)
            row |= {"seconds": found.summary.get("seconds"), "directory": str(found.directory)}
        rows.append(row)
    table = pd.DataFrame(rows)
    last = [column for column in ("error", "seconds", "directory") if column in table]
    return table[[column for column in table if column not in last] + last], pd.DataFrame(counts)


def correlate(table: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Correlations of every region count with the targets, for each data set, network and measuring setting by itself."""
    measures = [c for c in table if c.startswith("region_") and not c.endswith("standard_error") and "_share_one_" not in c]
    if not measures or "train_accuracy" not in table:
        return pd.DataFrame()
    varied = [column for column in plan.varied[0] if column not in ("seed", "model", "dataset")]
    measuring = [column for column in varied if column in _measuring_columns(plan)]
    hyperparameters = ["learning_rate", "batch_size", "weight_decay", *(c for c in varied if c not in RESERVED)]
    within = ["dataset", "model", *measuring]
    tables = []
    for key, group in table[table["status"] == "finished"].groupby(within, sort=False):
        group_by = [column for column in hyperparameters if column not in measuring]
        result = analysis.correlations(group, measures, group_by=group_by)
        for position, (column, value) in enumerate(zip(within, key, strict=True)):
            result.insert(position, column, value)
        tables.append(result)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def report(plan: Plan) -> int:
    """Write and print the sweep's tables and figures; returns the exit status: 0, or 1 where a run is missing or failed."""
    table, counts = collect(plan)
    table = analysis.mark(table) if "train_accuracy" in table else table
    correlations = correlate(table, plan)
    runs.write_csv(plan.directory / "runs.csv", table)
    runs.write_csv(plan.directory / "region_counts.csv", counts)
    runs.write_csv(plan.directory / "correlations.csv", correlations)
    figures = _draw(plan, table, counts, correlations)
    _print_tables(plan, table, correlations)
    print(f"tables and figures: {plan.directory}")
    _track(plan, table, correlations, figures)
    bad = table[~table["status"].isin(["finished", "diverged"])]
    for _, row in bad.iterrows():
        reason = row.get("error")
        print(f"{row['status']}: {_label(row, plan)}{'' if pd.isna(reason) else f', {reason}'}", file=sys.stderr)
    return 1 if len(bad) else 0


def failure_file(failures: Path, job: Job) -> Path:
    return failures / f"{job.identity}.json"


def _of_hydra(override: Override) -> bool:
    return override.key_or_group.startswith(("hydra/", "hydra."))


def _plan_cell(overrides: list[str]) -> Job:
    try:
        return jobs.prepare(parse_run(compose("sweep", overrides)))
    except InputError as error:
        raise InputError(f"{error} (in the cell {' '.join(o for o in overrides if not o.startswith('hydra'))})") from error


def _varied(cells: list[list[str]]) -> list[dict[str, str]]:
    """For each cell, the options that vary among cells, by the last part of their name where that tells them apart."""
    options = [dict(part.split("=", 1) for part in cell) for cell in cells]
    varying = [key for key in options[0] if len({option[key] for option in options}) > 1]
    columns = {}
    for key in varying:
        name = key.lstrip("+~").split(".")[-1]
        known = key in ("seed", "batch_size", "dataset", "model", "optimizer.learning_rate", "optimizer.weight_decay")
        taken = name in columns.values() or (name in RESERVED and not known)
        columns[key] = key if taken else name
    return [{column: option[key] for key, column in columns.items()} for option in options]


def _measuring_columns(plan: Plan) -> set[str]:
    """Columns that vary among rows of one and the same run: measuring settings, not hyperparameters."""
    frame = pd.DataFrame(plan.varied).assign(identity=[job.identity for job in plan.jobs])
    return {c for c in frame if c != "identity" and (frame.groupby("identity")[c].nunique() > 1).any()}


def _planned_runs(plan: Plan) -> list[dict]:
    cells = zip(plan.jobs, plan.varied, strict=True)
    return [{"identity": job.identity, "name": job.name, "varied": varied} for job, varied in cells]


def _counts_through_training(job: Job, found: runs.Run, row: dict) -> Iterable[dict]:
    labels = {
        key: row[key] for key in ("identity", "dataset", "model", "learning_rate", "batch_size", "weight_decay", "seed")
    }
    epochs = sorted({*jobs.snapshot_epochs(job.config, found.epochs_trained), found.epochs_trained})
    for subspace in job.config.regions.subspaces:
        for epoch in epochs:
            values = measuring.values(found, job.config, job.dataset, epoch)
            yield labels | {
                "subspace": subspace,
                "epoch": epoch,
                "mean": values.get(f"region_count_{subspace}", math.nan),
                "standard_error": values.get(f"region_count_{subspace}_standard_error", math.nan),
                "entropy": values.get(f"region_entropy_{subspace}", math.nan),
            }


def _grid_columns(plan: Plan) -> list[str]:
    """The hyperparameters a picture shows: learning rate and batch size where they vary, else whatever does."""
    varied = [column for column in plan.varied[0] if column not in ("seed", "model", "dataset")]
    first = [column for column in ("learning_rate", "batch_size") if column in varied]
    return first + [column for column in varied if column not in first] or ["learning_rate"]


def _draw(plan: Plan, table: pd.DataFrame, counts: pd.DataFrame, correlations: pd.DataFrame) -> list[Path]:
    """The sweep's figures, one file each; of each data set and network by itself."""
    finished = table[table["status"] == "finished"]
    group_by = _grid_columns(plan)
    drawn = []
    networks = list(finished.groupby(["dataset", "model"], sort=False)) if len(finished) else []
    for (dataset, model), rows in networks:
        suffix = f"_{model}" if len(networks) > 1 else ""
        title = f"{dataset}, {model}"
        subspaces = [c.removeprefix("region_count_") for c in rows if c.startswith("region_count_") and "standard" not in c]
        for subspace in subspaces:
            measure = f"region_count_{subspace}"
            if not correlations.empty:
                chosen = correlations[(correlations["dataset"] == dataset) & (correlations["model"] == model)]
                chosen = chosen[(chosen["measure"] == measure) & (chosen["target"] == "generalization_gap")]
            correlation = chosen.iloc[0].to_dict() if not correlations.empty and len(chosen) == 1 else None
            figure = plots.count_against_gap(rows, measure, group_by=group_by, correlation=correlation, title=title)
            drawn.append(_save(figure, plan.directory / f"count_against_gap_{subspace}{suffix}.png"))
            here = counts[(counts["subspace"] == subspace) & counts["identity"].isin(rows["identity"])]
            if here["epoch"].nunique() > 1:
                figure = plots.count_through_training(here, group_by=[c for c in group_by if c in here])
                drawn.append(_save(figure, plan.directory / f"count_through_training_{subspace}{suffix}.png"))
        measures = [f"region_count_{subspace}" for subspace in subspaces] + ["test_accuracy"]
        figure = plots.heat_maps(rows, measures, group_by=group_by[:2])
        drawn.append(_save(figure, plan.directory / f"heat_maps{suffix}.png"))
        figure = _draw_decision_regions(plan, rows)
        drawn.append(_save(figure, plan.directory / f"decision_regions{suffix}.png"))
    return drawn


def _draw_decision_regions(plan: Plan, rows: pd.DataFrame):
    """Decision regions of two runs that differ in learning rate alone: the smallest and the largest of the sweep."""
    ordered = rows.sort_values(["batch_size", "weight_decay", "seed", "learning_rate"])
    ends = ordered.groupby(["batch_size", "weight_decay", "seed"], sort=False)["learning_rate"].nunique()
    batch_size, weight_decay, seed = ends.idxmax()
    same = ordered[
        (ordered["batch_size"] == batch_size) & (ordered["weight_decay"] == weight_decay) & (ordered["seed"] == seed)
    ]
    chosen = [same.iloc[0], same.iloc[-1]] if same["learning_rate"].nunique() > 1 else [same.iloc[0]]
    by_identity = {job.identity: job for job in plan.jobs}
    pictures, titles, anchors = [], [], []
    for row in chosen:
        job = by_identity[row["identity"]]
        labels, positions = measuring.decision_regions(job.find_run(), job.dataset, job.device, job.config.regions.seed)
        pictures.append(labels)
        anchors.append(positions)
        titles.append(f"learning rate {row['learning_rate']:g}")
    return plots.decision_regions(pictures, titles, job.dataset.classes, anchors)


def _save(figure, path: Path) -> Path:
    plots.save(figure, path)
    return path


def _one_line(job: Job, found: runs.Run) -> str:
    if found.status != "finished":
        return f"{found.status} after {found.epochs_trained} epochs"
    values = measuring.values(found, job.config, job.dataset)
    parts = [f"{found.epochs_trained} epochs, {found.summary['seconds']:.1f} s"]
    if "test_accuracy" in values:
        parts.append(f"train {values['train_accuracy']:.2%}, test {values['test_accuracy']:.2%}")
    for subspace in job.config.regions.subspaces:
        if (count := values.get(f"region_count_{subspace}")) is not None:
            parts.append(f"{count:.2f} ± {values[f'region_count_{subspace}_standard_error']:.2f} regions a {subspace}")
    return ", ".join(parts)


def _label(row: pd.Series, plan: Plan) -> str:
    return " ".join(f"{column}={row[column]}" for column in plan.varied[0]) or row["identity"]


def _print_tables(plan: Plan, table: pd.DataFrame, correlations: pd.DataFrame) -> None:
    print()
    print(summarize(plan, table))
    print()
    print(describe_correlations(correlations))


def summarize(plan: Plan, table: pd.DataFrame) -> str:
    """The table a sweep prints: one line a configuration, averaged over seeds, accuracies in percent."""
    finished = table[table["status"] == "finished"]
    if not len(finished):
        return "no finished runs"
    group_by = [column for column in ("dataset", "model") if table[column].nunique() > 1]
    group_by += [column for column in _grid_columns(plan) if column not in group_by]
    shown = finished.groupby(group_by, sort=True, dropna=False)
    out = pd.DataFrame({"runs": shown.size(), "epochs": shown["epochs_trained"].mean().round(1)})
    for column in ("train_accuracy", "test_accuracy", "generalization_gap"):
        if column in finished:
            out[f"{column} %"] = (100 * shown[column].mean()).round(2)
    for column in [c for c in finished if c.startswith("region_count_") and not c.endswith("standard_error")]:
        error = shown[column].std() / shown.size() ** 0.5
        out[column] = [
            f"{mean:.3f}" + ("" if math.isnan(e) else f" ± {e:.3f}")
            for mean, e in zip(shown[column].mean(), error, strict=True)
        ]
    lines = [out.reset_index().to_string(index=False), "(± is the standard error over seeds)"]
    if "fitted" in finished:
        lines.append(
            f"{int(finished['fitted'].sum())} of {len(finished)} finished runs fit their training set (at least 99 %)"
        )
        lines.append(
            f"{int(finished['degenerate'].sum())} are degenerate (chance level, or a single region on most subspaces)"
        )
    lines += [f"{count} {status}" for status, count in table["status"].value_counts().items() if status != "finished"]
    return "\n".join(lines)


def describe_correlations(correlations: pd.DataFrame) -> str:
    """Each correlation with its interval and the numbers behind it, a line each."""
    lines = []
    for _, row in correlations.iterrows():
        head = f"{row['dataset']}, {row['model']}: {row['measure']} and {row['target']}"
        if row["note"]:
            lines.append(f"{head}: {row['note']}")
            continue
        parts = [
            f"{name.capitalize()} {row[name]:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"
            for name in ("pearson", "spearman", "kendall")
        ]
        fitted = (
            f"fitted only: {row['note_fitted']}"
            if row["note_fitted"]
            else f"fitted only: Pearson {row['pearson_fitted']:.3f} "
            f"[{row['pearson_low_fitted']:.3f}, {row['pearson_high_fitted']:.3f}]"
        )
        numbers = f"{row['configurations']} configurations, {row['runs']} runs, {row['fitted']} fitted"
        lines.append(f"{head}: {', '.join(parts)} ({numbers}; {fitted})")
    return "\n".join(lines) or "no correlations: no run has both accuracies and region counts"


def _track(plan: Plan, table: pd.DataFrame, correlations: pd.DataFrame, figures: list[Path]) -> None:
    tracker = plan.tracker
    with tracking.start(
        tracker.mode,
        identity=runs.identity({"sweep": plan.directory.name}),
        name=plan.directory.name,
        config={"runs": len(plan.jobs), "command": " ".join(os.path.basename(a) for a in sys.argv[:1])},
        directory=Path(plan.jobs[0].config.results),
        project=tracker.project,
        entity=tracker.entity,
        group=plan.directory.name,
        job_type="sweep",
    ) as track:
        track.table("runs", table)
        track.table("correlations", correlations)
        for figure in figures:
            track.figure(figure.stem, figure)
