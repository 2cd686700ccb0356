"""A sweep on a real Slurm cluster: killed or requeued jobs and a drained node cost time, but change no result."""

import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import local_slurm
import pandas as pd
import pytest
from command_line import start_command
from grids import make_plan

from regioncount.runs import store

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = ["experiment=quickstart", "model=mlp", "model.width=8", "model.depth=1", "snapshots.every=null"]
TINY += ["dataset.train_size=60", "dataset.test_size=100", "regions.line.number=10", "regions.line.resolution=20"]
GRID = ["optimizer.learning_rate=0.1", "batch_size=64", "seed=0", "epochs=100,6000,6010,110"]
KILLED, REQUEUED, SIGNALLED, WAITING = range(4)
SLURM = ["hydra/launcher=submitit_slurm", "hydra.launcher.gpus_per_node=1"]
SLURM += ["hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=2", "hydra.launcher.timeout_min=9"]
SLURM += ["hydra.launcher.partition=main", "hydra.launcher.max_num_timeout=1"]


def start(results, *options, **environment):
    command = [sys.executable, "sweep.py", f"results={results}", *TINY, *GRID, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@contextmanager
def finishing(process):
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def table(results):
    (directory,) = (path for path in (results / "sweeps").iterdir() if path.is_dir())
    return directory, pd.read_csv(directory / "runs.csv")


def wait(condition, seconds=120):
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, condition
        time.sleep(0.1)
    return value


@pytest.fixture(scope="module")
def slurm():
    if reason := local_slurm.missing():
        pytest.skip(reason)
    pytest.importorskip("submitit", reason="submitit is not installed: install the extra submitit")
    with local_slurm.started(cpus=4) as environment:
        yield environment


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("slurm")


@pytest.fixture(scope="module")
def disturbed(slurm, results, tmp_path_factory):
    """Run a sweep with every disturbance at once; return its exit status, messages, and observations while it ran."""

    def ask(*command):
        return subprocess.run(command, env=slurm, capture_output=True, text=True, check=True).stdout

    def states():
        return dict(line.split("|") for line in ask("squeue", "-rhtall", "-o", "%i|%T").split())

    plan = make_plan([f"results={results}", *TINY, *GRID])
    directories = [results / "runs" / f"{cell.name}-{cell.identity}" for cell in plan.runs]
    basic_results = tmp_path_factory.mktemp("basic")
    start_times = {}
    three_at_once = [*SLURM, "hydra.launcher.array_parallelism=3"]
    printed = [tmp_path_factory.mktemp("printed") / name for name in ("stdout", "stderr")]
    basic = start_command("sweep.py", f"results={basic_results}", *TINY, *GRID, printed=printed)
    with finishing(start(results, *three_at_once, **slurm)) as sweep:
        jobs = sorted(wait(lambda: len(current := states()) == 4 and "RUNNING" in current.values() and current))
        job_options = ask("scontrol", "show", "job", jobs[REQUEUED])
        host = ask("sinfo", "-ho", "%n").strip()
        ask("scontrol", "update", f"nodename={host}", "state=drain", "reason=test")
        wait(lambda: list(results.glob("sweeps/*/hydra/.submitit/*_0/*_log.out")))
        ask("scancel", "--signal=KILL", jobs[KILLED])
        for number, disturbance in ((REQUEUED, ["scontrol", "requeue"]), (SIGNALLED, ["scancel", "--signal=USR2"])):
            name = directories[number].name
            (checkpoint,) = wait(lambda name=name: list(results.glob(f"unfinished/{name}.*/checkpoint.pt")))
            start_times[number] = checkpoint.with_name("initial.pt").stat().st_mtime_ns
            ask(*disturbance, jobs[number])
        drained = states()[jobs[WAITING]]
        ask("scontrol", "update", f"nodename={host}", "state=resume")
        _, err = sweep.communicate(timeout=300)
    basic.join()
    assert basic.exitcode == 0
    logs = ["".join(path.read_text() for path in results.glob(f"**/.submitit/{job}/*_log.out")) for job in jobs]
    return SimpleNamespace(
        status=sweep.returncode,
        err=err,
        job_options=job_options,
        drained=drained,
        start_times=start_times,
        logs=logs,
        directories=directories,
        basic=basic_results,
    )


def test_options_reach_slurm(disturbed):
    for option in ("Partition=main", "TimeLimit=00:09:00", "CPUs/Task=1", "MinMemoryNode=2G", "gres:gpu:1"):
        assert option in disturbed.job_options


def test_a_sweep_whose_job_was_killed_waits_for_the_others_and_reports(disturbed, results):
    assert disturbed.status == 1
    directory, runs = table(results)
    assert runs["status"].tolist() == ["failed", "finished", "finished", "finished"]
    reason = runs["error"][KILLED]
    assert re.fullmatch(r"job \d+_0 left no result \(CANCELLED\); its log is .*", reason)
    assert f"failed: epochs=100, {reason}" in disturbed.err
    assert (directory / "report.html").exists()


def test_a_drained_node_keeps_jobs_waiting(disturbed):
    assert disturbed.drained == "PENDING"
    assert disturbed.logs[WAITING].count("Starting with") == 1


@pytest.mark.parametrize("number", [REQUEUED, SIGNALLED])
def test_a_requeued_job_resumes_from_its_checkpoint(disturbed, number):
    assert disturbed.logs[number].count("Starting with") == 2
    assert "(already complete)" not in disturbed.logs[number]
    assert (disturbed.directories[number] / "initial.pt").stat().st_mtime_ns == disturbed.start_times[number]
    assert store.load(disturbed.directories[number]).status == "finished"


def test_rerunning_completes_the_sweep_with_the_numbers_of_an_undisturbed_one(disturbed, slurm, results):
    models = {path: path.stat().st_mtime_ns for path in results.glob("runs/*/model.pt")}
    with finishing(start(results, *SLURM, **slurm)) as again:
        out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert out.count("(already complete)") == 3
    assert len(models) == 3
    assert all(path.stat().st_mtime_ns == modified for path, modified in models.items())
    (_, ours), (_, expected) = table(results), table(disturbed.basic)
    assert set(ours["status"]) == {"finished"}
    kept = [column for column in expected if column not in ("seconds", "directory")]
    pd.testing.assert_frame_equal(ours[kept], expected[kept], check_exact=True)
