"""Networks by name: architecture and nothing else. Weights are initialized with PyTorch's defaults.

The ten networks of the paper are the CIFAR variants (3x3 stem, no early pooling) of kuangliu/pytorch-cifar.
"""

import inspect
from numbers import Integral, Real

from torch import nn

from regioncount.errors import InputError
from regioncount.models import (
    dla,
    efficientnet,
    mlp,
    mobilenet,
    regnet,
    resnet,
    senet,
    shufflenet,
    small_cnn,
    torchvision,
    vgg,
    vision_transformer,
)

# A builder takes num_classes and in_channels, image_size if it needs it, and its options as keyword-only arguments.
NETWORKS = {
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "vgg19": vgg.vgg19,
    "mobilenet": mobilenet.mobilenet,
    "senet18": senet.senet18,
    "shufflenetv2": shufflenet.shufflenetv2,
    "efficientnet_b0": efficientnet.efficientnet_b0,
    "regnetx_200mf": regnet.regnetx_200mf,
    "simple_dla": dla.simple_dla,
    "mobilenetv2": mobilenet.mobilenetv2,
    "small_cnn": small_cnn.small_cnn,
    "mlp": mlp.mlp,
    "vision_transformer": vision_transformer.vision_transformer,
    "torchvision": torchvision.torchvision_classifier,
}

LARGEST = 2**16  # of widths, depths, classes, pixels


def names() -> tuple[str, ...]:
    """Names that `build` knows."""
    return tuple(NETWORKS)


def default_options(name: str) -> dict[str, int | float | str]:
    """Options of a network with their defaults. Raises InputError if there is no network of this name."""
    if name not in names():
        raise InputError(f"unknown network {name!r}; choose one of: {', '.join(names())}")
    parameters = inspect.signature(NETWORKS[name]).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def build(
    name: str,
    num_classes: int = 10,
    in_channels: int = 3,
    *,
    image_size: int | tuple[int, int] = 32,
    **options: int | float | str,
) -> nn.Module:
    """A network that maps images (B, in_channels, height, width) to logits (B, num_classes).

    `image_size` is one number or (height, width), in pixels; only networks of a fixed input size use it.
    `options` are those of the network, see `default_options`. `width`, where a convolutional network has it, is the
    number of channels of its first convolution; all other channel counts are scaled with it.

    Raises InputError for an unknown name or option and for a value that cannot be used.
    """
    defaults = default_options(name)
    for option, value in options.items():
        if option not in defaults:
            raise InputError(f"network {name!r} has no option {option!r}; its options: {', '.join(defaults)}")
        if isinstance(defaults[option], int):
            _require_positive_integer(option, value)
        elif isinstance(defaults[option], float):
            _require_fraction(option, value)
        elif not isinstance(value, str):
            raise InputError(f"{option} must be a name, not {value!r}")
    _require_positive_integer("num_classes", num_classes)
    _require_positive_integer("in_channels", in_channels)
    image_size = _height_and_width(image_size)

    builder = NETWORKS[name]
    if "image_size" in inspect.signature(builder).parameters:
        options["image_size"] = image_size
    return builder(num_classes, in_channels, **options)


def _height_and_width(image_size):
    sides = (image_size, image_size) if isinstance(image_size, Integral) else image_size
    try:
        height, width = sides
    except (TypeError, ValueError):
        raise InputError(f"image_size must be one integer or (height, width), not {image_size!r}") from None
    _require_positive_integer("image_size", height)
    _require_positive_integer("image_size", width)
    return height, width


def _require_positive_integer(name, value):
    if not isinstance(value, Integral) or isinstance(value, bool) or not 1 <= value <= LARGEST:
        raise InputError(f"{name} must be a positive integer up to {LARGEST}, not {value!r:.40}")


def _require_fraction(name, value):
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= value < 1:
        raise InputError(f"{name} must be a number of at least 0 and below 1, not {value!r}")
