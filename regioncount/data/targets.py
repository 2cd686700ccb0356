"""Data sets of classes and functions that no registry lists: `dataset._target_=my_module.MyDataset`."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from regioncount.data.sources import Arrays, DatasetOptions
from regioncount.options import Options, Str, model_of_signature
from regioncount.plugins import is_loaded
from regioncount.registry import Entry, datasets
from regioncount.targets import load_target

if TYPE_CHECKING:
    import numpy as np

PASSED_IF_TAKEN = ("root", "seed")  # the options of every data set that the factory may take, too


class TargetOptions(DatasetOptions):
    """The options of a data set whose class or function is named. Its arguments are further options."""

    target_path: Str = Field(alias="_target_")

    @model_serializer(mode="wrap")
    def _serialize(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        options = self._omit_later_defaults(serialize)
        return {"_target_" if name == "target_path" else name: value for name, value in options.items()}


def entry(options: Mapping[str, Any] | DatasetOptions) -> Entry:
    """Return the registry entry of a data set, or an entry for the class or function that its `_target_` names.

    Args:
        options: The options of the data set, with its name or its `_target_`, "module.attribute".

    Raises:
        InputError: The name is not registered, or the `_target_` cannot be imported.
    """
    if isinstance(options, DatasetOptions):
        target = options.target_path if isinstance(options, TargetOptions) else None
        name = options.name
    else:
        target, name = options.get("_target_"), options.get("name", "digits")
    if target is None:
        return datasets[name]
    named = load_target("dataset", str(target), "MyDataset", "a torch Dataset")
    factory = named.load()
    return replace(
        named,
        factory=lambda checked: read(factory, checked),
        options=_options_model(named.name, factory),
        traits={"title": named.name},
    )


def is_available(dataset: Mapping[str, Any]) -> bool:
    """Return whether a recorded data set can be built from registered or already imported code.

    Records are untrusted, so they must not cause imports.
    """
    target = dataset.get("_target_")
    return dataset.get("name") in datasets if target is None else is_loaded(str(target).rpartition(".")[0])


def _options_model(name: str, factory: Callable[..., Any]) -> type[Options]:
    passed = {"train", "split", *DatasetOptions.model_fields}
    return model_of_signature(name, factory, TargetOptions, frozenset(passed), True)


def read(factory: Callable[..., Any], options: TargetOptions) -> tuple[Arrays, Arrays | None, tuple[str, ...]]:
    """Return the training set, the test set and the class names of a class or function.

    It is called with train=True and train=False; with split="train" and split="test" if it takes `split` instead; or once,
    without either, if it takes neither. Other keyword arguments are the data set's own options, and `root` and `seed` if
    it takes them.

    Args:
        factory: A class or function that returns a torch Dataset, whose examples are pairs of an image or features and a
            label; or a pair of arrays.
        options: The checked options.

    Returns:
        The sets, as images (N, C, H, W) or features (N, F) and labels from 0 on (N,); the test set may be None. And the
        class names: those in the attribute `classes`, if the labels are indices into it; otherwise see `as_labels`.

    Raises:
        InputError: The data set is of another form, or gives two answers for one index.
    """
    from regioncount.data.conversion import as_labels
    from regioncount.data.examples import read_examples

    parameters = inspect.signature(factory).parameters
    own = type(options).model_fields.keys() - TargetOptions.model_fields.keys()
    shared = {name for name in PASSED_IF_TAKEN if name in parameters and getattr(options, name) is not None}
    arguments = {name: getattr(options, name) for name in own | shared} | (options.model_extra or {})
    any_keyword = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if "train" in parameters or (any_keyword and "split" not in parameters):
        halves = [{"train": True}, {"train": False}]
    else:
        halves = [{"split": "train"}, {"split": "test"}] if "split" in parameters else [{}]
    sources = [factory(**arguments, **half) for half in halves]
    names = [f"dataset._target_={options.target_path}({_call(half)})" for half in halves]
    splits = [read_examples(source, name) for source, name in zip(sources, names, strict=True)]
    labels = [split[1] for split in splits]
    train_labels, test_labels, classes = as_labels(labels[0], labels[1] if labels[1:] else None, (names[0], names[-1]))
    listed = getattr(sources[0], "classes", None)
    if (given := _class_names(listed, labels)) is not None:
        train_labels, classes = labels[0], given
        test_labels = labels[1] if labels[1:] else None
    test = None if test_labels is None else (splits[1][0], test_labels)
    return (splits[0][0], train_labels), test, classes


def _call(half: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in half.items())


def _class_names(listed: Any, labels: "Sequence[np.ndarray]") -> tuple[str, ...] | None:
    """Return the listed class names if all labels are indices into them."""
    if not isinstance(listed, (list, tuple)) or not all(isinstance(name, str) and name.isprintable() for name in listed):
        return None
    indices = all(part.dtype.kind in "iu" and part.min() >= 0 and part.max() < len(listed) for part in labels)
    return tuple(listed) if indices and len({*listed}) == len(listed) else None
