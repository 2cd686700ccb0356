"""Check that the images of a training and a test split are of one kind and on one scale."""

import warnings

from torch import Tensor

from regioncount.data.splits import Split, StreamedSplit
from regioncount.errors import InputError

SCALES = 16.0  # a ratio of the largest values that cannot be chance: images of 8 bits have 255 times those from 0 to 1


def check_agreement(train: Split | StreamedSplit, test: Split | StreamedSplit, name: str) -> None:
    """Check that the inputs of two splits have one shape, one type and, if they are float images, one scale.

    A warning is given if the largest absolute values of float images differ by a factor of `SCALES` or more. Features are
    not compared: their scales are arbitrary, and a single outlier may be large.

    Args:
        train: The training split.
        test: The test split.
        name: The data set, for messages.

    Raises:
        InputError: The shapes or the types differ; or the images of one split are from 0 to 1, and those of the other have
            values of `SCALES` or more.
    """
    if test.image_shape != train.image_shape:
        shapes = f"{train.image_shape} for training and {test.image_shape} for testing"
        raise InputError(f"dataset={name}: its images have the shapes {shapes}; give both the same shape")
    if not (isinstance(train, Split) and isinstance(test, Split)):
        return
    if train.images.dtype != test.images.dtype:
        kinds = [str(split.images.dtype).removeprefix("torch.") for split in (train, test)]
        raise InputError(
            f"dataset={name}: its images are {kinds[0]} for training and {kinds[1]} for testing, and only uint8 ones are "
            "divided by 255; give both the same type"
        )
    if train.images.dim() == 4 and train.images.is_floating_point():
        _check_scales(train.images, test.images, name)


def _check_scales(train: Tensor, test: Tensor, name: str) -> None:
    """Compare the ranges of the float images of two splits, (N, C, H, W)."""
    ranges = [tuple(bound.item() for bound in images.aminmax()) for images in (train, test)]
    small, large = sorted((max(abs(low), abs(high)), low) for low, high in ranges)
    if large[0] < SCALES * small[0] or large[0] == 0:
        return
    texts = [f"from {low:.4g} to {high:.4g}" for low, high in ranges]
    described = f"dataset={name}: its training images have values {texts[0]}, and its test images {texts[1]}"
    if 0 < small[0] <= 1 and small[1] >= 0 and large[0] >= SCALES:
        raise InputError(f"{described}; give both the same scale: divide those of 8 bits by 255, in both splits or in none")
    warnings.warn(f"{described}; if these are different scales, give both the same", stacklevel=4)
