"""Jobs of a cluster: Hydra's launcher would stop waiting for them at the first one that is lost."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from hydra.core.utils import JobReturn, JobStatus

from regioncount.runs import plans
from regioncount.runs.plans import Plan


@contextmanager
def waiting_for_all(plan: Plan) -> Iterator[None]:
    """Until the block ends, a job that was killed is recorded as a failure of its cell, and the others are waited for."""
    try:
        from submitit.core.core import Job
    except ImportError:
        yield
        return
    results = Job.results

    def results_or_failure(job: Job) -> list:
        try:
            return results(job)
        except Exception:
            number = job.submission().args[2]  # as the launcher numbers them
            reason = f"job {job.job_id} left no result ({job.state}); its log is {job.paths.stderr}"
            print(f"[{number + 1}/{len(plan.runs)}]: {reason}", file=sys.stderr, flush=True)
            plans.record_failure(plan.directory, plan.runs[number].identity, reason)
            return [JobReturn(status=JobStatus.COMPLETED)]

    with patch.object(Job, "results", results_or_failure):
        yield
