"""The examples of a data set as one array."""

from collections.abc import Iterable, Iterator
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from regioncount.data.conversion import channels_first
from regioncount.data.pixels import as_eight_bits
from regioncount.errors import InputError, one_line

REPEATED = 64  # examples that are read twice, to find random transforms


def read_examples(source: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the inputs, (N, C, H, W) or (N, F), and the labels, (N,), of a torch Dataset or of a pair of arrays.

    Args:
        source: A torch Dataset, whose examples are pairs of an image or features and a label; or a pair of arrays.
        name: What it is, for messages.

    Raises:
        InputError: The source is of another form, or gives two answers for one index.
    """
    if isinstance(source, tuple) and len(source) == 2 and all(hasattr(part, "shape") for part in source):
        inputs, targets = (_as_array(part) for part in source)
        if inputs.ndim == 0 or targets.ndim == 0 or len(inputs) != len(targets):
            raise InputError(f"{name}: the pair is {inputs.shape} and {targets.shape}; give one label for each example")
        return channels_first(inputs, name), targets
    if not hasattr(source, "__len__") or not hasattr(source, "__getitem__"):
        raise InputError(f"{name}: {type(source).__name__} is no torch Dataset with a length and an index")
    number = len(source)
    if number == 0:
        raise InputError(f"{name}: it has no examples")
    labels: list[Any] = []
    is_tensor: list[bool] = []

    def values() -> Iterator[Any]:
        for index in tqdm(range(number), "reading examples", disable=None, leave=False):
            value, label = _example(source, index, name)
            labels.append(_as_label(label))
            is_tensor[:] = [isinstance(value, torch.Tensor)]
            yield value

    stacked = stack_examples(values(), number, name)
    for index in np.linspace(0, number - 1, min(number, REPEATED)).round().astype(int).tolist():
        value, label = _example(source, index, name)
        same_label = repr(_as_label(label)) == repr(labels[index])  # NaN is refused later
        if not same_label or _like(value, _as_array(value), stacked.shape[1:]).tobytes() != stacked[index].tobytes():
            advice = "remove random transforms; pass augmentation=NAME" if same_label else "its label is random"
            raise InputError(f"{name}: example {index} differs when it is read again; {advice}")
    # Tensors of torch have their channels first.
    return stacked if is_tensor[0] and stacked.ndim == 4 else channels_first(stacked, name), np.asarray(labels)


def stack_examples(values: Iterable[Any], number: int, name: str) -> np.ndarray:
    """Return images or features of one shape and type as an array. If some pictures are grey, they get three channels.

    Args:
        values: Tensors, arrays or pictures of Pillow.
        number: How many there are.
        name: What they are, for the message.

    Raises:
        InputError: Their shapes or types differ, or a picture cannot be converted.
    """
    stacked = np.empty(0)
    for index, value in enumerate(values):
        try:
            array = _as_array(value)
        except (TypeError, ValueError, OSError) as error:
            raise InputError(f"{name}: example {index} cannot be read ({one_line(error)})") from error
        if index == 0:
            stacked = np.empty((number, *array.shape), array.dtype)
        if isinstance(value, Image.Image) and array.shape == (*stacked.shape[1:], 3):  # those before are grey
            stacked = stacked[..., None].repeat(3, axis=-1)
        array = _like(value, array, stacked.shape[1:])
        if array.shape != stacked.shape[1:] or array.dtype != stacked.dtype:
            raise InputError(
                f"{name}: example 0 is {stacked.dtype} {stacked.shape[1:]} and example {index} {array.dtype} {array.shape}; "
                "give all the same shape and type"
            )
        stacked[index] = array
    return stacked


def _example(source: Any, index: int, name: str) -> tuple[Any, Any]:
    example = source[index]
    if not isinstance(example, (tuple, list)) or len(example) != 2:
        what = f"{len(example)} values" if isinstance(example, (tuple, list)) else type(example).__name__
        raise InputError(f"{name}: an example is {what}; return a pair of an image or features and a label")
    return example[0], example[1]


def _like(value: Any, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the array (H, W) of a grey picture with three equal channels, if the shape is (H, W, 3)."""
    return array[..., None].repeat(3, axis=-1) if isinstance(value, Image.Image) and (*array.shape, 3) == shape else array


def _as_label(label: Any) -> Any:
    """Return a label in a tensor or an array as a number or text; an array of several values is returned as an array."""
    if not hasattr(label, "item"):
        return label
    array = _as_array(label)
    return array.item() if array.size == 1 else array


def _as_array(value: Any) -> np.ndarray:
    """Return an image or features as an array; a picture of Pillow is decoded like a file."""
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    if isinstance(value, Image.Image):
        image = as_eight_bits(value)
        return np.asarray(image if image.mode == "L" else image.convert("RGB"))
    return cast("np.ndarray", np.asarray(value))
