"""A sweep as it was planned: what plan.json records, and all that its report needs besides the runs themselves.

Neither data nor models are loaded for it: a report can be made again wherever the results directory lies.
"""

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from regioncount.config import SWEEP_NAME, RunConfig, SweepOptions, as_mapping, parse_run, parse_sweep
from regioncount.errors import InputError, one_line
from regioncount.runs import files, store
from regioncount.runs.store import Run

FILE = "plan.json"
CELLS = "cells.jsonl"
FORMAT = 2

# Columns of every table of runs; an option of another group by such a name keeps its whole one.
RESERVED = ("identity", "status", "dataset", "model", "learning_rate", "batch_size", "weight_decay", "seed")


@dataclass(frozen=True)
class DataFacts:
    """What a report says of a data set; name is what tables call it, sizes are numbers of images."""

    name: str
    fingerprints: dict[str, str]
    classes: tuple[str, ...]
    train_size: int
    test_size: int

    @property
    def num_classes(self) -> int:
        return len(self.classes)


@dataclass(frozen=True)
class PlannedRun:
    """One cell of the grid: which run it is, and for each option that varies its column and value."""

    identity: str
    name: str
    varied: dict[str, str]
    config: RunConfig
    dataset: DataFacts
    precision: str

    def find_run(self) -> Run | None:
        return store.find(Path(self.config.results), self.name, self.identity)


@dataclass(frozen=True)
class Plan:
    """A checked sweep. overrides are the command line that asked for it, environment is where that was."""

    name: str
    directory: Path
    runs: list[PlannedRun]
    overrides: list[str]
    experiment: str | None
    environment: dict
    options: SweepOptions = field(default_factory=SweepOptions)

    @cached_property
    def measuring_columns(self) -> list[str]:
        """The varied columns in which rows of one and the same run differ: settings of measuring, not hyperparameters."""
        cells = pd.DataFrame([run.varied for run in self.runs]).assign(identity=[run.identity for run in self.runs])
        return [column for column in self.runs[0].varied if (cells.groupby("identity")[column].nunique() > 1).any()]

    @property
    def varied_columns(self) -> list[str]:
        """The columns that vary besides the seed, data set and network, learning rate and batch size first."""
        varied = [column for column in self.runs[0].varied if column not in ("seed", "model", "dataset")]
        first = [column for column in ("learning_rate", "batch_size") if column in varied]
        return first + [column for column in varied if column not in first]

    @property
    def hyperparameters(self) -> list[str]:
        """The columns that make a configuration."""
        known = (*RESERVED, *self.measuring_columns)
        return ["learning_rate", "batch_size", "weight_decay", *(c for c in self.varied_columns if c not in known)]

    @property
    def drawn_columns(self) -> list[str]:
        """The columns that figures tell apart."""
        return [column for column in self.varied_columns if column not in self.measuring_columns] or ["learning_rate"]


def write(plan: Plan) -> None:
    """Write plan.json into the sweep's directory, and cells.jsonl, where each cell finds itself without reading all others.

    Paths are relative, so that a results directory can be moved.
    """
    datasets = []
    for run in plan.runs:
        if run.dataset not in datasets:
            datasets.append(run.dataset)
    record = {
        "format": FORMAT,
        "name": plan.name,
        "experiment": plan.experiment,
        "overrides": plan.overrides,
        "options": asdict(plan.options),
        "environment": plan.environment,
        "results": os.path.relpath(plan.runs[0].config.results, plan.directory),
        "datasets": [vars(dataset) for dataset in datasets],
        "runs": [_record(run, datasets.index(run.dataset)) for run in plan.runs],
    }
    plan.directory.mkdir(parents=True, exist_ok=True)
    files.write_json(plan.directory / FILE, record)
    cells = [json.dumps({"identity": run.identity, "varied": run.varied}) for run in plan.runs]
    width = max(map(len, cells))
    files.write_text(plan.directory / CELLS, "".join(f"{cell:<{width}}\n" for cell in cells))


def read_cell(directory: Path, number: int) -> tuple[dict, int]:
    """Identity and varied options of one cell of a plan, and how many cells there are. All lines have the same length."""
    with open(directory / CELLS, "rb") as file:
        width = len(file.readline())
        file.seek(number * width)
        return json.loads(file.readline()), os.path.getsize(file.name) // width


def record_failure(directory: Path, identity: str, reason: str, trace: str = "") -> None:
    """Keep why a run of a sweep failed, for its report; reason is one line, trace where the error was raised."""
    with suppress(OSError):  # that nothing can be written may be the reason
        (directory / "failures").mkdir(exist_ok=True)
        record = {"error": reason, "traceback": [one_line(line) for line in trace.splitlines()]}
        files.write_json(_failure(directory, identity), record)


def forget_failure(directory: Path, identity: str) -> None:
    """Say that a run which failed has not, this time."""
    _failure(directory, identity).unlink(missing_ok=True)


def read_failure(directory: Path, identity: str) -> str | None:
    """Why a run failed; None where it did not."""
    path = _failure(directory, identity)
    try:
        return str(files.read_json(path).get("error")) if path.exists() else None
    except InputError as damage:
        return str(damage)


def _failure(directory: Path, identity: str) -> Path:
    return directory / "failures" / f"{identity}.json"


def read(directory: str | os.PathLike) -> Plan:
    """The plan of a sweep's directory. InputError, in one line, where it is not one or its record cannot be used."""
    directory = Path(directory)
    path = directory / FILE
    if not path.is_file():
        raise InputError(f"{directory} is not a sweep: it has no {FILE}")
    record = files.read_json(path)
    if record.get("format") != FORMAT:
        raise InputError(f"{path} was written by another version: run the sweep again, which finds its finished runs")
    try:
        return _parse(record, directory)
    except InputError as error:
        raise InputError(f"{path} is damaged: {' '.join(str(error).split())}") from error


def _record(run: PlannedRun, dataset: int) -> dict:
    config = {key: value for key, value in as_mapping(run.config).items() if key != "results"}
    fixed = {"identity": run.identity, "name": run.name, "dataset": dataset, "precision": run.precision}
    return fixed | {"varied": run.varied, "config": config}


def _parse(record: dict, directory: Path) -> Plan:
    results = _results(_take(record, "results", str), directory)
    datasets = [_parse_dataset(entry) for entry in _take(record, "datasets", list)]
    planned = [_parse_planned(entry, datasets, results) for entry in _take(record, "runs", list)]
    if not planned:
        raise InputError("it has no runs")
    if len({tuple(run.varied) for run in planned}) > 1:
        raise InputError("its runs do not vary in the same options")
    overrides = _take(record, "overrides", list)
    if not all(isinstance(override, str) for override in overrides):
        raise InputError("overrides are not texts")
    experiment = record.get("experiment")
    if experiment is not None and not isinstance(experiment, str):
        raise InputError("experiment is not a text")
    name = _take(record, "name", str)
    if not re.fullmatch(SWEEP_NAME, name):
        raise InputError(f"{name!r} is not the name of a sweep")
    options = parse_sweep(_take(record, "options", dict), planned[0].config)
    return Plan(name, directory, planned, overrides, experiment, _take(record, "environment", dict), options)


def _parse_dataset(entry: dict) -> DataFacts:
    prints = _take(entry, "fingerprints", dict)
    classes = _take(entry, "classes", list)
    if not all(isinstance(name, str) for name in classes) or not classes:
        raise InputError("classes are not names")
    return DataFacts(
        _take(entry, "name", str),
        {split: _take(prints, split, str) for split in ("train", "test")},
        tuple(classes),
        _take(entry, "train_size", int),
        _take(entry, "test_size", int),
    )


def _parse_planned(entry: dict, datasets: list[DataFacts], results: Path) -> PlannedRun:
    identity, name, varied = _take(entry, "identity", str), _take(entry, "name", str), _take(entry, "varied", dict)
    # They name a directory and files: nothing in them may lead elsewhere.
    if not re.fullmatch(r"[0-9a-f]{16}", identity):
        raise InputError(f"{identity!r} is not the identity of a run")
    if not re.fullmatch(SWEEP_NAME, name):
        raise InputError(f"{name!r} is not the name of a run")
    if not all(isinstance(value, str) for value in varied.values()):
        raise InputError("varied has values that are not texts")
    number = _take(entry, "dataset", int)
    if not 0 <= number < len(datasets):
        raise InputError(f"there is no data set number {number}")
    config = replace(parse_run(_take(entry, "config", dict), recorded=True), results=str(results))
    return PlannedRun(identity, name, varied, config, datasets[number], _take(entry, "precision", str))


def _take(record: Mapping, key: str, kind: type):
    if not isinstance(record, dict) or type(record.get(key)) is not kind:
        raise InputError(f"{key} is missing or not a {kind.__name__}")
    return record[key]


def _results(recorded: str, directory: Path) -> Path:
    """Where the runs lie now. The shorter spelling where it leads to the same place, which links in the way may prevent."""
    if Path(recorded).is_absolute():
        raise InputError("results is not relative to the sweep's directory")
    spelled, resolved = Path(os.path.normpath(directory / recorded)), (directory / recorded).resolve()
    return spelled if spelled.resolve() == resolved else resolved
