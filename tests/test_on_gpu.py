"""The script for work on a GPU, rehearsed on a CPU with a tiny network."""

import importlib.util
import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[1] / "benchmarks/on_gpu.py"
specification = importlib.util.spec_from_file_location("on_gpu", SCRIPT)
assert specification is not None
on_gpu = importlib.util.module_from_spec(specification)
specification.loader.exec_module(on_gpu)
TINY = ("model.width=2", "epochs=2", "batch_size=8", "optimizer.learning_rate=0.1,0.01", "stop.train_accuracy=null")
FEW = tuple(f"regions.{name}.number=3" for name in ("line", "plane", "coarse_plane", "simplex_3"))


def rehearse(images: Path, output: Path) -> str:
    """Run the sweeps of the script and return what they print."""
    options = ["--minutes", "3", "--output", output, "--data", images]
    options += ["--parts", "runs", "--networks", "small_cnn", "--seeds", "0"]
    command = [sys.executable, SCRIPT, *TINY, *FEW, "device=cpu", "compile=false", *options]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
while True:
    time.sleep(0.1)
"""


def test_a_command_is_interrupted_and_then_killed_with_its_processes(capfd):
    assert on_gpu.run(["-c", STUBBORN], time.monotonic() + 4, grace=2) is None
    printed = capfd.readouterr().out
    assert "interrupted\n" in printed
    assert "stopped at the time limit\n" in printed
    child = int(next(line for line in printed.splitlines() if line.isdigit()))
    until = time.monotonic() + 30  # a process is killed some time after the signal was sent
    while _is_running(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _is_running(child)


def _is_running(number):
    try:
        return "zombie" not in Path(f"/proc/{number}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_command_without_time_is_not_started(capfd):
    assert on_gpu.run(["-c", "print('started')"], time.monotonic() + 1, grace=2) is None
    assert capfd.readouterr().out == "\nno time left for `python -c print('started')`\n"


def test_the_status_of_a_command_is_returned(capfd):
    assert on_gpu.run(["-c", "raise SystemExit(3)"], time.monotonic() + 60) == 3
    assert "failed: exit status 3\n" in capfd.readouterr().out
    assert on_gpu.run(["-c", "pass"], time.monotonic() + 60) == 0


def test_partial_files_and_weights_are_not_archived(tmp_path):
    run = tmp_path / "results/runs/a"
    run.mkdir(parents=True)
    for name in ("run.json", "measures.json", ".measures.json.0a.part", "model.pt"):
        (run / name).touch()
    on_gpu.archive_new_runs(tmp_path)
    with tarfile.open(tmp_path / "new_runs.tar.gz") as archive:
        assert archive.getnames() == ["runs/a/run.json", "runs/a/measures.json"]


@pytest.mark.slow
def test_new_runs_are_archived_without_weights_and_found_again(tmp_path):
    random = np.random.default_rng(0)
    for split, number in (("train", 12), ("test", 4)):
        for label in ("a", "b"):
            (tmp_path / "images" / split / label).mkdir(parents=True)
            for i in range(number):
                pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / split / label / f"{i}.png")
    output = rehearse(tmp_path / "images", tmp_path / "first")
    assert "| small_cnn | 2 |" in output
    assert "already complete" not in output

    with tarfile.open(tmp_path / "first/new_runs.tar.gz") as archive:
        files = {Path(name).name for name in archive.getnames()}
        assert files == {"history.csv", "measures.json", "regions.npz", "run.json"}
        archive.extractall(tmp_path / "second/results", filter="data")
    output = rehearse(tmp_path / "images", tmp_path / "second")
    assert output.count("(already complete)") == 2
    assert "| small_cnn | 2 |" in output
    for measures in (tmp_path / "second/results/runs").glob("*small_cnn*/measures.json"):
        settings = [entry["settings"] for entry in json.loads(measures.read_text())["entries"].values()]
        subspaces = [setting["subspace"] for setting in settings if "subspace" in setting]
        shapes = sorted((subspace["dimension"], subspace["resolution"]) for subspace in subspaces)
        assert shapes == [(1, 200), (2, 5), (2, 10), (3, 5)]
