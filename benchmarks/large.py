"""How reports and sweeps grow with the number of runs: time by part, memory, sizes on disk.

    python benchmarks/large.py report [--networks 4] [--rates 50] [--sizes 25] [--seeds 2] [--snapshots 10] [--directory DIR]
    python benchmarks/large.py sweep [--runs 1000] [--launcher basic] [--directory DIR] [SWEEP OVERRIDES ...]

`report` makes finished runs up (4 x 50 x 25 x 2 are 10,000) and times `python -m regioncount.report` of them; in a DIR that
is there already, those. `sweep` trains a tiny network on digits for one epoch, again and again.
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

# What a report does, by part: functions that are timed, without the time of those below them that are in another part.
PARTS = {
    "reading the plan": ["planning.read"],
    "reading runs": ["planning.PlannedRun.find_run"],
    "statistics": ["analysis.correlations", "analysis.ranking", "analysis.regression"],
    "collecting, beyond": ["report.collect"],
    "CSV files": ["files.write_csv"],
    "tables": ["report.summarize", "report._write_tables"],
    "pictures": ["report._draw"],
    "page": ["page.build"],
}


def make(results: Path, options: argparse.Namespace) -> Path:
    """A sweep of made-up runs; returns its directory."""
    sys.path.insert(0, str(ROOT / "tests"))
    import pretend

    os.fsync = lambda _: None  # what is made up may be lost
    rates = np.geomspace(0.1, 1e-5, options.rates).round(8).tolist()
    return pretend.sweep(
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
        making = time.perf_counter() - start
        number = len(list(results.glob("runs/*/run.json")))
        with open(results / "parts.txt", "w+") as told:
            start = time.perf_counter()
            command = [sys.executable, __file__, "timed", str(sweep)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=told)
            seconds = time.perf_counter() - start
            told.seek(0)
            parts = told.read()
        print(f"{number:,} runs, made up in {making:.0f} s; the plan has {_megabytes(sweep / 'plan.json')}\n")
        print(f"| part | seconds | of the processor |\n|---|---|---|\n{parts.strip()}\n\n{seconds:.1f} s in all, ", end="")
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"peak memory {memory:.0f} MB; report.html has {_megabytes(sweep / 'report.html')}")


def sweep(options: argparse.Namespace) -> None:
    """Time the runs of a sweep by the lines it prints, and look at the memory of its process at each."""
    rates = ",".join(f"{rate:.7f}" for rate in np.geomspace(0.1, 0.001, options.runs // 10))
    tiny = ["model=mlp", "model.width=8", "model.depth=1", "epochs=1", "regions.line.number=5", "regions.line.resolution=20"]
    tiny += ["dataset.train_size=60", "dataset.test_size=100", "precision=float32"]
    grid = [f"optimizer.learning_rate={rates}", "seed=range(10)", f"hydra/launcher={options.launcher}", *options.overrides]
    with _directory(options) as results:
        command = [sys.executable, ROOT / "sweep.py", *tiny, *grid, f"results={results}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        at, memory, planned = [time.perf_counter()], [], 0.0
        for line in process.stdout:
            if line.startswith("sweep "):
                planned = time.perf_counter() - at.pop()
                at.append(time.perf_counter())
            if line.startswith("["):
                at.append(time.perf_counter())
                memory.append(_resident(process.pid))
        reporting = time.perf_counter() - at[-1]
        if process.wait():
            sys.exit(process.returncode)
        seconds, some = np.diff(at), min(100, options.runs // 2)
        print(f"{len(seconds):,} runs, hydra/launcher={options.launcher}\n\n| what | |\n|---|---|")
        print(f"| the plan, start of Python included | {planned:.1f} s |")
        print(f"| a run of the first {some} | {seconds[:some].mean():.3f} s |")
        print(f"| a run of the last {some} | {seconds[-some:].mean():.3f} s |")
        print(f"| the report | {reporting:.1f} s |")
        print(f"| memory after {some // 10} runs | {memory[some // 10]:.0f} MB |")
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


def _resident(process: int) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def timed(directory: str) -> None:
    """Make a report in this process; a line a part goes to standard error: seconds, and of them those of the processor."""
    seconds, running = {part: np.zeros(2) for part in PARTS}, []

    def clocks() -> np.ndarray:
        return np.array([time.perf_counter(), time.process_time()])

    def timing(function, part):
        @functools.wraps(function)
        def wrapped(*arguments, **options):
            start = clocks()
            running.append(np.zeros(2))
            try:
                result = function(*arguments, **options)
                return list(result) if hasattr(result, "__next__") else result
            finally:
                whole, inner = clocks() - start, running.pop()
                seconds[part] += whole - inner
                if running:
                    running[-1] += whole

        return wrapped

    start = np.array([time.perf_counter(), 0.0])
    for part, names in PARTS.items():
        for name in names:
            module, *path, function = name.split(".")
            owner = functools.reduce(getattr, path, importlib.import_module(f"regioncount.{module}"))
            setattr(owner, function, timing(getattr(owner, function), part))
    report = importlib.import_module("regioncount.report")
    sys.stderr.flush()
    status = report.main([directory])
    seconds["all, imports included"] = clocks() - start
    print("\n".join(f"| {part} | {wall:.1f} | {busy:.1f} |" for part, (wall, busy) in seconds.items()), file=sys.stderr)
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
    of_report = commands.add_parser("report")
    of_report.set_defaults(body=report)
    for name, default in (("networks", 4), ("rates", 50), ("sizes", 25), ("seeds", 2)):
        of_report.add_argument(f"--{name}", type=int, default=default)
    of_report.add_argument("--snapshots", type=int, nargs="*", default=[], help="epochs that were measured too")
    of_sweep = commands.add_parser("sweep")
    of_sweep.set_defaults(body=sweep)
    of_sweep.add_argument("--runs", type=int, default=1000, help="a multiple of 10")
    of_sweep.add_argument("--launcher", default="basic")
    of_sweep.add_argument("overrides", nargs="*", help="further options of sweep.py")
    for command in (of_report, of_sweep):
        command.add_argument("--directory", type=Path, help="default: one that is removed afterwards")
    options = parser.parse_args()
    options.body(options)


if __name__ == "__main__":
    main()
