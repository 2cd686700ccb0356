"""A sweep: a grid checked as a whole, and run through a Hydra launcher."""

import copy
import functools
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from regioncount.commands import CONFIGS, UNUSABLE, compose, exit_status, hydra_ready
from regioncount.config import parse_run, parse_sweep
from regioncount.errors import InputError, one_line
from regioncount.runs import files, plans, runner, store
from regioncount.runs.environment import environment
from regioncount.runs.identity import identity_of
from regioncount.runs.measurements import measured_values, measurement_settings
from regioncount.runs.plans import RESERVED, DataFacts, Plan, PlannedRun
from regioncount.runs.runner import PreparedRun
from regioncount.sweeps import cluster

# Cells that another process held when their turn came, and their numbers.
postponed: list[tuple[DictConfig, int]] = []


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
        bases = {}
        planned = [_plan_cell([*fixed, *cell], bases) for cell in cells]

        options = parse_sweep(base.sweep, planned[0].config)

    choices = base.hydra.runtime.choices
    parts = (choices.get("experiment") or "sweep", choices.get("scale"))
    name = options.name or "-".join(filter(None, parts)).replace("/", "-")
    content = [[job.identity, measurement_settings(job.config, job.dataset)] for job in planned]
    if len({json.dumps(entry) for entry in content}) < len(content):
        raise InputError("the grid names the same run twice: its cells must differ in what is trained or measured")
    grid_hash = identity_of({"grid": sorted(content, key=json.dumps)})[:8]
    directory = Path(planned[0].config.results) / "sweeps" / f"{name}-{grid_hash}"
    return Plan(
        name,
        directory,
        [_as_planned(job, varied) for job, varied in zip(planned, _varied(cells), strict=True)],
        list(overrides),
        choices.get("experiment"),
        environment(planned[0].device, planned[0].precision),
        options,
    )


def launch(plan: Plan, overrides: Sequence[str]) -> int:
    """Run the sweep through Hydra and its launcher; returns 0, 1 where the launcher stopped early, or the exit status of a
    process that was interrupted.

    What happens to single runs is seen afterwards in what is on disk.
    """
    plans.write(plan)
    sys.argv = [
        sys.argv[0],
        *overrides,
        f"hydra.sweep.dir='{plan.directory / 'hydra'}'",
        f"sweep.directory='{plan.directory}'",
        *([f"sweep.deadline={time.time() + plan.options.budget}"] if plan.options.time_budget else []),
        f"tracker.group='{plan.directory.name}'",
    ]
    # Hydra would compose every cell once more before the first starts; that has been done, and takes 0.1 s a cell. By name:
    # looking for its plugins, Hydra imports their modules again, and takes its sweeper from the last import.
    checked = patch(f"{BasicSweeper.__module__}.BasicSweeper.validate_batch_is_legal", lambda sweeper, batch: None)
    postponed.clear()
    try:
        with checked, cluster.waiting_for_all(plan), patch.dict(os.environ, HYDRA_FULL_ERROR="1"):
            hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="sweep")(run_cell)()
        for composed, number in postponed:
            _run_cell(composed, number, wait=True)
    except KeyboardInterrupt as stopped:
        print("interrupted; the same command goes on; reporting what is there", file=sys.stderr, flush=True)
        return exit_status(stopped)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in UNUSABLE:
            raise  # nothing can be reported there either
        traceback.print_exc()
    else:
        return 0
    print("the launcher stopped early; reporting what is there", file=sys.stderr)
    return 1


def run_cell(composed: DictConfig) -> None:
    """One cell of the grid, in the launcher's process. A failure is recorded, and the rest of the sweep goes on.

    Where the cells are run one after the other in this process, one that another process holds is left to the end.
    """
    composing = HydraConfig.get()
    _run_cell(composed, composing.job.num, wait=composing.runtime.choices["hydra/launcher"] != "basic")


def _run_cell(composed: DictConfig, number: int, wait: bool) -> None:
    directory = Path(composed.sweep.directory)
    planned, cells = plans.read_cell(directory, number)
    cell = " ".join([f"[{number + 1}/{cells}]", *(f"{key}={value}" for key, value in planned["varied"].items())])
    try:
        job = runner.prepare(parse_run(composed))
        if job.identity != planned["identity"]:
            # Hydra composes each cell anew when its turn comes.
            raise InputError("this is not the run that was planned: configuration files, data or hardware have changed")
        known = _known(job)
        if known is None and composed.sweep.deadline is not None and time.time() > composed.sweep.deadline:
            print(f"{cell}: not started, the time budget is over", flush=True)
            return
        found = runner.run_or_resume(job, wait)
        plans.forget_failure(directory, job.identity)
        print(f"{cell}: {_outcome(job, found)}{'' if found.worked_on else ' (there already)'}", flush=True)
    except store.Busy:
        print(f"{cell}: another process works on it; it is looked at again after the others", flush=True)
        postponed.append((composed, number))
    except store.Superseded as error:
        print(f"{cell}: {error}", file=sys.stderr, flush=True)
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}")
        print(f"{cell}: failed, {reason}", file=sys.stderr, flush=True)
        plans.record_failure(directory, planned["identity"], reason, traceback.format_exc())


def _known(job: PreparedRun) -> store.Run | None:
    """The run as it is before its turn; a damaged one counts as none."""
    with suppress(files.Damaged):
        return job.find_run()


class ForgetConfiguration(Callback):
    """Hydra keeps what every job returned until the sweep is over, and with it two configurations of 0.1 MB each."""

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_) -> None:
        job_return.cfg = job_return.hydra_cfg = None


def _as_planned(job: PreparedRun, varied: dict[str, str]) -> PlannedRun:
    data = job.dataset
    facts = DataFacts(data.name, data.fingerprints, data.classes, len(data.train), len(data.test))
    return PlannedRun(job.identity, job.name, varied, job.config, facts, job.precision)


def _of_hydra(override: Override) -> bool:
    return override.key_or_group.startswith(("hydra/", "hydra."))


def _plan_cell(overrides: list[str], bases: dict[tuple, DictConfig]) -> PreparedRun:
    try:
        return runner.prepare(parse_run(_compose_cell(overrides, bases)))
    except InputError as error:
        raise InputError(f"{error} (in the cell {' '.join(o for o in overrides if not o.startswith('hydra'))})") from error


def _compose_cell(overrides: list[str], bases: dict[tuple, DictConfig]) -> DictConfig:
    """What Hydra composes for a cell. It takes 0.1 s to choose files, so `bases` keeps one for each choice of them."""
    parsed = [_parse_override(override) for override in overrides]
    choices = tuple(o.input_line for o in parsed if _of_hydra(o) or (CONFIGS / o.key_or_group).is_dir())
    if choices not in bases:
        bases[choices] = compose("sweep", choices)
    cell = copy.deepcopy(bases[choices])
    ConfigLoaderImpl._apply_overrides_to_config([o for o in parsed if o.input_line not in choices], cell)
    return cell


@functools.cache  # parsing takes 3 ms, and cells have most overrides in common
def _parse_override(override: str) -> Override:
    return OverridesParser.create().parse_override(override)


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


def _outcome(job: PreparedRun, found: store.Run) -> str:
    if found.status != "finished":
        return f"{found.status} after {found.epochs_trained} epochs"
    values = measured_values(found, job.config, job.dataset)
    parts = [f"{found.epochs_trained} epochs, {found.summary['seconds']:.1f} s"]
    if "test_accuracy" in values:
        parts.append(f"train {values['train_accuracy']:.2%}, test {values['test_accuracy']:.2%}")
    for subspace in job.config.regions.subspaces:
        if (count := values.get(f"region_count_{subspace}")) is not None:
            parts.append(f"{count:.2f} ± {values[f'region_count_{subspace}_standard_error']:.2f} regions a {subspace}")
    return ", ".join(parts)
