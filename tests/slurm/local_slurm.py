"""Run a command with a temporary Slurm cluster of one node on this machine: python tests/slurm/local_slurm.py COMMAND ...

This requires root and Debian's packages munge, slurmctld, slurmd and slurm-client. Slurm's key, state, spool and logs are in
a temporary directory that is deleted afterwards, and its ports are chosen among free ones.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")


def missing() -> str | None:
    """Return what this machine lacks to run Slurm, or None."""
    if absent := [program for program in PROGRAMS if shutil.which(program) is None]:
        return f"{', '.join(absent)} not found: install munge, slurmctld, slurmd and slurm-client"
    return None if os.geteuid() == 0 else "only root can start Slurm"


@contextmanager
def started(cpus: int = 2) -> Iterator[dict[str, str]]:
    """Start Slurm and yield the environment for its commands. All jobs and daemons end with the block."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True)))
        directory.chmod(0o755)  # munged requires that other users can reach its socket
        for name in ("state", "spool"):
            (directory / name).mkdir()
        host, (controller_port, node_port) = socket.gethostname().split(".")[0], _free_ports(2)
        values = {"directory": directory, "host": host, "cpus": cpus}
        values |= {"controller_port": controller_port, "node_port": node_port}
        for name in ("slurm.conf", "gres.conf"):
            text = (HERE / name).read_text()
            for key, value in values.items():
                text = text.replace(f"@{key}@", str(value))
            (directory / name).write_text(text)
        key = directory / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
        environment |= {"SLURM_CONF": str(directory / "slurm.conf"), "PATH": f"{HERE / 'bin'}:{os.environ['PATH']}"}
        munge = directory / "munge"
        munged = ["munged", "--foreground", f"--key-file={munge}.key", f"--socket={munge}.socket"]
        for command in (
            [*munged, f"--pid-file={munge}.pid", f"--seed-file={munge}.seed"],
            ["slurmctld", "-D", "-c"],
            ["slurmd", "-D", "-N", host],
        ):
            stack.callback(_stop, _start(command, environment, directory))
        stack.callback(_end_jobs, environment)
        _wait(lambda: "State=IDLE" in _ask(["scontrol", "show", "node"], environment), "node to be idle", directory)
        yield environment


def _start(command: list[str], environment: dict[str, str], directory: Path) -> subprocess.Popen:
    # The daemon is killed when this process ends, even by a crash.
    with open(directory / f"{command[0]}.out", "w") as out:
        guarded = ["setpriv", "--pdeathsig", "KILL", *command]
        return subprocess.Popen(guarded, stdout=out, stderr=out, env=environment, start_new_session=True)


def _stop(daemon: subprocess.Popen) -> None:
    daemon.terminate()
    try:
        daemon.wait(10)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _end_jobs(environment: dict[str, str]) -> None:
    """End all jobs, which would otherwise continue after slurmd has ended."""
    _ask(["scancel", "--signal=KILL", "--full", "--state=RUNNING", "--user=root"], environment)
    _ask(["scancel", "--user=root"], environment)
    until = time.monotonic() + 20
    while time.monotonic() < until and _ask(["squeue", "--noheader"], environment).strip():
        time.sleep(0.2)


def _ask(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=30).stdout


def _wait(condition, what: str, directory: Path, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            logs = "\n".join(f"{path.name}: {path.read_text()[-1000:]}" for path in sorted(directory.glob("*.out")))
            raise TimeoutError(f"waited {seconds} s for the {what}\n{logs}")
        time.sleep(0.1)


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for bound in sockets:
            bound.bind(("127.0.0.1", 0))
        return [bound.getsockname()[1] for bound in sockets]


if __name__ == "__main__":
    if reason := missing():
        sys.exit(f"local_slurm.py: {reason}")
    with started() as environment:
        sys.exit(subprocess.run(sys.argv[1:], check=False, env=environment).returncode)
