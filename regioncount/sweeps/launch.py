"""Run a sweep: plan it, launch its cells through a Hydra launcher, and write its report."""

import io
import shutil
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from regioncount.errors import DISK_ERRORS, InputError, one_line, say
from regioncount.runs import files, plans
from regioncount.runs.plans import Plan, PlannedRun
from regioncount.sweeps.cell import POSTPONED, cell_title, skip_complete
from regioncount.sweeps.grid import lines, plan_sweep

# A launcher returns two configurations of 0.1 MB with each job. Batches bound the memory for these and the size of a Slurm
# job array (at most 1001 by default). With the other launchers, some workers are idle between two batches.
BATCH_SIZES = {"BasicLauncher": 1, "SlurmLauncher": 1000, "LocalLauncher": 1000}
DEFAULT_BATCH_SIZE = 250

# Submitit's launchers stop at the first lost job; their replacements wait for all jobs.
REPLACED_LAUNCHERS = {
    f"hydra_plugins.hydra_submitit_launcher.submitit_launcher.{name}": f"hydra_plugins.regioncount_launchers.{name}"
    for name in ("SlurmLauncher", "LocalLauncher")
}


def run_sweep(
    arguments: Sequence[str],
    params: Mapping[str, str],
    config: DictConfig,
    hydra_context: HydraContext,
    task_function: TaskFunction,
) -> tuple[Plan, int]:
    """Check the whole grid, run its cells, and write the report.

    Args:
        arguments: Overrides of the command line, such as "seed=0,1".
        params: The experiment's grid: the values of each option, such as "0.1,0.01".
        config: The sweep's configuration as Hydra composed it. Its `hydra.sweep.dir` is set to a folder of the sweep.
        hydra_context: Hydra's configuration loader and callbacks, for the launcher.
        task_function: The function that the launcher calls with the configuration of each cell.

    Returns:
        The plan of the sweep, and the exit status: 0, or 1 if runs are missing or failed.

    Raises:
        InputError: The grid is invalid, or the launcher cannot be used. Nothing has been written.
        KeyboardInterrupt: The sweep was interrupted. Its report has been written.
    """
    check_launcher(config)
    plan, cells, prepared_runs = plan_sweep(arguments, params, config, hydra_context.config_loader)
    say(f"sweep {plan.name}: {len(plan.runs)} runs, in {plan.directory}")
    hydra_directory = plan.directory / "hydra"
    launcher = _create_launcher(config, hydra_directory, hydra_context, task_function)
    plans.write(plan)
    hydra_directory.mkdir(exist_ok=True)
    files.write_text(hydra_directory / "multirun.yaml", OmegaConf.to_yaml(config))
    overrides = [
        f"hydra.sweep.dir={_quoted(hydra_directory)}",
        f"+sweep.directory={_quoted(plan.directory)}",
        f"tracker.group={_quoted(plan.directory.name)}",
    ]
    if plan.options.time_budget:
        overrides.append(f"+sweep.deadline={time.time() + plan.options.budget}")
    jobs = {number: [*lines(cell), *overrides, f"+sweep.cell={number}"] for number, cell in enumerate(cells)}
    for number, prepared in enumerate(prepared_runs):
        if skip_complete(plan, number, prepared):
            del jobs[number]
    try:
        launch(plan, jobs, launcher)
    except KeyboardInterrupt:
        say("interrupted; reporting the runs so far", sys.stderr)
        _report(plan)
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise  # the report could not be written either
        log = hydra_directory / "launcher.log"
        files.write_text(log, traceback.format_exc())
        reason = one_line(f"{type(error).__name__}: {error}")
        say(f"the launcher stopped early ({reason}; traceback in {log}); reporting the runs so far", sys.stderr)
        _report(plan)
        return plan, 1
    return plan, _report(plan)


def launch(plan: Plan, jobs: dict[int, list[str]], launcher: Launcher) -> None:
    """Launch the cells in batches, then those that were postponed because another process had locked their run.

    A job without a result is recorded as a failure of its cell.

    Args:
        plan: The sweep's plan.
        jobs: The overrides of each cell that is to be run, by its number in the plan.
        launcher: The launcher. Hydra's basic launcher runs the cells one after another in this process; a cell whose run
            is locked is therefore postponed instead of waiting.
    """
    launcher_class = type(launcher).__name__
    wait = ["+sweep.wait=false"] if launcher_class == "BasicLauncher" else []
    size = BATCH_SIZES.get(launcher_class, DEFAULT_BATCH_SIZE)
    postponed: list[int] = []
    numbers = list(jobs)
    for batch in (numbers[first : first + size] for first in range(0, len(numbers), size)):
        results = launcher.launch([jobs[number] + wait for number in batch], initial_job_idx=batch[0])
        for number, result in zip(batch, results, strict=True):
            if _return_value(plan, number, result) == POSTPONED:
                postponed.append(number)
    for number in postponed:
        for result in launcher.launch([jobs[number]], initial_job_idx=number):
            _return_value(plan, number, result)


def check_launcher(config: DictConfig) -> None:
    """Check that this machine has what the configured launcher needs.

    Raises:
        InputError: The launcher needs Slurm, which is not installed, or would start no process.
    """
    if config.hydra.launcher._target_.endswith(".SlurmLauncher") and shutil.which("srun") is None:
        raise InputError(
            "hydra/launcher=submitit_slurm needs Slurm, but the command srun is missing: run the sweep on a node of the "
            "cluster, or use hydra/launcher=joblib or submitit_local"
        )
    if config.hydra.launcher.get("n_jobs") == 0:
        raise InputError("hydra.launcher.n_jobs=0: give the number of runs at a time, or -1 for one per core")


def _create_launcher(
    config: DictConfig, directory: Path, hydra_context: HydraContext, task_function: TaskFunction
) -> Launcher:
    """Return the configured launcher, which keeps its files in `directory`."""
    with open_dict(config):
        config.hydra.sweep.dir = str(directory)
        config.hydra.launcher._target_ = REPLACED_LAUNCHERS.get(
            config.hydra.launcher._target_, config.hydra.launcher._target_
        )
    return Plugins.instance().instantiate_launcher(hydra_context, task_function, config)


def _return_value(plan: Plan, number: int, result: JobReturn) -> object:
    """Return a job's return value. If the job failed, record the failure of its cell and return None."""
    if result.status == JobStatus.COMPLETED:
        return result.return_value
    try:
        with redirect_stderr(io.StringIO()):  # Hydra prints all overrides of the job before it raises
            return result.return_value
    except Exception as error:
        reason = one_line(error)
        run = plan.runs[number]
        say(f"{cell_title(number, len(plan.runs), run.varied)}: failed, {reason}", sys.stderr)
        plans.record_failure(plans.failure_path(plan.directory, run.identity, run.varied), reason)
        return None


def _quoted(value: object) -> str:
    """Return a value as a quoted string in Hydra's override grammar."""
    return QuotedString(str(value), Quote.single).with_quotes()


def _report(plan: Plan) -> int:
    from regioncount.reporting.report import report

    return report(plan.directory, decision_regions=_decision_regions, track=True)


def _decision_regions(planned: PlannedRun) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate a run's model in the plane through three training images."""
    from regioncount import training
    from regioncount.runs import decision_planes, loading

    config, run = planned.config, planned.find_run()
    if run is None:
        raise InputError(f"{planned.name}-{planned.identity}: the run is missing")
    device = training.choose_device(config.device)
    return decision_planes.decision_regions(run, loading.load_dataset(config.dataset), device, config.regions.seed)
