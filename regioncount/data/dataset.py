"""A data set: two splits and what belongs to both."""

import functools
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from regioncount.data.splits import Split, StreamedSplit


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split with what belongs to both; `name` is what tables call it.

    `mean` and `std` are per channel, of images scaled to 0..1.
    """

    name: str
    train: Split | StreamedSplit
    test: Split | StreamedSplit
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        return self.train.image_shape[0]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.train.image_shape[1:]

    @functools.cached_property
    def fingerprints(self) -> dict[str, str]:
        """What the data are, whatever they are called and wherever they lie: {"train": hex, "test": hex}."""
        splits = {"train": self.train, "test": self.test}
        return {name: split.fingerprint(self.num_classes, self.mean, self.std) for name, split in splits.items()}

    def to(self, device: torch.device | str) -> "Dataset":
        moved = replace(self, train=self.train.to(device), test=self.test.to(device))
        if "fingerprints" in self.__dict__:  # computed already, and the same on every device
            moved.__dict__["fingerprints"] = self.fingerprints
        return moved

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 images (B, C, H, W) as the models see them: float32, (image / 255 - mean) / std, on their device."""
        mean, std = _channel_constants(self.mean, self.std, images.device)
        return images.float().div_(255).sub_(mean).div_(std)


@functools.lru_cache
def _channel_constants(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    # Kept, so that not every batch copies from the host and waits for it.
    return torch.tensor(mean, device=device).view(-1, 1, 1), torch.tensor(std, device=device).view(-1, 1, 1)
