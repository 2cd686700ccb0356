"""Measures that depend on settings of the suite: labels in planes shared by all runs, and the terms of the theorem.

Each function takes a model, a data set and the measurement's settings, and returns values and the arrays behind them.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from regioncount.data.dataset import Dataset
from regioncount.data.subspaces import SimplexOptions, draw_vertices
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


@register_measure(suite=True, on_request=True)
def theorem(model: Callable[..., Any], dataset: Dataset, setting: dict[str, Any]) -> Measured:
    """Return the terms of the theorem's inequality on all pairs of training images; see `two_layer.measure`."""
    if not isinstance(model, two_layer.TwoLayer):
        return {"theorem_bound": math.nan, "theorem_bound_error": "it is defined only for model=two_layer"}, {}
    return two_layer.measure(model, as_points(dataset.normalize(dataset.train.take(range(len(dataset.train))))))
