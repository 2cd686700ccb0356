"""Measure how long users wait for what is not training or counting.

    python benchmarks/waiting.py [CHECKOUT ...]

Each checkout, by default this one, is measured with this Python, one after another in each row, so that timings of two
versions can be compared. Rows: the help, planning a grid of 1,000 cells in a process that has imported everything, a
sweep of 27 short runs, the same sweep again, and the quickstart. PYTHONDONTWRITEBYTECODE is unset, and each checkout has
been started once before.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHORT = ["experiment=quickstart", "epochs=1", "snapshots.every=1", "tracker=disabled"]

PLANNING = """
import time
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from regioncount.composition import hydra_ready
from regioncount.sweeps import grid

rates = ",".join(f"{rate / 1000:.4f}" for rate in range(1, 101))
options = ["dataset=digits", f"optimizer.learning_rate={rates}", "seed=0,1", "batch_size=16,32,64,128,256"]
with hydra_ready():
    application = GlobalHydra.instance().hydra
    config = application.compose_config("sweep", [], RunMode.MULTIRUN, with_log_configuration=False)
    start = time.perf_counter()
    plan, *_ = grid.plan_sweep([*options, "tracker=disabled"], {}, config, application.config_loader)
    print(time.perf_counter() - start)
    assert len(plan.runs) == 1000
"""


def run(checkout: Path, *command: object) -> str:
    """Run a Python command with a checkout's package; return what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = str(checkout)
    arguments = [sys.executable, *map(str, command)]
    return subprocess.run(arguments, check=True, capture_output=True, text=True, env=environment, cwd=checkout).stdout


def seconds(checkout: Path, *command: object) -> float:
    """Return the wall time of a Python command with a checkout's package."""
    start = time.perf_counter()
    run(checkout, *command)
    return time.perf_counter() - start


def main() -> None:
    checkouts = [Path(path).resolve() for path in sys.argv[1:]] or [ROOT]
    for checkout in checkouts:
        run(checkout, "train.py", "--help")
    with tempfile.TemporaryDirectory() as folder:
        results = {checkout: Path(folder) / str(number) for number, checkout in enumerate(checkouts)}
        short = {checkout: ["sweep.py", *SHORT, f"results={path / 'short'}"] for checkout, path in results.items()}
        quickstart = {checkout: f"results={path / 'quickstart'}" for checkout, path in results.items()}
        rows = {
            "train.py --help": lambda checkout: seconds(checkout, "train.py", "--help"),
            "planning 1,000 cells": lambda checkout: float(run(checkout, "-c", PLANNING)),
            "27 runs of one epoch": lambda checkout: seconds(checkout, *short[checkout]),
            "the same again": lambda checkout: seconds(checkout, *short[checkout]),
            "quickstart": lambda checkout: seconds(
                checkout, "sweep.py", "experiment=quickstart", "tracker=disabled", quickstart[checkout]
            ),
        }
        print(f"| | {' | '.join(checkout.name for checkout in checkouts)} |\n{'|---' * (len(checkouts) + 1)}|", flush=True)
        for name, measure in rows.items():
            print(f"| {name} | {' | '.join(f'{measure(checkout):.1f} s' for checkout in checkouts)} |", flush=True)


if __name__ == "__main__":
    main()
