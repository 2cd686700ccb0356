"""Image classifiers of torchvision, without pretrained weights."""

from difflib import get_close_matches
from typing import Any

from torch import nn

from regioncount.errors import InputError


def torchvision_classifier(
    num_classes: int, in_channels: int, image_size: tuple[int, int], *, architecture: str
) -> nn.Module:
    """Build a torchvision classifier unchanged: the ImageNet variant with torchvision's initialization.

    Args:
        num_classes: The number of classes.
        in_channels: The channels of an image, which must be 3.
        image_size: Height and width of an image in pixels.
        architecture: A name from `torchvision.models.list_models()`.

    Returns:
        A network from images (B, 3, *image_size) to logits (B, num_classes).

    Raises:
        InputError: There is no classifier of this name, or it does not support these images.
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
    if in_channels != 3:
        raise InputError(f"torchvision's networks take images of 3 channels, not {in_channels}; choose another model")

    settings: dict[str, Any] = {}
    if architecture in ("googlenet", "inception_v3"):
        settings = {"aux_logits": False, "init_weights": True}  # auxiliary heads would add outputs in training
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
