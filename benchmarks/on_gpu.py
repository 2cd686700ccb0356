"""Test, train and measure on a GPU within a time limit: the paper's main table at full width, and the GPU benchmarks.

    python benchmarks/on_gpu.py [OVERRIDE ...] --minutes 15 --output DIR [--data DIR] [--parts tests runs benchmarks]

The parts are run in this order, each within its share of the time:

- tests: the tests that need a GPU, in at most a minute;
- runs: the missing runs of experiment=cifar10_full_width, first those of seed 0, cheap networks before expensive ones.
  Planes are counted at two resolutions;
- benchmarks: the GPU tables of benchmarks/README.md, in short.

Overrides are passed to the sweep. DIR/results is its results directory; published runs are copied there first and are not
repeated. DIR/new_runs.tar.gz contains the new runs without their weights, and is updated during the sweep. To publish them,
unpack it in results/published/cifar10_full_width. Rerun the same command to resume.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Sequence
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
TEST_SECONDS = 60
RUNS_SHARE = 0.75  # of the time after the tests
REPORT_SECONDS = 20  # in which an interrupted sweep writes a checkpoint and its report
ARCHIVE_SECONDS = 10


def main() -> None:
    options = parse_arguments()
    results = options.output / "results"
    copy_published_runs(results)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{device}, torch {torch.__version__}, {date.today()}", flush=True)
    end = time.monotonic() + 60 * options.minutes
    if "tests" in options.parts:
        run(["-m", "pytest", "-m", "gpu", "-n0"], min(end, time.monotonic() + TEST_SECONDS))
    if "runs" in options.parts:
        share = RUNS_SHARE if "benchmarks" in options.parts else 1
        sweeps_end = time.monotonic() + share * (end - time.monotonic())
        for seed in options.seeds:
            # One process for all networks, because each process prepares its convolution kernels anew.
            run(sweep_arguments(options, seed, sweeps_end - time.monotonic() - REPORT_SECONDS), sweeps_end, options.output)
    if "benchmarks" in options.parts:
        for name, *arguments in BENCHMARKS:
            data = () if name == "together.py" else ("--data", options.data, "--results", options.output / "benchmarks")
            run([PROJECT / "benchmarks" / name, *arguments, *data], end)
    print_progress(results, options)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="overrides of the sweep, such as batch_size=256")
    parser.add_argument("--minutes", type=float, required=True, help="time limit of all parts together")
    parser.add_argument("--output", type=Path, required=True, help="directory of the results")
    parser.add_argument("--data", default="data/cifar10-jpeg", help="a folder with train/<class>/* and test/<class>/*")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    options = parser.parse_args()
    options.output = options.output.absolute()
    options.data = Path(options.data).absolute()
    return options


def sweep_arguments(options: argparse.Namespace, seed: int, seconds: float) -> list:
    """Return the arguments of Python for a sweep that starts no run after some seconds."""
    return [
        *(PROJECT / "sweep.py", "experiment=cifar10_full_width", f"model={','.join(options.networks)}", f"seed={seed}"),
        *(f"regions=[{SUBSPACES}]", f"dataset.root={options.data}", f"results={options.output / 'results'}"),
        *(f"sweep.time_budget={max(1, seconds):.0f}s", *options.overrides),
    ]


def run(arguments: Sequence, end: float, output: Path | None = None) -> None:
    """Run Python with some arguments. Interrupt it shortly before `end`, as Ctrl-C does, and kill it at `end`.

    Args:
        arguments: Python's arguments.
        end: The time at which the command must have ended, as in `time.monotonic`.
        output: The directory whose new runs are archived while the command runs.
    """
    command = list(map(str, arguments))
    if end - time.monotonic() <= REPORT_SECONDS:
        print(f"\nno time left for `python {' '.join(command)}`", flush=True)
        return
    print(f"\n`python {' '.join(command)}`\n", flush=True)
    process = subprocess.Popen([sys.executable, *command], cwd=PROJECT)
    while is_running(process, min(ARCHIVE_SECONDS, end - time.monotonic() - REPORT_SECONDS)):
        if output:
            archive_new_runs(output)
        if end - time.monotonic() <= REPORT_SECONDS:
            process.send_signal(signal.SIGINT)
            if is_running(process, end - time.monotonic()):
                process.kill()
            print("stopped at the time limit", flush=True)
            break
    process.wait()
    if output:
        archive_new_runs(output)


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
            directory = measures.parent
            if not (PUBLISHED / "runs" / directory.name).exists():
                for path in sorted(directory.iterdir()):
                    if path.is_file() and path.suffix != ".pt":
                        file.add(path, path.relative_to(output / "results"))
    partial.replace(archive)


def print_progress(results: Path, options: argparse.Namespace) -> None:
    """Print how many runs of each network and seed are finished and measured."""
    runs = [path.with_name("run.json") for path in results.glob("runs/*/measures.json")]
    configs = [json.loads(path.read_text())["config"] for path in runs]
    finished = Counter((config["model"]["name"], config["seed"]) for config in configs)
    print("\n| network | " + " | ".join(f"runs of seed {seed}" for seed in options.seeds) + " |")
    print("|---" * (1 + len(options.seeds)) + "|")
    for network in options.networks:
        print(f"| {network} | " + " | ".join(str(finished[network, seed]) for seed in options.seeds) + " |", flush=True)


if __name__ == "__main__":
    main()
