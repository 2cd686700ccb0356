"""Image classifiers of torchvision, and their pretrained weights."""

import hashlib
import http.client
import pickle
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from regioncount.data.imagenet import imagenet_classes
from regioncount.errors import InputError, one_line
from regioncount.models.pretrained import Preprocessing, check_preprocessing
from regioncount.suggestions import unknown_choice

AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")  # prefixes of the weights of auxiliary heads, which inception_v3 keeps


def torchvision_classifier(
    num_classes: int, in_channels: int, image_size: tuple[int, int], *, architecture: str, weights: str | None = None
) -> nn.Module:
    """Build a torchvision classifier unchanged: the ImageNet variant with torchvision's initialization.

    Pretrained weights are not loaded here; see `regioncount.models.pretrained.build_initial`.

    Args:
        num_classes: The number of classes.
        in_channels: The channels of an image, which must be 3.
        image_size: Height and width of an image in pixels.
        architecture: A name from `torchvision.models.list_models()`.
        weights: The pretrained weights that the network is built for.

    Returns:
        A network from images (B, 3, *image_size) to logits (B, num_classes).

    Raises:
        InputError: There is no classifier of this name, or it does not support these images.
    """
    torchvision = _with_architecture(architecture)
    if in_channels != 3:
        raise InputError(f"torchvision's networks take images of 3 channels, not {in_channels}; choose another model")

    settings: dict[str, Any] = {}
    if architecture in ("googlenet", "inception_v3"):
        settings = {"aux_logits": False, "init_weights": True}  # auxiliary heads would add outputs in training
        if weights is not None:
            settings["transform_input"] = True  # the weights need other constants than those of their preprocessing
    elif architecture.startswith("vit_"):
        height, width = image_size
        if height != width:
            raise InputError(f"torchvision's {architecture!r} takes square images only, not {height} x {width}")
        settings = {"image_size": height}
    elif architecture == "maxvit_t":
        settings = {"input_size": image_size}
    try:
        return torchvision.models.get_model(architecture, weights=None, num_classes=num_classes, **settings)
    except (ValueError, AssertionError):
        size = f"{image_size[0]} x {image_size[1]}"
        raise InputError(f"torchvision's {architecture!r} cannot take images of {size}; choose another size") from None


def resolve(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with the name of the weights that DEFAULT stands for; see `pretrained.Source`."""
    return {**options, "weights": _weights(options).name} if options.get("weights") else dict(options)


def preprocessing(options: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing of the weights; see `pretrained.Source`."""
    transform = _weights(options).transforms()
    ours = Preprocessing(
        transform.crop_size[0],
        transform.resize_size[0],
        transform.interpolation.value,
        tuple(transform.mean),
        tuple(transform.std),
    )
    check_preprocessing(ours, transform, f"model.weights={options['weights']}")
    return ours


def class_names(options: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the classes of the weights; see `pretrained.Source`."""
    names = _weights(options).meta["categories"]
    # All weights of torchvision's classifiers have these 1,000 names, in the order of the WordNet ids.
    return imagenet_classes() if len(names) == 1000 and names[:2] == ["tench", "goldfish"] else tuple(names)


def state_dict(options: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights, without those of auxiliary heads; see `pretrained.Source`."""
    weights = _weights(options)
    torchvision = _with_architecture(options["architecture"])
    url = weights.url
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / Path(urlparse(url).path).name
    advice = f"download {url} into {folder}"
    # torch.hub checks the hash in a file's name only when it downloads the file.
    expected = re.search(r"-([0-9a-f]{8,})\.", file.name)
    if file.is_file() and expected and not _sha256(file).startswith(expected[1]):
        raise InputError(
            f"{file} is not torchvision's file: its SHA-256 does not begin with {expected[1]}; {advice}, or load weights of "
            "your own with checkpoint=FILE"
        )
    try:
        network = torchvision.models.get_model(options["architecture"], weights=weights, progress=False)
    except (OSError, RuntimeError, http.client.HTTPException, pickle.UnpicklingError) as error:
        reason = "cannot be read" if file.is_file() else f"is not in {folder} and cannot be downloaded"
        cause = one_line(f"{type(error).__name__}: {error}", 120)
        raise InputError(f"model.weights={weights.name}: {file.name} {reason} ({cause}); {advice}") from error
    state = network.state_dict()
    return {name: value for name, value in state.items() if not name.startswith(AUXILIARY)}


def _sha256(file: Path) -> str:
    """Return the SHA-256 hash of a file, without reading all of it into memory."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _weights(options: Mapping[str, Any]) -> Any:
    """Return a member of torchvision's enumeration of the weights of an architecture."""
    architecture, name = options["architecture"], options["weights"]
    enumeration = _with_architecture(architecture).models.get_model_weights(architecture)
    if name in enumeration.__members__:
        return enumeration[name]
    raise InputError(unknown_choice("model.weights", name, tuple(enumeration.__members__)))


def _with_architecture(architecture: str) -> Any:
    """Return the package torchvision, after checking that it has a classifier.

    Raises:
        InputError: There is no classifier of this name.
    """
    # Imported here, because the import is slow and no other network needs it.
    import torchvision

    classifiers = torchvision.models.list_models(module=torchvision.models)
    if architecture not in classifiers:
        if architecture in torchvision.models.list_models():
            raise InputError(f"torchvision's {architecture!r} is not a classifier; choose one such as 'resnet18'")
        close = get_close_matches(architecture.lower(), classifiers, n=5, cutoff=0.5)
        hint = f"close names: {', '.join(close)}" if close else "torchvision.models.list_models() lists the names"
        raise InputError(f"torchvision has no architecture {architecture!r}; {hint}")
    return torchvision
