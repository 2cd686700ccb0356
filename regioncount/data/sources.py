"""Data sets by name: read, downloaded or generated, then subsets, resizing and label noise."""

import http.client
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from regioncount.data.dataset import Dataset
from regioncount.data.image_folder import list_folder, read_images
from regioncount.data.splits import Split, StreamedSplit
from regioncount.errors import InputError

TITLES = {"digits": "digits", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "svhn": "SVHN", "imagenet": "ImageNet"}
KINDS = (*TITLES, "image_folder")

# Per channel, of images scaled to 0..1; the other kinds are measured on their training split.
NORMALIZATION = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}

DOWNLOADS = {
    "cifar10": "cifar-10-python.tar.gz",
    "cifar100": "cifar-100-python.tar.gz",
    "svhn": "train_32x32.mat and test_32x32.mat",
}

DIGITS_TRAIN_SIZE = 300


def load(
    kind: str,
    *,
    root: str | os.PathLike | None = None,
    train_size: int | None = None,
    test_size: int | None = None,
    seed: int = 0,
    resize: int | None = None,
    label_noise: float = 0.0,
    title: str | None = None,
    workers: int | None = None,
) -> Dataset:
    """A data set by its kind: digits, cifar10, cifar100, svhn, imagenet or image_folder.

    root: the folder it lies in. cifar10, cifar100 and svhn are downloaded into it (default "data") on first use;
        image_folder and imagenet need it, with train/<class>/* and test/<class>/* or val/<class>/*.
    train_size, test_size: that many images, as equally many of each class as there are, drawn from `seed`; all of
        them where None. digits have no official split: 300 images are drawn for training, the others are the test.
    resize: images become resize x resize pixels. imagenet (224 unless given) takes the centre crop of an image whose
        shorter side is 8/7 of that and is decoded as it is used, by `workers` processes (None: up to 8); everything
        else is held in memory.
    label_noise: this fraction of the training labels is replaced by uniformly random ones.
    title: what tables call it, instead of the usual name or the folder's.

    Raises InputError where the arguments, the files or the download are at fault.
    """
    if kind not in KINDS:
        raise InputError(f"dataset '{kind}' is not known; choose one of {', '.join(KINDS)}")
    if seed < 0:
        raise InputError(f"dataset.seed={seed} must be 0 or more")
    if resize is not None and resize < 1:
        raise InputError(f"dataset.resize={resize} must be at least 1 pixel")
    if not 0 <= label_noise <= 1:
        raise InputError(f"dataset.label_noise={label_noise} must be a fraction between 0 and 1")

    # Independent streams: the labels that noise hits and the test subset do not move with the training subset's size.
    train_generator, test_generator, noise_generator = (np.random.default_rng([seed, stream]) for stream in range(3))
    if kind == "digits":
        train, test, classes = _split_digits(train_size, train_generator)
    elif kind == "image_folder":
        train, test, classes = _read_folder(_existing(kind, root), resize)
    elif kind == "imagenet":
        train, test, classes = _stream_folder(_existing(kind, root), resize or 224, workers)
    else:
        train, test, classes = _read_torchvision(kind, Path(root or "data").expanduser())
    mean, std = NORMALIZATION[kind] if kind in NORMALIZATION else _channel_statistics(train.images)

    if kind != "digits":
        train = _subset(train, train_size, len(classes), train_generator, "train")
    test = _subset(test, test_size, len(classes), test_generator, "test")
    if resize is not None and kind != "imagenet":
        train, test = _resize(train, resize), _resize(test, resize)
    train = replace(train, labels=_noisy_labels(train.labels, label_noise, len(classes), noise_generator))
    name = title or TITLES.get(kind) or Path(root).expanduser().resolve().name
    return Dataset(name, train, test, classes, mean, std)


def _existing(kind: str, root: str | os.PathLike | None) -> Path:
    if root is None:
        raise InputError(f"dataset={kind} needs dataset.root=DIR with train/<class>/* and test/<class>/* in it")
    root = Path(root).expanduser()
    if not root.is_dir():
        raise InputError(f"dataset.root={root} is not a folder")
    return root


def _read_folder(root: Path, resize: int | None) -> tuple[Split, Split, tuple[str, ...]]:
    train, test, classes = list_folder(root)
    splits = zip((train, test), read_images(root, train, test, resize), strict=True)
    return *(Split(torch.from_numpy(images), torch.tensor(files.labels)) for files, images in splits), classes


def _stream_folder(root: Path, size: int, workers: int | None) -> tuple[StreamedSplit, StreamedSplit, tuple[str, ...]]:
    *splits, classes = list_folder(root)
    workers = min(8, os.cpu_count() or 1) if workers is None else workers
    return *(StreamedSplit(f.paths, f.sizes, torch.tensor(f.labels), size, workers) for f in splits), classes


def _split_digits(train_size: int | None, generator: np.random.Generator) -> tuple[Split, Split, tuple[str, ...]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    everything = Split(images, torch.from_numpy(digits.target.astype(np.int64)))
    train_size = DIGITS_TRAIN_SIZE if train_size is None else train_size
    chosen = _balanced_subset(digits.target, train_size, 10, generator, "train")
    rest = np.setdiff1d(np.arange(len(everything)), chosen)
    if len(rest) < 10:
        raise InputError(f"dataset.train_size={train_size} leaves fewer than one test image a class of {len(images)}")
    train, test = (everything.select(torch.from_numpy(indices)) for indices in (chosen, rest))
    return train, test, tuple("0123456789")


def _read_torchvision(kind: str, root: Path) -> tuple[Split, Split, tuple[str, ...]]:
    from torchvision import datasets

    try:
        if kind == "svhn":
            pair = [datasets.SVHN(root, split=split, download=True) for split in ("train", "test")]
        else:
            kind_of = datasets.CIFAR10 if kind == "cifar10" else datasets.CIFAR100
            pair = [kind_of(root, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError, EOFError, http.client.HTTPException) as error:
        # torchvision compares checksums, so a part of a file left by a broken download is fetched again next time.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"dataset={kind} is not in {root} and cannot be fetched ({reason}); put {DOWNLOADS[kind]} into {root}, "
            "removing what a failed try left, or use images of your own with dataset=image_folder"
        ) from error
    if kind == "svhn":
        arrays = [(data.data, data.labels) for data in pair]
        classes = tuple("0123456789")
    else:
        arrays = [(data.data.transpose(0, 3, 1, 2), data.targets) for data in pair]
        classes = tuple(pair[0].classes)
    train, test = (
        Split(torch.from_numpy(np.ascontiguousarray(images)), torch.as_tensor(labels, dtype=torch.int64))
        for images, labels in arrays
    )
    return train, test, classes


def _channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 images, scaled to 0..1, to 4 digits.

    From a histogram, hence exact: no rounding that would depend on the device or on the number of threads.
    """
    levels = np.arange(256) / 255
    mean, std = [], []
    for channel in images.unbind(1):
        share = torch.bincount(channel.flatten(), minlength=256).numpy() / channel.numel()
        mean.append(float(share @ levels))
        std.append(float(np.sqrt(share @ (levels - mean[-1]) ** 2)))
    # A channel without any contrast has nothing to scale.
    return tuple(round(value, 4) for value in mean), tuple(round(value, 4) or 1.0 for value in std)


def _subset(split, size: int | None, num_classes: int, generator: np.random.Generator, name: str):
    if size is None:
        return split
    indices = _balanced_subset(split.labels.numpy(), size, num_classes, generator, name)
    return split.select(torch.from_numpy(indices))


def _balanced_subset(
    labels: np.ndarray, size: int, num_classes: int, generator: np.random.Generator, name: str
) -> np.ndarray:
    """Sorted indices of `size` images, as equally many of each class as there are; the odd ones from random classes.

    A smaller subset from the same state of the generator is part of a larger one.
    """
    if not num_classes <= size <= len(labels):
        raise InputError(
            f"dataset.{name}_size={size} must lie between {num_classes} (one a class) and {len(labels)} (all there are)"
        )
    shuffled = [generator.permutation(np.flatnonzero(labels == label)) for label in range(num_classes)]
    available = np.array([len(indices) for indices in shuffled])
    level = size // num_classes
    while np.minimum(available, level + 1).sum() <= size and level < available.max():
        level += 1
    quota = np.minimum(available, level)
    luck = generator.permutation(num_classes)
    quota[luck[available[luck] > level][: size - quota.sum()]] += 1
    return np.sort(np.concatenate([indices[:number] for indices, number in zip(shuffled, quota, strict=True)]))


def _noisy_labels(labels: Tensor, fraction: float, num_classes: int, generator: np.random.Generator) -> Tensor:
    number = round(fraction * len(labels))
    chosen = generator.permutation(len(labels))[:number]
    noisy = labels.clone()
    noisy[torch.from_numpy(chosen)] = torch.from_numpy(generator.integers(num_classes, size=number))
    return noisy


def _resize(split: Split, size: int) -> Split:
    if split.image_shape[1:] == (size, size):
        return split
    return replace(split, images=F.interpolate(split.images, size=(size, size), mode="bilinear", antialias=True))
