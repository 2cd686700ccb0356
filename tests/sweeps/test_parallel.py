"""The default launcher: runs side by side in processes of their own."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from hydra.core.utils import JobStatus
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf, open_dict
from test_sweep import GRID, TIMES, TINY, only_sweep, sweep

import regioncount as rc
from regioncount.composition import hydra_ready
from regioncount.registry import measures
from regioncount.sweeps import memory, pool, sweep_progress
from regioncount.sweeps.launch import BASIC, PARALLEL, resolve_launcher
from regioncount.sweeps.worker import Context
from regioncount.training.hardware import choose_device

pytestmark = pytest.mark.slow

SCRIPT = str(Path(__file__).resolve().parents[2] / "sweep.py")
GIGABYTE = 1 << 30


def run_tasks(task, number, limit=2, **options):
    """Run a function of the configuration side by side, with the seeds 0, 1, ..., and return the results."""
    with hydra_ready():
        application = GlobalHydra.instance().hydra
        config = application.compose_config("sweep", [], RunMode.MULTIRUN, with_log_configuration=False)
        with open_dict(config):
            config.hydra.output_subdir = None
        context = Context(HydraContext(application.config_loader, Callbacks()), config, task, Singleton.get_state())
        return pool.run_jobs({job: [f"seed={job}"] for job in range(number)}, context, limit, **options)


def test_runs_side_by_side_give_the_table_of_runs_in_sequence_with_one_thread(tmp_path):
    grid = [*GRID, "regions.line.number=5,10"]  # two cells of each run
    sequence = sweep(tmp_path / "sequence", *grid, OMP_NUM_THREADS="1")
    assert sequence.returncode == 0, sequence.stderr
    options = [f"results={tmp_path / 'parallel'}", *TINY, *grid, "hydra.launcher.n_jobs=3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "3"}
    parallel = subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True, env=environment)
    assert parallel.returncode == 0, parallel.stderr
    assert parallel.stderr == ""
    one, other = (pd.read_csv(only_sweep(tmp_path / name) / "runs.csv") for name in ("sequence", "parallel"))
    pd.testing.assert_frame_equal(one.drop(columns=TIMES), other.drop(columns=TIMES), check_exact=True)
    printed = [[line for line in done.stdout.splitlines() if line.startswith("[")] for done in (sequence, parallel)]
    numbers = [sorted(line.partition("]")[0] for line in lines if "postponed" not in line) for lines in printed]
    assert numbers[0] == numbers[1]
    assert len(numbers[0]) == 12


def test_an_interrupted_sweep_ends_its_processes_and_resumes(tmp_path):
    options = [f"results={tmp_path}", *TINY, "seed=0,1", "epochs=100000", "hydra.launcher.n_jobs=2"]
    process = subprocess.Popen([sys.executable, SCRIPT, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("unfinished/*/checkpoint.pt"))) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    assert len(children) == 2
    process.send_signal(signal.SIGTERM)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert errors.index("interrupted; stopping the running cells; the report follows") < errors.index(
        "reporting the runs so far"
    )
    assert "Traceback" not in errors
    assert "Traceback" not in printed
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    again = sweep(tmp_path, "seed=0,1", "epochs=3")
    assert again.returncode == 0, again.stderr


def test_a_second_interruption_ends_the_processes_at_once(monkeypatch, capsys):
    processes = []

    def close(worker):
        processes.append(worker._process)
        raise KeyboardInterrupt

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(pool.Worker, "terminate", lambda worker: None)
    monkeypatch.setattr(pool.Worker, "close", close)
    with pytest.raises(KeyboardInterrupt) as caught:
        run_tasks(lambda config: None, 2, available=interrupt)  # the first job is running
    assert isinstance(caught.value.__context__, KeyboardInterrupt)
    assert [process.wait(30) for process in processes] == [-signal.SIGKILL]
    assert "interrupted; stopping the running cells; the report follows" in capsys.readouterr().err


def test_the_processes_end_with_the_sweep_that_is_killed(tmp_path):
    options = [f"results={tmp_path}", *TINY, "seed=0,1", "epochs=100000", "hydra.launcher.n_jobs=2"]
    process = subprocess.Popen([sys.executable, SCRIPT, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("unfinished/*/checkpoint.pt"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    while any(Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text() for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_killed_job_is_run_again_once_and_others_go_on(tmp_path, capfd):
    folder = str(tmp_path)

    def task(config):
        import os
        import signal
        from pathlib import Path

        mark = Path(folder, str(config.seed))
        attempts = int(mark.read_text()) if mark.exists() else 0
        mark.write_text(str(attempts + 1))
        if (config.seed == 1 and attempts == 0) or config.seed == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if config.seed == 3:
            raise ValueError("a value\nof two lines")
        print(f"seed {config.seed}")
        return config.seed

    results = run_tasks(task, 5)
    assert [(tmp_path / str(job)).read_text() for job in range(5)] == ["1", "2", "2", "1", "1"]
    assert [result.status == JobStatus.COMPLETED for result in results] == [True, True, False, False, True]
    assert [result._return_value for result in results if result.status == JobStatus.COMPLETED] == [0, 1, 4]
    assert [str(results[job]._return_value) for job in (2, 3)] == [
        "its process ended with status -9",
        "ValueError: a value of two lines",
    ]
    printed, errors = capfd.readouterr()
    assert sorted(line for line in printed.splitlines() if line) == ["seed 0", "seed 1", "seed 4"]
    assert "the system killed a run, perhaps for lack of memory; continuing with at most 1 at a time" in errors


def test_jobs_run_one_at_a_time_if_memory_for_several_is_missing(tmp_path):
    folder = str(tmp_path)

    def task(config):
        import time
        from pathlib import Path

        start = time.time()
        time.sleep(0.2)
        Path(folder, str(config.seed)).write_text(f"{start} {time.time()}")

    run_tasks(task, 3, limit=3, available=lambda: pool.MIN_MEMORY // 2)
    times = sorted(tuple(map(float, path.read_text().split())) for path in tmp_path.iterdir())
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(times))


def test_a_job_is_stopped_and_run_again_if_memory_becomes_short(tmp_path, capfd):
    folder = str(tmp_path)
    has_started = tmp_path / "1"

    def task(config):
        import time
        from pathlib import Path

        with Path(folder, str(config.seed)).open("a") as file:
            file.write("started ")
        while config.seed == 1 and Path(folder, "1").read_text() == "started ":
            time.sleep(0.05)
        while config.seed == 0 and not Path(folder, "1").exists():
            time.sleep(0.05)
        if config.seed == 0:
            time.sleep(4)
        return config.seed

    results = run_tasks(task, 2, available=lambda: 1 << 20 if has_started.exists() else 16 * GIGABYTE)
    assert [result._return_value for result in results] == [0, 1]
    assert [(tmp_path / name).read_text() for name in "01"] == ["started ", "started started "]
    assert "memory is short; continuing with at most 1 at a time" in capfd.readouterr().err


def test_the_memory_left_is_that_of_the_machine_or_the_control_group(tmp_path, monkeypatch):
    group = tmp_path / "user" / "job"
    group.mkdir(parents=True)
    for folder, limit, used, inactive in ((group, "max", 5, 0), (group.parent, 1000, 700, 200)):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 3\ninactive_file {inactive}\n")
    texts = {"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:       4 kB\n", "/proc/self/cgroup": "0::/user/job\n"}
    read = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, *args: texts.get(str(path)) or read(path, *args))
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.available_memory() == 500
    (group.parent / "memory.max").write_text("max\n")
    assert memory.available_memory() == 4 * 1024
    texts["/proc/meminfo"] = "MemTotal: 9 kB\n"
    assert memory.available_memory() is None


def test_the_progress_off_a_terminal_is_a_line_from_time_to_time(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(sweep_progress.time, "monotonic", lambda: now)
    progress = sweep_progress.SweepProgress(4)
    progress.show(0, [0, 1])
    now = 20.0
    progress.say("[1/4] seed=0: done")
    now = 49.0
    progress.show(1, [1, 2])
    now = 60.0
    progress.advance(1, 0.75)
    progress.advance(2, 0.25)
    progress.show(1, [1, 2])  # 2 of 4 are done in effect
    progress.show(1, [1, 2])
    progress.close()
    assert capsys.readouterr().out == "[1/4] seed=0: done\n1 of 4 runs done, 2 running, 01:00 left\n"


@pytest.mark.parametrize(
    ("n_jobs", "devices", "expected"),
    [
        (None, ["cpu"] * 9, 4),  # as many as torch has threads
        (None, ["cpu"] * 3, 3),
        (None, ["cpu"], None),
        (None, ["cpu", "cuda:0"], None),
        (2, ["cuda:0"] * 3, 2),
        (1, ["cpu"] * 9, None),
    ],
)
def test_the_number_of_runs_at_a_time(monkeypatch, n_jobs, devices, expected):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    config = OmegaConf.create({"_target_": PARALLEL, "n_jobs": n_jobs})
    resolved = resolve_launcher(config, [SimpleNamespace(device=torch.device(device)) for device in devices])
    assert resolved.get("n_jobs") == expected
    assert resolved._target_ == (PARALLEL if expected else BASIC)
    assert config.n_jobs == n_jobs


def test_a_measure_of_this_session_is_computed_in_this_process(tmp_path):
    @rc.register_measure(name="process_number")
    def process_number(measured):
        return os.getpid()

    try:
        runs = rc.sweep([*TINY, "seed=0,1", "measures=[process_number]", f"results={tmp_path}"])
    finally:
        del measures._entries["process_number"]
    assert [run.values["process_number"] for run in runs] == [os.getpid()] * 2


def test_processes_share_the_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, index in (("SweepProcess-1", 0), ("SweepProcess-2", 1), ("SweepProcess-3", 0)):
        monkeypatch.setattr(multiprocessing.current_process(), "_name", name)
        assert choose_device("auto") == torch.device("cuda", index)


@pytest.mark.parametrize("jobs", ["0", "-1", "two", "1.5", "true"])
def test_an_invalid_number_of_runs_at_a_time_is_refused(tmp_path, jobs):
    refused = sweep(tmp_path, *GRID, f"hydra.launcher.n_jobs={jobs}", launcher="parallel")
    assert refused.returncode == 2
    assert f"hydra.launcher.n_jobs={jobs}".lower() in refused.stderr.lower()
    assert not list(tmp_path.iterdir())
