"""Compare the counts of method=auto and method=grid, for all networks of the paper, half trained and trained.

    python benchmarks/agreement.py [--networks mobilenet ...] [--lines 300] [--data DIR]

Prints a Markdown table and the pooled agreement with its 95 % interval (Clopper and Pearson 1934). Measurements are stored
under --results, one file per model, and reused.
"""

import json
from pathlib import Path

import numpy as np
import torch
import zoo
from scipy.stats import beta

from regioncount.regions import count_regions, sample_simplices
from regioncount.training import choose_device

SEED = 0


def measure(model, vertices: torch.Tensor, resolution: int) -> dict:
    """Count regions with both methods; return the counts, the entropy, the evaluations and the bound by method."""
    result = {"lines": len(vertices)}
    for method in ("grid", "auto"):
        region_count = count_regions(model, vertices, resolution=resolution, method=method)
        result[method] = {
            "counts": region_count.counts.tolist(),
            "entropy": region_count.entropy,
            "evaluations": region_count.evaluations,
            "bound": region_count.screening_bound,
        }
    return result


def interval(agree: int, total: int) -> tuple[float, float]:
    """Return the 95 % Clopper-Pearson interval of the fraction of lines that agree."""
    low = beta.ppf(0.025, agree, total - agree + 1) if agree else 0.0
    high = beta.ppf(0.975, agree + 1, total - agree) if agree < total else 1.0
    return float(low), float(high)


def main() -> None:
    parser = zoo.make_parser(__doc__)
    parser.add_argument("--networks", nargs="+", default=list(zoo.WIDTHS), choices=zoo.WIDTHS)
    parser.add_argument("--lines", type=int, default=300)
    parser.add_argument("--resolution", type=int, default=200)
    options = parser.parse_args()
    device = choose_device(options.device)
    directory = Path(options.results) / "agreement"
    directory.mkdir(parents=True, exist_ok=True)
    print(
        "| network | width | epoch | train accuracy % | count, grid | count, auto | equal | entropy, grid | entropy, auto "
        "| evaluations per line | bound |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    agreeing_lines, total_lines = 0, 0
    for network in options.networks:
        width = zoo.WIDTHS[network]
        for epoch, model, dataset, accuracy in zoo.stages(network, width, options):
            file = directory / f"{network}-{width}-{epoch}-{options.lines}x{options.resolution}-{device.type}.json"
            if not file.exists():
                generator = torch.Generator().manual_seed(SEED)
                vertices = sample_simplices(dataset.normalize(dataset.train.images), 1, options.lines, generator)
                file.write_text(json.dumps(measure(model.to(device), vertices.to(device), options.resolution)))
            result = json.loads(file.read_text())
            grid, auto = result["grid"], result["auto"]
            grid_counts, auto_counts = np.array(grid["counts"]), np.array(auto["counts"])
            lines, equal = len(grid_counts), int((grid_counts == auto_counts).sum())
            agreeing_lines, total_lines = agreeing_lines + equal, total_lines + lines
            bound = "none" if auto["bound"] is None else f"{auto['bound']:.3f}"
            print(
                f"| {network} | {width} | {epoch} | {100 * accuracy:.1f} "
                f"| {grid_counts.mean():.3f} | {auto_counts.mean():.3f} | {equal} of {lines} "
                f"| {grid['entropy']:.4f} | {auto['entropy']:.4f} "
                f"| {auto['evaluations'] / lines:.1f} | {bound} |",
                flush=True,
            )
    low, high = (100 * end for end in interval(agreeing_lines, total_lines))
    percent = 100 * agreeing_lines / total_lines
    print(f"\nPooled: {agreeing_lines} of {total_lines} lines, {percent:.3f} % [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
