"""Read and write the plan of a sweep: its runs, and everything else that its report needs.

    plan.json       the cells of the grid with their configurations and data sets, and the options of the sweep
    cells.jsonl     one line per cell, so that a job reads its own cell without parsing the whole plan. Sweeps of one grid in
                    another order share the directory and may run at the same time, so the lines are sorted
    failures/       one file per cell that failed, with the reason

Paths in a plan are relative: a results directory can be moved. Reports can be regenerated without data and models.
"""

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from regioncount.columns import RUN_COLUMNS
from regioncount.config import SWEEP_NAME, RunConfig, SweepOptions, as_mapping, parse_run, parse_sweep
from regioncount.errors import InputError, one_line
from regioncount.models.kinds import title
from regioncount.runs import files, store
from regioncount.runs.identity import identity_of
from regioncount.runs.record import Run
from regioncount.runs.validation import IDENTITY, RUN_NAME

FILE = "plan.json"
CELLS = "cells.jsonl"
FORMAT = 2  # of plan.json
FORMER_OPTIONS = ("directory", "deadline")  # null in older plans

Value = TypeVar("Value")


@dataclass(frozen=True)
class DataFacts:
    """The facts about a data set that a report states."""

    name: str
    """The name in tables."""
    fingerprints: dict[str, str]
    """Hashes of the content of the splits "train" and "test"."""
    classes: tuple[str, ...]
    """The names of the classes."""
    train_size: int
    """The number of training images."""
    test_size: int
    """The number of test images."""

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)


@dataclass(frozen=True)
class PlannedRun:
    """One cell of a sweep's grid, and the run that it needs. Cells that differ only in measurements share a run."""

    identity: str
    name: str
    """The first part of the run's directory name, "<data set>-<model>"."""
    varied: dict[str, str]
    """The value of each option that the sweep varies, by its column in tables."""
    config: RunConfig
    dataset: DataFacts
    precision: str
    """The resolved training precision."""

    def find_run(self) -> Run | None:
        """Return the run on disk if its training has ended; see `store.find`."""
        return store.find(Path(self.config.results), self.name, self.identity)


@dataclass(frozen=True)
class Plan:
    """The plan of a sweep. All its runs vary the same options."""

    name: str
    directory: Path
    runs: list[PlannedRun]
    overrides: list[str]
    """The command-line overrides of the sweep."""
    experiment: str | None
    """The file in `configs/experiment` that defines the sweep."""
    environment: dict[str, Any]
    """The hardware and software on which the sweep was planned."""
    options: SweepOptions = field(default_factory=SweepOptions)

    @cached_property
    def names(self) -> list[dict[str, str]]:
        """The names of each run's "dataset" and "model" in tables.

        A name that several choices of the grid share, such as model=a,b for files with the same name, is followed by the
        choice.
        """
        own = {"dataset": [run.dataset.name for run in self.runs], "model": [title(run.config.model) for run in self.runs]}
        for part, names in own.items():
            choices: dict[str, set[str]] = {}
            for run, name in zip(self.runs, names, strict=True):
                choices.setdefault(name, set()).add(run.varied.get(part, ""))
            own[part] = [
                name if len(choices[name]) == 1 else f"{name} ({run.varied[part]})"
                for run, name in zip(self.runs, names, strict=True)
            ]
        return [dict(zip(own, pair, strict=True)) for pair in zip(*own.values(), strict=True)]

    @cached_property
    def measuring_columns(self) -> list[str]:
        """Varied columns that differ among cells of one run: they set how a model is measured, not how it is trained."""
        cells = pd.DataFrame([run.varied for run in self.runs]).assign(identity=[run.identity for run in self.runs])
        return [column for column in self.runs[0].varied if (cells.groupby("identity")[column].nunique() > 1).any()]

    @property
    def varied_columns(self) -> list[str]:
        """Varied columns other than seed, data set and model; learning rate and batch size come first.

        Columns that follow from the names of data set and model, such as a network's architecture, are left out.
        """
        cells = pd.DataFrame([run.varied | names for run, names in zip(self.runs, self.names, strict=True)])
        by_name = cells.groupby(["dataset", "model"]).nunique()
        several = len(by_name) > 1
        varied = [
            column
            for column in self.runs[0].varied
            if column not in ("seed", "model", "dataset") and not (several and (by_name[column] == 1).all())
        ]
        first = [column for column in ("learning_rate", "batch_size") if column in varied]
        return first + [column for column in varied if column not in first]

    @property
    def hyperparameters(self) -> list[str]:
        """Columns that determine how a model is trained, except for the seed."""
        known = (*RUN_COLUMNS, *self.measuring_columns)
        return ["learning_rate", "batch_size", "weight_decay", *(c for c in self.varied_columns if c not in known)]

    @property
    def drawn_columns(self) -> list[str]:
        """Columns that figures distinguish by colour or marker."""
        return [column for column in self.varied_columns if column not in self.measuring_columns] or ["learning_rate"]


def as_record(plan: Plan) -> dict[str, Any]:
    """Return the content of plan.json."""
    datasets = []
    for run in plan.runs:
        if run.dataset not in datasets:
            datasets.append(run.dataset)
    return {
        "format": FORMAT,
        "name": plan.name,
        "experiment": plan.experiment,
        "overrides": plan.overrides,
        "options": {key: value for key, value in asdict(plan.options).items() if key != "dry_run"},
        "environment": plan.environment,
        "results": os.path.relpath(plan.runs[0].config.results, plan.directory),
        "datasets": [vars(dataset) for dataset in datasets],
        "runs": [_planned_run_record(run, datasets.index(run.dataset)) for run in plan.runs],
    }


def write(plan: Plan) -> None:
    """Write plan.json and cells.jsonl into the directory of a sweep."""
    files.make_directory(plan.directory)
    files.write_json(plan.directory / FILE, as_record(plan))
    lines = [json.dumps({"identity": run.identity, "varied": run.varied}) for run in sorted(plan.runs, key=_cell_key)]
    width = max(map(len, lines))  # lines of equal length let `read_cell` seek
    files.write_text(plan.directory / CELLS, "".join(f"{line:<{width}}\n" for line in lines))


def line_numbers(plan: Plan) -> list[int]:
    """Return the index of each cell's line in cells.jsonl, in the order of the plan."""
    ordered = sorted(range(len(plan.runs)), key=lambda number: _cell_key(plan.runs[number]))
    return [line for _, line in sorted(zip(ordered, range(len(ordered)), strict=True))]


def read(directory: str | os.PathLike) -> Plan:
    """Return the plan in the directory of a sweep.

    Raises:
        InputError: The directory is not a sweep, or its plan is damaged.
    """
    directory = Path(directory)
    path = directory / FILE
    if not path.is_file():
        raise InputError(f"{directory} is not a sweep: it has no {FILE}")
    record = files.read_json(path)
    if record.get("format") != FORMAT:
        raise InputError(f"{path} was written by another version: rerun the sweep, which reuses its finished runs")
    try:
        return _parse_plan(record, directory)
    except InputError as error:
        raise InputError(f"{path} is damaged: {one_line(error)}") from error


def read_cell(directory: Path, index: int) -> tuple[dict[str, Any], int]:
    """Return one cell from cells.jsonl and the number of cells.

    Args:
        directory: The directory of the sweep.
        index: The index of the cell's line; see `line_numbers`.

    Returns:
        "identity" and "varied" of the `PlannedRun`, and the number of cells.
    """
    with open(directory / CELLS, "rb") as file:
        width = len(file.readline())
        file.seek(index * width)
        return json.loads(file.readline()), os.path.getsize(file.name) // width


def failure_path(directory: Path, identity: str, varied: Mapping[str, str]) -> Path:
    """Return the file that records the failure of a cell. Cells that share a run differ in their varied options.

    Args:
        directory: The directory of the sweep.
        identity: The identity of the cell's run.
        varied: The cell's options; see `PlannedRun.varied`.
    """
    return directory / "failures" / f"{identity}-{identity_of({'varied': dict(varied)})[:8]}.json"


def record_failure(path: Path, reason: str, trace: str = "") -> None:
    """Record that a cell failed, for the report of its sweep.

    Args:
        path: The file; see `failure_path`.
        reason: The reason, in one line.
        trace: The traceback.
    """
    with suppress(OSError):  # the run may have failed because the disk is full
        path.parent.mkdir(exist_ok=True)
        record = {"error": reason, "traceback": [one_line(line) for line in trace.splitlines()]}
        files.write_json(path, record)


def read_failure(path: Path) -> str | None:
    """Return why a cell failed, or None if no failure is recorded in the file."""
    try:
        return str(files.read_json(path).get("error")) if path.exists() else None
    except InputError as damage:
        return str(damage)


def _cell_key(run: PlannedRun) -> tuple[str, str]:
    """Return what the lines of cells.jsonl are sorted by."""
    return run.identity, json.dumps(run.varied, sort_keys=True)


def _planned_run_record(run: PlannedRun, dataset: int) -> dict[str, Any]:
    config = {key: value for key, value in as_mapping(run.config).items() if key != "results"}
    fixed = {"identity": run.identity, "name": run.name, "dataset": dataset, "precision": run.precision}
    return fixed | {"varied": run.varied, "config": config}


def _parse_plan(record: dict[str, Any], directory: Path) -> Plan:
    results = _resolve_results(_require(record, "results", str), directory)
    datasets = [_parse_dataset(entry) for entry in _require(record, "datasets", list)]
    planned = [_parse_planned_run(entry, datasets, results) for entry in _require(record, "runs", list)]
    if not planned:
        raise InputError("it has no runs")
    if len({tuple(run.varied) for run in planned}) > 1:
        raise InputError("its runs do not vary the same options")
    overrides = _require(record, "overrides", list)
    if not all(isinstance(override, str) for override in overrides):
        raise InputError("an override is not a string")
    experiment = record.get("experiment")
    if experiment is not None and not isinstance(experiment, str):
        raise InputError("experiment is not a string")
    name = _require(record, "name", str)
    if not re.fullmatch(SWEEP_NAME, name):
        raise InputError(f"{name!r} is not a valid sweep name")
    recorded = _require(record, "options", dict)
    options = {key: value for key, value in recorded.items() if key not in FORMER_OPTIONS}
    options = parse_sweep(options, planned[0].config)
    return Plan(name, directory, planned, overrides, experiment, _require(record, "environment", dict), options)


def _parse_dataset(entry: Any) -> DataFacts:
    fingerprints = _require(entry, "fingerprints", dict)
    classes = _require(entry, "classes", list)
    if not all(isinstance(name, str) for name in classes) or not classes:
        raise InputError("a class name is missing or not a string")
    return DataFacts(
        name=_require(entry, "name", str),
        fingerprints={split: _require(fingerprints, split, str) for split in ("train", "test")},
        classes=tuple(classes),
        train_size=_require(entry, "train_size", int),
        test_size=_require(entry, "test_size", int),
    )


def _parse_planned_run(entry: Any, datasets: list[DataFacts], results: Path) -> PlannedRun:
    identity, name, varied = _require(entry, "identity", str), _require(entry, "name", str), _require(entry, "varied", dict)
    # Identity and name become parts of paths, which must not leave the results directory.
    if not re.fullmatch(IDENTITY, identity):
        raise InputError(f"{identity!r} is not a valid run identity")
    if not re.fullmatch(RUN_NAME, name):
        raise InputError(f"{name!r} is not a valid run name")
    if not all(isinstance(value, str) for value in varied.values()):
        raise InputError("a value in varied is not a string")
    index = _require(entry, "dataset", int)
    if not 0 <= index < len(datasets):
        raise InputError(f"it has no data set {index}")
    config = replace(parse_run(_require(entry, "config", dict), recorded=True), results=str(results))
    return PlannedRun(identity, name, varied, config, datasets[index], _require(entry, "precision", str))


def _require(record: Any, key: str, expected: type[Value]) -> Value:
    # The exact type: True must not pass for an int.
    if not isinstance(record, Mapping) or type(record.get(key)) is not expected:
        raise InputError(f"{key} is missing or not a {expected.__name__}")
    return record[key]


def _resolve_results(recorded: str, directory: Path) -> Path:
    if Path(recorded).is_absolute():
        raise InputError("results is not relative to the sweep's directory")
    # Prefer the short path, unless a link in it makes ".." lead to another directory.
    normalized, resolved = os.path.normpath(directory / recorded), os.path.realpath(directory / recorded)
    return Path(normalized if os.path.realpath(normalized) == resolved else resolved)
