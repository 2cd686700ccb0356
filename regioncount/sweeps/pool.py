"""Run the jobs of a sweep side by side, each in a process of its own with few threads.

A small network trains on one core almost as fast as on several, so that runs side by side finish earlier than runs one after
another on all cores.
"""

import itertools
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cloudpickle
import torch
from hydra.core.utils import JobReturn, JobStatus

from regioncount.sweeps.memory import available_memory
from regioncount.sweeps.sweep_progress import SweepProgress
from regioncount.sweeps.worker import Context

# A job is started beside others if this much memory is left for it, or as much as the largest job so far has used.
MIN_MEMORY = 1 << 30
# If less is left, the job that was started last is stopped, and continued later.
SHORT_MEMORY = 1 << 28
# Ctrl-C reaches the whole group of processes; the pool then ends its workers. It is ignored before the slow imports.
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from regioncount.sweeps.worker import main
main()
"""
KILLED = -9  # the exit status after SIGKILL, which Windows lacks
PATIENCE = 10.0  # seconds until a process that does not end is killed
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Worker:
    """A process that runs one job after another; see `regioncount.sweeps.worker`.

    Args:
        index: The number of the process, from 1 on.
        context: A pickled `Context`.
        threads: The number of threads of torch and other numerical libraries in the process.
        messages: Where to put (worker, message) for each message of the process, and (worker, ("end",)) at its end.
    """

    def __init__(self, index: int, context: bytes, threads: int, messages: "Messages") -> None:
        path = os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)
        variables = {"PYTHONPATH": path, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
        command = [sys.executable, "-c", PROGRAM, str(index)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env={**os.environ, **variables})
        threading.Thread(target=self._receive, args=(messages,), daemon=True).start()
        self._send(context)

    def start(self, number: int, overrides: Sequence[str]) -> None:
        """Start a job."""
        self._send(pickle.dumps((number, list(overrides))))

    def used_memory(self) -> int:
        """Return the memory that the process occupies, in bytes; 0 if the system does not tell."""
        try:
            pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
            return int(pages) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            return 0

    def terminate(self) -> None:
        """Stop the job; `close` then waits for the end of the process."""
        self._process.terminate()

    def kill(self) -> None:
        """End the process at once, whatever it is doing."""
        self._process.kill()

    def close(self) -> int:
        """Let an idle process end, or wait for the end of one that was stopped.

        Returns:
            Its exit status; negative if a signal ended it.
        """
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _send(self, content: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # the process has ended, which its last message says
            self._process.stdin.write(content)
            self._process.stdin.flush()

    def _receive(self, messages: "Messages") -> None:
        assert self._process.stdout is not None
        with suppress(EOFError, pickle.UnpicklingError, OSError):
            while True:
                messages.put((self, pickle.load(self._process.stdout)))
        messages.put((self, ("end",)))


Messages = queue.SimpleQueue[tuple[Worker, tuple[Any, ...]]]


def run_jobs(
    jobs: Mapping[int, Sequence[str]],
    context: Context,
    limit: int,
    available: Callable[[], int | None] = available_memory,
) -> list[JobReturn]:
    """Run jobs side by side, as many at a time as `limit` and the memory allow.

    A job is started beside others only if memory is left for it. If memory becomes short, the job that was started last is
    stopped and run again later, when its run continues from the last checkpoint. A job whose process was killed is run again
    once, beside fewer others, since Linux kills processes when memory is used up.

    Args:
        jobs: The overrides of each job, by its number.
        context: What the jobs have in common.
        limit: The largest number of jobs at a time. They share the threads that torch uses in this process.
        available: A function that returns the memory left in bytes, or None if it is unknown.

    Returns:
        The result of each job, in their order. The exception of a job that failed is a RuntimeError.

    Raises:
        KeyboardInterrupt: It was raised here. The running jobs have been stopped. If it was raised again meanwhile, the
            first one is its context.
    """
    pickled = cloudpickle.dumps(context)
    threads = max(1, torch.get_num_threads() // limit)
    messages: Messages = queue.SimpleQueue()
    indices = itertools.count(1)
    waiting = deque(jobs)
    running: dict[Worker, int] = {}  # in the order in which they were started
    idle: list[Worker] = []
    results: dict[int, JobReturn] = {}
    killed: set[int] = set()
    needed, last_check = MIN_MEMORY, time.monotonic()
    progress = SweepProgress(len(jobs))

    def run_fewer(number: int, reason: str) -> None:
        nonlocal limit
        limit = max(1, len(running))
        waiting.appendleft(number)
        progress.say(f"{reason}; continuing with at most {limit} at a time", is_error=True)

    try:
        while len(results) < len(jobs):
            while waiting and len(running) < limit and (not running or _has_room(running, needed, available())):
                worker = idle.pop() if idle else Worker(next(indices), pickled, threads, messages)
                running[worker] = waiting.popleft()
                worker.start(running[worker], jobs[running[worker]])
            progress.show(len(results), running.values())
            if time.monotonic() - last_check > 1 and len(running) > 1:
                last_check = time.monotonic()
                if (left := available()) is not None and left < SHORT_MEMORY:
                    worker, number = running.popitem()
                    worker.terminate()
                    worker.close()
                    run_fewer(number, "memory is short")
            try:
                worker, message = messages.get(timeout=1)
            except queue.Empty:
                continue
            if message[0] == "line":
                progress.say(*message[1:])
            if worker not in running:
                continue
            match message:
                case ("epoch", epoch, epochs):
                    progress.advance(running[worker], epoch / epochs)
                case ("done", result, peak):
                    results[running.pop(worker)] = result
                    needed = max(needed, peak)
                    idle.append(worker)
                case ("end",):
                    number, status = running.pop(worker), worker.close()
                    if status == KILLED and number not in killed:
                        killed.add(number)
                        run_fewer(number, "the system killed a run, perhaps for lack of memory")
                    else:
                        error = RuntimeError(f"its process ended with status {status}")
                        results[number] = JobReturn(status=JobStatus.FAILED, _return_value=error)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            progress.say("interrupted; stopping the running cells; the report follows", is_error=True)
        for worker in running:
            worker.terminate()
        raise
    finally:
        try:
            progress.close()
            for worker in (*running, *idle):
                worker.close()
        except KeyboardInterrupt:  # the second one: do not wait
            for worker in (*running, *idle):
                worker.kill()
            raise
    return [results[number] for number in jobs]


def _has_room(running: Mapping[Worker, int], needed: int, left: int | None) -> bool:
    """Return whether memory is left for another job once those that are running use as much as they may need."""
    growth = sum(max(0, needed - worker.used_memory()) for worker in running)
    return left is None or left >= growth + needed
