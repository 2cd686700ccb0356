"""Measure how reports and sweeps scale with the number of runs: time by part, memory, sizes on disk.

    python benchmarks/large.py report [--networks 4] [--rates 50] [--sizes 25] [--seeds 2] [--snapshots 10] [--directory DIR]
    python benchmarks/large.py sweep [--runs 1000] [--launcher basic] [--directory DIR] [SWEEP OVERRIDES ...]

`report` creates synthetic finished runs (4 x 50 x 25 x 2 = 10,000), or uses those of an existing DIR, and times
`python -m regioncount.report` on them. `sweep` times a sweep whose runs train a tiny network on digits for one epoch.
"""

import argparse
import contextlib
import functools
import importlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
NETWORKS = ("mlp", "small_cnn", "resnet18", "vgg19", "resnet34", "mobilenet", "senet18", "shufflenetv2")

# The parts of a report and the functions that are timed for each. The time of a part excludes calls to other parts.
PARTS = {
    "reading the plan": ["runs.plans:read"],
    "reading runs": ["runs.plans:PlannedRun.find_run"],
    "statistics": ["analysis:correlations", "analysis:ranking", "analysis:regression"],
    "rest of collecting": ["reporting.report:collect"],
    "CSV files": ["runs.files:write_csv"],
    "tables": ["reporting.report:summarize", "reporting.report:_write_tables"],
    "pictures": ["reporting.report:group_figures", "reporting.report:draw"],
    "page": ["reporting.page:build"],
}


def make(results: Path, options: argparse.Namespace) -> Path:
    """Create a sweep of synthetic runs and return its directory."""
    sys.path.insert(0, str(ROOT / "tests"))
    import fake_sweeps

    os.fsync = lambda _: None  # synthetic runs need not be durable
    rates = np.geomspace(0.1, 1e-5, options.rates).round(8).tolist()
    return fake_sweeps.write_sweep(
        results,
        networks=NETWORKS[: options.networks],
        rates=rates,
        sizes=range(8, 8 + 4 * options.sizes, 4),
        seeds=range(options.seeds),
        snapshots=options.snapshots,
        counts=100,
    )


def report(options: argparse.Namespace) -> None:
    with _directory(options) as results:
        sweeps = list(results.glob("sweeps/*/plan.json"))
        start = time.perf_counter()
        sweep = sweeps[0].parent if sweeps else make(results, options)
        creation_seconds = time.perf_counter() - start
        number = len(list(results.glob("runs/*/run.json")))
        with open(results / "parts.txt", "w+") as output:
            start = time.perf_counter()
            command = [sys.executable, __file__, "timed", str(sweep)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=output)
            seconds = time.perf_counter() - start
            output.seek(0)
            parts = output.read()
        print(f"{number:,} runs, created in {creation_seconds:.0f} s; the plan has {_megabytes(sweep / 'plan.json')}\n")
        print(
            f"| part | seconds | processor seconds |\n|---|---|---|\n{parts.strip()}\n\n{seconds:.1f} s in total, ", end=""
        )
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"peak memory {memory:.0f} MB; report.html has {_megabytes(sweep / 'report.html')}")


def sweep(options: argparse.Namespace) -> None:
    """Time the runs of a sweep by the lines that it prints, and record the memory of its process at each line."""
    rates = ",".join(f"{rate:.7f}" for rate in np.geomspace(0.1, 0.001, options.runs // 10))
    tiny = ["model=mlp", "model.width=8", "model.depth=1", "epochs=1", "regions.line.number=5", "regions.line.resolution=20"]
    tiny += ["dataset.train_size=60", "dataset.test_size=100", "precision=float32"]
    grid = [f"optimizer.learning_rate={rates}", "seed=range(10)", f"hydra/launcher={options.launcher}", *options.overrides]
    with _directory(options) as results:
        command = [sys.executable, ROOT / "sweep.py", *tiny, *grid, f"results={results}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        times, memory, plan_seconds = [time.perf_counter()], [], 0.0
        for line in process.stdout:
            if line.startswith("sweep "):
                plan_seconds = time.perf_counter() - times.pop()
                times.append(time.perf_counter())
            if line.startswith("["):
                times.append(time.perf_counter())
                memory.append(_resident_megabytes(process.pid))
        report_seconds = time.perf_counter() - times[-1]
        if process.wait():
            sys.exit(process.returncode)
        seconds, subset = np.diff(times), min(100, options.runs // 2)
        print(f"{len(seconds):,} runs, hydra/launcher={options.launcher}\n\n| what | |\n|---|---|")
        print(f"| the plan, including Python's start-up | {plan_seconds:.1f} s |")
        print(f"| a run of the first {subset} | {seconds[:subset].mean():.3f} s |")
        print(f"| a run of the last {subset} | {seconds[-subset:].mean():.3f} s |")
        print(f"| the report | {report_seconds:.1f} s |")
        print(f"| memory after {subset // 10} runs | {memory[subset // 10]:.0f} MB |")
        print(f"| memory after half of the runs | {memory[len(memory) // 2]:.0f} MB |")
        print(f"| memory after the last run | {memory[-1]:.0f} MB |")
        for what, pattern in (
            ("a run", "runs/**/*"),
            ("Hydra's output", "sweeps/*/hydra/**/*"),
            ("the plan", "sweeps/*/*.json*"),
        ):
            files = [path for path in results.glob(pattern) if path.is_file()]
            size = sum(path.stat().st_size for path in files) / len(seconds) / 1000
            print(f"| on disk, for each run: {what} | {size:.1f} kB in {len(files) / len(seconds):.1f} files |")


def _resident_megabytes(process: int) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def timed(directory: str) -> None:
    """Write a report in this process, and print one line per part to standard error: wall and processor seconds."""
    seconds = {part: np.zeros(2) for part in PARTS}
    inner_seconds = []  # for each timed call that is running, the time of the timed calls inside it

    def clocks() -> np.ndarray:
        return np.array([time.perf_counter(), time.process_time()])

    def timing(function, part):
        @functools.wraps(function)
        def wrapped(*arguments, **options):
            start = clocks()
            inner_seconds.append(np.zeros(2))
            try:
                result = function(*arguments, **options)
                return list(result) if hasattr(result, "__next__") else result
            finally:
                elapsed = clocks() - start
                seconds[part] += elapsed - inner_seconds.pop()
                if inner_seconds:
                    inner_seconds[-1] += elapsed

        return wrapped

    start = np.array([time.perf_counter(), 0.0])
    for part, names in PARTS.items():
        for name in names:
            module, _, path = name.partition(":")
            *path, function = path.split(".")
            owner = functools.reduce(getattr, path, importlib.import_module(f"regioncount.{module}"))
            setattr(owner, function, timing(getattr(owner, function), part))
    report = importlib.import_module("regioncount.report")
    sys.stderr.flush()
    status = report.main([directory])
    seconds["all, including imports"] = clocks() - start
    rows = [f"| {part} | {wall:.1f} | {processor:.1f} |" for part, (wall, processor) in seconds.items()]
    print("\n".join(rows), file=sys.stderr)
    sys.exit(status)


@contextlib.contextmanager
def _directory(options: argparse.Namespace):
    if options.directory:
        options.directory.mkdir(parents=True, exist_ok=True)
        yield options.directory
    else:
        with tempfile.TemporaryDirectory() as directory:
            yield Path(directory)


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


def main() -> None:
    if sys.argv[1:2] == ["timed"]:
        timed(sys.argv[2])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    report_parser = commands.add_parser("report")
    report_parser.set_defaults(body=report)
    for name, default in (("networks", 4), ("rates", 50), ("sizes", 25), ("seeds", 2)):
        report_parser.add_argument(f"--{name}", type=int, default=default)
    report_parser.add_argument("--snapshots", type=int, nargs="*", default=[], help="additional epochs with measurements")
    sweep_parser = commands.add_parser("sweep")
    sweep_parser.set_defaults(body=sweep)
    sweep_parser.add_argument("--runs", type=int, default=1000, help="a multiple of 10")
    sweep_parser.add_argument("--launcher", default="basic")
    sweep_parser.add_argument("overrides", nargs="*", help="further options of sweep.py")
    for command in (report_parser, sweep_parser):
        command.add_argument("--directory", type=Path, help="default: a temporary directory")
    options = parser.parse_args()
    options.body(options)


if __name__ == "__main__":
    main()
