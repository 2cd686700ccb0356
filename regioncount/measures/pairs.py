"""The caller's data as inputs and labels: tensors, arrays, data sets and data loaders, and labels that are names."""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler

from regioncount.errors import InputError, one_line
from regioncount.regions.callables import is_text
from regioncount.regions.checks import native

BATCH_SIZE = 256  # examples that are read from a data set at a time
READ_TWICE = 4  # examples that are read twice, to detect random augmentation


def as_pair(data: Any, name: str, class_numbers: dict[str, int]) -> tuple[Tensor, Tensor]:
    """Return inputs and labels as tensors.

    Args:
        data: A pair of tensors, arrays or lists; a torch `Dataset` of such pairs, one for each example; or a `DataLoader`. A
            loader that shuffles is read in the order of its data set, without leaving out a last batch. All examples are
            read into memory.
        name: What the data are, for the message.
        class_numbers: The number of each class that has a name. If it is empty and the labels are names, it is filled in
            sorted order; names that are not in it are added.

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
        if is_text(labels):
            labels = _numbered(labels, class_numbers)
        elif class_numbers:
            raise InputError(
                f"the {name} labels are numbers, but the classes have names, such as {next(iter(class_numbers))!r}"
            )
        inputs, labels = (
            torch.as_tensor(native(part) if isinstance(part, np.ndarray) else part) for part in (inputs, labels)
        )
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
        InputError: If the examples are no pairs of tensors and labels, or differ the next time.
    """
    advice = "each example must be a pair of a tensor and a label; give the data set a transform, or the loader a collate_fn"
    loader = _in_order(data) if isinstance(data, DataLoader) else DataLoader(data, batch_size=BATCH_SIZE)
    inputs: list[Tensor] = []
    labels: list[Any] = []
    try:
        for batch_inputs, batch_labels in loader:
            inputs.append(torch.as_tensor(batch_inputs))
            labels.extend(batch_labels if is_text(batch_labels) else torch.as_tensor(batch_labels).tolist())
        if not inputs:
            raise InputError(f"the {name} data have no examples")
        together = torch.cat(inputs)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the {name} data cannot be read: {advice} ({one_line(error):.150})") from error
    if not isinstance(loader.dataset, IterableDataset):
        again, _ = next(iter(loader))
        if not torch.equal(torch.as_tensor(again)[:READ_TWICE], together[:READ_TWICE]):
            raise InputError(f"the {name} data differ each time they are read: remove random augmentation and shuffling")
    return together, labels


def _in_order(loader: "DataLoader[Any]") -> "DataLoader[Any]":
    """Return a loader of the same examples that does not shuffle and does not drop a last batch.

    A loader with a sampler of its own, or of an `IterableDataset`, is returned unchanged.
    """
    own_sampler = type(loader.sampler) not in (RandomSampler, SequentialSampler)
    if isinstance(loader.dataset, IterableDataset) or own_sampler or loader.batch_size is None:
        return loader
    if isinstance(loader.sampler, RandomSampler) and (loader.sampler.replacement or len(loader.sampler) != _size(loader)):
        return loader
    return DataLoader(
        loader.dataset, batch_size=loader.batch_size, num_workers=loader.num_workers, collate_fn=loader.collate_fn
    )


def _size(loader: "DataLoader[Any]") -> int:
    return len(cast(Any, loader.dataset))
