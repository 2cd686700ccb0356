"""Any classifier of torchvision, untrained."""

from difflib import get_close_matches

from torch import nn

from regioncount.errors import InputError


def torchvision_classifier(
    num_classes: int, in_channels: int, image_size: tuple[int, int], *, architecture: str
) -> nn.Module:
    """What torchvision calls `architecture`, just as it defines it: the ImageNet variant, with its own initialization.

    Raises InputError if there is no classifier of this name or it cannot take such images.
    """
    # Imported here because it is slow to import and no other network needs it.
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

    settings = {}
    if architecture in ("googlenet", "inception_v3"):
        settings = {"aux_logits": False, "init_weights": True}  # auxiliary heads would be further outputs in training
    elif architecture.startswith("vit_"):
        height, width = image_size
        if height != width:
            raise InputError(f"torchvision's {architecture!r} takes square images, not {height} x {width}")
        settings = {"image_size": height}
    elif architecture == "maxvit_t":
        settings = {"input_size": image_size}
    try:
        return torchvision.models.get_model(architecture, weights=None, num_classes=num_classes, **settings)
    except (ValueError, AssertionError):
        size = f"{image_size[0]} x {image_size[1]}"
        raise InputError(f"torchvision's {architecture!r} cannot take images of {size}; choose another size") from None
