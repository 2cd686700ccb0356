"""Run a sweep: plan it, launch its cells through a Hydra launcher, and write its report."""

import io
import shutil
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr

import numpy as np
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from regioncount import registry
from regioncount.errors import DISK_ERRORS, InputError, one_line, say
from regioncount.reporting import unchanged
from regioncount.runs import files, plans, store
from regioncount.runs.plans import Plan, PlannedRun
from regioncount.runs.prepared import PreparedRun
from regioncount.sweeps.cell import POSTPONED, cell_title, print_state, skip_complete
from regioncount.sweeps.grid import lines, plan_sweep

# Most launchers return two configurations of 0.1 MB with each job. Batches bound the memory for these and the size of a
# Slurm job array (at most 1001 by default). With the other launchers, some workers are idle between two batches.
BATCH_SIZES = {"BasicLauncher": 1, "ParallelLauncher": sys.maxsize, "SlurmLauncher": 1000, "LocalLauncher": 1000}
DEFAULT_BATCH_SIZE = 250

PARALLEL = "hydra_plugins.regioncount_launchers.ParallelLauncher"
BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"

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
        KeyboardInterrupt: The sweep was interrupted. Its report has been written, unless it was interrupted again; a note of
            the exception then says so.
    """
    check_launcher(config)
    plan, cells, prepared_runs = plan_sweep(arguments, params, config, hydra_context.config_loader)
    say(f"sweep {plan.name}: {len(plan.runs)} runs, in {plan.directory}")
    if plan.options.dry_run:
        unfinished = store.unfinished_names(prepared_runs[0].results)
        remaining = [print_state(plan, number, prepared, unfinished) for number, prepared in enumerate(prepared_runs)]
        say(f"sweep.dry_run=true: {sum(remaining)} of {len(remaining)} cells would be run; nothing was written")
        return plan, 0
    hydra_directory = plan.directory / "hydra"
    with open_dict(config):
        config.hydra.sweep.dir = str(hydra_directory)
        config.hydra.launcher = resolve_launcher(config.hydra.launcher, prepared_runs)
    launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)
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
    positions = plans.line_numbers(plan)
    jobs = {
        number: [*lines(cell), *overrides, f"+sweep.cell={number}", f"+sweep.line={positions[number]}"]
        for number, cell in enumerate(cells)
    }
    for number, prepared in enumerate(prepared_runs):
        if skip_complete(plan, number, prepared):
            del jobs[number]
    try:
        launch(plan, jobs, launcher)
    except KeyboardInterrupt as interrupt:
        try:
            if isinstance(interrupt.__context__, KeyboardInterrupt):  # interrupted again while the cells were stopped
                raise
            say("interrupted; reporting the runs so far; a second interruption skips the report", sys.stderr)
            _report(plan)
        except KeyboardInterrupt as second:
            second.add_note(
                "The report was not written. The runs are kept; rerun the same command to resume and report them."
            )
            raise
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
        launcher: The launcher. With Hydra's basic launcher and ours, a cell whose run is locked is postponed instead of
            waiting while other cells could run.
    """
    launcher_class = type(launcher).__name__
    wait = ["+sweep.wait=false"] if launcher_class in ("BasicLauncher", "ParallelLauncher") else []
    size = BATCH_SIZES.get(launcher_class, DEFAULT_BATCH_SIZE)
    postponed: list[int] = []
    numbers = list(jobs)
    for batch in (numbers[first : first + size] for first in range(0, len(numbers), size)):
        results = launcher.launch([jobs[number] + wait for number in batch], initial_job_idx=batch[0])
        for number, result in zip(batch, results, strict=True):
            if _return_value(plan, number, result) == POSTPONED:
                postponed.append(number)
    if postponed:
        results = launcher.launch([jobs[number] for number in postponed], initial_job_idx=postponed[0])
        for number, result in zip(postponed, results, strict=True):
            _return_value(plan, number, result)


def check_launcher(config: DictConfig) -> None:
    """Check that this machine has what the configured launcher needs.

    Raises:
        InputError: The launcher needs Slurm, which is not installed, or would start no process.
    """
    if config.hydra.launcher._target_.endswith(".SlurmLauncher") and shutil.which("srun") is None:
        raise InputError(
            "hydra/launcher=submitit_slurm needs Slurm, but the command srun is missing: run the sweep on a node of the "
            "cluster, or use hydra/launcher=parallel or submitit_local"
        )
    jobs = config.hydra.launcher.get("n_jobs")
    if config.hydra.launcher._target_ == PARALLEL and not (jobs is None or (type(jobs) is int and jobs > 0)):
        raise InputError(f"hydra.launcher.n_jobs={jobs}: give the number of runs at a time, or null for one per core")
    if jobs == 0:
        raise InputError("hydra.launcher.n_jobs=0: give the number of runs at a time, or -1 for one per core")


def resolve_launcher(launcher: DictConfig, prepared_runs: Sequence[PreparedRun]) -> DictConfig:
    """Return a launcher's configuration with the class and the number of jobs that fit the runs."""
    launcher = launcher.copy()
    launcher._target_ = REPLACED_LAUNCHERS.get(launcher._target_, launcher._target_)
    if launcher._target_ == PARALLEL:
        import torch

        # Runs on a GPU would compete for it, and other processes lack what was registered in this session.
        side_by_side = all(prepared.device.type == "cpu" for prepared in prepared_runs) and not registry.session_plugins()
        if launcher.n_jobs is None:
            launcher.n_jobs = min(torch.get_num_threads(), len(prepared_runs)) if side_by_side else 1
        if launcher.n_jobs == 1:
            launcher = OmegaConf.create({"_target_": BASIC})
    return launcher


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
    inputs = unchanged.inputs_digest(plan)
    if (printed := unchanged.printed_before(plan.directory, inputs)) is not None:
        say(f"{printed}\nreport: {plan.directory / 'report.html'} (unchanged)")
        return 0
    from regioncount.reporting.report import report

    return report(plan.directory, decision_regions=_decision_regions, track=True, inputs=inputs)


def _decision_regions(planned: PlannedRun) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate a run's model in the plane through three training images."""
    from regioncount import training
    from regioncount.runs import decision_planes, loading

    config, run = planned.config, planned.find_run()
    if run is None:
        raise InputError(f"{planned.name}-{planned.identity}: the run is missing")
    device = training.choose_device(config.device)
    return decision_planes.decision_regions(run, loading.load_dataset(config.dataset), device, config.regions.seed)
