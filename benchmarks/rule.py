"""Measure cost and accuracy of the adaptive rule for several constants.

    python benchmarks/rule.py [--lines 150] [--copies 8]

Every lattice point of some lines is evaluated once in float32. The rule then reads the logits of the points that it needs
from this table. --copies adds copies of all lines with random constants added to the class logits. The copies have other
boundaries, and help to distinguish rules that miss no region of the original lines.
"""

import numpy as np
import torch
import zoo

from regioncount.regions import adaptive, count_components, sample_simplices
from regioncount.regions.evaluation import evaluation_batch, fast_layout, interpolate, to_fast_layout, true_float32

POINTS = 200
SEED = 1  # not that of agreement.py, so that the constants are not tested on the lines used to choose them


def all_logits(model, vertices: torch.Tensor) -> torch.Tensor:
    """Return the logits (S, 200, C) of every lattice point of segments (S, 2, C, H, W)."""
    share = torch.linspace(0, 1, POINTS)
    weights = torch.stack([1 - share, share], dim=1)
    batches = torch.arange(len(vertices) * POINTS).split(evaluation_batch(torch.device("cpu"), vertices[0, 0].numel()))
    with torch.no_grad(), true_float32():
        logits = [model(fast_layout(interpolate(vertices, weights, flat // POINTS, flat % POINTS))) for flat in batches]
    return torch.cat(logits).view(len(vertices), POINTS, -1)


def evaluate_rule(logits: torch.Tensor) -> tuple[float, float]:
    """Return the evaluations per line, and the fraction of lines with the count of the grid."""
    evaluations = 0

    def evaluate(line, point, expected_margin):
        nonlocal evaluations
        evaluations += len(line)
        return logits[line, point]

    labels = adaptive.adaptive_labels(evaluate, len(logits), np.arange(POINTS), torch.device("cpu"))
    agree = count_components(labels) == count_components(logits.argmax(dim=2))
    return evaluations / len(logits), float(agree.mean())


def main() -> None:
    parser = zoo.make_parser(__doc__)
    parser.add_argument("--lines", type=int, default=150)
    parser.add_argument("--networks", nargs="+", default=list(zoo.WIDTHS)[:6])
    parser.add_argument("--copies", type=int, default=0)
    options = parser.parse_args()
    tables = []
    for network in options.networks:
        for _, model, dataset, _ in zoo.stages(network, zoo.WIDTHS[network], options):
            generator = torch.Generator().manual_seed(SEED)
            vertices = sample_simplices(dataset.normalize(dataset.train.images), 1, options.lines, generator)
            tables.append(all_logits(to_fast_layout(model), vertices))
    generator = torch.Generator().manual_seed(0)
    for logits in list(tables):
        for _ in range(options.copies):
            constants = torch.randn(len(logits), 1, logits.shape[2], generator=generator)
            tables.append(logits + constants * logits.std() / 2)
    print("| intervals | bend | evaluations per line | lines with the grid's count | worst model |\n|---|---|---|---|---|")
    for cells in (12, 16, 20, 24, 28, 32):
        for safety in (8.0, 12.0, 16.0, 24.0, 32.0):
            adaptive.COARSE_CELLS, adaptive.SAFETY = (cells,), (safety,)
            evaluations, agree = zip(*(evaluate_rule(logits) for logits in tables), strict=True)
            print(
                f"| {cells} | {safety:g} | {np.mean(evaluations):.1f} | {np.mean(agree):.2%} | {min(agree):.2%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
