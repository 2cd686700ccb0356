"""Classifiers with scikit-learn's interface, fitted to images as vectors of pixels.

Fitted classifiers are not stored: fitting again with the same options, seed and data gives the same classifier.
"""

import functools
import json
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regioncount.data.dataset import Dataset
from regioncount.data.splits import Split
from regioncount.errors import InputError, one_line
from regioncount.options import validate_options
from regioncount.registry import models


def check(model: Mapping[str, Any], dataset: Dataset, exact_method: str | None) -> int:
    """Check a classifier and return 0; see `ModelKind.check`."""
    name = model["name"]
    if exact_method:
        raise InputError(f"model={name}: regions.method={exact_method} supports networks only; pass regions.method=auto")
    require_in_memory(name, dataset)
    _check_options(json.dumps(dict(model)))
    if model.get("n_neighbors", 1) > len(dataset.train):
        raise InputError(
            f"model={name}: n_neighbors={model['n_neighbors']} exceeds the {len(dataset.train)} training images"
        )
    return 0


def restorer(
    model: Mapping[str, Any], seed: int, dataset: Dataset, device: torch.device, source: object
) -> Callable[[Callable[[], dict[str, Any]]], Callable[[Tensor], np.ndarray]]:
    """Return a function that fits the classifier; see `ModelKind.restorer`."""
    return lambda read_weights: fit(model, seed, dataset)


def adapt_for_measures(
    model: Callable[[Tensor], np.ndarray], dataset: Dataset
) -> tuple[Callable[[Tensor], np.ndarray], Dataset]:
    """Return the arguments unchanged; see `ModelKind.adapt_for_measures`."""
    return model, dataset


def fit(model: Mapping[str, Any], seed: int, dataset: Dataset) -> Callable[[Tensor], np.ndarray]:
    """Fit a classifier to the training split.

    Args:
        model: The name and options of the classifier.
        seed: The `random_state` of the classifier.
        dataset: A data set in memory.

    Returns:
        A function from normalized images (B, C, H, W), on any device, to labels, int64 (B,). The most recently fitted
        classifier is cached.

    Raises:
        InputError: The classifier cannot be fitted with these options.
    """
    return _fit(json.dumps(dict(model), sort_keys=True), seed, dataset)


def logistic_regression(*, C: float, max_iter: int, penalty: str = "l2", solver: str = "lbfgs") -> Any:
    """Return scikit-learn's `LogisticRegression`, whose penalty has other arguments from version 1.8 on.

    Args:
        C: The inverse of the penalty's weight.
        max_iter: The maximum number of iterations.
        penalty: "l2", "l1" or "none".
        solver: A solver that supports the penalty.
    """
    from sklearn import __version__
    from sklearn.linear_model import LogisticRegression

    major, minor = map(int, __version__.split(".")[:2])
    options: dict[str, Any]
    if (major, minor) < (1, 8):
        options = {"C": C, "penalty": None if penalty == "none" else penalty}
    else:
        options = {"C": math.inf if penalty == "none" else C, "l1_ratio": float(penalty == "l1")}
    return LogisticRegression(max_iter=max_iter, solver=solver, **options)


def as_points(images: Tensor) -> np.ndarray:
    """Flatten images (B, C, H, W) to points, float32 (B, C * H * W), on the CPU."""
    return images.flatten(1).float().cpu().numpy()


def require_in_memory(name: str, dataset: Dataset) -> None:
    """Raise an InputError if the training images are streamed: the model needs all of them at once."""
    if not isinstance(dataset.train, Split):
        raise InputError(f"model={name} needs all images in memory, but {dataset.name} is streamed; choose another dataset")


# Cached, because most runs of a sweep share their options.
@functools.lru_cache(maxsize=64)
def _check_options(model: str) -> None:
    """Fit the classifier to four points, because scikit-learn validates options only when it fits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the four points
        _fit_points(json.loads(model), 0, np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), np.array([0, 0, 1, 1]))


# One classifier is cached for the steps of one run: fitting, measuring and plotting.
@functools.lru_cache(maxsize=1)
def _fit(model: str, seed: int, dataset: Dataset) -> Callable[[Tensor], np.ndarray]:
    assert isinstance(dataset.train, Split)
    points = as_points(dataset.normalize(dataset.train.images))
    with warnings.catch_warnings(record=True) as caught:
        classifier = _fit_points(json.loads(model), seed, points, dataset.train.labels.cpu().numpy())
    for reason in {one_line(str(warning.message).partition("\n")[0]) for warning in caught}:
        warnings.warn(f"model={json.loads(model)['name']}: {reason}", stacklevel=2)
    return lambda images: classifier.predict(as_points(images))


def _fit_points(model: Mapping[str, Any], seed: int, points: np.ndarray, labels: np.ndarray) -> Any:
    """Fit a classifier to points (N, features) and labels (N,)."""
    name = model["name"]
    entry = models[name]
    raw_options = {option: value for option, value in model.items() if option != "name"}
    options = validate_options(entry, raw_options, "model").model_dump()
    try:
        classifier = entry.load()(**options)
        parameters = classifier.get_params() if hasattr(classifier, "get_params") else {}
        if "random_state" in parameters:
            classifier.set_params(random_state=seed)
        if "n_jobs" in parameters and name == "random_forest":
            classifier.set_params(n_jobs=torch.get_num_threads())
        classifier.fit(points, labels)
    except (ValueError, TypeError) as error:
        raise InputError(f"model={name}: {one_line(error)}") from error
    if name == "random_forest":
        # Several threads add the probabilities of the trees in varying order, which changes predictions near ties.
        classifier.set_params(n_jobs=1)
    return classifier
