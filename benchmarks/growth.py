"""Measure how the cost of counting grows with the lines and the points per line, and how many regions lattices miss.

    python benchmarks/growth.py [--width 16] [--data DIR]

Each measurement runs in a separate process, so that its peak memory can be measured. Writes benchmarks/growth.png.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import matplotlib
import numpy as np
import torch
import zoo

from regioncount.regions import count_regions, sample_simplices
from regioncount.training import choose_device

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LINES = (10, 30, 100, 300, 1000, 3000, 10000)
POINTS = (50, 100, 200, 500, 1000, 2000, 5000, 10000)


def measure(method: str, lines: int, points: int, options: argparse.Namespace) -> dict:
    """Return the time, additional memory, evaluations and counts of a ResNet-18."""
    device = choose_device(options.device)
    *_, (_, model, dataset, _) = zoo.stages("resnet18", options.width, options)
    model.to(device)
    images = dataset.normalize(dataset.train.images[:2000])
    generator = torch.Generator().manual_seed(0)
    vertices = sample_simplices(images, 1, lines, generator)
    count_regions(model, vertices[:5])  # warm up: the first call builds kernels
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    result = count_regions(model, vertices.to(device), resolution=points, method=method)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "method": method,
        "lines": lines,
        "points": points,
        "seconds": seconds,
        "evaluations": result.evaluations,
        "mean": result.mean,
        "standard_error": result.standard_error,
        "counts": result.counts[:1000].tolist(),
        "more_memory_mb": (after - before) / 1024,
    }


def measure_in_process(method: str, lines: int, points: int, options: argparse.Namespace) -> dict:
    """Run `measure` in a separate process."""
    command = [sys.executable, __file__, "--one", method, str(lines), str(points)]
    command += ["--data", options.data, "--results", options.results, "--width", str(options.width)]
    command += ["--device", options.device]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(
        f"| {method} | {lines:,} | {points:,} | {result['seconds']:.2f} | {result['evaluations'] / lines:.1f} "
        f"| {result['mean']:.3f} ± {result['standard_error']:.3f} | {result['more_memory_mb']:.0f} |",
        flush=True,
    )
    return result


def draw(by_lines: list[dict], by_points: list[dict]) -> None:
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    left.loglog([f["lines"] for f in by_lines], [f["seconds"] for f in by_lines], "o-")
    left.set(xlabel="lines (of 200 points)", ylabel="seconds", title="Time grows with lines")
    middle.semilogx([f["lines"] for f in by_lines], [f["more_memory_mb"] for f in by_lines], "o-")
    middle.set(
        xlabel="lines (of 200 points)", ylabel="additional memory, MB", title="Additional peak memory", ylim=(0, None)
    )
    right.loglog(POINTS, POINTS, "--", label="grid")
    right.loglog([f["points"] for f in by_points], [f["evaluations"] / f["lines"] for f in by_points], "o-", label="auto")
    right.set(xlabel="points per line", ylabel="evaluations per line", title="Evaluations hardly grow with points")
    right.legend(frameon=False)
    figure.savefig(Path(__file__).parent / "growth.png", dpi=150)


def main() -> None:
    parser = zoo.make_parser(__doc__)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--one", nargs=3, metavar=("METHOD", "LINES", "POINTS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        method, lines, points = options.one
        print(json.dumps(measure(method, int(lines), int(points), options)))
        return
    print(
        "| method | lines | points | seconds | evaluations per line | count | more memory, MB |\n"
        "|---|---|---|---|---|---|---|"
    )
    by_lines = [measure_in_process("auto", lines, 200, options) for lines in LINES]
    by_points = [measure_in_process("auto", 300, points, options) for points in POINTS]
    grid = [measure_in_process("grid", 300, points, options) for points in (50, 200)]
    draw(by_lines, by_points)
    finest = np.array(by_points[-1]["counts"])
    print("\n| points | count | regions of the finest lattice missed | lines that differ |\n|---|---|---|---|")
    for row in (*grid, *by_points):
        counts = np.array(row["counts"])
        missed = (finest - counts).sum() / finest.sum()
        print(
            f"| {row['points']:,} ({row['method']}) | {counts.mean():.3f} | {100 * missed:.2f} % "
            f"| {100 * (counts != finest).mean():.1f} % |"
        )


if __name__ == "__main__":
    main()
