"""How wrong a lattice is, by exact counts: python benchmarks/exact.py check | lattice | cost | bounds [--data DIR]

check: exact labels of thousands of lines against the network's own at 2,000 points a line, in the middle of each region and
on both sides of each boundary, and of one line at 2,000,000 points. lattice: what lattices and the adaptive method miss of
the regions there are, trained and not; writes docs/lattice_error.png. cost: seconds a line as networks grow. bounds: the
length that is proved against its cost; writes docs/bounds.png.
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

MODELS = (("mlp", 64, 1000), ("small_cnn", 8, 100), ("resnet18", 4, 30), ("resnet18", 16, 2))
LATTICES = (50, 200, 2000)
DRAWN = 10  # lines of a network from which its curves are drawn; shares of fewer are in the table
DOCS = Path(__file__).parent.parent / "docs"
# Trained networks, lines, and the most evaluations a line.
BOUNDED = (
    ("small_cnn", 8, 10, 20_000),
    ("small_cnn", 32, 3, 20_000),
    ("resnet18", 4, 3, 40_000),
    ("resnet18", 16, 1, 40_000),
)
SAMPLED = 32  # of equal intervals
# Each with a budget of evaluations a line.
PROVED_BY = {
    "method=bounds": ("-", lambda model, lines, budget: bounded_lines(model, lines, budget * len(lines))),
    "method=exact": (":", lambda model, lines, budget: exact_lines(model, lines, budget * len(lines))),
    "bounds of equal intervals": ("--", lambda model, lines, budget: equal_intervals(model, lines, budget // 4)),
}


def models(options, chosen=MODELS):
    """Each network before and after training: its name, the model, its data, and how many lines."""
    for network, width, lines in chosen:
        job = zoo.job(network, width, options)
        found = runner.run_or_resume(job)
        for epoch in (0, options.epochs):
            model = build_for(job.config.model, job.dataset)
            model.load_state_dict(found.weights(epoch if epoch < options.epochs else None))
            name = f"{network} of width {width}, {'trained' if epoch else 'untrained'}"
            yield name, model.eval(), job.dataset, max(2, int(lines * options.share))


def lines_of(dataset, number: int) -> torch.Tensor:
    images = dataset.normalize(dataset.train.images[:2000])
    return sample_simplices(images, 1, number, torch.Generator().manual_seed(0))


def labels_at(model, line: torch.Tensor, places: np.ndarray) -> np.ndarray:
    """The labels of a float64 network at places of a line."""
    found = []
    with torch.no_grad():
        for weight in torch.as_tensor(places).split(2000):
            inputs = torch.lerp(line[0].double(), line[1].double(), weight.view(-1, *[1] * (line.dim() - 1)))
            found.append(model(inputs).argmax(dim=1))
    return torch.cat(found).numpy()


def exact_labels(found: ExactLines, line: int, places: np.ndarray) -> np.ndarray:
    own = found.line == line
    return found.label[own][np.searchsorted(found.start[own], places, side="right") - 1]


def check(options) -> None:
    print("| model | lines | regions | at lattice points | in the middle of regions | beside boundaries |")
    print("|---|---|---|---|---|---|")
    for name, model, dataset, number in models(options, (("mlp", 64, 2000), ("small_cnn", 2, 200), ("resnet18", 1, 20))):
        vertices = lines_of(dataset, number)
        found = exact_lines(model, vertices)
        wide = copy.deepcopy(model).double()
        wrong, asked = np.zeros(3, dtype=int), np.zeros(3, dtype=int)
        for line, ends in enumerate(vertices):
            own = found.line == line
            start, stop = found.start[own], found.stop[own]
            beside = np.minimum(1e-9, (stop - start) / 3)
            middles, sides = (start + stop) / 2, np.concatenate([start + beside, stop - beside])
            for kind, places in enumerate((np.linspace(0, 1, 2000), middles, sides)):
                differ = labels_at(wide, ends, places) != exact_labels(found, line, places)
                wrong[kind] += differ.sum()
                asked[kind] += len(places)
        told = " | ".join(f"{bad} of {all_:,} differ" for bad, all_ in zip(wrong, asked, strict=True))
        print(f"| {name} | {number} | {len(found.line)} | {told} |", flush=True)
        if name.startswith("mlp") and name.endswith(", trained"):
            places = np.linspace(0, 1, 2_000_000)
            most = int(found.counts.argmax())
            differ = labels_at(wide, vertices[most], places) != exact_labels(found, most, places)
            regions = found.counts[most]
            print(f"| the same, at 2,000,000 points | 1 | {regions} | {differ.sum()} of 2,000,000 differ | | |", flush=True)


def seen_by(found: ExactLines, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Of lattices of so many points: the count of each line, and for each region whether a point lies in it."""
    first = np.ceil(found.start * (points - 1) - 1e-9)
    last = np.where(found.stop >= 1, points - 1, np.ceil(found.stop * (points - 1) - 1e-9) - 1)
    seen = last >= first
    line, label = found.line[seen], found.label[seen]
    begins = np.append(True, (line[1:] != line[:-1]) | (label[1:] != label[:-1]))
    return np.bincount(line[begins], minlength=len(found.counts)), seen


def lattice(options) -> None:
    print(
        "| model | lines | affine pieces a line | exact count | method | count | lines that differ | regions missed |",
        end="",
    )
    print(" widest missed, 1/1000 of the line |\n|---|---|---|---|---|---|---|---|---|")
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.set(xscale="log", xlabel="width of a region, as a share of its line", ylabel="share of regions not wider")
    right.set(xscale="log", xlabel="lattice points a line", ylabel="share of lines counted wrongly")
    for axes, place in ((left, 1 / 199), (right, 200)):  # the paper's lattice
        axes.axvline(place, color="grey", linewidth=0.8)
    for name, model, dataset, number in models(options):
        vertices = lines_of(dataset, number)
        found = exact_lines(model, vertices)
        head = f"| {name} | {number} | {found.pieces.mean():.0f} | {found.counts.mean():.3f} "
        for points in LATTICES:
            counts, seen = seen_by(found, points)
            if points == 200:
                grid = count_regions(model, vertices, method="grid").counts
                assert (grid == counts).all(), (name, grid, counts)
            missed = (found.stop - found.start)[~seen]
            widest = f"{1000 * missed.max():.2f}" if len(missed) else "–"
            told = f"| {points} points | {counts.mean():.3f} | {100 * (counts != found.counts).mean():.1f} % "
            print(head + told + f"| {len(missed)} of {len(seen)} | {widest} |", flush=True)
        counts = count_regions(model, vertices, method="adaptive").counts
        differ = 100 * (counts != found.counts).mean()
        print(head + f"| adaptive, 200 points | {counts.mean():.3f} | {differ:.1f} % | | |", flush=True)

        if number < DRAWN:
            continue
        style = {"linestyle": "-" if name.endswith(", trained") else ":"}
        widths = np.sort(found.stop - found.start)
        left.step(widths, np.arange(1, len(widths) + 1) / len(widths), where="post", label=name, **style)
        several = np.unique(np.geomspace(10, 100_000, 60).astype(int))
        right.plot(several, [(seen_by(found, points)[0] != found.counts).mean() for points in several], label=name, **style)
        left.legend(fontsize=7)
        figure.savefig(DOCS / "lattice_error.png", dpi=150)  # after each network, since the last ones take long


def cost(options) -> None:
    print("| model | lines | affine pieces a line | evaluations a line | seconds a line |\n|---|---|---|---|---|")
    chosen = (("mlp", 64, 100), ("small_cnn", 8, 10), ("resnet18", 2, 4), ("resnet18", 4, 4), ("resnet18", 8, 2))
    for name, model, dataset, number in models(options, chosen):
        vertices = lines_of(dataset, number)
        exact_lines(model, vertices[:1], budget=1)
        start = time.perf_counter()
        found = exact_lines(model, vertices)
        each = f"{found.evaluations / number:,.0f} | {(time.perf_counter() - start) / number:.2f}"
        print(f"| {name} | {number} | {found.pieces.mean():,.0f} | {each} |", flush=True)


def bounds(options) -> None:
    print("| model | how | evaluations a line | seconds a line | share of the length proved |\n|---|---|---|---|---|")
    figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
    axes.set(xscale="log", xlabel="evaluations a line", ylabel="share of the length proved")
    for colour, (network, width, number, most) in enumerate(BOUNDED):
        ((name, model, dataset, number),) = list(models(options, ((network, width, number),)))[1:]
        vertices = lines_of(dataset, number)
        exact_lines(model, vertices[:1], budget=1)
        for how, (style, prove) in PROVED_BY.items():
            curve = []
            for budget in (2 ** np.arange(4, 30, 2)).tolist():
                if budget > most or (curve and curve[-1][1] == 1):
                    break
                start = time.perf_counter()
                found = prove(model, vertices, budget)
                took = (time.perf_counter() - start) / len(found.proved)
                each = found.evaluations / len(found.proved)
                if how.startswith("bounds"):
                    each, took = each * (budget // 4), took * (budget // 4)
                curve.append((each, found.proved.mean()))
                print(f"| {name} | {how} | {each:,.0f} | {took:.2f} | {found.proved.mean():.3f} |", flush=True)
            axes.plot(*zip(*curve, strict=True), style, color=f"C{colour}", marker=".", label=f"{name}: {how}")
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
        figure.savefig(DOCS / "bounds.png", dpi=150)


def equal_intervals(model, vertices: torch.Tensor, number: int) -> ExactLines:
    """Some of the equal parts of lines, each bounded once, as lines of their own."""
    generator = torch.Generator().manual_seed(0)
    line, part = (torch.randint(many, (SAMPLED,), generator=generator) for many in (len(vertices), number))
    ends = (torch.stack([part, part + 1], dim=1) / number).double().view(-1, 2, *[1] * (vertices.dim() - 2))
    first, last = vertices[line].double().split(1, dim=1)
    return bounded_lines(model, torch.lerp(first, last, ends), budget=4 * SAMPLED)


def main() -> None:
    parser = zoo.arguments(__doc__)
    parser.add_argument("what", choices=["check", "lattice", "cost", "bounds"])
    parser.add_argument("--share", type=float, default=1.0, help="of the lines")
    options = parser.parse_args()
    {"check": check, "lattice": lattice, "cost": cost, "bounds": bounds}[options.what](options)


if __name__ == "__main__":
    main()
