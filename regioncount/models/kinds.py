"""The interface to the three kinds of models: networks, scikit-learn classifiers, and the two-layer network of the theorem.

Each kind is a module that implements the functions of `ModelKind`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from regioncount.errors import InputError
from regioncount.plugins import is_loaded
from regioncount.registry import Entry, models
from regioncount.suggestions import unknown_choice
from regioncount.targets import load_target

if TYPE_CHECKING:
    import torch

    from regioncount.data.dataset import Dataset

# The module that implements each value of the trait "kind" of a registry entry.
KINDS = {
    "network": "regioncount.models.networks",
    "classifier": "regioncount.models.classifiers",
    "two_layer": "regioncount.models.two_layer",
}


class ModelKind(Protocol):
    """The functions that each kind of model implements."""

    def check(self, model: Mapping[str, Any], dataset: "Dataset", exact_method: str | None) -> int:
        """Check that a model can be trained on a data set and that its regions can be counted.

        Args:
            model: The model's name and options.
            dataset: The data set.
            exact_method: The method of exact region counting; None if regions are counted on a lattice.

        Returns:
            The multiply-adds of a forward pass on one image; 0 for models that are not trained in epochs.

        Raises:
            InputError: The model does not support the data set or the method.
        """
        ...

    def restorer(
        self, model: Mapping[str, Any], seed: int, dataset: "Dataset", device: "torch.device", source: object
    ) -> "Callable[[Callable[[], dict[str, Any]]], Callable[..., Any]]":
        """Return a function that restores trained models, such as the snapshots of a run.

        Args:
            model: The model's name and options.
            seed: The training seed.
            dataset: The data set the model was trained on.
            device: The device of the restored model.
            source: The origin of the weights, for error messages.

        Returns:
            A function `restore(read_weights)` that returns the model with the state dictionary `read_weights()`. Kinds
            that store no weights ignore `read_weights` and refit the model, with the same result. Two calls may return the
            same object.
        """
        ...

    def adapt_for_measures(self, model: Any, dataset: "Dataset") -> "tuple[Callable[..., Any], Dataset]":
        """Return the callable and the data set that generalization measures are evaluated on."""
        ...


def entry(model: Mapping[str, Any]) -> Entry:
    """Return the registry entry of a model, or an entry for the class that its `_target_` names.

    Args:
        model: A name or a `_target_`, "module.attribute", and options.

    Returns:
        The entry.

    Raises:
        InputError: The name is not registered, or the `_target_` cannot be imported.
    """
    target = model.get("_target_")
    if target is None:
        return models[model["name"]]
    return replace(load_target("model", str(target), "MyNet", "a network"), passed=models.passed)


def title(model: Mapping[str, Any]) -> str:
    """Return the name of a model in tables. It includes the option that the model's trait `named_by` names."""
    registered = None if "_target_" in model else models.get(model["name"])
    option = registered.traits.get("named_by") if registered else None
    return f"{model['name']} {model[option]}" if option and option in model else model["name"]


def is_available(model: Mapping[str, Any]) -> bool:
    """Return whether a recorded model can be built from registered or already imported code.

    Records are untrusted, so they must not cause imports.
    """
    target = model.get("_target_")
    return model.get("name") in models if target is None else is_loaded(str(target).rpartition(".")[0])


def kind_name(model: Mapping[str, Any]) -> str:
    """Return the name of a model's kind: "network", "classifier" or "two_layer"."""
    return "network" if "_target_" in model else cast(str, models[model["name"]].traits.get("kind", "network"))


def trained_in_epochs(model: Mapping[str, Any]) -> bool:
    """Return whether a model is trained in epochs and its weights are stored. Other kinds are fitted in a single call."""
    return kind_name(model) == "network"


def kind_of(model: Mapping[str, Any]) -> ModelKind:
    """Return the module that implements a model's kind.

    Raises:
        InputError: A plugin has registered a model of an unknown kind.
    """
    kind = kind_name(model)
    if kind not in KINDS:
        raise InputError(unknown_choice(f"model={model['name']}: kind", kind, tuple(KINDS)))
    return cast(ModelKind, import_module(KINDS[kind]))
