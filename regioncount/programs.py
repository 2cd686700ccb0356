"""Train models and run sweeps from Python, as the commands train and sweep do.

The commands call `prepare_run` and `run_sweep`; `train` and `sweep` are the public functions.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import open_dict

from regioncount.arguments import parse_arguments
from regioncount.columns import is_reserved
from regioncount.composition import compose, hydra_ready, one_line_errors
from regioncount.config_files import group_names, search_folders
from regioncount.errors import InputError
from regioncount.runs.record import Run
from regioncount.sweeps import run_cell
from regioncount.sweeps.cell_options import pass_to_cells

if TYPE_CHECKING:
    from regioncount.config import RunConfig
    from regioncount.runs.plans import Plan, PlannedRun
    from regioncount.runs.prepared import PreparedRun

NOT_HYPERPARAMETERS = ("name", "_target_", "root", "title", "workers")


@dataclass
class MeasuredRun(Run):
    """A run on disk with its values."""

    values: dict[str, Any] = field(default_factory=dict)
    """The columns of runs.csv, such as "region_count_line", "test_accuracy" and "learning_rate", and the other options of
    the data set, the model and training by the names of their columns. Measures are those after the last epoch."""


def train(options: Sequence[str] = ()) -> MeasuredRun:
    """Train a model and measure it, as the command train does. A run that is on disk is loaded instead.

    Args:
        options: Options as on the command line, such as ["model=resnet18", "epochs=10"].

    Returns:
        The run. If the loss was not finite, its `status` is "diverged", and nothing was measured.

    Raises:
        InputError: An option is invalid.
    """
    from regioncount.reporting.collect import collect_runs
    from regioncount.runs import runner
    from regioncount.runs.plans import Plan
    from regioncount.sweeps.grid import planned_run

    prepared, _ = prepare_run(_parse("train", options))
    run = runner.run_or_resume(prepared)
    # A single run is reported like a sweep with one cell.
    plan = Plan(prepared.name, prepared.directory, [planned_run(prepared, {})], list(options), None, {})
    _, table = collect_runs(plan)
    return _with_values(run, table.to_dict("records")[0], plan.runs[0])


def sweep(options: Sequence[str] = ()) -> list[MeasuredRun]:
    """Train and measure a grid of runs and write its report, as the command sweep does.

    Args:
        options: Options as on the command line, such as ["experiment=quickstart"] or ["seed=0,1,2", "epochs=10"].

    Returns:
        The runs in the order of the grid. Runs that failed or were not started are left out, with a warning.

    Raises:
        InputError: An option or a cell of the grid is invalid.
    """
    from regioncount.reporting.collect import collect_runs

    plan, _ = run_sweep(_parse("sweep", options))
    if plan is None:
        raise InputError("hydra/sweeper: only sweeps of hydra/sweeper=regioncount return their runs; omit the option")
    runs, table = collect_runs(plan)
    rows = table.to_dict("records")
    measured = [
        _with_values(run, row, planned)
        for planned, run, row in zip(plan.runs, runs, rows, strict=True)
        if run is not None and row["status"] in ("finished", "diverged")
    ]
    if (missing := len(rows) - len(measured)) and not plan.options.dry_run:
        warnings.warn(f"{missing} of {len(rows)} runs failed or were not started: {plan.directory}/runs.csv", stacklevel=2)
    return measured


def prepare_run(overrides: Sequence[str]) -> "tuple[PreparedRun, list[str]]":
    """Compose and check the configuration of one run.

    Args:
        overrides: The overrides, as `parse_arguments` returns them.

    Returns:
        The run, and the options that the grid of its experiment varies and the overrides do not set.

    Raises:
        InputError: An option is invalid.
    """
    with hydra_ready():
        composed = compose("train", overrides, with_hydra=True)
    with open_dict(composed):  # Hydra forbids removing options
        grid = composed.pop("hydra").sweeper.get("params") or {}
    given = {override.lstrip("+~").partition("=")[0] for override in overrides}

    from regioncount.config import parse_run
    from regioncount.config.training import refuse_epoch_options
    from regioncount.models.kinds import trained_in_epochs
    from regioncount.runs import runner

    config = parse_run(composed)
    if not trained_in_epochs(config.model):
        refuse_epoch_options(overrides, config.model["name"])
    return runner.prepare(config), [option for option in map(str, grid) if option not in given]


def run_sweep(overrides: Sequence[str]) -> "tuple[Plan | None, int]":
    """Run a sweep.

    Args:
        overrides: The overrides, as `parse_arguments` returns them.

    Returns:
        The plan and the exit status, as `regioncount.sweeps.launch.run_sweep`; None and 0 with another sweeper.

    Raises:
        InputError: An option or a cell of the grid is invalid.
    """
    with one_line_errors("sweep", overrides), hydra_ready():
        application = GlobalHydra.instance().hydra
        assert application is not None  # hydra_ready has initialized it
        compose_sweep = partial(application.compose_config, "sweep", run_mode=RunMode.MULTIRUN)
        groups = group_names(search_folders(overrides))
        returned = application.multirun("sweep", run_cell, pass_to_cells(overrides, groups, compose_sweep))
    ours = isinstance(returned, tuple) and len(returned) == 2
    return returned if ours else (None, 0)


def _parse(config_name: str, options: Sequence[str]) -> list[str]:
    if isinstance(options, str) or not all(isinstance(option, str) for option in options):
        raise InputError('options: give a list of strings, such as ["model=resnet18", "epochs=10"]')
    flags, overrides = parse_arguments(config_name, options)
    given = [name for name, value in vars(flags).items() if value and name not in ("overrides", "config_dir")]
    if given:
        raise InputError(f"--{given[0].replace('_', '-')}: from Python, give options only, such as seed=3, and --config-dir")
    return overrides


def _with_values(run: Run, row: Mapping[Any, Any], planned: "PlannedRun") -> MeasuredRun:
    values = {str(column): value for column, value in row.items() if not _is_absent(column, value)}
    for column in planned.varied:
        with suppress(TypeError, ValueError):  # a varied option is stored as text
            values[column] = json.loads(values[column])
    return MeasuredRun(**vars(run), values=values | _hyperparameters(planned.config))


def _is_absent(column: object, value: object) -> bool:
    """Return whether a cell of a table is empty because the column belongs to other runs."""
    return value is None or (isinstance(value, float) and value != value and str(column).endswith("error"))


def _hyperparameters(config: "RunConfig") -> dict[str, Any]:
    """Return the options of the data set, the model and training by the names of their columns in tables.

    This is the last part of an option's name, or the full name if the last part has another meaning. Options that have a
    column in every table, such as the learning rate, are left out.
    """
    from regioncount import registry
    from regioncount.config import as_mapping
    from regioncount.sweeps.grid import OPTIONS_WITH_COLUMNS

    mapping = as_mapping(config)
    options = {name: mapping[name] for name in ("augmentation", "epochs")}
    for group in ("optimizer", "schedule"):
        options |= {group: mapping[group]["name"]} if mapping[group] else {}
    for group in ("model", "optimizer", "schedule", "dataset", "stop", "pruning"):
        parts = {name: value for name, value in mapping.get(group, {}).items() if name not in NOT_HYPERPARAMETERS}
        options |= {f"{group}.{name}": value for name, value in parts.items()}
    named: dict[str, Any] = {}
    for option, value in options.items():
        if option in OPTIONS_WITH_COLUMNS:
            continue
        last = option.rpartition(".")[2]
        ambiguous = last in named or is_reserved(last) or last in registry.measures
        named[option if ambiguous else last] = value
    return named
