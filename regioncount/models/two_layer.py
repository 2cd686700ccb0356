"""A two-layer ReLU network for which every quantity in the paper's theorem can be computed exactly.

f(x) = sum_j a_j relu(w_j . x), where the a_j = +-1 / sqrt(width) are fixed. Full-batch gradient descent on
L = 1/(2n) sum_i (f(x_i) - y_i)^2 with targets y_i = +-1 trains the w_j. docs/theory.md derives the inequality.
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

RECORDED_STEPS = 100  # evenly spaced on a logarithmic scale
ROUNDING_TOLERANCE = 1e-9  # relative, for the inequality with the bound
MAX_LOSS = 1e12  # training has diverged if the loss exceeds it


class TwoLayer(nn.Module):
    """The trained network, which classifies into two classes by the sign of f.

    Args:
        weight: The weights w of the first layer, float64 (width, d).
        outer: The weights a of the second layer, float64 (width,).
        learning_rate: The learning rate of the training.
        history: The recorded "steps", "losses" and largest "eigenvalues" of the Hessian, (k,) each.
    """

    outer: Tensor

    def __init__(self, weight: np.ndarray, outer: np.ndarray, learning_rate: float, history: dict[str, np.ndarray]):
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(weight), requires_grad=False)
        self.register_buffer("outer", torch.from_numpy(outer))
        self.learning_rate, self.history = learning_rate, history

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) or points (B, d) to logits (-f, f), float64 (B, 2)."""
        value = nn.functional.linear(x.flatten(1).to(self.weight.dtype), self.weight).relu() @ self.outer
        return torch.stack([-value, value], dim=1)


def check(model: Mapping[str, Any], dataset: Dataset, exact_method: str | None) -> int:
    """Check that the data are in memory and return 0; see `ModelKind.check`. All exact methods support this network."""
    require_in_memory(model["name"], dataset)
    return 0


def restorer(
    model: Mapping[str, Any], seed: int, dataset: Dataset, device: torch.device, source: object
) -> Callable[[Callable[[], dict[str, Any]]], TwoLayer]:
    """Return a function that trains the network; see `ModelKind.restorer`."""
    return lambda read_weights: _train(json.dumps(dict(model), sort_keys=True), seed, dataset)


def adapt_for_measures(model: TwoLayer, dataset: Dataset) -> tuple[Callable[[Tensor], Tensor], Dataset]:
    """Return a function from images to labels, and the data with two classes; see `ModelKind.adapt_for_measures`."""
    splits = (dataset.train, dataset.test)
    train, test = (replace(split, labels=(split.labels >= dataset.num_classes / 2).long()) for split in splits)
    binary = replace(dataset, train=train, test=test, classes=("first half", "second half"))
    return lambda images: model(images).argmax(dim=1), binary


# One network is cached for the steps of one run: training, measuring and plotting.
@functools.lru_cache(maxsize=1)
def _train(model: str, seed: int, dataset: Dataset) -> TwoLayer:
    assert isinstance(dataset.train, Split)
    raw_options = {key: value for key, value in json.loads(model).items() if key != "name"}
    options = validate_options(models["two_layer"], raw_options, "model").model_dump()
    points = as_points(dataset.normalize(dataset.train.images))
    return fit(points, binary_targets(dataset.train.labels.cpu().numpy(), dataset.num_classes), seed, **options)


def binary_targets(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return targets, float64 (n,), for labels (n,): -1 for the first half of the classes, 1 for the second."""
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
    """Train a two-layer network by full-batch gradient descent in float64.

    Args:
        points: The inputs x, (n, d).
        targets: The targets y, -1 or 1, (n,).
        seed: The seed of the initial weights and of the signs of the a_j.
        width: The number of hidden units.
        learning_rate: The step size.
        steps: The maximum number of steps.
        tolerance: Training stops when the loss is below this value.
        scale: The standard deviation of the normally distributed initial weights.

    Returns:
        The trained network.

    Raises:
        InputError: An option is out of range, or training diverges.
    """
    options = {"width": width, "learning_rate": learning_rate, "steps": steps, "tolerance": tolerance, "scale": scale}
    validate_options(models["two_layer"], options, "model")
    generator = np.random.default_rng(seed)
    points = points.astype(np.float64)
    weight = generator.normal(size=(width, points.shape[1]), scale=scale)
    outer = generator.choice([-1.0, 1.0], width) / math.sqrt(width)
    recorded_steps = {0, *np.geomspace(1, steps, RECORDED_STEPS).astype(int)}
    rows: list[tuple[int, float, float]] = []
    for step in range(steps + 1):
        inner = points @ weight.T
        residuals = np.maximum(inner, 0) @ outer - targets
        loss = (residuals**2).mean() / 2
        if not loss < MAX_LOSS:  # also true if the loss is not a number
            raise InputError(
                f"model.learning_rate={learning_rate}: training diverges after {step} steps; pass a smaller one"
            )
        is_last = loss < tolerance or step == steps
        if is_last or step in recorded_steps:
            rows.append((step, float(loss), hessian_eigenvalue(points, inner > 0, outer)))
        if is_last:
            break
        weight -= learning_rate / len(points) * (((inner > 0) * outer) * residuals[:, None]).T @ points
    names = ("steps", "losses", "eigenvalues")
    return TwoLayer(weight, outer, learning_rate, dict(zip(names, np.array(rows).T, strict=True)))


def hessian_eigenvalue(points: np.ndarray, active: np.ndarray, outer: np.ndarray) -> float:
    """Return the largest eigenvalue of the Hessian J'J / n of the loss, computed from the n x n matrix J J' / n.

    Args:
        points: The inputs x, (n, d).
        active: Whether w_j . x_i > 0, bool (n, width).
        outer: The weights a of the second layer, (width,).

    Returns:
        The eigenvalue.
    """
    gram = (points @ points.T) * ((active * outer**2) @ active.T.astype(np.float64))
    return float(np.linalg.eigvalsh(gram / len(points))[-1])


def measure(model: TwoLayer, points: np.ndarray) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Compute all quantities of the theorem's inequality on the segments between all pairs of points.

    On the segment from x_i to x_k, with N_i the number of neurons active at x_i, lambda the largest eigenvalue of the
    Hessian and a = min_j |a_j|:

        activation changes <= N_i + N_k <= bound = n lambda / a^2 (1 / |x_i|^2 + 1 / |x_k|^2)
        affine pieces <= activation changes + 1
        regions <= affine pieces + 1

    Args:
        model: The trained network.
        points: The inputs x, (n, d), with n > 1.

    Returns:
        Means over the pairs and properties of the network, under "theorem_<name>", where "theorem_violations" is the number
        of pairs for which an inequality fails; and arrays: "changes", "pieces", "counts" (regions) and "bounds", one value
        per pair, and the history of the training.
    """
    points = points.astype(np.float64)
    weight, outer = model.weight.numpy(), model.outer.numpy()
    first, second = np.triu_indices(len(points), 1)
    active = points @ weight.T > 0
    active_neurons = active.sum(axis=1)
    changes = np.concatenate([(active[i] != active[i + 1 :]).sum(axis=1) for i in range(len(points) - 1)])
    eigenvalue = hessian_eigenvalue(points, active, outer)
    bound_at_point = len(points) * eigenvalue / ((outer**2).min() * (points**2).sum(axis=1))
    bound = bound_at_point[first] + bound_at_point[second]
    lines = exact_lines(model, torch.from_numpy(np.stack([points[first], points[second]], axis=1)))
    pieces, counts = lines.pieces, lines.counts
    assert pieces is not None  # `exact_lines` always counts them
    active_at_ends = active_neurons[first] + active_neurons[second]
    holds = (
        (changes <= active_at_ends)
        & (active_at_ends <= bound * (1 + ROUNDING_TOLERANCE))
        & (pieces <= changes + 1)
        & (counts <= pieces + 1)
    )
    means = {
        "width": len(outer),
        "learning_rate": model.learning_rate,
        "hessian_eigenvalue": eigenvalue,
        "active_neurons": active_neurons.mean(),
        "activation_changes": changes.mean(),
        "affine_pieces": pieces.mean(),
        "region_count_all_pairs": counts.mean(),
        "bound": bound.mean(),
        "bound_over_changes": bound.sum() / max(1, changes.sum()),
        "violations": int((~holds).sum()),
    }
    arrays = {"changes": changes, "pieces": pieces, "counts": counts, "bounds": bound, **model.history}
    return {f"theorem_{name}": float(value) for name, value in means.items()}, arrays
