"""Inject faults into sweeps.

    python benchmarks/faults.py [--kills 200] [--corruptions 60] [--only NAME ...]

Each fault is injected into a sweep of eight tiny runs on scikit-learn's digits. Then the same command is run again, and its
runs.csv is compared with that of an undisturbed sweep: "equal" means that every value except the seconds is equal. Prints a
table. The exit status is 1 if a result was lost or wrong. Needs Linux, and root to mount the file system that becomes full.
"""

import argparse
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from regioncount import commands  # noqa: E402
from regioncount.reporting import collect, plots, report, tracking  # noqa: E402, F401  imported before the fork
from regioncount.runs import runner, store  # noqa: E402, F401  imported before the fork
from regioncount.sweeps import launch  # noqa: E402, F401  imported before the fork

GRID = ["optimizer.learning_rate=0.1,0.03,0.01,0.003", "seed=0,1"]
TINY = ["model=mlp", "model.width=8", "model.depth=1", "dataset.train_size=60", "dataset.test_size=100", "epochs=20"]
TINY += ["batch_size=4", "regions.line.number=10", "regions.line.resolution=20", "precision=float32", "snapshots.every=5"]
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


def start(results: Path, *overrides: str, locks: bool = True) -> int:
    """Start the sweep in a forked process, in which all modules are already imported, and return its process id."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    with open(results.parent / f"{results.name}.log", "a", buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout = sys.stderr = log
        if not locks:
            store.FileLock.acquire = _no_locks
        sys.argv = [str(ROOT / "sweep.py"), f"results={results}", *TINY, *(overrides or GRID)]
        status = 1
        try:
            status = commands.sweep()
        finally:
            log.flush()
            os._exit(status)


def _no_locks(*arguments, **options):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def wait(child: int) -> int:
    """Wait for a process and return its exit status; the negative signal number if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wait_or_kill(child: int, seconds: float, number: int, group: bool = False) -> int | None:
    """Send signal `number` after some seconds; return the exit status, or None if the process ended before the signal."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, _ = os.waitpid(child, os.WNOHANG)
        if ended:
            return None
        time.sleep(0.005)
    (os.killpg if group else os.kill)(child, number)
    return wait(child) or None  # it may have ended by itself at the same moment


def table(results: Path) -> pd.DataFrame:
    """Return the runs.csv of the only sweep in a results directory, without the columns that may differ."""
    (path,) = results.glob("sweeps/*/runs.csv")
    return pd.read_csv(path).drop(columns=["seconds", "directory"])


def verdict(results: Path, reference: pd.DataFrame) -> str:
    """Rerun the command and compare its results with the undisturbed sweep."""
    status = wait(start(results))
    if status:
        return f"exit status {status}"
    if not table(results).equals(reference):
        return "different"
    leftovers = list((results / "unfinished").glob("*"))
    return "equal, something left over" if leftovers else "equal"


def kills(
    scratch: Path, reference: pd.DataFrame, duration: float, times: int, number: int, overrides=(), group=False
) -> Counter:
    """Send signals at random moments. Each sweep is resumed until it finishes; then the next one starts."""
    outcomes, sent, attempt = Counter(), 0, 0
    while sent < times:
        results = scratch / f"kill-{number}-{len(overrides)}-{attempt}"
        attempt += 1
        for _ in range(40):
            child = start(results, *GRID, *overrides)
            status = wait_or_kill(child, random.uniform(0, duration), number, group)
            if status is None:
                break
            sent += 1
            expected = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
            if status != expected:
                outcomes[f"exit status {status}"] += 1
            if sent >= times:
                break
        outcomes[verdict(results, reference)] += 1
        shutil.rmtree(results)
    return outcomes


def killed_workers(scratch: Path, reference: pd.DataFrame, duration: float, times: int) -> Counter:
    """Kill one of joblib's workers. The sweep must report that runs are missing, and resume when it is rerun."""
    outcomes = Counter()
    for number in range(times):
        results = scratch / f"worker-{number}"
        child = start(results, *GRID, *JOBLIB)
        time.sleep(random.uniform(0.4, 1) * duration)
        workers = subprocess.run(["pgrep", "-P", str(child)], capture_output=True, text=True, check=False).stdout.split()
        if workers:
            os.kill(int(random.choice(workers)), signal.SIGKILL)
        wait(child)
        if not list(results.glob("sweeps/*/report.html")):
            outcomes["no report"] += 1
        outcomes[verdict(results, reference)] += 1
        shutil.rmtree(results)
    return outcomes


def corruptions(scratch: Path, reference: pd.DataFrame, finished: Path, times: int) -> Counter:
    """Damage a file. An additional measure makes the sweep load the weights, so that it detects damage to them."""
    outcomes = Counter()
    for number in range(times):
        results = scratch / f"corrupt-{number}"
        shutil.copytree(finished, results)
        names = ["run.json", "history.csv", "measures.json", "regions.npz", "model.pt", "initial.pt"]
        path = random.choice([*results.glob(f"runs/*/{names[number % len(names)]}")])
        damage(path)
        wait(start(results, *GRID, "measures=[accuracy,distance_from_initialization]"))
        outcome = verdict_among_several(results, reference)
        outcomes[f"{path.name}: {outcome}"] += 1
        shutil.rmtree(results)
    return outcomes


def damage(path: Path) -> None:
    """Flip one bit of a file, or truncate, empty or overwrite it."""
    content = bytearray(path.read_bytes())
    kind = random.choice(["flip", "cut", "empty", "noise"])
    if kind == "flip":
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    elif kind == "cut":
        content = content[: random.randrange(len(content) - 1)]
    else:
        content = random.randbytes(len(content)) if kind == "noise" else b""
    path.write_bytes(content)


def verdict_among_several(results: Path, reference: pd.DataFrame) -> str:
    """Do as `verdict`, for a directory with several sweeps. Only the columns of the undisturbed sweep are compared."""
    if status := wait(start(results)):
        return f"exit status {status}"
    tables = [pd.read_csv(path) for path in results.glob("sweeps/*/runs.csv")]
    return "equal" if all(runs[list(reference)].equals(reference) for runs in tables) else "different"


def concurrent(scratch: Path, times: int, locks: bool) -> Counter:
    """Run four sweeps with overlapping grids at the same time, in one results directory."""
    outcomes = Counter()
    for number in range(times):
        results = scratch / f"concurrent-{locks}-{number}"
        rates = ["0.1,0.03", "0.03,0.01", "0.1,0.01", "0.1,0.03,0.01"]
        overrides = [[f"optimizer.learning_rate={values}", "seed=0,1"] for values in rates]
        statuses = [wait(child) for child in [start(results, *options, locks=locks) for options in overrides]]
        log = (scratch / f"{results.name}.log").read_text()
        trained = sum("epochs, " in line and "(already complete)" not in line for line in log.splitlines())
        rerun_statuses = [wait(start(results, *options)) for options in overrides]
        tables = [pd.read_csv(path) for path in results.glob("sweeps/*/runs.csv")]
        joined = pd.concat(tables).drop(columns=["seconds", "directory"]).drop_duplicates()
        same = len(joined) == 6 and not any(rerun_statuses) and len(list(results.glob("runs/[!.]*"))) == 6
        outcome = f"statuses {statuses}, " if locks and any(statuses) else ""
        outcome += "each trained once, " if trained == 6 else f"{trained} trainings of 6, " if locks else ""
        outcomes[outcome + ("one result each" if same else "different")] += 1
        shutil.rmtree(results)
    return outcomes


def full_disk(scratch: Path, reference: pd.DataFrame, times: int) -> Counter:
    """Let the disk become full during a sweep, then enlarge it and rerun the sweep."""
    outcomes = Counter()
    for number in range(times):
        disk = scratch / f"disk-{number}"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={100 + 60 * number}k", "tmpfs", str(disk)], check=True)
        try:
            status = wait(start(disk / "results"))
            traceback = "Traceback" in (disk / "results.log").read_text() if (disk / "results.log").exists() else False
            subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
            outcome = verdict(disk / "results", reference)
            outcomes[f"{'traceback, ' if traceback else ''}exit status {status}, then {outcome}"] += 1
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--corruptions", type=int, default=60)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    scratch = Path(tempfile.mkdtemp(prefix="faults-"))
    finished = scratch / "reference"
    start_time = time.perf_counter()
    if wait(start(finished)):
        raise SystemExit((scratch / "reference.log").read_text())
    duration = time.perf_counter() - start_time
    reference = table(finished)

    faults = {
        "SIGKILL": lambda: (options.kills, kills(scratch, reference, duration, options.kills, signal.SIGKILL)),
        "SIGKILL of the sweep and its two workers (joblib)": lambda: (
            10,
            kills(scratch, reference, 2 * duration, 10, signal.SIGKILL, JOBLIB, group=True),
        ),
        "SIGKILL of one worker (joblib)": lambda: (5, killed_workers(scratch, reference, duration, 5)),
        "SIGTERM": lambda: (20, kills(scratch, reference, duration, 20, signal.SIGTERM)),
        "SIGINT": lambda: (20, kills(scratch, reference, duration, 20, signal.SIGINT)),
        "damaged file": lambda: (options.corruptions, corruptions(scratch, reference, finished, options.corruptions)),
        "4 sweeps at once": lambda: (3, concurrent(scratch, 3, locks=True)),
        "4 sweeps at once, no locks": lambda: (3, concurrent(scratch, 3, locks=False)),
        "full disk": lambda: (8, full_disk(scratch, reference, 8)),
    }
    print(f"undisturbed sweep of 8 runs: {duration:.1f} s\n")
    print("| fault | times | outcomes | seconds |\n|---|---|---|---|", flush=True)
    passed = True
    for name, inject in faults.items():
        if options.only and name not in options.only:
            continue
        start_time = time.perf_counter()
        times, outcomes = inject()
        passed &= not any("different" in outcome or "no report" in outcome for outcome in outcomes)
        cells = "; ".join(f"{outcome} ({count})" for outcome, count in sorted(outcomes.items()))
        print(f"| {name} | {times} | {cells} | {time.perf_counter() - start_time:.0f} |", flush=True)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
