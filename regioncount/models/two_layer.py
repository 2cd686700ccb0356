"""The paper's theorem where each of its parts can be computed: a two-layer ReLU network, its first layer trained.

f(x) = sum_j a_j relu(w_j . x) with fixed a_j = +-1 / sqrt(width), trained by full-batch gradient descent on
L = 1/(2n) sum_i (f(x_i) - y_i)^2 with labels -1 and 1. docs/theory.md derives the inequality.
"""

import functools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regioncount.data.dataset import Dataset
from regioncount.data.splits import Split
from regioncount.errors import InputError
from regioncount.models.classifiers import as_points, require_in_memory
from regioncount.options import validate_options
from regioncount.regions.exact import exact_lines
from regioncount.registry import models

# Steps at which the Hessian's eigenvalue is kept, spread evenly over their logarithm.
RECORDED = 100

# By how much, relatively, rounding may break an inequality.
ROUNDING = 1e-9


class TwoLayer(nn.Module):
    """Logits (B, 2) = (-f, f): the sign of f. history: steps, loss and largest Hessian eigenvalue through training."""

    def __init__(self, weight: np.ndarray, outer: np.ndarray, learning_rate: float, history: dict[str, np.ndarray]):
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(weight), requires_grad=False)
        self.register_buffer("outer", torch.from_numpy(outer))
        self.learning_rate, self.history = learning_rate, history

    def forward(self, x: Tensor) -> Tensor:
        value = nn.functional.linear(x.flatten(1).to(self.weight.dtype), self.weight).relu() @ self.outer
        return torch.stack([-value, value], dim=1)


def check(model: Mapping[str, Any], dataset: Dataset, exact_method: str | None) -> int:
    """Return 0; see `ModelKind.check`. Every exact method follows this network."""
    require_in_memory(model["name"], dataset)
    return 0


def restorer(
    model: Mapping[str, Any], seed: int, dataset: Dataset, device: torch.device, source: object
) -> Callable[[Callable[[], dict[str, Any]]], TwoLayer]:
    """Return a function that trains the network; see `ModelKind.restorer`."""
    return lambda read_weights: _train(json.dumps(dict(model), sort_keys=True), seed, dataset)


def measured_as(model: TwoLayer, dataset: Dataset) -> tuple[Callable[[Tensor], Tensor], Dataset]:
    """Return the network as a classifier that gives labels, and the data with two classes; see `ModelKind.measured_as`."""
    splits = (dataset.train, dataset.test)
    train, test = (replace(split, labels=(split.labels >= dataset.num_classes / 2).long()) for split in splits)
    halves = replace(dataset, train=train, test=test, classes=("first half", "second half"))
    return lambda images: model(images).argmax(dim=1), halves


# The last one: a run is trained, measured in several ways, and drawn.
@functools.lru_cache(maxsize=1)
def _train(model: str, seed: int, dataset: Dataset) -> TwoLayer:
    assert isinstance(dataset.train, Split)
    given = {key: value for key, value in json.loads(model).items() if key != "name"}
    options = validate_options(models["two_layer"], given, "model").model_dump()
    points = as_points(dataset.normalize(dataset.train.images))
    return fit(points, signs(dataset.train.labels.cpu().numpy(), dataset.num_classes), seed, **options)


def signs(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The targets of labels (n,): -1 for the first half of the classes, 1 for the second."""
    return np.where(labels >= num_classes / 2, 1.0, -1.0)


def fit(
    points: np.ndarray,
    targets: np.ndarray,
    seed: int,
    *,
    width: int,
    learning_rate: float,
    steps: int,
    tolerance: float,
    scale: float,
) -> TwoLayer:
    """Train by full-batch gradient descent in float64 until the loss is below `tolerance`, or for so many steps.

    points: (n, d). targets: -1 or 1, (n,). scale: standard deviation of the first layer's weights at the beginning, which
    are normal. Raises InputError where an option is out of range, or training diverges.
    """
    options = {"width": width, "learning_rate": learning_rate, "steps": steps, "tolerance": tolerance, "scale": scale}
    validate_options(models["two_layer"], options, "model")
    generator = np.random.default_rng(seed)
    points = points.astype(np.float64)
    weight = generator.normal(size=(width, points.shape[1]), scale=scale)
    outer = generator.choice([-1.0, 1.0], width) / math.sqrt(width)
    recorded = {0, *np.geomspace(1, steps, RECORDED).astype(int)}
    rows = []
    for step in range(steps + 1):
        inner = points @ weight.T
        error = np.maximum(inner, 0) @ outer - targets
        loss = (error**2).mean() / 2
        if not loss < 1e12:
            raise InputError(
                f"model.learning_rate={learning_rate}: training diverges after {step} steps; take a smaller one"
            )
        last = loss < tolerance or step == steps
        if last or step in recorded:
            rows.append((step, loss, hessian_eigenvalue(points, inner > 0, outer)))
        if last:
            break
        weight -= learning_rate / len(points) * (((inner > 0) * outer) * error[:, None]).T @ points
    names = ("steps", "losses", "eigenvalues")
    return TwoLayer(weight, outer, learning_rate, dict(zip(names, np.array(rows).T, strict=True)))


def hessian_eigenvalue(points: np.ndarray, active: np.ndarray, outer: np.ndarray) -> float:
    """The largest eigenvalue of the loss's Hessian J'J / n, by way of the n x n matrix J J' / n, which has the same.

    points: (n, d). active: bool (n, width), where a neuron's input is above 0. outer: (width,).
    """
    gram = (points @ points.T) * ((active * outer**2) @ active.T.astype(np.float64))
    return float(np.linalg.eigvalsh(gram / len(points))[-1])


def measure(model: TwoLayer, points: np.ndarray) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Every part of the inequality, on the segments between all pairs of points (n, d): means, and the arrays behind them.

    For each pair i, k: the neurons that change, of which there are not more than N_i + N_k, N_i the neurons active at x_i;
    not more than n lambda / a^2 (1 / |x_i|^2 + 1 / |x_k|^2), the bound; not more affine pieces than changes and one; and not
    more regions than affine pieces and one. `violations` counts the pairs for which any of these fails.
    """
    points = points.astype(np.float64)
    weight, outer = model.weight.numpy(), model.outer.numpy()
    first, second = np.triu_indices(len(points), 1)
    active = points @ weight.T > 0
    neurons = active.sum(axis=1)
    changes = np.concatenate([(active[i] != active[i + 1 :]).sum(axis=1) for i in range(len(points) - 1)])
    eigenvalue = hessian_eigenvalue(points, active, outer)
    each = len(points) * eigenvalue / ((outer**2).min() * (points**2).sum(axis=1))
    bound = each[first] + each[second]
    lines = exact_lines(model, torch.from_numpy(np.stack([points[first], points[second]], axis=1)))
    holds = (
        (changes <= neurons[first] + neurons[second])
        & (neurons[first] + neurons[second] <= bound * (1 + ROUNDING))
        & (lines.pieces <= changes + 1)
        & (lines.counts <= lines.pieces + 1)
    )
    means = {
        "width": len(outer),
        "learning_rate": model.learning_rate,
        "hessian_eigenvalue": eigenvalue,
        "active_neurons": neurons.mean(),
        "activation_changes": changes.mean(),
        "affine_pieces": lines.pieces.mean(),
        "region_count_all_pairs": lines.counts.mean(),
        "bound": bound.mean(),
        "bound_over_changes": bound.sum() / max(1, changes.sum()),
        "violations": int((~holds).sum()),
    }
    arrays = {"changes": changes, "pieces": lines.pieces, "counts": lines.counts, "bounds": bound, **model.history}
    return {f"theorem_{name}": float(value) for name, value in means.items()}, arrays
