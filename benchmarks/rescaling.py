"""Measure the effect of rescaling on generalization measures.

    python benchmarks/rescaling.py

A small CNN is trained on scikit-learn's digits. Then the gain and shift of one batch normalization are multiplied by a, and
the next convolution by 1/a, which does not change the function. Prints the measures and draws docs/rescaling.png.
"""

import copy
from pathlib import Path

import torch
from matplotlib.figure import Figure

from regioncount import data, measures, models, training
from regioncount.config import parse_run
from regioncount.measures.measured_model import from_dataset
from regioncount.regions import count_regions, sample_simplices

FACTORS = [2.0**power for power in range(-5, 6)]
MEASURES = {  # name in the figure: name of the measure; None for the region count
    "region count": None,
    "adaptive sharpness": "adaptive_sharpness",
    "L2 norm": "parameter_norm",
    "sharpness": "sharpness",
    "Hessian's largest eigenvalue": "hessian_eigenvalue",
    "Hessian's trace": "hessian_trace",
    "PAC-Bayes flatness": "pacbayes_flatness",
}
STYLES = [
    ("#000000", "o"),
    ("#009E73", "s"),
    ("#0072B2", "^"),
    ("#D55E00", "D"),
    ("#CC79A7", "v"),
    ("#E69F00", "P"),
    ("#56B4E9", "X"),
]


def train(dataset: data.Dataset) -> torch.nn.Module:
    """Return a small CNN trained on a data set."""
    config = parse_run(
        {
            "model": {"name": "small_cnn", "width": 8},
            "optimizer": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0},
            "schedule": {"name": "cosine"},
            "batch_size": 32,
            "epochs": 30,
        }
    )
    model = training.initialize(lambda: models.build("small_cnn", 10, 1, image_size=8, width=8), config.seed)
    training.fit(model, dataset, config, device=torch.device("cpu"), precision="float32")
    return model.eval()


def rescale(model: torch.nn.Module, factor: float) -> torch.nn.Module:
    """Return a copy with one layer multiplied by a factor and the next divided by it."""
    model = copy.deepcopy(model)
    normalization, convolution = model[0][1], model[2][0]
    with torch.no_grad():
        normalization.weight *= factor
        normalization.bias *= factor
        convolution.weight /= factor
    return model


def main() -> None:
    dataset = data.load("digits", train_size=300)
    model = train(dataset)
    vertices = sample_simplices(dataset.normalize(dataset.train.images), 1, 100, torch.Generator().manual_seed(0))
    results = {name: [] for name in MEASURES}
    print(f"| a | {' | '.join(MEASURES)} |\n{'|---' * (len(MEASURES) + 1)}|")
    for factor in FACTORS:
        rescaled = rescale(model, factor)
        measured = from_dataset(rescaled, dataset, torch.device("cpu"))
        for name, measure in MEASURES.items():
            value = measures.value(measure, measured)[measure] if measure else count_regions(rescaled, vertices).mean
            results[name].append(value)
        print(f"| {factor:g} | {' | '.join(f'{values[-1]:.6g}' for values in results.values())} |", flush=True)
    middle = FACTORS.index(1.0)
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for (name, values), (colour, marker) in zip(results.items(), STYLES, strict=True):
        relative = [value / values[middle] for value in values]
        width = 2.6 if name == "region count" else 1.2
        axes.plot(FACTORS, relative, color=colour, marker=marker, markersize=5, linewidth=width, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("a: one layer times a, the next times 1/a")
    axes.set_ylabel("measure / measure at a = 1")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(Path(__file__).resolve().parent.parent / "docs" / "rescaling.png", dpi=120)


if __name__ == "__main__":
    main()
