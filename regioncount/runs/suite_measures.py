"""Measures that depend on settings of the suite: labels in planes shared by all runs, and the terms of the theorem.

Each function takes a model, a data set and the measurement's settings, and returns values and the arrays behind them.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from regioncount.data.dataset import Dataset
from regioncount.data.subspaces import SimplexOptions, draw_vertices
from regioncount.errors import InputError, one_line
from regioncount.measures.gradients import variance_over_batches
from regioncount.measures.measured_model import from_dataset
from regioncount.models import two_layer
from regioncount.models.classifiers import as_points
from regioncount.regions import label_planes
from regioncount.registry import register_measure

Measured = tuple[dict[str, Any], dict[str, np.ndarray]]


@register_measure(name="seed_agreement", suite=True)
def plane_labels(model: Callable[..., Any], dataset: Dataset, setting: dict[str, Any]) -> Measured:
    """Return no values, and labels, uint16 (S, n, n), in planes through three training images each.

    The planes are the same for every run. `runs.measurements.seed_agreement` compares the labels of several seeds
    (Somepalli et al. 2022, section 3.3).
    """
    planes = SimplexOptions(kind="simplex", dimension=2, number=setting["planes"])
    triangles = draw_vertices(planes, dataset, setting["seed"])
    labels = label_planes(model, triangles, setting["resolution"], setting["method"])[0]
    return {}, {"labels": labels.astype(np.uint16)}


@register_measure(suite=True, on_request=True, scale_invariant=False)
def minibatch_gradient_variance(model: Callable[..., Any], dataset: Dataset, setting: dict[str, Any]) -> Measured:
    """Return `gradient_variance` over minibatches of the run's own batch size, of all training images in a random order.

    A smaller last batch is left out. Batch normalization is folded; the authors, who correlate this variance with the region
    count, do not fold (Li et al. 2025).
    """
    if (size := setting["batch_size"]) is None:
        return _undefined("minibatch_gradient_variance", "it needs the batch size of a run")
    order = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(setting["seed"]))
    batches = dataset.train.batches(size, order.to(dataset.train.labels.device))
    measured = from_dataset(model, dataset, dataset.train.labels.device)
    whole = ((dataset.normalize(images), labels) for images, labels in batches if len(labels) == size)
    try:
        return {"minibatch_gradient_variance": variance_over_batches(measured, whole)}, {}
    except InputError as error:
        return _undefined("minibatch_gradient_variance", one_line(error))


@register_measure(suite=True, on_request=True)
def theorem(model: Callable[..., Any], dataset: Dataset, setting: dict[str, Any]) -> Measured:
    """Return the terms of the theorem's inequality on all pairs of training images; see `two_layer.measure`."""
    if not isinstance(model, two_layer.TwoLayer):
        return _undefined("theorem_bound", "it is defined only for model=two_layer")
    return two_layer.measure(model, as_points(dataset.normalize(dataset.train.take(range(len(dataset.train))))))


def _undefined(column: str, reason: str) -> Measured:
    return {column: math.nan, f"{column}_error": reason}, {}
