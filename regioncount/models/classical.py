"""Classifiers by name that see normalized images as points: scikit-learn's, and the two-layer network of two_layer.py.

None of them is kept on disk: fitting takes options, a seed and data, and gives the same classifier every time.
"""

import functools
import json
import math
from collections.abc import Callable, Mapping
from importlib import import_module

import numpy as np
import torch
from torch import Tensor

from regioncount.data.splits import Split
from regioncount.errors import InputError
from regioncount.models import two_layer

# Where each one is in scikit-learn (slow to import: not before it is asked for), and its options there with our defaults.
CLASSIFIERS = {
    "decision_tree": ("tree.DecisionTreeClassifier", {"max_depth": None, "min_samples_leaf": 1}),
    "random_forest": (
        "ensemble.RandomForestClassifier",
        {"n_estimators": 100, "max_depth": None, "min_samples_leaf": 1},
    ),
    "nearest_neighbours": ("neighbors.KNeighborsClassifier", {"n_neighbors": 5, "weights": "uniform"}),
    "support_vector_machine": ("svm.SVC", {"C": 1.0, "kernel": "rbf", "gamma": "scale"}),
    "logistic_regression": ("linear_model.LogisticRegression", {"C": 1.0, "max_iter": 1000}),
    "two_layer": ("regioncount.models.two_layer", two_layer.OPTIONS),
}

# Images classified at a time.
BATCH = 1000


def is_classical(model: Mapping) -> bool:
    """Whether a configuration's model (a name and its options) is one of these."""
    return model.get("name") in CLASSIFIERS


def default_options(name: str) -> dict:
    """The options of a classifier, named as in scikit-learn, with their defaults."""
    return dict(CLASSIFIERS[name][1])


def check(model: Mapping, dataset) -> None:
    """InputError where the options are not the classifier's, or the data set is not one it can be fitted to."""
    name = model["name"]
    if unknown := [option for option in model if option not in ("name", *default_options(name))]:
        raise InputError(f"model={name} has no option {unknown[0]!r}; its options: {', '.join(default_options(name))}")
    if not isinstance(dataset.train, Split):
        raise InputError(f"model={name} is fitted to all images at once, and {dataset.name} is streamed: take other data")
    if name == "two_layer":
        return two_layer.check(two_layer.OPTIONS | model)
    _try(json.dumps(dict(model)))
    if model.get("n_neighbors", 1) > len(dataset.train):
        raise InputError(f"model={name}: n_neighbors={model['n_neighbors']}, and there are {len(dataset.train)} images")


def fit(model: Mapping, seed: int, dataset) -> Callable[[Tensor], np.ndarray]:
    """A classifier fitted to the training split: from normalized images (B, C, H, W), on any device, to labels int64 (B,).

    model: its name and options. The last one fitted is kept in memory. Raises InputError where it cannot be fitted.
    """
    return _fit(json.dumps(dict(model), sort_keys=True), seed, dataset)


def value(name: str, predict: Callable[[Tensor], np.ndarray], dataset) -> dict[str, float | str]:
    """The columns of one measure, as of `measures.value`: accuracies and the gap; any other is not a number, and why.

    predict: as of `fit`. Losses are not numbers either: labels have no cross-entropy.
    """
    if name != "accuracy":
        return {name: math.nan, f"{name}_error": "it needs a network: a classical classifier gives labels alone"}
    train, test = _accuracy(predict, dataset, dataset.train), _accuracy(predict, dataset, dataset.test)
    undefined = "it needs logits: a classical classifier gives labels alone"
    return {
        "train_accuracy": train,
        "test_accuracy": test,
        "train_loss": math.nan,
        "test_loss": math.nan,
        "generalization_gap": train - test,
        "test_error": 1 - test,
        "train_loss_error": undefined,
        "test_loss_error": undefined,
    }


# scikit-learn looks at its options when it is fitted. In a sweep, most seeds share them.
@functools.lru_cache(maxsize=64)
def _try(model: str) -> None:
    """InputError where the options have values that scikit-learn does not take."""
    _fit_to(json.loads(model), 0, np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), np.array([0, 0, 1, 1]))


# The last one: a job fits before it measures, measures at several places, and draws.
@functools.lru_cache(maxsize=1)
def _fit(model: str, seed: int, dataset) -> Callable[[Tensor], np.ndarray]:
    images = features(dataset.normalize(dataset.train.images))
    if json.loads(model)["name"] == "two_layer":
        options = {name: value for name, value in json.loads(model).items() if name != "name"}
        targets = two_layer.signs(dataset.train.labels.cpu().numpy(), dataset.num_classes)
        return two_layer.fit(images, targets, seed, **two_layer.OPTIONS | options)
    classifier = _fit_to(json.loads(model), seed, images, dataset.train.labels.cpu().numpy())
    return lambda images: classifier.predict(features(images))


def _fit_to(model: Mapping, seed: int, points: np.ndarray, labels: np.ndarray):
    """A classifier of scikit-learn, fitted to points (N, features) and labels (N,)."""
    name = model["name"]
    place, defaults = CLASSIFIERS[name]
    module, _, kind = place.rpartition(".")
    options = defaults | {option: value for option, value in model.items() if option != "name"}
    try:
        classifier = getattr(import_module(f"sklearn.{module}"), kind)(**options)
        if "random_state" in classifier.get_params():
            classifier.set_params(random_state=seed)
        if name == "random_forest":
            classifier.set_params(n_jobs=torch.get_num_threads())
        classifier.fit(points, labels)
    except (ValueError, TypeError) as error:
        raise InputError(f"model={name}: {' '.join(str(error).split())}") from error
    if name == "random_forest":
        # Several threads add up the votes in the order in which they come: a tie would not fall the same way every time.
        classifier.set_params(n_jobs=1)
    return classifier


def features(images: Tensor) -> np.ndarray:
    """Pixels, float32 (B, C * H * W)."""
    return images.flatten(1).float().cpu().numpy()


def _accuracy(predict: Callable[[Tensor], np.ndarray], dataset, split: Split) -> float:
    """The fraction of a split that is classified correctly."""
    correct = 0
    for images, labels in split.batches(BATCH):
        found, wanted = predict(dataset.normalize(images)), labels.cpu().numpy()
        if isinstance(predict, two_layer.TwoLayer):
            found, wanted = found.argmax(dim=1).numpy(), two_layer.signs(wanted, dataset.num_classes) > 0
        correct += int((found == wanted).sum())
    return correct / len(split)
