"""Augmentation of whole batches, computed on the device of the batch.

`regioncount.training.catalogue` registers the augmentations.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from regioncount import registry
from regioncount.data.dataset import Dataset
from regioncount.errors import InputError

Augmentation = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""A function of images, uint8 (B, C, H, W), labels (B,) and a generator on the CPU.

It returns normalized inputs (B, C, H, W) in channels-last layout, and targets: labels (B,) or probabilities (B, classes).
"""


def build_augmentation(name: str, dataset: Dataset) -> Augmentation:
    """Return a registered augmentation, combined with the normalization of a data set."""
    entry = registry.augmentations[name]
    mixes_labels = mixes(name)

    def augment(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if mixes_labels:
            inputs, targets = entry.build(dataset.normalize(images), labels, dataset.num_classes, generator)
        else:
            inputs, targets = dataset.normalize(entry.build(images, generator)), labels
        return inputs.contiguous(memory_format=torch.channels_last), targets

    return augment


def mixes(name: str) -> bool:
    """Return whether an augmentation mixes images and labels, so that running averages do not describe the training set."""
    return bool(registry.augmentations[name].traits.get("mixes_labels"))


def check_augmentation(name: str, dataset: Dataset) -> None:
    """Apply a plugin's augmentation to two training images, and check its result. Others are not checked.

    Raises:
        InputError: The augmentation raises an exception, or its result has the wrong shape or type.
    """
    entry = registry.augmentations[name]
    if entry.plugin is None:
        return
    images, labels, generator = (
        dataset.train.take([0, 1]),
        dataset.train.labels[:2].clone(),
        torch.Generator().manual_seed(0),
    )
    if mixes(name):
        expected = f"images float32 {tuple(images.shape)} and probabilities ({len(labels)}, {dataset.num_classes})"
        result = entry.build(dataset.normalize(images), labels, dataset.num_classes, generator)
        tensors = result if isinstance(result, (tuple, list)) else (result,)
        shapes = [images.shape, (len(labels), dataset.num_classes)]
        types = [torch.float32, torch.float32]
    else:
        expected = f"images uint8 {tuple(images.shape)}"
        tensors, shapes, types = (entry.build(images.clone(), generator),), [images.shape], [torch.uint8]
    valid = len(tensors) == len(shapes) and all(
        isinstance(tensor, Tensor) and tensor.shape == shape and tensor.dtype == dtype
        for tensor, shape, dtype in zip(tensors, shapes, types, strict=True)
    )
    if not valid:
        raise InputError(f"augmentation={name}: the plugin {entry.plugin} must return {expected}")


def unchanged(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images themselves."""
    return images


def crop_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Crop images randomly after zero padding and flip each horizontally with probability 1/2.

    The padding on each side is an eighth of the image size: 4 pixels for images of 32 x 32.

    Args:
        images: uint8 (B, C, H, W), not normalized, on any device.
        generator: A generator on the CPU, so that every device gets the same crops.

    Returns:
        The augmented images, uint8 (B, C, H, W), on the same device. The host does not synchronize with the device.
    """
    batch, channels, height, width = images.shape
    pad_y, pad_x = height // 8, width // 8
    draws = [torch.randint(high, (batch,), generator=generator) for high in (2 * pad_y + 1, 2 * pad_x + 1, 2)]
    top, left, flipped = _copy_to(images.device, torch.stack(draws)).view(3, batch, 1)
    rows = top + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    columns = left + torch.where(flipped.bool(), columns.flip(0), columns)
    padded = F.pad(images, (pad_x, pad_x, pad_y, pad_y))
    image = torch.arange(batch, device=images.device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=images.device).view(-1, 1, 1)
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def mixup(
    images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator, alpha: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return convex combinations of random pairs of images and of their labels (Zhang et al. 2018, "mixup").

    All pairs of a batch have the same weight, drawn from Beta(alpha, alpha).

    Args:
        images: float (B, C, H, W), normalized.
        labels: int64 (B,).
        num_classes: The number of classes.
        generator: A generator on the CPU.
        alpha: The parameter of the Beta distribution.

    Returns:
        The images, float (B, C, H, W), and the class probabilities, float32 (B, num_classes), as targets for
        `torch.nn.functional.cross_entropy`. The host does not synchronize with the device.
    """
    order = _copy_to(images.device, torch.randperm(len(images), generator=generator))
    # torch.distributions.Beta takes no generator, so NumPy draws the weight from a seed that torch draws.
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    weight = float(np.random.default_rng(seed).beta(alpha, alpha))
    targets = (labels[:, None] == torch.arange(num_classes, device=labels.device)).float()
    return weight * images + (1 - weight) * images[order], weight * targets + (1 - weight) * targets[order]


def _copy_to(device: torch.device, values: Tensor) -> Tensor:
    # A copy from pageable memory would synchronize with the device.
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)
