"""The images and labels of one split, in memory or streamed from files, with one interface; and their fingerprints."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from regioncount.data.image_folder import decode, decode_all
from regioncount.errors import InputError

CROP_FRACTION = 224 / 256  # of the shorter side: ImageNet's "resize to 256, centre crop 224" in one step


@dataclass(frozen=True, eq=False)
class Split:
    """Images, uint8 (N, C, H, W), and labels, int64 (N,), in the memory of one device: a batch is an index."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return tuple(self.images.shape[1:])

    def to(self, device: torch.device | str) -> "Split":
        return Split(self.images.to(device), self.labels.to(device))

    def select(self, indices: Tensor) -> "Split":
        """The split of these images only."""
        return Split(self.take(indices), self.labels[indices.to(self.labels.device)])

    def take(self, indices: Tensor | Sequence[int]) -> Tensor:
        """The images at these k indices, uint8 (k, C, H, W)."""
        return self.images[torch.as_tensor(indices, dtype=torch.int64, device=self.images.device)]

    def batches(self, batch_size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels, batch by batch, in `order` (indices, int64) or as they lie; the last may be smaller."""
        if order is None:
            yield from zip(self.images.split(batch_size), self.labels.split(batch_size), strict=True)
        else:
            for chosen in order.to(self.labels.device).split(batch_size):
                yield self.images[chosen], self.labels[chosen]

    def fingerprint(self, num_classes: int, mean: Sequence[float], std: Sequence[float]) -> str:
        """SHA-256 over the shape, every pixel, every label and the normalization; the same on every device."""
        digest = _begin_fingerprint(self.images.shape, num_classes, mean, std)
        digest.update(self.labels.cpu().numpy().astype("<i8").tobytes())
        for images in self.images.split(1024):
            digest.update(images.cpu().contiguous().numpy())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class StreamedSplit:
    """A split whose images are decoded as they are asked for: central squares, uint8 (3, size, size).

    `labels` is int64 (N,), on the device where batches go too; `file_sizes` is in bytes. `workers` is the number of
    processes that decode batches; with 0 this process does.
    """

    paths: list[str]
    file_sizes: list[int]
    labels: Tensor
    size: int
    workers: int

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 3, self.size, self.size

    def to(self, device: torch.device | str) -> "StreamedSplit":
        return replace(self, labels=self.labels.to(device))

    def select(self, indices: Tensor) -> "StreamedSplit":
        """The split of these images only."""
        chosen = indices.tolist()
        return replace(
            self,
            paths=[self.paths[i] for i in chosen],
            file_sizes=[self.file_sizes[i] for i in chosen],
            labels=self.labels[indices.to(self.labels.device)],
        )

    def take(self, indices: Tensor | Sequence[int]) -> Tensor:
        """The images at these k indices, uint8 (k, 3, size, size); k > 0."""
        paths = [self.paths[i] for i in torch.as_tensor(indices).tolist()]
        return torch.from_numpy(decode_all(paths, self.size, CROP_FRACTION)).to(self.labels.device)

    def batches(self, batch_size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels, batch by batch, in `order` (indices, int64) or as listed; the last may be smaller."""
        order = torch.arange(len(self)) if order is None else order
        chunks = order.cpu().split(batch_size)
        pinned = self.labels.device.type == "cuda"
        loader = DataLoader(
            _Decoder(self.paths, self.size),
            batch_size=None,  # the sampler's elements are whole batches
            sampler=[chunk.tolist() for chunk in chunks],
            num_workers=self.workers,
            pin_memory=pinned,
            generator=torch.Generator(),  # else starting the workers would draw from the global one
        )
        labels = self.labels[order.to(self.labels.device)].split(batch_size)
        for images, batch_labels in zip(loader, labels, strict=True):
            if isinstance(images, InputError):
                raise images
            yield images.to(self.labels.device, non_blocking=pinned), batch_labels

    def fingerprint(self, num_classes: int, mean: Sequence[float], std: Sequence[float]) -> str:
        """SHA-256 over every file's label, name and size, the crop and the normalization: the files are not read."""
        digest = _begin_fingerprint((len(self), *self.image_shape), num_classes, mean, std)
        for path, size, label in zip(self.paths, self.file_sizes, self.labels.tolist(), strict=True):
            digest.update(b"\0%d %d %b" % (label, size, os.fsencode(os.path.basename(path))))
        return digest.hexdigest()


@dataclass(frozen=True)
class _Decoder:
    """Maps a list of indices to their images, uint8 (k, 3, size, size), or to the InputError of the first bad one.

    Handed over, not raised: a worker's exception would reach the user wrapped into a traceback of many lines.
    """

    paths: list[str]
    size: int

    def __getitem__(self, indices: list[int]) -> Tensor | InputError:
        try:
            images = [decode(self.paths[i], self.size, CROP_FRACTION) for i in indices]
        except InputError as error:
            return error
        return torch.from_numpy(np.stack(images))


def _begin_fingerprint(shape: Sequence[int], num_classes: int, mean: Sequence[float], std: Sequence[float]):
    header = {
        "shape": list(shape),
        "num_classes": num_classes,
        "mean": [float(value) for value in mean],
        "std": [float(value) for value in std],
    }
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode())
