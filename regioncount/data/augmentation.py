"""Augmentation of whole batches, computed on the device of the batch.

Random crops of streamed images are made when the files are decoded, on the CPU.

`regioncount.training.catalogue` registers the augmentations.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from regioncount import registry
from regioncount.data.dataset import Dataset
from regioncount.data.random_crops import DRAWS, crop_boxes
from regioncount.data.splits import StreamedSplit
from regioncount.errors import InputError
from regioncount.regions.evaluation import training_layout

Augmentation = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""A function of inputs, not normalized, (B, C, H, W) or (B, F), labels (B,) and a generator on the CPU.

It returns normalized inputs, images in channels-last layout, and targets: labels (B,) or probabilities (B, classes).
"""


def build_augmentation(name: str, dataset: Dataset) -> Augmentation:
    """Return a registered augmentation of batches of `training_batches`, combined with the normalization of a data set."""
    entry = registry.augmentations[name]
    mixes_labels, cropped = mixes(name), crops_files(name, dataset)

    def augment(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if mixes_labels:
            inputs, targets = entry.build(dataset.normalize(images), labels, dataset.num_classes, generator)
        else:
            augmented = images if cropped else entry.build(images, generator)
            inputs, targets = dataset.normalize(augmented), labels
        return inputs.contiguous(memory_format=training_layout(inputs.device)) if inputs.dim() == 4 else inputs, targets

    return augment


def training_batches(
    name: str, dataset: Dataset, batch_size: int, order: Tensor, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate over the batches of an epoch.

    Args:
        name: The augmentation. If it crops image files, the batches already consist of crops.
        dataset: The data set.
        batch_size: The number of images in a batch.
        order: The indices of the training images, int64 (N,).
        generator: The epoch's generator, on the CPU.

    Yields:
        Inputs (B, C, H, W) or (B, F), and labels, int64 (B,), to be augmented by `build_augmentation(name, dataset)`.
    """
    train = dataset.train
    if isinstance(train, StreamedSplit) and crops_files(name, dataset):
        seed = int(torch.randint(2**63 - 1, (), generator=generator))
        yield from train.batches(batch_size, order, seed)
    else:
        yield from train.batches(batch_size, order)


def crops_files(name: str, dataset: Dataset) -> bool:
    """Return whether an augmentation crops the original images of a streamed data set when they are decoded."""
    entry = registry.augmentations[name]
    return isinstance(dataset.train, StreamedSplit) and entry.plugin is None and bool(entry.traits.get("crops_files"))


def mixes(name: str) -> bool:
    """Return whether an augmentation mixes images and labels, so that running averages do not describe the training set."""
    return bool(registry.augmentations[name].traits.get("mixes_labels"))


def check_augmentation(name: str, dataset: Dataset) -> None:
    """Check that an augmentation fits the data. A plugin's is applied to two training images, and its result is checked.

    Raises:
        InputError: The augmentation is one of images and the inputs are features, it raises an exception, or its result
            has the wrong shape or type.
    """
    entry = registry.augmentations[name]
    if entry.traits.get("needs_images") and not dataset.image_size:
        raise InputError(f"augmentation={name}: the inputs are features, not images; choose none or mixup")
    if entry.plugin is None:
        return
    images, labels = dataset.train.take([0, 1]), dataset.train.labels[:2].clone()
    generator = torch.Generator().manual_seed(0)
    if mixes(name):
        expected = f"images float32 {tuple(images.shape)} and probabilities ({len(labels)}, {dataset.num_classes})"
        result = entry.build(dataset.normalize(images), labels, dataset.num_classes, generator)
        tensors = result if isinstance(result, (tuple, list)) else (result,)
        shapes = [images.shape, (len(labels), dataset.num_classes)]
        types = [torch.float32, torch.float32]
    else:
        dtype = str(images.dtype).removeprefix("torch.")
        expected = f"{'images' if dataset.image_size else 'features'} {dtype} {tuple(images.shape)}"
        tensors, shapes, types = (entry.build(images.clone(), generator),), [images.shape], [images.dtype]
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
        images: uint8 or float32 (B, C, H, W), not normalized, on any device.
        generator: A generator on the CPU, so that every device gets the same crops.

    Returns:
        The augmented images, of the same shape, type and device. The host does not synchronize with the device.
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


def random_resized_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Crop images randomly, resize the crops to the images' size, and flip each horizontally with probability 1/2.

    Crops are those of `torchvision.transforms.RandomResizedCrop` (area 0.08 to 1 of the image, aspect ratio 3/4 to 4/3,
    bilinear with antialiasing); see `crop_boxes`. Some pixels differ from its pixels by one level, because of rounding.

    Args:
        images: uint8 or float32 (B, C, H, W), not normalized, on any device.
        generator: A generator on the CPU, so that every device gets the same crops.

    Returns:
        The augmented images, of the same shape, type and device. The host does not synchronize with the device.
    """
    batch, _, height, width = images.shape
    draws = torch.rand(batch, DRAWS, generator=generator, dtype=torch.float64)
    boxes, flips = crop_boxes(draws.numpy(), height, width)
    columns = torch.from_numpy(np.column_stack([boxes, flips]))
    top, left, crop_height, crop_width, flipped = _copy_to(images.device, columns).T
    vertical = _resampling_weights(top, crop_height, height)
    horizontal = _resampling_weights(left, crop_width, width)
    horizontal = torch.where(flipped.bool()[:, None, None], horizontal.flip(1), horizontal)
    # Resampling is separable. One product of matrices resamples the crops of a batch, which have different sizes.
    crops = vertical[:, None] @ images.float() @ horizontal[:, None].mT
    return crops.round_().to(torch.uint8) if images.dtype == torch.uint8 else crops


def _resampling_weights(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Return the weights with which `size` pixels are resampled from a part of as many, by the antialiased linear filter.

    Args:
        start: The first pixel of the part, int64 (B,).
        length: Its number of pixels, int64 (B,).
        size: The number of pixels before and after resampling.

    Returns:
        The weights, float32 (B, size, size): those of the old pixels in each new one.
    """
    pixels = torch.arange(size, device=start.device)
    scale = (length / size)[:, None, None]
    centers = start[:, None, None] + (pixels[:, None] + 0.5) * scale
    inside = (pixels >= start[:, None, None]) & (pixels < (start + length)[:, None, None])
    weights = (1 - (pixels + 0.5 - centers).abs() / scale.clamp(min=1)).clamp(min=0) * inside
    return weights / weights.sum(dim=2, keepdim=True)


def mixup(
    images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator, alpha: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return convex combinations of random pairs of images and of their labels (Zhang et al. 2018, "mixup").

    All pairs of a batch have the same weight, drawn from Beta(alpha, alpha).

    Args:
        images: float (B, C, H, W) or (B, F), normalized.
        labels: int64 (B,).
        num_classes: The number of classes.
        generator: A generator on the CPU.
        alpha: The parameter of the Beta distribution.

    Returns:
        The images, of the same shape, and the class probabilities, float32 (B, num_classes), as targets for
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
