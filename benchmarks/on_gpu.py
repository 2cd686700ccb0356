"""Test, train and measure on a GPU within a time limit: the paper's main table at full width, and the GPU benchmarks.

    python benchmarks/on_gpu.py [OVERRIDE ...] --minutes 15 --output DIR [--data DIR] [--parts tests runs benchmarks]

The parts are run in this order:

- tests: the tests that need a GPU, in at most a minute;
- runs: the missing runs of experiment=cifar10_full_width, first those of seed 0, cheap networks before expensive ones, in
  the time that is left, or in three quarters of it if there are benchmarks. Planes are counted at two resolutions;
- benchmarks: the GPU tables of benchmarks/README.md, in short, until the end.

Overrides are passed to the sweep. DIR/results is its results directory; published runs are copied there first and are not
repeated. DIR/new_runs.tar.gz contains the new runs without their weights, and is updated during the sweep. To publish them,
unpack it in results/published/cifar10_full_width. Rerun the same command to resume. The exit status is 1 if a part failed;
what the time limit stopped has not failed.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path

import torch

PROJECT = Path(__file__).parents[1]
PUBLISHED = PROJECT / "results/published/cifar10_full_width"

NETWORKS = ("vgg19", "senet18", "resnet34", "simple_dla", "shufflenetv2", "regnetx_200mf", "efficientnet_b0")
SEEDS = (0, 1)
SUBSPACES = "line,plane,coarse_plane,simplex_3"

BENCHMARKS = (
    ("counting.py", "--lines", "100", "--triangles", "100", "--squares", "4"),
    ("devices.py",),
    ("training.py", "--images", "12800"),
    ("together.py",),
    ("training.py", "--images", "12800", "--compile", "--networks", "resnet18"),  # last, because compilation takes a minute
)

PARTS = ("tests", "runs", "benchmarks")
TEST_FILES = ("tests/test_gpu.py", "tests/training/test_cuda_graphs.py")
TEST_SECONDS = 60
RUNS_SHARE = 0.75  # of the time after the tests
REPORT_SECONDS = 20  # time for an interrupted sweep to write its checkpoint and report
ARCHIVE_INTERVAL = 10  # seconds between two updates of the archive
ARCHIVED_FILES = ("run.json", "history.csv", "measures.json", "regions.npz")


def main() -> int:
    options = parse_arguments()
    results = options.output / "results"
    copy_published_runs(results)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{device}, torch {torch.__version__}, {date.today()}", flush=True)
    end, failed = time.monotonic() + 60 * options.minutes, False
    if "tests" in options.parts:
        tests_end = min(end, time.monotonic() + TEST_SECONDS)
        failed |= run(["-m", "pytest", "-m", "gpu", "-n0", *TEST_FILES], tests_end) not in (0, None)
    if "runs" in options.parts:
        share = RUNS_SHARE if "benchmarks" in options.parts else 1
        sweeps_end = time.monotonic() + share * (end - time.monotonic())
        for seed in options.seeds:
            # One process for all networks, because each process prepares its convolution kernels anew.
            command = sweep_arguments(options, seed)
            failed |= run(command, sweeps_end, REPORT_SECONDS, options.output) not in (0, None)
    if "benchmarks" in options.parts:
        for name, *arguments in BENCHMARKS:
            data = () if name == "together.py" else ("--data", options.data, "--results", options.output / "benchmarks")
            failed |= run([PROJECT / "benchmarks" / name, *arguments, *data], end) not in (0, None)
    print_progress(results, options)
    return int(failed)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="overrides of the sweep, such as batch_size=256")
    parser.add_argument("--minutes", type=float, required=True, help="time limit of all parts together")
    parser.add_argument("--output", type=Path, required=True, help="directory of the results")
    parser.add_argument(
        "--data", type=Path, default=Path("data/cifar10-jpeg"), help="a folder with train/<class>/* and test/<class>/*"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    options = parser.parse_args()
    options.output, options.data = options.output.absolute(), options.data.absolute()
    return options


def sweep_arguments(options: argparse.Namespace, seed: int) -> list:
    """Return Python's arguments for the sweep of one seed."""
    return [
        *(PROJECT / "sweep.py", "experiment=cifar10_full_width", f"model={','.join(options.networks)}", f"seed={seed}"),
        *(f"regions=[{SUBSPACES}]", f"dataset.root={options.data}", f"results={options.output / 'results'}"),
        *options.overrides,
    ]


def run(arguments: Sequence, end: float, grace: float = 0, output: Path | None = None) -> int | None:
    """Run Python with some arguments until a time.

    Args:
        arguments: Python's arguments.
        end: The time at which the command and all processes that it started are killed, as in `time.monotonic`.
        grace: The time before the end, in seconds, at which the command is interrupted, as by Ctrl-C.
        output: The directory whose new runs are archived while the command runs.

    Returns:
        The exit status; None if the time limit stopped the command or left no time to start it.
    """
    text = f"`python {' '.join(map(str, arguments))}`"
    if end - grace <= time.monotonic():
        print(f"\nno time left for {text}", flush=True)
        return None
    print(f"\n{text}\n", flush=True)
    process = subprocess.Popen([sys.executable, *map(str, arguments)], cwd=PROJECT, start_new_session=True)
    try:
        while is_running(process, min(ARCHIVE_INTERVAL, end - grace - time.monotonic())):
            if output:
                archive_new_runs(output)
            if end - grace <= time.monotonic():
                process.send_signal(signal.SIGINT)
                is_running(process, end - time.monotonic())
                print("stopped at the time limit", flush=True)
                return None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if output:
            archive_new_runs(output)
    if process.returncode:
        print(f"failed: exit status {process.returncode}", flush=True)
    return process.returncode


def is_running(process: subprocess.Popen, seconds: float) -> bool:
    """Return whether a process is still running after some seconds."""
    try:
        process.wait(max(0, seconds))
    except subprocess.TimeoutExpired:
        return True
    return False


def copy_published_runs(results: Path) -> None:
    """Copy the published runs to the results, so that the sweep finds them."""
    for directory in PUBLISHED.glob("runs/*"):
        if not (results / "runs" / directory.name).exists():
            shutil.copytree(directory, results / "runs" / directory.name)


def archive_new_runs(output: Path) -> None:
    """Write the archive of all new, measured runs without their weights."""
    archive = output / "new_runs.tar.gz"
    partial = archive.with_suffix(".partial")
    with tarfile.open(partial, "w:gz") as file:
        for measures in sorted(output.glob("results/runs/*/measures.json")):
            if not (PUBLISHED / "runs" / measures.parent.name).exists():
                for path in filter(Path.exists, map(measures.with_name, ARCHIVED_FILES)):
                    file.add(path, path.relative_to(output / "results"))
    partial.replace(archive)


def print_progress(results: Path, options: argparse.Namespace) -> None:
    """Print how many runs of each network and seed are measured."""
    runs = [path.with_name("run.json") for path in results.glob("runs/*/measures.json")]
    configs = [json.loads(path.read_text())["config"] for path in runs]
    measured = Counter((config["model"]["name"], config["seed"]) for config in configs)
    print("\n| network | " + " | ".join(f"runs of seed {seed}" for seed in options.seeds) + " |")
    print("|---" * (1 + len(options.seeds)) + "|")
    for network in options.networks:
        print(f"| {network} | " + " | ".join(str(measured[network, seed]) for seed in options.seeds) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
