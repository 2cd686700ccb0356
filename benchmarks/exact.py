"""Check and time exact counts on lines, and measure the error of lattices with them.

    python benchmarks/exact.py check | lattice | cost | bounds [--data DIR]

check: compare exact labels of thousands of lines with the network's labels at 2,000 points per line, in the middle of each
region and on both sides of each boundary, and for one line at 2,000,000 points.
lattice: measure how many regions lattices and the adaptive method miss, for trained and untrained networks. Writes
docs/lattice_error.png.
cost: measure the seconds per line for networks of several sizes.
bounds: measure the proved fraction of lines as a function of the evaluations. Writes docs/bounds.png.
"""

import copy
import time
from pathlib import Path

import matplotlib
import numpy as np
import torch
import zoo

from regioncount.models.networks import build_for
from regioncount.regions import ExactLines, bounded_lines, count_regions, exact_lines, sample_simplices
from regioncount.runs import runner

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NETWORKS = (("mlp", 64, 1000), ("small_cnn", 8, 100), ("resnet18", 4, 30), ("resnet18", 16, 2))  # name, width, lines
LATTICES = (50, 200, 2000)  # points per line
MIN_LINES_DRAWN = 10  # networks with fewer lines are in the table only, since their curves would be rough
DOCS = Path(__file__).parent.parent / "docs"
# Name, width, lines, and the maximum number of evaluations per line.
BOUNDED_NETWORKS = (
    ("small_cnn", 8, 10, 20_000),
    ("small_cnn", 32, 3, 20_000),
    ("resnet18", 4, 3, 40_000),
    ("resnet18", 16, 1, 40_000),
)
SAMPLED_INTERVALS = 32  # number of equal intervals that are bounded
# Line style in the figure, and a function that proves labels within a budget of evaluations per line.
PROOF_METHODS = {
    "method=bounds": ("-", lambda model, lines, budget: bounded_lines(model, lines, budget * len(lines))),
    "method=exact": (":", lambda model, lines, budget: exact_lines(model, lines, budget * len(lines))),
    "bounds of equal intervals": ("--", lambda model, lines, budget: equal_intervals(model, lines, budget // 4)),
}


def models(options, networks=NETWORKS):
    """Yield each network before and after training: its name, the model, its data, and the number of lines."""
    for network, width, lines in networks:
        prepared = zoo.prepare(network, width, options)
        run = runner.run_or_resume(prepared)
        for epoch in (0, options.epochs):
            model = build_for(prepared.config.model, prepared.dataset)
            model.load_state_dict(run.weights(epoch if epoch < options.epochs else None))
            name = f"{network} of width {width}, {'trained' if epoch else 'untrained'}"
            yield name, model.eval(), prepared.dataset, max(2, int(lines * options.share))


def sample_lines(dataset, number: int) -> torch.Tensor:
    """Return lines between random training images, (number, 2, C, H, W)."""
    images = dataset.normalize(dataset.train.images[:2000])
    return sample_simplices(images, 1, number, torch.Generator().manual_seed(0))


def labels_at(model, line: torch.Tensor, positions: np.ndarray) -> np.ndarray:
    """Return the labels of a float64 network at positions on a line."""
    labels = []
    with torch.no_grad():
        for weight in torch.as_tensor(positions).split(2000):
            inputs = torch.lerp(line[0].double(), line[1].double(), weight.view(-1, *[1] * (line.dim() - 1)))
            labels.append(model(inputs).argmax(dim=1))
    return torch.cat(labels).numpy()


def exact_labels(exact: ExactLines, line: int, positions: np.ndarray) -> np.ndarray:
    """Return the exact labels at positions on a line."""
    on_line = exact.line == line
    return exact.label[on_line][np.searchsorted(exact.start[on_line], positions, side="right") - 1]


def check(options) -> None:
    print("| model | lines | regions | at lattice points | in the middle of regions | beside boundaries |")
    print("|---|---|---|---|---|---|")
    for name, model, dataset, number in models(options, (("mlp", 64, 2000), ("small_cnn", 2, 200), ("resnet18", 1, 20))):
        vertices = sample_lines(dataset, number)
        exact = exact_lines(model, vertices)
        float64_model = copy.deepcopy(model).double()
        differences, comparisons = np.zeros(3, dtype=int), np.zeros(3, dtype=int)
        for line, ends in enumerate(vertices):
            on_line = exact.line == line
            start, stop = exact.start[on_line], exact.stop[on_line]
            distance = np.minimum(1e-9, (stop - start) / 3)
            middles, sides = (start + stop) / 2, np.concatenate([start + distance, stop - distance])
            for kind, positions in enumerate((np.linspace(0, 1, 2000), middles, sides)):
                differ = labels_at(float64_model, ends, positions) != exact_labels(exact, line, positions)
                differences[kind] += differ.sum()
                comparisons[kind] += len(positions)
        cells = " | ".join(f"{bad} of {total:,} differ" for bad, total in zip(differences, comparisons, strict=True))
        print(f"| {name} | {number} | {len(exact.line)} | {cells} |", flush=True)
        if name.startswith("mlp") and name.endswith(", trained"):
            positions = np.linspace(0, 1, 2_000_000)
            longest = int(exact.counts.argmax())  # the line with the most regions
            differ = labels_at(float64_model, vertices[longest], positions) != exact_labels(exact, longest, positions)
            regions = exact.counts[longest]
            print(f"| the same, at 2,000,000 points | 1 | {regions} | {differ.sum()} of 2,000,000 differ | | |", flush=True)


def lattice_counts(exact: ExactLines, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the count of each line on a lattice of `points` points, and whether each region contains a lattice point."""
    first = np.ceil(exact.start * (points - 1) - 1e-9)
    last = np.where(exact.stop >= 1, points - 1, np.ceil(exact.stop * (points - 1) - 1e-9) - 1)
    detected = last >= first
    line, label = exact.line[detected], exact.label[detected]
    is_first = np.append(True, (line[1:] != line[:-1]) | (label[1:] != label[:-1]))
    return np.bincount(line[is_first], minlength=len(exact.counts)), detected


def lattice(options) -> None:
    print(
        "| model | lines | affine pieces per line | exact count | method | count | lines that differ | regions missed |",
        end="",
    )
    print(" widest missed, 1/1000 of the line |\n|---|---|---|---|---|---|---|---|---|")
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.set(xscale="log", xlabel="width of a region, as a fraction of its line", ylabel="fraction of regions not wider")
    right.set(xscale="log", xlabel="lattice points per line", ylabel="fraction of lines counted wrongly")
    for axes, position in ((left, 1 / 199), (right, 200)):  # the paper's lattice
        axes.axvline(position, color="grey", linewidth=0.8)
    for name, model, dataset, number in models(options):
        vertices = sample_lines(dataset, number)
        exact = exact_lines(model, vertices)
        head = f"| {name} | {number} | {exact.pieces.mean():.0f} | {exact.counts.mean():.3f} "
        for points in LATTICES:
            counts, detected = lattice_counts(exact, points)
            if points == 200:
                grid = count_regions(model, vertices, method="grid").counts
                assert (grid == counts).all(), (name, grid, counts)
            missed = (exact.stop - exact.start)[~detected]
            widest = f"{1000 * missed.max():.2f}" if len(missed) else "–"
            cells = f"| {points} points | {counts.mean():.3f} | {100 * (counts != exact.counts).mean():.1f} % "
            print(head + cells + f"| {len(missed)} of {len(detected)} | {widest} |", flush=True)
        counts = count_regions(model, vertices, method="adaptive").counts
        differ = 100 * (counts != exact.counts).mean()
        print(head + f"| adaptive, 200 points | {counts.mean():.3f} | {differ:.1f} % | | |", flush=True)

        if number < MIN_LINES_DRAWN:
            continue
        style = {"linestyle": "-" if name.endswith(", trained") else ":"}
        widths = np.sort(exact.stop - exact.start)
        left.step(widths, np.arange(1, len(widths) + 1) / len(widths), where="post", label=name, **style)
        resolutions = np.unique(np.geomspace(10, 100_000, 60).astype(int))
        wrong = [(lattice_counts(exact, points)[0] != exact.counts).mean() for points in resolutions]
        right.plot(resolutions, wrong, label=name, **style)
        left.legend(fontsize=7)
        figure.savefig(DOCS / "lattice_error.png", dpi=150)  # after each network, because the last one takes long


def cost(options) -> None:
    print("| model | lines | affine pieces per line | evaluations per line | seconds per line |\n|---|---|---|---|---|")
    networks = (("mlp", 64, 100), ("small_cnn", 8, 10), ("resnet18", 2, 4), ("resnet18", 4, 4), ("resnet18", 8, 2))
    for name, model, dataset, number in models(options, networks):
        vertices = sample_lines(dataset, number)
        exact_lines(model, vertices[:1], budget=1)
        start = time.perf_counter()
        exact = exact_lines(model, vertices)
        each = f"{exact.evaluations / number:,.0f} | {(time.perf_counter() - start) / number:.2f}"
        print(f"| {name} | {number} | {exact.pieces.mean():,.0f} | {each} |", flush=True)


def bounds(options) -> None:
    print("| model | how | evaluations per line | seconds per line | share of the length proved |\n|---|---|---|---|---|")
    figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
    axes.set(xscale="log", xlabel="evaluations per line", ylabel="fraction of the length proved")
    for colour, (network, width, number, max_evaluations) in enumerate(BOUNDED_NETWORKS):
        ((name, model, dataset, number),) = list(models(options, ((network, width, number),)))[1:]
        vertices = sample_lines(dataset, number)
        exact_lines(model, vertices[:1], budget=1)
        for method, (style, prove) in PROOF_METHODS.items():
            curve = []
            for budget in (2 ** np.arange(4, 30, 2)).tolist():
                if budget > max_evaluations or (curve and curve[-1][1] == 1):
                    break
                start = time.perf_counter()
                exact = prove(model, vertices, budget)
                seconds = (time.perf_counter() - start) / len(exact.proved)
                each = exact.evaluations / len(exact.proved)
                if method.startswith("bounds"):  # only a sample of the budget // 4 intervals of each line was bounded
                    each, seconds = each * (budget // 4), seconds * (budget // 4)
                curve.append((each, exact.proved.mean()))
                print(f"| {name} | {method} | {each:,.0f} | {seconds:.2f} | {exact.proved.mean():.3f} |", flush=True)
            axes.plot(*zip(*curve, strict=True), style, color=f"C{colour}", marker=".", label=f"{name}: {method}")
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
        figure.savefig(DOCS / "bounds.png", dpi=150)


def equal_intervals(model, vertices: torch.Tensor, number: int) -> ExactLines:
    """Divide each line into `number` equal intervals, and bound a random sample of them, each as a separate line."""
    generator = torch.Generator().manual_seed(0)
    line, part = (torch.randint(high, (SAMPLED_INTERVALS,), generator=generator) for high in (len(vertices), number))
    ends = (torch.stack([part, part + 1], dim=1) / number).double().view(-1, 2, *[1] * (vertices.dim() - 2))
    first, last = vertices[line].double().split(1, dim=1)
    return bounded_lines(model, torch.lerp(first, last, ends), budget=4 * SAMPLED_INTERVALS)


def main() -> None:
    parser = zoo.make_parser(__doc__)
    parser.add_argument("what", choices=["check", "lattice", "cost", "bounds"])
    parser.add_argument("--share", type=float, default=1.0, help="fraction of the lines to use")
    options = parser.parse_args()
    {"check": check, "lattice": lattice, "cost": cost, "bounds": bounds}[options.what](options)


if __name__ == "__main__":
    main()
