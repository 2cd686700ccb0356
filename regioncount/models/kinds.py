"""What the suite needs of a model of any kind: a network, a classifier that is fitted at once, the two-layer network.

A kind is a module with the functions of `ModelKind`.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from regioncount.errors import InputError, one_line
from regioncount.registry import Entry, is_loaded, load_plugins, models

if TYPE_CHECKING:
    import torch

    from regioncount.data.dataset import Dataset

# The kind of an entry is its trait "kind".
KINDS = {
    "network": "regioncount.models.networks",
    "classifier": "regioncount.models.classifiers",
    "two_layer": "regioncount.models.two_layer",
}


class ModelKind(Protocol):
    """The functions that every kind of model has."""

    def check(self, model: Mapping[str, Any], dataset: "Dataset", exact_method: str | None) -> int:
        """Return the multiply-adds of one image, 0 if they do not matter.

        Args:
            model: The model's name and options.
            dataset: The data it is to be trained on.
            exact_method: The exact counting method that is to follow the model; None for a lattice.

        Raises:
            InputError: The model does not suit the data or the method.
        """
        ...

    def restorer(
        self, model: Mapping[str, Any], seed: int, dataset: "Dataset", device: "torch.device", source: object
    ) -> "Callable[[Callable[[], dict[str, Any]]], Callable[..., Any]]":
        """Return a function that restores a trained model: from one that reads weights to the model.

        Kinds that keep no weights fit the model again, which gives the same model. Messages name the source of the weights.
        """
        ...

    def measured_as(self, model: Any, dataset: "Dataset") -> "tuple[Callable[..., Any], Dataset]":
        """Return the model and the data as generalization measures see them."""
        ...


def entry(model: Mapping[str, Any]) -> Entry:
    """Return the registry's entry of a model, or one that its `_target_` names.

    Raises:
        InputError: There is no such model, or the module of its `_target_` cannot be imported.
    """
    target = model.get("_target_")
    if target is None:
        return models[model["name"]]
    module, _, attribute = str(target).rpartition(".")
    if not module:
        raise InputError(f"model._target_={target}: give a module and a class, such as my_module.MyNet")
    load_plugins([module])
    factory = f"{module}:{attribute}"
    built_by = Entry(attribute, factory, plugin=module)
    try:
        built_by.load()
    except AttributeError as error:
        raise InputError(f"model._target_={target}: {one_line(error)}") from error
    return built_by


def is_importable(model: Mapping[str, Any]) -> bool:
    """Whether a recorded model can be built from what was imported already: a record never imports anything itself."""
    target = model.get("_target_")
    return model.get("name") in models if target is None else is_loaded(str(target).rpartition(".")[0])


def kind_name(model: Mapping[str, Any]) -> str:
    """Return the name of a model's kind: network, classifier or two_layer."""
    return "network" if "_target_" in model else cast(str, models[model["name"]].traits.get("kind", "network"))


def trained_in_epochs(model: Mapping[str, Any]) -> bool:
    """Whether a model is trained by an optimizer in epochs, and its weights are stored. Other kinds are fitted at once."""
    return kind_name(model) == "network"


def kind_of(model: Mapping[str, Any]) -> ModelKind:
    """Return the functions for a model's kind."""
    return cast(ModelKind, import_module(KINDS[kind_name(model)]))
