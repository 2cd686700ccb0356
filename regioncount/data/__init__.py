"""Data sets in memory or streamed from files, augmentation, and the subspaces that images span."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regioncount.data.augmentation import crop_flip, mixup
    from regioncount.data.dataset import Dataset, load
    from regioncount.data.splits import Split, StreamedSplit

# Imported at first use, so that the options of data sets can be read without torch.
_MODULES = {
    "Dataset": "dataset",
    "Split": "splits",
    "StreamedSplit": "splits",
    "crop_flip": "augmentation",
    "load": "dataset",
    "mixup": "augmentation",
}

__all__ = ["Dataset", "Split", "StreamedSplit", "crop_flip", "load", "mixup"]


def __getattr__(name: str):
    if name in _MODULES:
        return getattr(import_module(f"regioncount.data.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'regioncount.data' has no attribute {name!r}")
