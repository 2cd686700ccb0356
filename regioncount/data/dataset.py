"""Loading of data sets by name, with class-balanced subsets, label noise and normalization."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from regioncount.data import targets
from regioncount.data.agreement import check_agreement
from regioncount.data.conversion import as_inputs
from regioncount.data.imagenet import imagenet_classes
from regioncount.data.normalization import Constants, constants_of, given_constants, normalize
from regioncount.data.sources import Arrays, DatasetOptions, FileOptions
from regioncount.data.splits import Split, StreamedSplit
from regioncount.errors import InputError
from regioncount.options import abbreviate, validate_options
from regioncount.registry import Entry, datasets
from regioncount.suggestions import unknown_choice


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training split, a test split, and the normalization of their images."""

    name: str
    """The name shown in tables."""
    train: Split | StreamedSplit
    test: Split | StreamedSplit
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    """The mean of each channel or feature; for uint8 images, that of pixels scaled to [0, 1]."""
    std: tuple[float, ...]
    """The standard deviation of each channel or feature, as `mean`."""

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        """The number of channels of an image, or of features."""
        return self.train.image_shape[0]

    @property
    def image_size(self) -> tuple[int, ...]:
        """Height and width in pixels; empty if the inputs are features."""
        return self.train.image_shape[1:]

    @functools.cached_property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 hashes of "train" and "test": of their content or, if streamed, of the files' names, sizes and labels.

        They do not depend on the data set's name or path.
        """
        splits = {"train": self.train, "test": self.test}
        return {name: split.fingerprint(self.num_classes, self.mean, self.std) for name, split in splits.items()}

    def to(self, device: torch.device | str) -> "Dataset":
        """Return the data set with its tensors on a device."""
        moved = replace(self, train=self.train.to(device), test=self.test.to(device))
        if "fingerprints" in self.__dict__:  # keep the cached value: it is the same on all devices
            moved.__dict__["fingerprints"] = self.fingerprints
        return moved

    def normalize(self, images: Tensor) -> Tensor:
        """Return (images - mean) / std, float32, of images (B, C, H, W) or features (B, F); uint8 is divided by 255."""
        return normalize(images, self.mean, self.std)


def load(name: str, **options: Any) -> Dataset:
    """Load a data set.

    Args:
        name: A registered data set: digits, cifar10, cifar100, svhn, imagenet, image_folder, arrays, hugging_face,
            two_points, three_points, or one from a plugin.
        **options: Fields of `regioncount.data.sources.DatasetOptions`: root, train_size, test_size, seed, resize,
            label_noise, title, workers, mean, std, shorter_side, resampling, output_classes; for folders of images, squash;
            for files of arrays, path; for hugging_face, inputs and labels.

    Returns:
        The data set, on the CPU.

    Raises:
        InputError: The name or an option is invalid, or the files cannot be read or downloaded.
    """
    entry = datasets.get(name)
    if entry is None:
        raise InputError(unknown_choice("dataset", name, datasets.names()))
    return load_checked(cast(DatasetOptions, validate_options(entry, options | {"name": name}, "dataset")))


def load_checked(options: DatasetOptions) -> Dataset:
    """Load the data set described by validated options; see `load`."""
    entry = targets.entry(options)
    # Independent random streams: label noise and the test subset do not depend on the size of the training subset.
    train_generator, test_generator, noise_generator = (np.random.default_rng([options.seed, i]) for i in range(3))
    train_source, test_source, classes = _read(entry, options)
    train = _as_split(train_source, len(classes), f"dataset={entry.name}: its training split")
    if test_source is None:
        size = options.train_size or entry.traits.get("default_train_size") or len(train) // 2
        train, test = _draw_training_split(train, size, len(classes), train_generator)
        mean, std = _normalization(entry, train, options)
    else:
        test = _as_split(test_source, len(classes), f"dataset={entry.name}: its test split")
        check_agreement(train, test, entry.name)
        mean, std = _normalization(entry, train, options)
        train = _subset(train, options.train_size, len(classes), train_generator, "train")
    test = _subset(test, options.test_size, len(classes), test_generator, "test")
    if options.resize is not None:
        train, test = _resize(train, options), _resize(test, options)
    train = replace(train, labels=noisy_labels(train.labels, options.label_noise, len(classes), noise_generator))
    dataset = Dataset(_title(entry, options), train, test, classes, mean, std)
    return dataset if options.output_classes is None else with_output_classes(dataset, options.output_classes)


def with_output_classes(dataset: Dataset, output_classes: str | Sequence[str]) -> Dataset:
    """Return a data set whose labels are indices into the classes of a model's outputs.

    Args:
        dataset: The data set.
        output_classes: The names of the model's classes, in the order of its outputs; "imagenet" for `imagenet_classes`.

    Raises:
        InputError: A class of the data set is not among them, or two have the same name.
    """
    imagenet = output_classes == "imagenet"
    names = imagenet_classes() if imagenet else tuple(output_classes)
    if repeated := [name for name in names if names.count(name) > 1]:
        raise InputError(f"dataset.output_classes: two classes have the name {abbreviate(repeated[0])!r}; give each its own")
    indices = {name: index for index, name in enumerate(names)}
    if other := [name for name in dataset.classes if name not in indices]:
        what = "the 1,000 WordNet ids of ImageNet, such as n01440764" if imagenet else abbreviate(", ".join(names))
        raise InputError(
            f"dataset.output_classes: the data set has {len(other)} classes that the model does not have, such as "
            f"{abbreviate(other[0])!r}; the model's are {what}"
        )
    table = torch.tensor([indices[name] for name in dataset.classes])
    train, test = (replace(split, labels=table[split.labels]) for split in (dataset.train, dataset.test))
    return replace(dataset, train=train, test=test, classes=names)


def _title(entry: Entry, options: DatasetOptions) -> str:
    """Return the given or registered name in tables or, without one, that of the folder or file."""
    if options.title or entry.traits.get("title"):
        return options.title or entry.traits["title"]
    if isinstance(options, FileOptions) and options.path:
        return Path(options.path).stem
    return Path(options.root).expanduser().resolve().name if options.root else options.name


def _read(entry: Entry, options: DatasetOptions) -> tuple[Any, Any, tuple[str, ...]]:
    """Return the training split, the test split and the class names of a registered data set."""
    result = entry.build(options)
    if not isinstance(result, (tuple, list)) or len(result) != 3:
        raise InputError(f"dataset={entry.name}: return three values: training split, test split or None, and class names")
    train, test, classes = result
    if not isinstance(classes, (tuple, list)) or len(classes) < 2:
        raise InputError(f"dataset={entry.name}: its class names are {abbreviate(classes)}; give a tuple of two or more")
    names = tuple(map(str, classes))
    if repeated := [name for name in names if names.count(name) > 1]:
        raise InputError(f"dataset={entry.name}: two classes have the name {abbreviate(repeated[0])!r}; give each its own")
    return train, test, names


def _as_split(source: Arrays | StreamedSplit, num_classes: int, name: str) -> Split | StreamedSplit:
    """Convert the arrays of a source to tensors; a streamed split is returned as it is.

    Args:
        source: Images (N, C, H, W) or features (N, F), see `as_inputs`, and labels, integers (N,); or a streamed split.
        num_classes: The number of classes.
        name: The data set and the split, for messages.

    Returns:
        The split.

    Raises:
        InputError: The arrays are not inputs and one label from 0 to num_classes - 1 for each.
    """
    if isinstance(source, StreamedSplit):
        return source
    try:
        images, labels = map(np.asarray, source)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is not a pair of images and labels") from error
    inputs = as_inputs(images, f"{name} has {'features' if images.ndim == 2 else 'images'}")
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != inputs.shape[:1]:
        raise InputError(f"{name} has labels {labels.dtype} {labels.shape}; give integers ({len(inputs)},)")
    if labels.min() < 0 or labels.max() >= num_classes:
        label = labels.min() if labels.min() < 0 else labels.max()
        raise InputError(f"{name} has the label {label}; with {num_classes} classes, labels are 0 to {num_classes - 1}")
    return Split(torch.from_numpy(inputs), torch.from_numpy(labels.astype(np.int64)))


def _draw_training_split(
    split: Split | StreamedSplit, size: int, num_classes: int, generator: np.random.Generator
) -> tuple[Split | StreamedSplit, Split | StreamedSplit]:
    """Draw a training split from a data set without an official split; the remaining images form the test split."""
    train = balanced_subset(split.labels.numpy(), size, num_classes, generator, "train")
    test = np.setdiff1d(np.arange(len(split)), train)
    if len(test) < num_classes:
        raise InputError(
            f"dataset.train_size={size} leaves {len(test)} of {len(split)} images for testing, fewer than one per class; "
            "pass a smaller size"
        )
    return split.select(torch.from_numpy(train)), split.select(torch.from_numpy(test))


def _normalization(entry: Entry, train: Split | StreamedSplit, options: DatasetOptions) -> Constants:
    """Return the given or registered mean and standard deviation of each channel, or those of the training images.

    Raises:
        InputError: The given ones do not fit the images, or the images are streamed and there are none.
    """
    if (given := given_constants(options.mean, options.std, train.image_shape)) is not None:
        return given
    if entry.traits.get("mean") is not None:
        return entry.traits["mean"], entry.traits["std"]
    if isinstance(train, StreamedSplit):
        raise InputError(f"dataset={entry.name} is streamed: register it with its mean and std")
    return constants_of(train.images)


def _subset(
    split: Split | StreamedSplit, size: int | None, num_classes: int, generator: np.random.Generator, name: str
) -> Split | StreamedSplit:
    """Return a class-balanced subset of `size` images; None for all images."""
    if size is None:
        return split
    indices = balanced_subset(split.labels.numpy(), size, num_classes, generator, name)
    return split.select(torch.from_numpy(indices))


def balanced_subset(
    labels: np.ndarray, size: int, num_classes: int, generator: np.random.Generator, name: str
) -> np.ndarray:
    """Draw a class-balanced subset.

    If `size` is not a multiple of the number of classes, the remaining images come from random classes. A class with too
    few images contributes all of them, and the others contribute more. With the same state of the generator, a smaller
    subset is contained in a larger one.

    Args:
        labels: int (N,).
        size: The number of images to draw.
        num_classes: The number of classes.
        generator: The source of randomness.
        name: The split, "train" or "test", for the error message.

    Returns:
        The sorted indices of the drawn images, int64 (size,).

    Raises:
        InputError: `size` is below the number of classes or above the number of images.
    """
    if not num_classes <= size <= len(labels):
        raise InputError(
            f"dataset.{name}_size={size} must be between {num_classes} (one per class) and {len(labels)} (all images)"
        )
    shuffled = [generator.permutation(np.flatnonzero(labels == label)) for label in range(num_classes)]
    available = np.array([len(indices) for indices in shuffled])
    per_class = size // num_classes
    while np.minimum(available, per_class + 1).sum() <= size and per_class < available.max():
        per_class += 1
    quota = np.minimum(available, per_class)
    order = generator.permutation(num_classes)
    quota[order[available[order] > per_class][: size - quota.sum()]] += 1
    return np.sort(np.concatenate([indices[:number] for indices, number in zip(shuffled, quota, strict=True)]))


def noisy_labels(labels: Tensor, fraction: float, num_classes: int, generator: np.random.Generator) -> Tensor:
    """Replace a random fraction of the labels by uniformly random classes.

    A random class may equal the original label. With the same state of the generator, the labels replaced at a smaller
    fraction are also replaced at a larger one.

    Args:
        labels: int64 (N,), on the CPU.
        fraction: The fraction of labels to replace, in [0, 1].
        num_classes: The number of classes.
        generator: The source of randomness.

    Returns:
        The noisy labels, int64 (N,); the argument is unchanged.
    """
    number = round(fraction * len(labels))
    replaced = generator.permutation(len(labels))[:number]
    noisy = labels.clone()
    noisy[torch.from_numpy(replaced)] = torch.from_numpy(generator.integers(num_classes, size=number))
    return noisy


def _resize(split: Split | StreamedSplit, options: DatasetOptions) -> Split | StreamedSplit:
    """Resize images in memory as the options say; images in files are resized when they are decoded."""
    size, shorter_side, mode = cast(int, options.resize), options.shorter_side, options.resampling or "bilinear"
    if isinstance(split, StreamedSplit):
        if (split.shorter_side, split.resampling) != (shorter_side, mode):
            raise InputError(f"dataset={options.name} streams its images and has no shorter_side and resampling")
        return split
    if len(split.image_shape) == 1:
        raise InputError(f"dataset.resize={size}: the inputs are features, not images; leave it at null")
    if options.name == "image_folder" or (shorter_side is None and split.image_shape[1:] == (size, size)):
        return split
    height, width = split.image_shape[1:]
    shorter = min(height, width)
    target = (size, size) if shorter_side is None else tuple(shorter_side * side // shorter for side in (height, width))
    images = F.interpolate(split.images, size=target, mode=mode, antialias=True)
    top, left = (round((side - size) / 2) for side in target)
    return replace(split, images=images[..., top : top + size, left : left + size].contiguous())
