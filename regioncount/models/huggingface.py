"""Image classifiers of the package transformers (extra `transformers`), and their pretrained weights."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

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
from regioncount.regions.outputs import as_output

MIN_NAMES = 900  # of the 1,000 names of ImageNet's classes; packages spell some differently
# The files of a model, and what each contains.
FILES = {
    "config.json": "the architecture",
    "model.safetensors": "the weights",
    "preprocessor_config.json": "the resizing and the normalization of the images",
}
RESAMPLING = {2: "bilinear", 3: "bicubic"}  # the numbers of Pillow's filters


def huggingface_classifier(
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int],
    *,
    path: str,
    pretrained: bool = True,
    digest: str | None = None,
) -> nn.Module:
    """Build an image classifier of transformers with random weights.

    Pretrained weights are not loaded here; see `regioncount.models.pretrained.build_initial`.

    Args:
        num_classes: The number of classes.
        in_channels: The channels of an image.
        image_size: Height and width of an image in pixels.
        path: A folder written by `save_pretrained`, or a name on the Hugging Face Hub.
        pretrained: Whether the network is built for pretrained weights.
        digest: The recorded hash of the configuration.

    Returns:
        A network from images (B, in_channels, *image_size) to logits (B, num_classes).

    Raises:
        InputError: The package is not installed, the configuration cannot be read or has changed, or it does not support
            these images.
    """
    transformers = _transformers()
    if digest is not None and digest != _config_digest(path):
        raise InputError(f"model.path={path}: its config.json has changed since the run was recorded; restore it")
    config = _load(transformers.AutoConfig, path, "config.json")
    config.num_labels = num_classes
    if hasattr(config, "num_channels"):
        config.num_channels = in_channels
    if hasattr(config, "image_size"):
        height, width = image_size
        config.image_size = height if height == width else [height, width]
    try:
        # Weights may be recorded as float16, in which from_config would build the network.
        network = transformers.AutoModelForImageClassification.from_config(config, dtype="float32")
    except Exception as error:  # each architecture checks its configuration in its own way
        size = f"{in_channels} x {image_size[0]} x {image_size[1]}"
        raise InputError(f"model.path={path}: no classifier of images of {size} ({one_line(error, 160)})") from error
    network.register_forward_hook(_return_logits)
    return network


def _return_logits(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor:
    return as_output(output)


def resolve(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with a hash of the configuration; see `pretrained.Source`."""
    return {**options, "digest": _config_digest(options["path"])}


def preprocessing(options: Mapping[str, Any]) -> Preprocessing:
    """Return what the model's image processor does; see `pretrained.Source`."""
    path, transformers = options["path"], _transformers()
    processor = _load(transformers.AutoImageProcessor, path, "preprocessor_config.json")
    source = f"model.path={path}"
    sizes = dict(getattr(processor, "size", None) or {})
    crop = dict(getattr(processor, "crop_size", None) or {}) if getattr(processor, "do_center_crop", False) else {}
    edge, fraction = sizes.get("shortest_edge"), getattr(processor, "crop_pct", None)
    resize, shorter_side = sizes.get("height"), None
    if edge and crop:
        resize, shorter_side = crop.get("height"), edge
    elif edge:  # ConvNeXt: cropped below 384 pixels, else squashed
        resize, shorter_side = edge, int(edge / fraction) if fraction and edge < 384 else None
    resampling = RESAMPLING.get(int(getattr(processor, "resample", None) or 2))
    steps = [getattr(processor, name, False) for name in ("do_resize", "do_rescale", "do_normalize")]
    if resize is None or resampling is None or not all(steps):
        raise InputError(f"{source}: its {type(processor).__name__} is not a resize and a normalization; not supported")
    ours = Preprocessing(int(resize), shorter_side, resampling, tuple(processor.image_mean), tuple(processor.image_std))
    check_preprocessing(ours, lambda picture: processor(images=picture, return_tensors="pt")["pixel_values"][0], source)
    return ours


def class_names(options: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the names in the configuration, or the WordNet ids if they are ImageNet's; see `pretrained.Source`."""
    labels = _load(_transformers().AutoConfig, options["path"], "config.json").id2label
    names = [str(labels[index]) for index in range(len(labels))]
    if all(name == f"LABEL_{index}" for index, name in enumerate(names)) or len(set(names)) < 2:
        return None
    if len(names) == 1000 and _number_of_imagenet_names(names) >= MIN_NAMES:
        return imagenet_classes()
    return tuple(names) if len(set(names)) == len(names) else None


def _number_of_imagenet_names(names: list[str]) -> int:
    """Return how many names, of synonyms with commas, contain the name that torchvision gives to the class of that index."""
    from torchvision.models import ResNet18_Weights

    expected = ResNet18_Weights.DEFAULT.value.meta["categories"]
    return sum(ours.lower() in name.lower() for ours, name in zip(expected, names, strict=True))


def state_dict(options: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights of the folder, of the cache, or of a download; see `pretrained.Source`.

    Weights of the network that the files do not have, such as those of a new last layer, are left out.
    """
    loader = _transformers().AutoModelForImageClassification
    for file in _weights_files(Path(options["path"]).expanduser()):
        check_weights_file(file, f"model.path={options['path']}")
    network, report = _load(loader, options["path"], "model.safetensors", output_loading_info=True, dtype="float32")
    return {name: value for name, value in network.state_dict().items() if name not in set(report["missing_keys"])}


def _weights_files(folder: Path) -> list[Path]:
    """Return the files of weights that transformers reads from a folder: those of safetensors if there are any."""
    for name, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        if found := sorted([*folder.glob(f"{name}.{suffix}"), *folder.glob(f"{name}-*-of-*.{suffix}")]):
            return found
    return []


def _load(loader: Any, path: str, file: str, **options: Any) -> Any:
    """Call `from_pretrained` for files on disk or, if they are not there, for a download. No code in them is executed."""
    source = str(Path(path).expanduser())
    if not Path(source).is_dir():
        with suppress(OSError):  # not in the cache
            return _from_pretrained(loader, source, path, file, local_files_only=True, **options)
        announce_download(file, path)
    return _from_pretrained(loader, source, path, file, **options)


def _from_pretrained(loader: Any, source: str, path: str, file: str, **options: Any) -> Any:
    from_cache = options.get("local_files_only", False) and not Path(source).is_dir()
    try:
        return loader.from_pretrained(source, trust_remote_code=False, **options)
    except Exception as error:
        if from_cache and isinstance(error, OSError):
            raise
        reason = one_line(f"{type(error).__name__}: {error}", 160)
        folder = Path(source)
        is_weights = file == "model.safetensors"
        if folder.is_dir() and not (_weights_files(folder) if is_weights else (folder / file).exists()):
            raise InputError(
                f"model.path={path}: this folder has no {file}, with {FILES[file]}; copy it from the model's page on the "
                "Hugging Face Hub, or write it with save_pretrained(FOLDER) of the model or of its image processor"
            ) from error
        if folder.is_dir():
            raise InputError(f"model.path={path}: {file} in this folder cannot be loaded ({reason})") from error
        raise InputError(
            f"model.path={path} is no folder, and {file} is not in {_cache()} and cannot be downloaded ({reason}); "
            f"download {', '.join(FILES)} from https://huggingface.co/{path}/tree/main into a folder, and pass "
            "model.path=FOLDER"
        ) from error


def _cache() -> str:
    return str(import_module("huggingface_hub.constants").HF_HUB_CACHE)


def _config_digest(path: str) -> str:
    """Return a hash of config.json, 16 hexadecimal digits."""
    transformers = _transformers()
    _load(transformers.AutoConfig, path, "config.json")  # raises the errors, and downloads the file
    file = transformers.utils.cached_file(str(Path(path).expanduser()), "config.json", local_files_only=True)
    return hashlib.sha256(Path(str(file)).read_bytes()).hexdigest()[:16]


def _transformers() -> Any:
    transformers = require_package("transformers", "huggingface")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers
