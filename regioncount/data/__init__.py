"""Data sets in memory or streamed from files, augmentation, and the subspaces that images span."""

from typing import TYPE_CHECKING

from regioncount.lazy import lazy_names

if TYPE_CHECKING:
    from regioncount.data.augmentation import crop_flip, mixup, random_resized_crop
    from regioncount.data.dataset import Dataset, load
    from regioncount.data.splits import Split, StreamedSplit

# Imported at first use, so that the options of data sets can be read without torch.
_MODULE_OF_NAME = {
    "Dataset": "dataset",
    "Split": "splits",
    "StreamedSplit": "splits",
    "crop_flip": "augmentation",
    "load": "dataset",
    "mixup": "augmentation",
    "random_resized_crop": "augmentation",
}

__all__ = ["Dataset", "Split", "StreamedSplit", "crop_flip", "load", "mixup", "random_resized_crop"]

__getattr__, __dir__ = lazy_names(__name__, _MODULE_OF_NAME)
