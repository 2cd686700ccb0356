"""The images and labels of one split, in memory or streamed from files, behind one interface."""

import hashlib
import json
import math
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils import data as torch_data

from regioncount.data.image_folder import decode, decode_all, decode_random_crop
from regioncount.data.random_crops import draws_of_image
from regioncount.errors import InputError

if TYPE_CHECKING:
    from hashlib import _Hash

# The side of the central square relative to the image's shorter side. ImageNet's usual evaluation transform resizes the
# shorter side to 256 and crops the central 224.
CROP_FRACTION = 224 / 256
SHARED_MEMORY = Path("/dev/shm")  # in which worker processes leave their batches, on Linux


@dataclass(frozen=True, eq=False)
class Split:
    """A split in the memory of one device. Batches are taken by indexing."""

    images: Tensor
    """The inputs: images, uint8 or float32 (N, C, H, W), or features, float32 (N, F)."""
    labels: Tensor
    """int64 (N,)."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Channels, height and width of an image; or the number of features."""
        return tuple(self.images.shape[1:])

    def to(self, device: torch.device | str) -> "Split":
        """Return the split on a device."""
        return Split(self.images.to(device), self.labels.to(device))

    def select(self, indices: Tensor) -> "Split":
        """Return the split of the images at `indices`, int64 (k,)."""
        return Split(self.take(indices), self.labels[indices.to(self.labels.device)])

    def take(self, indices: Tensor | Sequence[int]) -> Tensor:
        """Return the inputs at k indices, (k, C, H, W) or (k, F)."""
        return self.images[torch.as_tensor(indices, dtype=torch.int64, device=self.images.device)]

    def batches(self, batch_size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over batches; the last one may be smaller.

        Args:
            batch_size: The number of images in a batch.
            order: The indices of the images, int64 (k,); None for all images in stored order.

        Yields:
            Inputs, (B, C, H, W) or (B, F), and labels, int64 (B,).
        """
        if order is None:
            yield from zip(self.images.split(batch_size), self.labels.split(batch_size), strict=True)
        else:
            for indices in order.to(self.labels.device).split(batch_size):
                yield self.images[indices], self.labels[indices]

    def fingerprint(self, num_classes: int, mean: Sequence[float], std: Sequence[float]) -> str:
        """Return a SHA-256 hash of the shape, all values, all labels and the normalization, the same on all devices."""
        digest = _begin_fingerprint(self.images.shape, num_classes, mean, std)
        if self.images.dtype != torch.uint8:
            digest.update(str(self.images.dtype).encode())
        digest.update(self.labels.cpu().numpy().astype("<i8").tobytes())
        for images in self.images.split(1024):
            array = images.cpu().contiguous().numpy()
            digest.update(array.data if array.dtype == np.uint8 else array.astype("<f4").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class StreamedSplit:
    """A split whose images, uint8 (3, size, size), are decoded from files when a batch needs them."""

    paths: list[str]
    """The N image files."""
    file_sizes: list[int]
    """The size of each file in bytes."""
    labels: Tensor
    """int64 (N,), on the device to which batches are copied."""
    size: int
    """Height and width of the images in pixels."""
    workers: int
    """The number of processes that decode batches; 0 to decode in the calling process."""
    squash: bool = False
    """Whether whole images are resampled to squares; otherwise, their central squares are taken."""
    shorter_side: int | None = None
    """The length of the resized shorter side of which the central square is cropped; None: 8/7 of `size`."""
    resampling: str = "bilinear"
    """The filter, "bilinear" or "bicubic"."""

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return 3, self.size, self.size

    @property
    def fraction(self) -> float | None:
        """The side of the central square relative to the image's shorter side; None if images are squashed."""
        return None if self.squash else CROP_FRACTION

    @property
    def _form(self) -> tuple[int, float | None, int | None, str]:
        """The arguments of `decode`, after the path."""
        return self.size, self.fraction, self.shorter_side, self.resampling

    def to(self, device: torch.device | str) -> "StreamedSplit":
        """Return the split with its labels on a device, to which batches are then copied."""
        return replace(self, labels=self.labels.to(device))

    def select(self, indices: Tensor) -> "StreamedSplit":
        """Return the split of the images at `indices`, int64 (k,)."""
        kept_indices = indices.tolist()
        return replace(
            self,
            paths=[self.paths[i] for i in kept_indices],
            file_sizes=[self.file_sizes[i] for i in kept_indices],
            labels=self.labels[indices.to(self.labels.device)],
        )

    def take(self, indices: Tensor | Sequence[int]) -> Tensor:
        """Return the images at k > 0 indices, uint8 (k, 3, size, size)."""
        paths = [self.paths[i] for i in torch.as_tensor(indices).tolist()]
        return torch.from_numpy(decode_all(paths, *self._form)).to(self.labels.device)

    def batches(
        self, batch_size: int, order: Tensor | None = None, crop_seed: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over batches; the last one may be smaller.

        Args:
            batch_size: The number of images in a batch.
            order: The indices of the images, int64 (k,); None for all images in stored order.
            crop_seed: If given, random crops of the original images are decoded, with random flips; see `crop_boxes`. They
                follow from this seed and the image's index, and not from the order and the number of workers.

        Yields:
            Images, uint8 (B, 3, size, size), and labels, int64 (B,).

        Raises:
            InputError: A file cannot be decoded.
        """
        order = torch.arange(len(self)) if order is None else order
        pin_memory = self.labels.device.type == "cuda"
        loader = torch_data.DataLoader(
            _DecodedBatches(self.paths, self._form, crop_seed),
            batch_size=None,  # each element of the sampler is a whole batch
            sampler=[indices.tolist() for indices in order.cpu().split(batch_size)],
            num_workers=self._usable_workers(batch_size),
            pin_memory=pin_memory,
            generator=torch.Generator(),  # keeps the loader from drawing the workers' seed from the global generator
        )
        labels = self.labels[order.to(self.labels.device)].split(batch_size)
        for images, batch_labels in zip(loader, labels, strict=True):
            if isinstance(images, InputError):
                raise images
            yield images.to(self.labels.device, non_blocking=pin_memory), batch_labels

    def _usable_workers(self, batch_size: int) -> int:
        """Return the number of worker processes; 0 if their batches do not fit into the shared memory, where they hang."""
        needed = 2 * self.workers * batch_size * math.prod(self.image_shape)  # each worker prepares two batches
        if not self.workers or not SHARED_MEMORY.is_dir() or needed <= (free := shutil.disk_usage(SHARED_MEMORY).free):
            return self.workers
        warnings.warn(
            f"{SHARED_MEMORY} has {free / 1e6:.0f} MB free, but dataset.workers={self.workers} needs {needed / 1e6:.0f} MB: "
            "images are decoded without workers, which is slower; enlarge it (docker run --shm-size) or use fewer workers",
            stacklevel=3,
        )
        return 0

    def fingerprint(self, num_classes: int, mean: Sequence[float], std: Sequence[float]) -> str:
        """Return a SHA-256 hash of labels, file names and sizes, the form of the images, and the normalization.

        The content of the files is not read.
        """
        digest = _begin_fingerprint((len(self), *self.image_shape), num_classes, mean, std)
        if self.squash:
            digest.update(b"squash")
        if self.shorter_side is not None:
            digest.update(b"shorter side %d" % self.shorter_side)
        if self.resampling != "bilinear":
            digest.update(self.resampling.encode())
        for path, size, label in zip(self.paths, self.file_sizes, self.labels.tolist(), strict=True):
            digest.update(b"\0%d %d %b" % (label, size, os.fsencode(os.path.basename(path))))
        return digest.hexdigest()


@dataclass(frozen=True)
class _DecodedBatches(torch_data.Dataset[Tensor | InputError]):
    """Map a list of k indices to images, uint8 (k, 3, size, size), or to the InputError of the first undecodable file.

    The error is returned, not raised, because a DataLoader wraps exceptions of its workers into multi-line tracebacks.
    """

    paths: list[str]
    form: tuple[int, float | None, int | None, str]
    crop_seed: int | None

    def __getitem__(self, indices: list[int]) -> Tensor | InputError:
        try:
            images = [self._decode(index) for index in indices]
        except InputError as error:
            return error
        return torch.from_numpy(np.stack(images))

    def _decode(self, index: int) -> np.ndarray:
        if self.crop_seed is None:
            return decode(self.paths[index], *self.form)
        return decode_random_crop(self.paths[index], self.form[0], draws_of_image(self.crop_seed, index))


def _begin_fingerprint(shape: Sequence[int], num_classes: int, mean: Sequence[float], std: Sequence[float]) -> "_Hash":
    header = {
        "shape": list(shape),
        "num_classes": num_classes,
        "mean": [float(value) for value in mean],
        "std": [float(value) for value in std],
    }
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode())
