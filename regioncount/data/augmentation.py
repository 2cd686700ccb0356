"""Augmentations of batches, on the device the batch lies on."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def crop_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random crops after padding with black by an eighth of the size (4 pixels at 32), half of them mirrored.

    images: uint8 (B, C, H, W), not normalized, on any device; the result is of the same kind. `generator` is on the
    CPU: the same crops on every device. Nothing waits for the device.
    """
    batch, channels, height, width = images.shape
    pad_y, pad_x = height // 8, width // 8
    draws = [torch.randint(high, (batch,), generator=generator) for high in (2 * pad_y + 1, 2 * pad_x + 1, 2)]
    top, left, mirrored = _send(torch.stack(draws), images.device).view(3, batch, 1)
    rows = top + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    columns = left + torch.where(mirrored.bool(), columns.flip(0), columns)
    padded = F.pad(images, (pad_x, pad_x, pad_y, pad_y))
    image = torch.arange(batch, device=images.device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=images.device).view(-1, 1, 1)
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def mixup(
    images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator, alpha: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Convex combinations of pairs of images and of their labels (Zhang et al. 2018), one weight ~ Beta(alpha, alpha).

    images: float (B, C, H, W), normalized; labels: int64 (B,). Returns images and targets, float32 (B, num_classes),
    rows summing to 1, as cross_entropy takes them. `generator` is on the CPU. Nothing waits for the device.
    """
    order = _send(torch.randperm(len(images), generator=generator), images.device)
    # torch's own Beta distribution takes no generator.
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    weight = float(np.random.default_rng(seed).beta(alpha, alpha))
    targets = (labels[:, None] == torch.arange(num_classes, device=labels.device)).float()
    return weight * images + (1 - weight) * images[order], weight * targets + (1 - weight) * targets[order]


def _send(numbers: Tensor, device: torch.device) -> Tensor:
    # A copy from pageable memory would wait for the device.
    return numbers.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else numbers.to(device)
