"""A process that runs jobs of a sweep, one after another: the other end of `regioncount.sweeps.pool`.

`main` is started as `python -c PROGRAM INDEX`, with SIGINT ignored. The pool sends pickled objects to
its standard input: first a `Context`, then jobs, pairs of a number and overrides. The process sends pickled messages to what
was its standard output: ("line", text, is_error) for what a job prints, ("epoch", epoch, epochs) for a job's progress, and
("done", JobReturn, bytes) at the end of a job, with the largest memory that the process has used so far.
"""

import io
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from regioncount.errors import one_line


@dataclass
class Context:
    """What the jobs of a sweep have in common."""

    hydra_context: HydraContext
    config: DictConfig
    task_function: TaskFunction
    singletons: Any
    """The state of Hydra's singletons, such as its store of configurations."""


class _Messages:
    """The messages to the pool; several threads may send them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def send(self, *message: Any) -> None:
        content = pickle.dumps(message)
        with self._lock:
            self._file.write(content)
            self._file.flush()


class _Lines(io.TextIOBase):
    """A text file that sends each line to the pool."""

    encoding = "utf-8"

    def __init__(self, messages: _Messages, is_error: bool) -> None:
        self._messages, self._is_error = messages, is_error
        self._unfinished = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._unfinished = (self._unfinished + text).split("\n")
        for line in lines:
            self._messages.send("line", line, self._is_error)
        return len(text)


def main() -> None:
    """Run jobs until the pool closes standard input. If that happens during a job, the pool has ended: stop at once."""
    multiprocessing.current_process().name = f"SweepProcess-{sys.argv[1]}"  # `training.choose_device` reads it
    requests = os.fdopen(os.dup(0), "rb")
    messages = _Messages(os.fdopen(os.dup(1), "wb"))
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)  # what libraries print past Python
    sys.stdout, sys.stderr = _Lines(messages, is_error=False), _Lines(messages, is_error=True)
    signal.signal(signal.SIGTERM, _terminate)
    received: queue.SimpleQueue[tuple[int, list[str]] | None] = queue.SimpleQueue()
    is_busy = threading.Event()
    context = pickle.load(requests)

    def receive() -> None:
        try:
            while True:
                received.put(pickle.load(requests))
        except (EOFError, OSError):
            if is_busy.is_set():
                os._exit(1)
            received.put(None)

    threading.Thread(target=receive, daemon=True).start()

    from regioncount.training import progress

    progress.report_epochs_to(lambda epoch, epochs: messages.send("epoch", epoch, epochs))
    while (job := received.get()) is not None:
        is_busy.set()
        result = _run(context, *job)
        is_busy.clear()
        messages.send("done", result, _peak_memory())


def _run(context: Context, number: int, overrides: Sequence[str]) -> JobReturn:
    """Run a job as Hydra's launchers do; return its status and return value."""
    try:
        setup_globals()
        Singleton.set_state(context.singletons)
        config = context.hydra_context.config_loader.load_sweep_config(context.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        HydraConfig.instance().set_config(config)
        result = run_job(
            hydra_context=context.hydra_context,
            task_function=context.task_function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        status, value = result.status, result._return_value
    except Exception as error:
        status, value = JobStatus.FAILED, error
    if status != JobStatus.COMPLETED:  # an exception of another package may not be picklable
        value = RuntimeError(one_line(f"{type(value).__name__}: {value}"))
    return JobReturn(status=status, _return_value=value)


def _peak_memory() -> int:
    """Return the largest memory that this process has used, in bytes; 0 if the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _terminate(number: int, frame: object) -> None:
    raise SystemExit(128 + number)
