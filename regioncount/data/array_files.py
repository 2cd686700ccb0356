"""Arrays of a training and a test set in one file, of NumPy (.npz) or torch (.pt)."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from regioncount.data.conversion import as_labels, channels_first
from regioncount.errors import InputError, one_line
from regioncount.options import abbreviate
from regioncount.runs.foreign_files import check_foreign_file

Pair = tuple[np.ndarray, np.ndarray]

SUFFIXES = (".npz", ".pt", ".pth")
INPUT_WORDS = ("x", "images", "image", "inputs", "input", "features", "embeddings", "data")
LABEL_WORDS = ("y", "labels", "label", "targets", "target")
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    "test": "test",
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
}


def read_arrays(path: Path) -> tuple[Pair, Pair | None, tuple[str, ...]]:
    """Return the training set, the test set and the class names of a file of arrays.

    The names of the arrays consist of a word for the set ("train", "test", "val") and one for the content (`INPUT_WORDS`,
    `LABEL_WORDS`), in either order, such as x_train or test_images. Without a word for the set, there is no test set.
    The validation set is used only if there is no test set. Other arrays are ignored.

    Args:
        path: A file with a suffix of `SUFFIXES`.

    Returns:
        The sets, as images (N, C, H, W) or features (N, F) and labels from 0 on (N,); the test set may be None. And the
        class names; see `as_labels`.

    Raises:
        InputError: The file cannot be read, or the arrays do not fit.
    """
    arrays = _read_npz(path) if path.suffix == ".npz" else _read_torch(path)
    names = _find(path, arrays)
    train_names, test_names = names["train"], names.get("test") or names.get("validation")
    (train_x, train_y) = (arrays[name] for name in train_names)
    test_y = arrays[test_names[1]] if test_names else None
    label_names = (f"{path}: {train_names[1]}", f"{path}: {test_names[1] if test_names else ''}")
    train_labels, test_labels, classes = as_labels(train_y, test_y, label_names)
    train = _inputs(path, train_names[0], train_x, train_labels), train_labels
    if test_names is None or test_labels is None:
        return train, None, classes
    return train, (_inputs(path, test_names[0], arrays[test_names[0]], test_labels), test_labels), classes


def _inputs(path: Path, name: str, values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if values.ndim == 0 or len(values) != len(labels):
        raise InputError(f"{path}: {name} is {values.shape}, but there are {len(labels)} labels; give one for each example")
    return channels_first(values, f"{path}: {name}")


def _find(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[str, str]]:
    """Return the names of the inputs and the labels of each set, "train", "test" and "validation"."""
    roles: dict[tuple[str, str], str] = {}
    for name in arrays:
        words = re.split(r"[_.\-/ ]", name.lower())
        sets = [SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS]
        contents = ["x" if word in INPUT_WORDS else "y" for word in words if word in INPUT_WORDS or word in LABEL_WORDS]
        if len(contents) != 1 or len(sets) + len(contents) != len(words) or len(sets) > 1:
            continue
        role = (sets[0] if sets else "train"), contents[0]
        if role in roles:
            raise InputError(f"{path}: the arrays {roles[role]} and {name} have the same meaning; leave one out")
        roles[role] = name
    pairs = {kind: (roles[kind, "x"], roles[kind, "y"]) for kind, _ in roles if {(kind, "x"), (kind, "y")} <= roles.keys()}
    halves = [name for (kind, _), name in roles.items() if kind not in pairs]
    if halves or "train" not in pairs:
        present = ", ".join(f"{name} {arrays[name].shape}" for name in arrays) or "no arrays"
        advice = "name them x_train, y_train, x_test and y_test, or x and y"
        raise InputError(f"{path}: it holds {abbreviate(present)}; {advice}")
    return pairs


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            if not isinstance(stored, np.lib.npyio.NpzFile):
                raise InputError(f"{path} holds a single array; save several with np.savez(x_train=..., y_train=..., ...)")
            arrays = {}
            for name in stored.files:
                try:
                    arrays[name] = stored[name]
                except ValueError as error:
                    if "allow_pickle" not in str(error):
                        raise
                    raise InputError(
                        f"{path}: {name} holds Python objects, which are not loaded; save numbers, or text with astype(str)"
                    ) from error
            return arrays
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{path}: its arrays do not fit into memory") from error
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError) as error:
        raise InputError(f"{path} cannot be read as an .npz file ({one_line(error)})") from error


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    import torch

    advice = "save a dictionary of tensors with torch.save, such as {'x_train': ..., 'y_train': ..., 'x_test': ..., ...}"
    try:
        check_foreign_file(path)
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise InputError(f"{path} holds objects other than tensors, which are not loaded; {advice}") from error
    except Exception as error:  # the archive reader raises many types of exceptions
        raise InputError(f"{path} cannot be read as a file of torch.save ({type(error).__name__}); {advice}") from error
    if not isinstance(stored, dict) or not all(isinstance(name, str) for name in stored):
        raise InputError(f"{path} holds {type(stored).__name__}; {advice}")
    arrays = {}
    for name, value in stored.items():
        try:
            arrays[name] = _as_array(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{path}: {name} is no array of numbers or strings ({one_line(error)}); {advice}") from error
    return arrays


def _as_array(value: object) -> np.ndarray:
    """Return a dense tensor, or a list of numbers or strings, as an array."""
    import torch

    if isinstance(value, torch.Tensor):
        tensor = value.detach()
        # NumPy has no bfloat16; float32 has all of its values.
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    array = np.asarray(value)
    if array.dtype.kind == "O":
        raise TypeError(f"it is {type(value).__name__}")
    return array
