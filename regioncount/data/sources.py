"""Registration of the built-in data sets with their options and sources.

A source is a function of the options that returns the training split, the test split and the class names. A split is a
`StreamedSplit` or a pair of inputs and labels, integers (N,). Inputs are images, uint8 or floating point (N, C, H, W), or
features, (N, F). A source without an official test split returns None instead; a training split is then drawn, and the
remaining images form the test split.

This module does not import torch, so that configurations can be read without it.
"""

import http.client
import os
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

import numpy as np
from pydantic import Field, PlainValidator, model_validator

from regioncount.errors import InputError, one_line
from regioncount.options import Bool, Float, Int, NonNegativeInt, Options, PositiveInt, Seed, Str, wrong_value
from regioncount.registry import register_dataset

if TYPE_CHECKING:
    from regioncount.data.splits import StreamedSplit

Arrays = tuple[np.ndarray, np.ndarray]

DOWNLOADS = {
    "cifar10": "cifar-10-python.tar.gz",
    "cifar100": "cifar-100-python.tar.gz",
    "svhn": "train_32x32.mat and test_32x32.mat",
}

Channels = Annotated[list[Float], Field(min_length=1, max_length=2**16)]


def _parse_output_classes(value: object) -> str | list[str]:
    if value == "imagenet":
        return "imagenet"
    if isinstance(value, list) and len(value) > 1 and all(isinstance(name, (str, int)) for name in value):
        return [str(name) for name in value]
    raise wrong_value("give imagenet, or a list of the names of two or more classes")


OutputClasses = Annotated[str | list[str], PlainValidator(_parse_output_classes)]


class DatasetOptions(Options):
    """The options of a data set. A plugin's data set may add its own in a subclass."""

    later: ClassVar[frozenset[str]] = frozenset({"mean", "std", "shorter_side", "resampling", "output_classes"})

    name: Str = "digits"
    root: Str | None = None
    """The folder with the files. Downloads are saved there; null: data. Image folders need it."""
    train_size: PositiveInt | None = None
    """The number of training images, balanced over classes and drawn with dataset.seed; null: all (digits: 300)."""
    test_size: PositiveInt | None = None
    """The number of test images, drawn in the same way; null: all."""
    seed: Seed = 0
    """The seed of the subsets and of the label noise, independent of the training seed."""
    resize: Annotated[Int, Field(ge=1, le=4096)] | None = None
    """The height and width of the images in pixels; null: the original size (imagenet: 224)."""
    label_noise: Annotated[Float, Field(ge=0, le=1)] = 0.0
    """The fraction of training labels that are replaced by uniformly random ones."""
    title: Str | None = None
    """The name in tables; null: that of the data set or, for image folders, the folder's name."""
    workers: NonNegativeInt | None = None
    """The number of processes that decode streamed images (imagenet); null: one per processor core, at most 8."""
    mean: Channels | None = None
    """The mean of each channel with which images are normalized, for uint8 pixels scaled to [0, 1]; of each feature, or a
    single number for all features. null: that of the data set or, without one, of the training images."""
    std: Channels | None = None
    """The standard deviation of each channel or feature, given as the mean is."""
    shorter_side: Annotated[Int, Field(ge=1, le=4096)] | None = None
    """The length in pixels to which the shorter side of an image is resized before the central square of
    dataset.resize pixels is cropped, as by torchvision's Resize and CenterCrop; null: see dataset.squash."""
    resampling: Literal["bilinear", "bicubic"] | None = None
    """How images are resized; null: bilinear."""
    output_classes: OutputClasses | None = None
    """The classes of the model's outputs, in their order, if the data set has only some of them or in another order:
    imagenet (the WordNet ids of the 1,000 classes of ILSVRC 2012), or a list of names. null: those of the data set."""

    @model_validator(mode="after")
    def _check_shorter_side(self) -> "DatasetOptions":
        # A plugin's data set may have options of its own with these names.
        side, size = self.shorter_side, self.resize
        if isinstance(side, int) and (size is None or side < size):
            raise ValueError(f"shorter_side={side} needs dataset.resize, the side of the crop, of at most {side} pixels")
        if isinstance(side, int) and getattr(self, "squash", False) is True:
            raise ValueError(f"shorter_side={side}: dataset.squash=true resizes whole images; leave one of the two out")
        return self


class FileOptions(DatasetOptions):
    """The options of a data set in one file of arrays."""

    path: Str | None = None
    """The file."""


class SavedOptions(DatasetOptions):
    """The options of a data set of Hugging Face's package `datasets`."""

    inputs: Annotated[list[Str], Field(min_length=1)] | None = None
    """The columns of the inputs, a list: one of images or of lists of numbers, or several of numbers; null: the only
    choice."""
    labels: Str | None = None
    """The column of the labels; null: the only one of the type ClassLabel, or with a name such as label."""


class FolderOptions(DatasetOptions):
    """The options of a data set of image files, whose images may have different sizes."""

    later: ClassVar[frozenset[str]] = frozenset({"squash"})

    squash: Bool = False
    """Whether whole images are resized to squares, without keeping their aspect ratio; if not, central squares are."""


@register_dataset("digits", options=DatasetOptions, title="digits", default_train_size=300)
def read_digits(options: DatasetOptions) -> tuple[Arrays, None, tuple[str, ...]]:
    """Return scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels, without an official split."""
    package = Path(cast(str, cast(ModuleSpec, find_spec("sklearn")).origin)).parent
    try:  # its file, since importing scikit-learn takes seconds
        table = np.loadtxt(package / "datasets" / "data" / "digits.csv.gz", delimiter=",")
        pixels, labels = table[:, :-1], table[:, -1]
    except OSError:  # a version that keeps it elsewhere
        from sklearn.datasets import load_digits

        pixels, labels = cast(Any, load_digits(return_X_y=True))
    images = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    return (images, labels.astype(np.int64)), None, tuple("0123456789")


# The training points of two toy data sets: x and y from -1 to 1, and the label.
POINTS = {
    "two_points": ((-0.5, -0.3, 0), (0.5, 0.3, 1)),
    "three_points": ((-0.6, -0.4, 0), (0.0, 0.5, 1), (0.6, -0.4, 0)),
}


# plane: images are points (x, y, 1) of a plane, over which decision regions are drawn.
@register_dataset("two_points", options=DatasetOptions, title="two points", mean=(0.5,), std=(0.5,), plane=True)
@register_dataset("three_points", options=DatasetOptions, title="three points", mean=(0.5,), std=(0.5,), plane=True)
def read_points(options: DatasetOptions) -> tuple[Arrays, Arrays, tuple[str, ...]]:
    """Return two or three points of a plane as images of 1 x 3 pixels: x, y and a constant 1, after normalization.

    The test split is a lattice of 21 x 21 points of the square from -1 to 1, labelled as their nearest training point.

    Raises:
        InputError: `resize` is given.
    """
    if options.resize is not None:
        raise InputError(f"dataset.resize={options.resize}: the points of {options.name} have no size; leave it at null")
    x, y, labels = np.array(POINTS[options.name]).T
    train = np.stack([x, y], axis=1)
    steps = np.linspace(-1, 1, 21)
    test = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    nearest = ((test[:, None] - train) ** 2).sum(axis=2).argmin(axis=1)
    train_labels = labels.astype(np.int64)
    return (_as_pixels(train), train_labels), (_as_pixels(test), train_labels[nearest]), ("-1", "1")


def _as_pixels(points: np.ndarray) -> np.ndarray:
    """Return points (N, 2), from -1 to 1, and a constant 1 as images, uint8 (N, 1, 1, 3)."""
    coordinates = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    return np.rint((coordinates + 1) * 127.5).astype(np.uint8)[:, None, None]


@register_dataset(
    "cifar10",
    options=DatasetOptions,
    title="CIFAR-10",
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
)
@register_dataset(
    "cifar100",
    options=DatasetOptions,
    title="CIFAR-100",
    mean=(0.5071, 0.4867, 0.4408),
    std=(0.2675, 0.2565, 0.2761),
)
@register_dataset(
    "svhn",
    options=DatasetOptions,
    title="SVHN",
    mean=(0.4377, 0.4438, 0.4728),
    std=(0.1980, 0.2010, 0.1970),
)
def read_torchvision(options: DatasetOptions) -> tuple[Arrays, Arrays, tuple[str, ...]]:
    """Return CIFAR-10, CIFAR-100 or SVHN, downloaded by torchvision at first use."""
    name, root = options.name, Path(options.root or "data").expanduser()
    try:
        splits, classes = _download(name, root)
    except (OSError, RuntimeError, EOFError, http.client.HTTPException) as error:
        # torchvision compares checksums, so an interrupted download is repeated next time.
        reason = one_line(error) or type(error).__name__
        raise InputError(
            f"dataset={name} is not in {root} and cannot be downloaded ({reason}); put {DOWNLOADS[name]} "
            f"into {root} (remove incomplete files first), or use your own images with dataset=image_folder"
        ) from error
    return splits[0], splits[1], classes


def _download(name: str, root: Path) -> tuple[list[Arrays], tuple[str, ...]]:
    from torchvision import datasets

    if name == "svhn":
        digits: list[Any] = [datasets.SVHN(root, split=split, download=True) for split in ("train", "test")]
        return [(split.data, np.asarray(split.labels)) for split in digits], tuple("0123456789")
    dataset = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    pair: list[Any] = [dataset(root, train=train, download=True) for train in (True, False)]
    return [(split.data.transpose(0, 3, 1, 2), np.asarray(split.targets)) for split in pair], tuple(pair[0].classes)


@register_dataset("imagenet", options=FolderOptions, title="ImageNet", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
def stream_folder(options: FolderOptions) -> "tuple[StreamedSplit, StreamedSplit, tuple[str, ...]]":
    """Return the images of a folder. They are decoded when a batch needs them."""
    import torch

    from regioncount.data.image_listing import list_folder
    from regioncount.data.splits import StreamedSplit

    *listings, classes = list_folder(_existing_root(options))
    workers = min(8, os.cpu_count() or 1) if options.workers is None else options.workers
    train, test = (
        StreamedSplit(
            files.paths,
            files.sizes,
            torch.tensor(files.labels),
            options.resize or 224,
            workers,
            options.squash,
            options.shorter_side,
            options.resampling or "bilinear",
        )
        for files in listings
    )
    return train, test, classes


@register_dataset("image_folder", options=FolderOptions)
def read_folder(options: FolderOptions) -> tuple[Arrays, Arrays, tuple[str, ...]]:
    """Return the images in root/train/<class>/* and root/test/<class>/*, decoded into memory."""
    from regioncount.data.image_folder import read_images
    from regioncount.data.image_listing import list_folder

    if options.squash and options.resize is None:
        raise InputError("dataset.squash=true needs dataset.resize, the side of the squares in pixels, such as 32")
    root = _existing_root(options)
    train, test, classes = list_folder(root)
    resampling = options.resampling or "bilinear"
    train_images, test_images = read_images(
        root, train, test, options.resize, options.squash, options.shorter_side, resampling
    )
    return (train_images, np.array(train.labels)), (test_images, np.array(test.labels)), classes


@register_dataset("arrays", options=FileOptions)
def read_file(options: FileOptions) -> tuple[Arrays, Arrays | None, tuple[str, ...]]:
    """Return the images or features in a file of NumPy (.npz) or torch (.pt)."""
    from regioncount.data.array_files import SUFFIXES, read_arrays

    if options.root is not None:
        raise InputError(f"dataset.root={options.root}: dataset=arrays reads one file; pass dataset.path=FILE instead")
    if options.path is None:
        raise InputError("dataset=arrays needs dataset.path=FILE: an .npz file, or a .pt file with a dictionary of tensors")
    path = Path(options.path).expanduser()
    if not path.is_file():
        raise InputError(f"dataset.path={path} is not a file")
    if path.suffix not in SUFFIXES:
        raise InputError(f"dataset.path={path}: the file's name must end in {', '.join(SUFFIXES)}")
    return read_arrays(path)


@register_dataset("hugging_face", options=SavedOptions)
def read_hugging_face(options: SavedOptions) -> tuple[Arrays, Arrays | None, tuple[str, ...]]:
    """Return the images or features of a folder that `datasets.Dataset.save_to_disk` has written."""
    from regioncount.data.hugging_face import read_saved

    return read_saved(_existing_root(options, "a folder written by save_to_disk"), options.inputs, options.labels)


def _existing_root(options: DatasetOptions, content: str = "a folder with train/<class>/*, test/<class>/*") -> Path:
    if options.root is None:
        raise InputError(f"dataset={options.name} needs dataset.root=DIR: {content}")
    root = Path(options.root).expanduser()
    if not root.is_dir():
        raise InputError(f"dataset.root={root} is not a folder; pass dataset.root=DIR: {content}")
    return root
