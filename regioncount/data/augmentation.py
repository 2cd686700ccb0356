"""Augmentation of whole batches, computed on the device of the batch."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


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
