"""The caller's data as inputs and labels: tensors, arrays, data sets and data loaders, and labels that are names."""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, default_collate

from regioncount.errors import InputError, one_line
from regioncount.measures.measured_model import evenly_spaced
from regioncount.regions.callables import is_text
from regioncount.regions.checks import as_array

BATCH_SIZE = 256  # examples that are read from a data set at a time
READ_TWICE = 64  # examples that are read twice, to detect random augmentation


def as_pair(data: Any, name: str, class_numbers: dict[str, int]) -> tuple[Tensor, Tensor]:
    """Return inputs and labels as tensors.

    Args:
        data: A pair of tensors, arrays, tables of pandas or lists; a torch `Dataset` of such pairs, one for each example; or
            a `DataLoader`. A loader that shuffles is read in the order of its data set, without leaving out a last batch.
            All examples are read into memory.
        name: What the data are, for the message.
        class_numbers: The number of each class that has a name. If it is empty and the labels are names, it is filled in
            sorted order; names that it does not have are added.

    Returns:
        Inputs (N, *input_shape), and labels int64 (N,).

    Raises:
        InputError: If the data are none of these, an example is not the same each time that it is read, or the labels are
            numbers although the classes have names.
    """
    if isinstance(data, Dataset | DataLoader):
        data = _read_all(data, name)
    try:
        inputs, labels = data
        if isinstance(inputs, np.ma.MaskedArray) or isinstance(labels, np.ma.MaskedArray):
            raise InputError(f"the {name} data are masked arrays: pass values without a mask")
        inputs, labels = (
            as_array(f"the {name} data", part) if hasattr(part, "__array__") and not isinstance(part, Tensor) else part
            for part in (inputs, labels)
        )
        if is_text(labels):
            labels = _numbered(labels, class_numbers)
        elif class_numbers:
            raise InputError(
                f"the {name} labels are numbers, but the classes have names, such as {next(iter(class_numbers))!r}"
            )
        inputs, labels = torch.as_tensor(inputs), torch.as_tensor(labels)
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"the {name} data are {type(data).__name__}: pass a pair of inputs and labels, a Dataset or a DataLoader"
        ) from error
    if inputs.is_meta or labels.is_meta:
        raise InputError(f"the {name} data have no values: they are on the device meta")
    if not labels.is_floating_point() and not labels.is_complex():
        labels = labels.long()
    # Tensors of inference mode take no part in derivatives.
    inputs, labels = (part.clone() if part.is_inference() else part for part in (inputs, labels))
    return inputs, labels


def _numbered(labels: Any, class_numbers: dict[str, int]) -> list[int]:
    """Return the numbers of labels that are names, (N,)."""
    names = [str(label) for label in np.asarray(labels).ravel()]
    for name in sorted(set(names) - set(class_numbers)):
        class_numbers[name] = len(class_numbers)
    return [class_numbers[name] for name in names]


def _read_all(data: "Dataset[Any] | DataLoader[Any]", name: str) -> tuple[Tensor, Any]:
    """Return all inputs and labels of a data set or a data loader.

    Raises:
        InputError: If the examples are no pairs of tensors and labels, or differ when they are read again.
    """
    advice = "each example must be a pair of a tensor and a label; give the data set a transform, or the loader a collate_fn"
    loader = _in_order(data) if isinstance(data, DataLoader) else DataLoader(data, batch_size=BATCH_SIZE)
    inputs: list[Tensor] = []
    labels: list[Any] = []
    sizes: list[int] = []
    try:
        for batch_inputs, batch_labels in loader:
            inputs.append(torch.as_tensor(batch_inputs))
            labels.extend(batch_labels if is_text(batch_labels) else torch.as_tensor(batch_labels).tolist())
            sizes.append(len(inputs[-1]))
        if not inputs:
            raise InputError(f"the {name} data have no examples")
        together = torch.cat(inputs)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the {name} data cannot be read: {advice} ({one_line(error, 150)})") from error
    if not isinstance(loader.dataset, IterableDataset):
        _compare_with_second_reading(loader, together, labels, sizes, name)
    return together, labels


def _compare_with_second_reading(
    loader: "DataLoader[Any]", inputs: Tensor, labels: list[Any], sizes: list[int], name: str
) -> None:
    """Raise an InputError if examples from all parts of the data differ when they are read again."""
    positions, keys = _read_twice(loader, sizes)
    order = {"sampler": keys, "batch_size": None} if loader.batch_sampler is None else {"batch_sampler": keys}
    again = DataLoader(loader.dataset, **_options(loader), **cast(Any, order))
    for expected, (batch_inputs, batch_labels) in zip(positions, again, strict=True):
        values, first = torch.as_tensor(batch_inputs), inputs[expected]
        labels_again = batch_labels if is_text(batch_labels) else torch.as_tensor(batch_labels).tolist()
        same_inputs = values.shape == first.shape and _equal(values, first)
        if not same_inputs or list(labels_again) != [labels[position] for position in expected]:
            what = "labels" if same_inputs else "data"
            raise InputError(f"the {name} {what} differ each time they are read: remove random augmentation and shuffling")


def _read_twice(loader: "DataLoader[Any]", sizes: list[int]) -> tuple[list[list[int]], list[Any]]:
    """Return the positions of the examples that are read twice, and the data set's keys of these, both by batch.

    They are `READ_TWICE` evenly spaced examples. If the loader or the data set forms batches in a way of its own, they are
    as many examples in whole batches, among them the first and the last.

    Args:
        loader: The loader.
        sizes: The sizes of its batches.
    """
    ends = np.cumsum(sizes).tolist()
    positions = [list(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]
    keys: list[Any] = list(cast(Any, loader.sampler if loader.batch_sampler is None else loader.batch_sampler))
    if loader.batch_sampler is not None and loader.collate_fn is default_collate:
        order = [key for batch in keys for key in batch]
        chosen = evenly_spaced(min(len(order), ends[-1]), READ_TWICE).tolist()
        return [chosen], [[order[position] for position in chosen]]
    batches = evenly_spaced(min(len(keys), len(sizes)), max(2, -(-READ_TWICE // max(sizes)))).tolist()
    return [positions[batch] for batch in batches], [keys[batch] for batch in batches]


def _equal(first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors of one shape are equal, where NaN equals NaN."""
    return bool(((first == second) | ((first != first) & (second != second))).all())


def _in_order(loader: "DataLoader[Any]") -> "DataLoader[Any]":
    """Return a loader of the same examples that does not shuffle and does not drop a last batch.

    A sampler other than those of torch's `shuffle` is kept. So is a sampler of batches, or a data set that yields batches.

    Raises:
        InputError: A sampler of batches drops a last one.
    """
    if loader.batch_size is None:
        if getattr(loader.batch_sampler, "drop_last", False):
            raise InputError("the data loader's batch_sampler leaves out a last batch: pass drop_last=False")
        return loader
    options: dict[str, Any] = {}
    if not isinstance(loader.dataset, IterableDataset):
        sampler: Any = loader.sampler
        is_shuffled = type(sampler) is RandomSampler and not sampler.replacement
        if not (is_shuffled and len(sampler) == len(cast(Any, loader.dataset))):
            options["sampler"] = sampler
    return DataLoader(loader.dataset, batch_size=loader.batch_size, **_options(loader), **options)


def _options(loader: "DataLoader[Any]") -> dict[str, Any]:
    """Return the options of a loader that say how it reads examples."""
    return {name: getattr(loader, name) for name in ("num_workers", "collate_fn", "worker_init_fn")}
