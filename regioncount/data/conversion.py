"""Conversion of a data set's arrays to inputs, uint8 or float32, and to labels from 0 on."""

import unicodedata
from typing import Any

import numpy as np

from regioncount.errors import InputError
from regioncount.options import abbreviate

FLOAT32_BITS = 24  # of the significand
MIN_STEPS = 1000  # float32 numbers between the smallest and the largest value of a feature


def as_inputs(values: Any, name: str) -> np.ndarray:
    """Return images or features as uint8 or float32 numbers in the machine's byte order.

    Args:
        values: Images (N, C, H, W), or features (N, F), as numbers of any type or as booleans.
        name: What they are, for messages, such as "dataset=x: its training split has images".

    Returns:
        Images that are uint8 as they are; everything else as float32. The array is contiguous.

    Raises:
        InputError: The shape or the type differs, a value is not finite, or float32 cannot represent the values.
    """
    array = np.asarray(values)
    described = f"{name} {array.dtype} {array.shape}"
    if array.ndim not in (2, 4) or 0 in array.shape or array.dtype.kind not in "buif":
        raise InputError(f"{described}; give numbers (N, C, H, W) or (N, features)")
    if array.dtype == np.uint8 and array.ndim == 4:
        return np.ascontiguousarray(array)
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, dtype=np.float32)
    finite = np.isfinite(converted.reshape(len(converted), -1)).all(axis=1)
    if not finite.all():
        raise InputError(
            f"{described}, and example {np.flatnonzero(~finite)[0]} has a value that is NaN, infinite or beyond float32; "
            "remove or replace such values"
        )
    _require_float32(array, described)
    return converted


def _require_float32(array: np.ndarray, described: str) -> None:
    """Raise an InputError if rounding to float32 merges most of the values of a channel or feature."""
    if array.dtype.itemsize <= 2 or array.dtype == np.float32:
        return
    axes = (0, *range(2, array.ndim))
    low, high = array.min(axis=axes).astype(np.float64), array.max(axis=axes).astype(np.float64)
    largest = np.maximum(np.abs(low), np.abs(high))
    rounded = (largest * 2.0**-FLOAT32_BITS * MIN_STEPS > high - low) & (low < high)
    if array.dtype.kind != "f":
        rounded &= largest > 2**FLOAT32_BITS  # smaller integers are exact
    if rounded.any():
        index = int(np.flatnonzero(rounded)[0])
        raise InputError(
            f"{described}, and float32 cannot tell apart the values of feature {index}, from {low[index]:.10g} to "
            f"{high[index]:.10g}; subtract their mean"
        )


def channels_first(array: np.ndarray, name: str) -> np.ndarray:
    """Return images as (N, C, H, W).

    The dimension of the channels is the one of length 1 to 4. If both or neither of the two possible dimensions have such
    a length, it is the one that leaves square images. If only the other one leaves square images, as in maps of 64 x 4 x 4,
    it is not clear.

    Args:
        array: Images (N, H, W), (N, C, H, W) or (N, H, W, C), or an array of another number of dimensions.
        name: What it is, for the message.

    Returns:
        The images; an array of another number of dimensions is returned unchanged.

    Raises:
        InputError: The dimension of the channels is not clear.
    """
    if array.ndim == 3:
        return array[:, None]
    if array.ndim != 4:
        return array
    _, first, middle, last = array.shape
    is_first, is_last = 1 <= first <= 4, 1 <= last <= 4
    leaves_square = middle == last, first == middle
    if is_first == is_last:
        is_first, is_last = leaves_square
    elif leaves_square == (is_last, is_first):
        is_first = is_last
    if is_first == is_last:
        raise InputError(
            f"{name} {array.shape} may be (N, C, H, W) or (N, H, W, C); give square images of 1 to 4 channels, features "
            "(N, F), or a torch Dataset of tensors (C, H, W) (dataset._target_)"
        )
    return array if is_first else array.transpose(0, 3, 1, 2)


def as_labels(train: Any, test: Any, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Return labels from 0 on, and the names of the classes.

    The classes are the different labels, in ascending order: integers by value, strings by their characters' code points,
    after Unicode normalization (NFC).

    Args:
        train: The labels of the training set, or of all data: integers, booleans, whole numbers or strings, (N,) or (N, 1).
        test: Those of the test set, or None.
        names: What the two are, for messages.

    Returns:
        The two as int64 (N,), and the names of the classes.

    Raises:
        InputError: The labels are not such values, or some are negative; there are fewer than two classes, or a class is
            only in the test set.
    """
    columns = [_label_column(labels, name) for labels, name in zip((train, test), names, strict=True) if labels is not None]
    for column, name in zip(columns, names, strict=False):
        _refuse_negative(column, name)
    if len({column.dtype.kind for column in columns}) > 1:
        raise InputError(f"{names[0]} and {names[1]} have labels of different types; give integers or strings in both")
    classes, first = np.unique(columns[0], return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"{names[0]} has one class, {abbreviate(classes[0])}; give labels of two or more")
    class_names = tuple(str(label) for label in classes.tolist())
    if test is None:
        return first.astype(np.int64), None, class_names
    if new := sorted(set(columns[1].tolist()) - set(classes.tolist())):
        raise InputError(f"{names[1]} has the class {abbreviate(new[0])}, which {names[0]} has not; both need the same")
    return first.astype(np.int64), np.searchsorted(classes, columns[1]).astype(np.int64), class_names


def _refuse_negative(column: np.ndarray, name: str) -> None:
    """Raise an InputError if a label is negative, as those of examples without a class; -1 and 1 are two classes."""
    if column.dtype.kind == "i" and column.min() < 0 and not set(np.unique(column).tolist()) <= {-1, 1}:
        raise InputError(f"{name} has the label {column.min()}, which is no class; remove such examples, or number from 0")


def _label_column(labels: Any, name: str) -> np.ndarray:
    """Return labels as int64 or as strings, (N,)."""
    column = np.asarray(labels)
    if column.ndim == 2 and column.shape[1] == 1:
        column = column[:, 0]
    if column.ndim == 2:
        raise InputError(f"{name} {column.shape} is not one label for each example; save the classes, such as y.argmax(1)")
    if column.ndim != 1 or not len(column):
        raise InputError(f"{name} {column.shape} is not one label for each example; give (N,)")
    if column.dtype.kind == "O" and all(isinstance(label, str) for label in column):
        column = column.astype(str)
    if column.dtype.kind == "S":
        try:
            column = np.char.decode(column, "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{name} has bytes that are not UTF-8; save the labels as integers or text") from error
    if column.dtype.kind in "biu":
        if column.dtype.kind == "u" and column.max() > np.iinfo(np.int64).max:
            raise InputError(f"{name} has the label {column.max()}; give labels below 2**63")
        return column.astype(np.int64)
    if column.dtype.kind == "f":
        whole = np.isfinite(column) & (column == np.rint(column)) & (np.abs(column) < 2**53)
        if whole.all():
            return column.astype(np.int64)
        raise InputError(f"{name} has the label {column[~whole][0]:g}, which is no class; give integers or strings")
    if column.dtype.kind != "U":
        raise InputError(f"{name} has labels {column.dtype}; give integers or strings")
    normalized = np.array([unicodedata.normalize("NFC", label) for label in column.tolist()])
    if invalid := [label for label in set(normalized.tolist()) if not label or not label.isprintable()]:
        raise InputError(f"{name} has the label {invalid[0]!r}; give labels of printable characters")
    return normalized
