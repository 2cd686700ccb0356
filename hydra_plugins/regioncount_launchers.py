"""Hydra's entry points to launchers: `ParallelLauncher`, the default of configs/sweep.yaml, and Submitit's launchers.

Submitit's are changed so that a lost job does not end the sweep. `regioncount.sweeps` uses them for
`hydra/launcher=submitit_slurm` and `submitit_local`. Without hydra-submitit-launcher, they are not defined.

Hydra imports this module whenever it starts, so slow imports are inside functions.
"""

from collections.abc import Sequence

from hydra._internal.core_plugins import basic_launcher
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf


class ParallelLauncher(basic_launcher.BasicLauncher):
    """Run several jobs at a time, each in a process of its own.

    Args:
        n_jobs: The largest number of jobs at a time, fewer if memory is short. They share the cores. With None or 1, jobs
            run one after another in this process; `regioncount.sweeps` replaces None by a number.
    """

    def __init__(self, n_jobs: int | None = None) -> None:
        super().__init__()
        self.n_jobs = n_jobs

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs.

        Args:
            job_overrides: The overrides of each job.
            initial_job_idx: The number of the first job.

        Returns:
            One JobReturn per job.
        """
        if self.n_jobs in (None, 1):
            return super().launch(job_overrides, initial_job_idx)
        from regioncount.sweeps.pool import run_jobs
        from regioncount.sweeps.worker import Context

        assert self.config is not None  # Hydra has called setup
        assert self.hydra_context is not None
        assert self.task_function is not None
        context = Context(self.hydra_context, self.config, self.task_function, Singleton.get_state())
        return run_jobs(dict(enumerate(job_overrides, initial_job_idx)), context, self.n_jobs)


try:
    # Import the module, not its classes: Hydra registers every launcher class that it finds in a plugin module.
    from hydra_plugins.hydra_submitit_launcher import submitit_launcher
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
except ImportError:
    pass
else:

    class _WaitForAllJobs(submitit_launcher.BaseSubmititLauncher):
        """Submit the jobs as one array and wait for all of them."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
            """Run a batch of jobs on the cluster.

            Args:
                job_overrides: The overrides of each job.
                initial_job_idx: The number of the first job.

            Returns:
                One JobReturn per job. A job that was killed has the status FAILED and a RuntimeError as its return value.
            """
            import submitit

            params = dict(self.params)
            executor_options = {"folder": params.pop("submitit_folder")}
            if "max_num_timeout" in params:
                executor_options[f"{self._EXECUTOR}_max_num_timeout"] = params.pop("max_num_timeout")
            executor = submitit.AutoExecutor(cluster=self._EXECUTOR, **executor_options)
            common = set(OmegaConf.structured(BaseQueueConf).keys())
            executor.update_parameters(
                **{key if key in common else f"{self._EXECUTOR}_{key}": value for key, value in params.items()}
            )
            state = Singleton.get_state()
            jobs = executor.map_array(
                self,
                *zip(
                    *(
                        (list(overrides), "hydra.sweep.dir", number, f"job_id_for_{number}", state)
                        for number, overrides in enumerate(job_overrides, initial_job_idx)
                    ),
                    strict=True,
                ),
            )
            return [_result(job) for job in jobs]

    class SlurmLauncher(_WaitForAllJobs, submitit_launcher.SlurmLauncher):
        """Run each job on a Slurm cluster."""

    class LocalLauncher(_WaitForAllJobs, submitit_launcher.LocalLauncher):
        """Run each job in a process on this machine."""


def _result(job) -> JobReturn:
    """Wait for a submitit job; return its result without the two configurations that Hydra stores in it."""
    try:
        result = job.results()[0]
    except Exception:
        result = JobReturn(status=JobStatus.FAILED)
        result.return_value = RuntimeError(f"job {job.job_id} left no result ({job.state}); its log is {job.paths.stderr}")
    result.cfg = result.hydra_cfg = None
    return result
