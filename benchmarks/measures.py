"""Compare the time and the values of all measures between versions of the package.

    python benchmarks/measures.py BEFORE AFTER RUN [RUN ...]

BEFORE and AFTER are checkouts, and each RUN is the directory of a finished run with its weights. Each run is measured with
one thread by one version after the other. The table has the processor time of each measure, summed over the runs, and
the largest relative difference of its values; measures that take less than a hundredth of the time are summed in a row.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

MEASURING = """
import json, sys, time, warnings
import torch
from regioncount import measures
from regioncount.runs import load_model

warnings.simplefilter("ignore")
torch.set_num_threads(1)
model, dataset = load_model(sys.argv[1])[:2]
measured = measures.from_dataset(model, dataset, torch.device("cpu"))
rows = {}
for name in measures._by_default():
    start = time.process_time()
    values = measures.value(name, measured)
    rows[name] = time.process_time() - start, values.get(name, values.get("train_loss"))
print(json.dumps(rows))
"""


def measure(checkout: Path, run: Path) -> dict[str, tuple[float, float]]:
    """Return the processor time and the value of each measure of a run, with a checkout's package."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MEASURING, str(run)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=checkout)
    return json.loads(done.stdout)


def main() -> None:
    before, after, *runs = (Path(argument).resolve() for argument in sys.argv[1:])
    seconds: dict[str, list[float]] = {}
    largest: dict[str, float] = {}
    for run in runs:
        old, new = measure(before, run), measure(after, run)
        for name in old.keys() & new.keys():
            total = seconds.setdefault(name, [0.0, 0.0])
            for side, rows in enumerate((old, new)):
                total[side] += rows[name][0]
            first, second = old[name][1], new[name][1]
            if not (math.isnan(first) and math.isnan(second)):
                largest[name] = max(largest.get(name, 0.0), abs(second - first) / max(abs(first), 1e-12))
    sums = [sum(pair[side] for pair in seconds.values()) for side in (0, 1)]
    print("| measure | before, s | after, s | largest relative difference |\n|---|---|---|---|")
    shown = [name for name in seconds if max(seconds[name]) >= 0.01 * sums[0]]
    for name in sorted(shown, key=lambda name: -seconds[name][0]):
        print(f"| `{name}` | {seconds[name][0]:.1f} | {seconds[name][1]:.1f} | {largest.get(name, math.nan):.2g} |")
    others = [name for name in seconds if name not in shown]
    times = [sum(seconds[name][side] for name in others) for side in (0, 1)]
    print(
        f"| {len(others)} others | {times[0]:.1f} | {times[1]:.1f} | {max(largest.get(name, 0.0) for name in others):.2g} |"
    )
    print(f"| all, {len(runs)} runs | {sums[0]:.1f} | {sums[1]:.1f} | |")


if __name__ == "__main__":
    main()
