"""Run the commands in processes of their own.

Importing torch and the other packages takes longer than most commands that tests run. Here, processes are forked from a
server of `multiprocessing` that has imported the packages once. Do not use this for commands that start several workers of
joblib: without Python's exit handlers, which such processes skip, the command waits for idle workers for minutes.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PRELOADED = [
    "hydra.main",
    "matplotlib.pyplot",
    "plotly.graph_objects",
    "regioncount.commands",
    "regioncount.reporting.report",
    "regioncount.runs.runner",
    "sklearn.datasets",
    "torch._dynamo",  # every optimizer of torch imports it
]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(PRELOADED)


def run_command(
    script: str, *options: str, directory: Path = REPOSITORY, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command and wait for its end.

    Args:
        script: A file at the top of the repository, such as "sweep.py", or a module, such as "regioncount.report".
        *options: Its arguments.
        directory: The working directory.
        **environment: Changes of the environment.

    Returns:
        Its exit status and what it printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        printed = [Path(folder, name) for name in ("stdout", "stderr")]
        process = start_command(script, *options, directory=directory, printed=printed, **environment)
        process.join()
        assert process.exitcode is not None
        return subprocess.CompletedProcess([script, *options], process.exitcode, *(path.read_text() for path in printed))


def start_command(
    script: str, *options: str, directory: Path = REPOSITORY, printed: list[Path], **environment: str
) -> BaseProcess:
    """Start a command as `run_command` does, with the files for its output and its errors, and return its process."""
    arguments = (script, options, directory, {**os.environ, **environment}, printed)
    process = _context.Process(target=_execute, args=arguments)
    process.start()
    return process


def _execute(
    script: str, options: tuple[str, ...], directory: Path, environment: Mapping[str, str], printed: list[Path]
) -> None:
    for descriptor, path in enumerate(printed, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup, it would be ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell, it would be ignored
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    sys.argv = [str(REPOSITORY / script), *options]
    if script.endswith(".py"):
        sys.path[0] = str(REPOSITORY)
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        runpy.run_module(script, run_name="__main__", alter_sys=True)
