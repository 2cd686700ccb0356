"""Generalization measures of a trained model, by name.

A measure is a function of a `MeasuredModel`, declared with `regioncount.registry.register_measure`. It returns a number or a
mapping of columns to numbers, and raises InputError with the reason if it is undefined.
"""

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn
from tqdm import tqdm

from regioncount import registry
from regioncount.columns import Column
from regioncount.errors import InputError, one_line, raised_by_signal
from regioncount.measures.checks import check_model
from regioncount.measures.measured_model import MeasuredModel, device_of, from_dataset, from_tensors
from regioncount.measures.outputs import Batch, DatasetLike, Model
from regioncount.measures.pairs import as_pair
from regioncount.regions.callables import as_model, class_numbers_of
from regioncount.regions.copies import with_gradients

# Each module registers its measures. Tables list them in this order, those that rescaling leaves unchanged first.
# isort: off
from regioncount.measures import performance as performance
from regioncount.measures import margins as margins
from regioncount.measures import norms as norms
from regioncount.measures import flatness as flatness
from regioncount.measures import function_space as function_space
from regioncount.measures import pacbayes as pacbayes
from regioncount.measures import gradients as gradients
# isort: on

__all__ = ["MeasuredModel", "from_dataset", "from_tensors", "measure", "value"]


def measure(
    model: Model,
    data: Any,
    names: Sequence[str] | str | None = None,
    *,
    test: Any = None,
    initial: nn.Module | None = None,
) -> dict[str, float | str]:
    """Compute generalization measures of a model.

    Args:
        model: A network, or another callable from inputs to logits (B, classes) or to labels (B,), for which most measures
            are undefined; what `count_regions` accepts. It is evaluated on the device of its parameters, in evaluation mode,
            and not changed. The logit z of a binary classifier, (B, 1), stands for the logits (0, z).
        data: The training set: a pair of inputs (N, *input_shape), normalized as the model expects, and labels (N,), as
            tensors or arrays; a torch `Dataset` or `DataLoader` of such pairs, which is read into memory; or a data set of
            `regioncount.data`, which has a training and a test set. Labels are integers, or names of classes if the model
            returns names.
        names: Registered measures, or one. By default, and for "all", also in a list, all that need only one model and its
            data, except those that are computed on request only (`regioncount.measures.distances`). `seed_agreement` and
            `theorem` need more.
        test: The test set, in the form of `data`.
        initial: The model before training.

    Returns:
        The value of each measure. An undefined measure is NaN, and an entry NAME_error gives the reason.

    Raises:
        InputError: If a name is unknown, the data have the wrong shape or type, a label is not a class of the model, the
            model gives two answers for one input, or the initial model has another architecture.
    """
    with torch.inference_mode(False):  # most measures take derivatives
        class_numbers = class_numbers_of(model)
        model = with_gradients(as_model(model, class_numbers))
        if isinstance(initial, nn.Module):
            initial = cast(nn.Module, with_gradients(as_model(initial)))
        known = _available()
        requested = ["all"] if names is None else [names] if isinstance(names, str) else list(names)
        if unknown := [name for name in requested if name not in (*known, "all")]:
            raise InputError(f"measure {unknown[0]!r} is unknown; use one of all, {', '.join(known)}")
        if "all" in requested:
            requested = list(dict.fromkeys([*_by_default(), *(name for name in requested if name != "all")]))
        if device_of(model, torch.device("cpu")).type == "mps":
            raise InputError("measures need float64, which MPS has not; pass model.cpu() and data on the CPU")
        if isinstance(data, DatasetLike):
            device = device_of(model, torch.device("cpu"))
            measured = from_dataset(model, data.to(device), device, None if initial is None else lambda: initial)
            labels, labels_are_names = {"training": data.train.labels, "test": data.test.labels}, False
        else:
            pair = as_pair(data, "training", class_numbers)
            test_pair = None if test is None else as_pair(test, "test", class_numbers)
            labels_are_names = bool(class_numbers)
            measured = from_tensors(model, pair, test_pair, initial)
            labels = {"training": pair[1]} | ({"test": test_pair[1]} if test_pair else {})
        check_model(measured, labels, initial, labels_are_names)
        values: dict[str, float | str] = {}
        for name in tqdm(requested, unit=" measures", disable=None, leave=False):
            values |= value(name, measured)
        return values


def value(name: str, measured: MeasuredModel) -> dict[str, float | str]:
    """Compute one measure. The measure of a plugin receives a copy of the model and the data, which it may change.

    Args:
        name: A registered measure.
        measured: The model and its data.

    Returns:
        The measure's columns. An undefined column is NaN, and an entry COLUMN_error gives the reason.

    Raises:
        OutOfMemoryError: If the device has too little memory, which is not a property of the model.
        SystemExit: If a handler of a signal raised it, which is not a property of the measure either.
    """
    entry = registry.measures[name]
    function = entry.load()
    try:
        with warnings.catch_warnings():
            # torch.func's forward-mode derivatives call deprecated functions of torch.
            warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)
            result: Any = function(_copy(measured) if entry.plugin else measured)
    except torch.OutOfMemoryError:
        raise
    except (Exception, SystemExit) as error:  # the other measures are computed
        if raised_by_signal(error):
            raise
        is_clear = isinstance(error, InputError | RuntimeError | ArithmeticError)
        return {name: math.nan, f"{name}_error": one_line(error if is_clear else f"{type(error).__name__}: {error}")}
    items = result if isinstance(result, Mapping) else {name: result}
    other = [column for column in items if column != name and not str(column).startswith(f"{name}_")]
    if entry.plugin and other:
        reason = f"the measure returned the column {other[0]}; the names of its columns must begin with {name}_"
        return {name: math.nan, f"{name}_error": reason}
    try:
        columns = {column: _number(column, item) for column, item in items.items()}
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return {name: math.nan, f"{name}_error": f"the measure returned {type(result).__name__}, not a number"}
    undefined = {
        f"{column}_error": f"the value is {number}"
        for column, number in columns.items()
        if not isinstance(number, str) and not math.isfinite(number)
    }
    return columns | {column: reason for column, reason in undefined.items() if column not in columns}


def _copy(measured: MeasuredModel) -> MeasuredModel:
    """Return a copy whose model and tensors may be changed."""

    def cloned(batches: Callable[[], Iterator[Batch]]) -> Callable[[], Iterator[Batch]]:
        return lambda: ((inputs.clone(), labels.clone()) for inputs, labels in batches())

    initial, (inputs, labels) = measured.initial, measured.sample
    return replace(
        measured,
        model=copy.deepcopy(measured.model),
        train=cloned(measured.train),
        sample=(inputs.clone(), labels.clone()),
        test=None if measured.test is None else cloned(measured.test),
        initial=None if initial is None else lambda: copy.deepcopy(initial()),
    )


def _number(column: str, item: Any) -> float | str:
    """Return a value of a measure as a number; return the text of an _error column unchanged.

    Raises:
        TypeError: If the value is not a number, or is text in another column.
    """
    if isinstance(item, str):
        if Column.parse(column, ()).part != "error":
            raise TypeError
        return one_line(item)
    return item if type(item) in (int, float) and math.isfinite(item) else float(item)


def _available() -> list[str]:
    """Return the measures that need only one model and its data, in the order of the tables."""
    table = registry.measures
    return [name for name in table.names() if not table[name].traits.get("suite")]


def _by_default() -> list[str]:
    """Return the available measures that need not be requested by name."""
    return [name for name in _available() if not registry.measures[name].traits.get("on_request")]
