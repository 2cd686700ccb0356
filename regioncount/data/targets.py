"""Data sets of classes and functions that no registry lists: `dataset._target_=my_module.MyDataset`."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from regioncount.data.sources import Arrays, DatasetOptions
from regioncount.errors import InputError, one_line
from regioncount.options import Options, Str, model_of_signature
from regioncount.registry import Entry, datasets, is_loaded
from regioncount.targets import load_target

if TYPE_CHECKING:
    import numpy as np

REPEATED = 64  # examples that are read twice, to find random transforms
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
    splits = [_read_examples(source, name) for source, name in zip(sources, names, strict=True)]
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


def _read_examples(source: Any, name: str) -> "tuple[np.ndarray, np.ndarray]":
    """Return the inputs, (N, C, H, W) or (N, F), and the labels, (N,), of a torch Dataset or of a pair of arrays."""
    import numpy as np
    from tqdm import tqdm

    from regioncount.data.conversion import channels_first

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
            is_tensor[:] = [_is_tensor(value)]
            yield value

    stacked = stack_examples(values(), number, name)
    for index in range(min(number, REPEATED)):
        value, label = _example(source, index, name)
        same_label = repr(_as_label(label)) == repr(labels[index])  # NaN is refused later
        if not same_label or _like(value, _as_array(value), stacked.shape[1:]).tobytes() != stacked[index].tobytes():
            advice = "remove random transforms; pass augmentation=NAME" if same_label else "its label is random"
            raise InputError(f"{name}: example {index} differs when it is read again; {advice}")
    # Tensors of torch have their channels first.
    return stacked if is_tensor[0] and stacked.ndim == 4 else channels_first(stacked, name), np.asarray(labels)


def stack_examples(values: Iterable[Any], number: int, name: str) -> "np.ndarray":
    """Return images or features of one shape and type as an array. If some pictures are grey, they get three channels.

    Args:
        values: Tensors, arrays or pictures of Pillow.
        number: How many there are.
        name: What they are, for the message.

    Raises:
        InputError: Their shapes or types differ, or a picture cannot be converted.
    """
    import numpy as np

    stacked = np.empty(0)
    for index, value in enumerate(values):
        try:
            array = _as_array(value)
        except (TypeError, ValueError, OSError) as error:
            raise InputError(f"{name}: example {index} cannot be read ({one_line(error)})") from error
        if index == 0:
            stacked = np.empty((number, *array.shape), array.dtype)
        if _is_picture(value) and array.shape == (*stacked.shape[1:], 3):  # those before are grey
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


def _like(value: Any, array: "np.ndarray", shape: tuple[int, ...]) -> "np.ndarray":
    """Return the array (H, W) of a grey picture with three equal channels, if the shape is (H, W, 3)."""
    return array[..., None].repeat(3, axis=-1) if _is_picture(value) and (*array.shape, 3) == shape else array


def _as_label(label: Any) -> Any:
    """Return a label in a tensor or an array as a number or text; an array of several values is returned as an array."""
    if not hasattr(label, "item"):
        return label
    array = _as_array(label)
    return array.item() if array.size == 1 else array


def _is_picture(value: Any) -> bool:
    from PIL import Image

    return isinstance(value, Image.Image)


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _as_array(value: Any) -> "np.ndarray":
    """Return an image or features as an array; a picture of Pillow is decoded like a file."""
    import numpy as np
    import torch
    from PIL import Image

    from regioncount.data.pixels import as_eight_bits

    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    if isinstance(value, Image.Image):
        image = as_eight_bits(value)
        return np.asarray(image if image.mode == "L" else image.convert("RGB"))
    return cast("np.ndarray", np.asarray(value))
