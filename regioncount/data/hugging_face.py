"""Data sets that the package `datasets` of Hugging Face has written with `save_to_disk`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from regioncount.data.array_files import LABEL_WORDS, Pair
from regioncount.data.conversion import as_labels, channels_first
from regioncount.data.examples import stack_examples
from regioncount.errors import InputError, how_to_install, one_line
from regioncount.options import abbreviate


def read_saved(folder: Path, inputs: Sequence[str] | None, labels: str | None) -> tuple[Pair, Pair | None, tuple[str, ...]]:
    """Return the training set, the test set and the class names of a saved data set.

    The test set is the split "test" or, without one, "validation".

    Args:
        folder: The folder that `save_to_disk` has written.
        inputs: The columns of the inputs: one of images, arrays or lists of numbers, or several of numbers. If None, the
            only column of images, or the only one of lists of numbers, or all columns but the labels, if they are numbers.
        labels: The column of the labels; if None, the only one of the type ClassLabel, or one with a name of `LABEL_WORDS`.

    Returns:
        The sets, as images (N, C, H, W) or features (N, F) and labels from 0 on (N,); the test set may be None. The class
        names are those of ClassLabel; see `as_labels` for labels of another type.

    Raises:
        InputError: The package is not installed, the folder cannot be read, or the columns do not fit.
    """
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        installation = how_to_install("datasets", "datasets")
        raise InputError(f"dataset=hugging_face needs datasets ({one_line(error)}): {installation}") from error
    try:
        stored: Any = datasets.load_from_disk(str(folder))
    except Exception as error:  # damaged files raise many types of exceptions
        raise InputError(f"{folder} was not written by save_to_disk, or is damaged ({one_line(error)})") from error
    splits = dict(stored) if isinstance(stored, datasets.DatasetDict) else {"train": stored}
    if "train" not in splits:
        raise InputError(f"{folder} has the splits {', '.join(splits)}; save one as 'train', and one as 'test'")
    parts = [splits["train"], *[splits[name] for name in ("test", "validation") if name in splits][:1]]
    features = parts[0].features
    label_column = labels or _label_column(folder, features)
    if label_column not in features:
        raise InputError(f"{folder} has no column {abbreviate(label_column)}; it has {', '.join(features)}")
    input_columns = list(inputs) if inputs else _input_columns(folder, features, label_column)
    for part in parts:
        if missing := [name for name in (label_column, *input_columns) if name not in part.features]:
            raise InputError(f"{folder} has no column {abbreviate(missing[0])}; it has {', '.join(part.features)}")
    values = [_inputs(part, input_columns, f"{folder}: {', '.join(input_columns)}") for part in parts]
    targets = [np.asarray(part.with_format("numpy")[label_column][:]) for part in parts]
    names = (f"{folder}: {label_column} of train", f"{folder}: {label_column} of test")
    label = features[label_column]
    if isinstance(label, datasets.ClassLabel) and all(target.min() >= 0 for target in targets if len(target)):
        classes = tuple(label.names)
        if any(part.features[label_column] != label for part in parts):
            raise InputError(f"{folder}: {label_column} has other classes or another order in the test set; cast both alike")
    else:
        first, second, classes = as_labels(targets[0], targets[1] if targets[1:] else None, names)
        targets = [target for target in (first, second) if target is not None]
    test = (values[1], targets[1]) if values[1:] else None
    return (values[0], targets[0]), test, classes


def _label_column(folder: Path, features: Any) -> str:
    typed = [name for name, kind in features.items() if type(kind).__name__ == "ClassLabel"]
    candidates = typed if len(typed) == 1 else [name for name in features if name.lower() in LABEL_WORDS]
    if len(candidates) != 1:
        raise InputError(f"{folder} has the columns {', '.join(features)}; pass dataset.labels=COLUMN")
    return candidates[0]


def _input_columns(folder: Path, features: Any, labels: str) -> list[str]:
    # A data set made from rows of a table in pandas has a column of their numbers there.
    others = {name: kind for name, kind in features.items() if name != labels and not name.startswith("__index_level_")}
    images = [name for name, kind in others.items() if type(kind).__name__ == "Image"]
    lists = [name for name, kind in others.items() if type(kind).__name__ in ("List", "Sequence", "Array2D", "Array3D")]
    numbers = all(getattr(kind, "dtype", "").startswith(("int", "uint", "float")) for kind in others.values())
    columns = images or lists or (list(others) if numbers else [])
    if not columns or ((images or lists) and len(columns) != 1):
        raise InputError(
            f"{folder} has the columns {', '.join(features)}; pass dataset.inputs=[COLUMN] of images or numbers (of text, "
            "compute embeddings first)"
        )
    return columns


def _inputs(part: Any, columns: list[str], name: str) -> np.ndarray:
    """Return the inputs of a split, (N, C, H, W) or (N, F)."""
    if not len(part):
        raise InputError(f"{name}: a split has no examples")
    if len(columns) == 1 and type(part.features[columns[0]]).__name__ == "Image":
        column = part.select_columns(columns)
        return channels_first(stack_examples((row[columns[0]] for row in column), len(part), name), name)
    arrays = [np.asarray(part.with_format("numpy")[column][:]) for column in columns]
    if wrong := [c for c, array in zip(columns, arrays, strict=True) if array.dtype.kind not in "buif"]:
        raise InputError(f"{name}: {wrong[0]} does not have numbers of one shape; choose other columns (dataset.inputs)")
    if len(arrays) == 1 and arrays[0].ndim > 1:
        return channels_first(arrays[0], name)
    if any(array.ndim != 1 for array in arrays):
        raise InputError(f"{name}: give one column of arrays, or several of numbers (dataset.inputs)")
    return np.stack(arrays, axis=1)
