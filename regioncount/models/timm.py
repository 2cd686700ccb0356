"""Image classifiers of the package timm (extra `timm`), and their pretrained weights."""

import math
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regioncount.data.imagenet import imagenet_classes
from regioncount.errors import InputError, one_line
from regioncount.models.pretrained import (
    Preprocessing,
    announce_download,
    check_preprocessing,
    check_weights_file,
    require_package,
)


def timm_classifier(
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int],
    *,
    architecture: str,
    pretrained: bool = False,
    checkpoint_path: str | None = None,
) -> nn.Module:
    """Build a classifier of timm with random weights.

    Pretrained weights are not loaded here; see `regioncount.models.pretrained.build_initial`.

    Args:
        num_classes: The number of classes.
        in_channels: The channels of an image.
        image_size: Height and width of an image in pixels.
        architecture: A name from `timm.list_models()`, with or without the tag of the weights.
        pretrained: Whether the network is built for pretrained weights.
        checkpoint_path: A file of the pretrained weights.

    Returns:
        A network from images (B, in_channels, *image_size) to logits (B, num_classes).

    Raises:
        InputError: The package is not installed, there is no classifier of this name, or it does not support these images.
    """
    timm = _with_architecture(architecture)
    config = _config(architecture)
    settings: dict[str, Any] = {"img_size": image_size} if config and config.fixed_input_size else {}
    try:
        return timm.create_model(architecture, num_classes=num_classes, in_chans=in_channels, **settings)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        size = f"{in_channels} x {image_size[0]} x {image_size[1]}"
        raise InputError(f"timm's {architecture!r} cannot take images of {size} ({one_line(error, 120)})") from error


def resolve(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with the tag of the weights; see `pretrained.Source`."""
    if options.get("checkpoint_path") and not options.get("pretrained"):
        raise InputError(
            "model.checkpoint_path needs model.pretrained=true; measure.py reads other files with checkpoint=FILE"
        )
    if not options.get("pretrained"):
        return dict(options)
    architecture = options["architecture"]
    config = _weights_config(architecture)
    return {**options, "architecture": f"{config.architecture}.{config.tag}" if config.tag else config.architecture}


def preprocessing(options: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing that timm uses by default for the weights; see `pretrained.Source`."""
    architecture = options["architecture"]
    timm_data = _with_architecture(architecture).data
    source = f"model.architecture={architecture}"
    settings = timm_data.resolve_data_config({}, pretrained_cfg=_weights_config(architecture).to_dict())
    (channels, height, width), crop = settings["input_size"], settings["crop_pct"]
    shorter_side: int | None = math.floor(height / crop)
    if settings["crop_mode"] == "squash" and shorter_side == height:
        shorter_side = None
    if channels != 3 or height != width or settings["interpolation"] not in ("bilinear", "bicubic"):
        raise InputError(f"{source}: its preprocessing is not supported ({settings})")
    ours = Preprocessing(height, shorter_side, settings["interpolation"], tuple(settings["mean"]), tuple(settings["std"]))
    check_preprocessing(ours, timm_data.create_transform(**settings, is_training=False), source)
    return ours


def class_names(options: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return ImageNet's classes if the tag of the weights contains in1k; see `pretrained.Source`."""
    config = _weights_config(options["architecture"])
    return imagenet_classes() if config.num_classes == 1000 and "in1k" in (config.tag or "") else None


def state_dict(options: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights of the file, of timm's cache, or of a download; see `pretrained.Source`."""
    architecture, path = options["architecture"], options.get("checkpoint_path")
    timm, config = _with_architecture(architecture), _weights_config(architecture)
    if path is not None and not Path(path).expanduser().is_file():
        raise InputError(f"model.checkpoint_path={path}: no such file")
    if path is not None:
        check_weights_file(Path(path).expanduser(), f"model.checkpoint_path={path}")
    if path is None and config.hf_hub_id and not _is_cached(config):
        announce_download("model.safetensors", config.hf_hub_id)
    # A file is read in place of the download, with the same conversion of names.
    overlay = {"file": str(Path(path).expanduser()), "source": ""} if path is not None else None
    states: list[dict[str, Tensor]] = []
    try:
        for seed in (0, 1):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = timm.create_model(architecture, pretrained=True, pretrained_cfg_overlay=overlay)
                states.append(model.state_dict())
    except Exception as error:  # the hub's client raises many types of exceptions without a network
        cause = one_line(f"{type(error).__name__}: {error}", 160)
        if path is not None:
            raise InputError(f"model.checkpoint_path={path}: not weights of timm's {architecture!r} ({cause})") from error
        origin = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
        raise InputError(
            f"model.architecture={architecture}: its weights are not in the cache and cannot be downloaded "
            f"({cause}); download model.safetensors from {origin} and pass model.checkpoint_path=FILE"
        ) from error
    # timm loads some architectures without requiring every weight; those that are missing keep random values.
    if missing := [name for name, value in states[0].items() if not torch.equal(value, states[1][name])]:
        raise InputError(f"model.architecture={architecture}: the file of weights has no {', '.join(missing[:3])}")
    return states[0]


def _is_cached(config: Any) -> bool:
    """Return whether the Hugging Face Hub's cache has weights of timm."""
    hub = import_module("huggingface_hub")
    repository, _, revision = config.hf_hub_id.partition("@")
    names = filter(None, (config.hf_hub_filename, "model.safetensors", "pytorch_model.bin"))
    return any(isinstance(hub.try_to_load_from_cache(repository, name, revision=revision or None), str) for name in names)


def _weights_config(architecture: str) -> Any:
    """Return timm's description of an architecture's pretrained weights."""
    _with_architecture(architecture)
    config = _config(architecture)
    if config is None or not config.has_weights:
        raise InputError(f"model.architecture={architecture}: timm has no pretrained weights for it; timm.list_pretrained()")
    return config


def _config(architecture: str) -> Any:
    return require_package("timm", "timm").get_pretrained_cfg(architecture)


def _with_architecture(architecture: str) -> Any:
    """Return the package timm, after checking that it has an architecture and, if it is named, the tag."""
    timm = require_package("timm", "timm")
    name, _, tag = architecture.partition(".")
    if ":" in architecture or "/" in architecture or not timm.is_model(name):
        close = get_close_matches(name.lower(), timm.list_models(), n=5, cutoff=0.5)
        hint = f"close names: {', '.join(close)}" if close else "timm.list_models() lists the names"
        raise InputError(f"timm has no architecture {architecture!r}; {hint}")
    if tag and _tags(name) and tag not in _tags(name):
        raise InputError(f"timm's {name!r} has no weights {tag!r}; choose one of {', '.join(_tags(name))}")
    return timm


def _tags(name: str) -> list[str]:
    listed = require_package("timm", "timm").list_pretrained(f"{name}.*")
    return [full.partition(".")[2] for full in listed]
