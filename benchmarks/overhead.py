"""Measure the wall time that a sweep takes in addition to training and measuring.

    python benchmarks/overhead.py [SWEEP OVERRIDES ...]

The default is the quickstart, with results in a temporary directory. PYTHONDONTWRITEBYTECODE is unset, so that Python can
reuse compiled modules. The first start after an installation compiles them and takes longer.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    overrides = sys.argv[1:] or ["experiment=quickstart"]
    with tempfile.TemporaryDirectory() as results:
        start = time.perf_counter()
        command = [sys.executable, ROOT / "sweep.py", *overrides, f"results={results}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        wall = time.perf_counter() - start
        runs = [json.loads(path.read_text()) for path in Path(results).glob("runs/*/run.json")]
        entries = [json.loads(path.read_text()) for path in Path(results).glob("runs/*/measures.json")]
    training = sum(run["summary"]["seconds"] for run in runs)
    measuring = sum(entry["how"]["seconds"] for file in entries for entry in file["entries"].values())
    beyond = wall - training - measuring
    columns = ["sweep", "runs", "wall, s", "training, s", "measuring, s", "beyond, s", "15 s + 0.3 s per run"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    print(
        f"| {' '.join(overrides)} | {len(runs)} | {wall:.1f} | {training:.1f} | {measuring:.1f} | {beyond:.1f} "
        f"| {15 + 0.3 * len(runs):.1f} |"
    )


if __name__ == "__main__":
    main()
