"""Pretrained weights of other packages: their preprocessing, their classes, and networks that begin with them.

A registry entry of such a model has the trait `pretrained`: a module that implements the functions of `Source`.
"""

import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from regioncount.data.dataset import Dataset
from regioncount.data.image_folder import FILTERS, resize_and_crop
from regioncount.data.imagenet import imagenet_classes
from regioncount.data.normalization import normalize
from regioncount.errors import InputError, how_to_install, one_line, say
from regioncount.models.catalogue import asks_for_weights
from regioncount.models.kinds import title
from regioncount.models.networks import build_for
from regioncount.options import abbreviate
from regioncount.registry import models
from regioncount.runs.foreign_files import check_foreign_file
from regioncount.runs.weights import digest_tensors

MAX_DIFFERENCE = 0.5  # in mean levels of 0 to 255, between our preprocessing and the package's; rounding is below 0.25
SAMPLE_SIZES = ((320, 320), (640, 320), (320, 640))  # width and height of the pictures on which the two are compared


@dataclass(frozen=True)
class Preprocessing:
    """How images are prepared for pretrained weights; each field is the option of the data set with its name."""

    resize: int
    """The height and width of the images in pixels."""
    shorter_side: int | None
    """The length of the shorter side before the crop; None if whole images are resized to squares."""
    resampling: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def squash(self) -> bool:
        """Whether whole images are resized to squares, without keeping their aspect ratio."""
        return self.shorter_side is None


class Source(Protocol):
    """The functions that a package's module implements; all take the options of the model."""

    def resolve(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options as they are recorded, with names such as DEFAULT replaced by those that do not change."""
        ...

    def preprocessing(self, options: Mapping[str, Any]) -> Preprocessing:
        """Return the preprocessing of the weights."""
        ...

    def class_names(self, options: Mapping[str, Any]) -> tuple[str, ...] | None:
        """Return the classes in the order of the outputs, `imagenet_classes()` for ImageNet's; None if they are unknown."""
        ...

    def state_dict(self, options: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the weights, by the names of the network's own."""
        ...


def source_of(model: Mapping[str, Any]) -> Source | None:
    """Return the module of the package that a model comes from; None if there is none."""
    entry = None if "_target_" in model else models.get(model["name"])
    path = entry.traits.get("pretrained") if entry else None
    return cast(Source, import_module(path)) if path else None


def pretrained_state(model: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the pretrained weights of a model of a configuration, on the CPU.

    Raises:
        InputError: They are not on disk and cannot be downloaded, or do not belong to the model.
    """
    return cast(Source, source_of(model)).state_dict(model)


def pretrained_digest(model: Mapping[str, Any]) -> str | None:
    """Return a hash of a model's pretrained weights; None without them.

    It is not cached: in a Python session, the files may be written again under the same path.
    """
    return digest_tensors(pretrained_state(model)) if asks_for_weights(model) else None


def build_initial(model: Mapping[str, Any], dataset: Dataset) -> nn.Module:
    """Build the network with which training begins: with random weights, or with pretrained ones.

    The last layer of a pretrained network keeps its random weights if the data set has another number of classes.

    Args:
        model: The name and options of the model.
        dataset: The data set.

    Returns:
        The network, on the CPU.

    Raises:
        InputError: The pretrained weights cannot be loaded, or other layers than the last one differ.
    """
    network = build_for(model, dataset)
    if not asks_for_weights(model):
        return network
    own, state = network.state_dict(), pretrained_state(model)
    replaced = [name for name, value in own.items() if name not in state or state[name].shape != value.shape]
    unused = [name for name in state if name not in own]
    if other := [name for name in replaced if own[name].shape[:1] != (dataset.num_classes,)] + unused:
        raise InputError(f"model={title(model)}: the pretrained weights do not fit the network at {', '.join(other[:3])}")
    network.load_state_dict(own | {name: state[name] for name in own if name not in replaced})
    return network


def check_pixels(dataset: Dataset, model: Mapping[str, Any]) -> None:
    """Check that the images of a data set have the pixels for which pretrained weights are normalized.

    Raises:
        InputError: They are not pictures of 3 channels, uint8 or from 0 to 1.
    """
    images = getattr(dataset.train, "images", None)  # streamed images are uint8
    if images is None or images.dtype == torch.uint8:
        return
    low, high = images.min().item(), images.max().item()
    if low < -0.5 or high > 1.5:  # bicubic resizing can exceed [0, 1]
        raise InputError(
            f"model={title(model)}: pretrained weights need uint8 images or values from 0 to 1, but {dataset.name} has "
            f"values from {low:.4g} to {high:.4g}; scale them"
        )


def output_classes_for(model: Mapping[str, Any], dataset: Dataset) -> str | list[str] | None:
    """Return the option `dataset.output_classes` with which a data set's labels are those of a pretrained model.

    Args:
        model: The name and options of the model.
        dataset: The data set, with its own classes.

    Returns:
        None if the classes are those of the model in the same order; else "imagenet" or the names of the model's classes.

    Raises:
        InputError: The model's classes are unknown, or the data set has other ones.
    """
    names = cast(Source, source_of(model)).class_names(model)
    advice = "train.py replaces the last layer and trains it"
    if names is None:
        raise InputError(f"model={title(model)}: the classes of its pretrained weights are not known; {advice}")
    if dataset.classes == names:
        return None
    imagenet = names == imagenet_classes()
    if missing := [name for name in dataset.classes if name not in names]:
        what = "ImageNet's, whose folders are named by WordNet ids such as n01440764" if imagenet else "other ones"
        raise InputError(
            f"model={title(model)}: the model has no class {abbreviate(missing[0])!r} of {dataset.name}; its {len(names)} "
            f"classes are {what}; {advice}"
        )
    return "imagenet" if imagenet else list(names)


def check_preprocessing(preprocessing: Preprocessing, reference: Callable[[Image.Image], Tensor], source: str) -> None:
    """Check a preprocessing against that of the package on pictures of noise.

    Args:
        preprocessing: The preprocessing as options of a data set.
        reference: The package's own, from a picture to an image (3, H, W).
        source: The origin of the weights, for the message.

    Raises:
        InputError: The two differ by more than rounding, or the crop is larger than the resized image.
    """
    if preprocessing.shorter_side is not None and preprocessing.shorter_side < preprocessing.resize:
        sizes = f"{preprocessing.resize} pixels of {preprocessing.shorter_side}"
        raise InputError(f"{source}: its preprocessing is not supported (a crop of {sizes})")
    generator = np.random.default_rng(0)
    for width, height in SAMPLE_SIZES:
        coarse = generator.integers(0, 256, (height // 3, width // 3, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        size, filter_ = preprocessing.resize, FILTERS[preprocessing.resampling]
        if preprocessing.shorter_side is None:
            ours = picture.resize((size, size), filter_)
        else:
            ours = resize_and_crop(picture, size, preprocessing.shorter_side, preprocessing.resampling)
        pixels = torch.from_numpy(np.array(ours)).permute(2, 0, 1)[None]
        expected = reference(picture)
        if expected.shape != pixels.shape[1:]:
            raise InputError(f"{source}: its preprocessing is not supported (images of {tuple(expected.shape)})")
        difference = normalize(pixels, preprocessing.mean, preprocessing.std)[0] - expected
        levels = 255 * torch.tensor(preprocessing.std).view(-1, 1, 1) * difference.abs()
        if not levels.mean() <= MAX_DIFFERENCE:
            raise InputError(
                f"{source}: its preprocessing is not a resize, a central crop and a normalization; not supported"
            )


def check_weights_file(path: Path, option: str) -> None:
    """Check a file of weights before another package reads it, which may ignore damage; see `check_foreign_file`.

    Args:
        path: The file.
        option: The option that names it, for the message.

    Raises:
        InputError: The file is damaged or no file of weights.
    """
    try:
        check_foreign_file(path)
    except InputError as error:
        raise InputError(f"{option}: {error}") from error
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{option}: {path} cannot be read, or is truncated ({one_line(error, 100)})") from error


def announce_download(file: str, repository: str) -> None:
    """Print that a file is fetched from the Hugging Face Hub, whose client retries for up to a minute without a network."""
    if not import_module("huggingface_hub.constants").HF_HUB_OFFLINE:
        advice = "without a network, HF_HUB_OFFLINE=1 ends the wait"
        say(f"fetching {file} from https://huggingface.co/{repository} ({advice})", sys.stderr)


def require_package(name: str, model: str) -> Any:
    """Return a package of an extra.

    Args:
        name: The name of the package and of the extra.
        model: The model that needs it, for the message.

    Returns:
        The package.

    Raises:
        InputError: It is not installed; the message names the extra.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(f"model={model} needs the package {name}: {how_to_install(name, name)}") from error
