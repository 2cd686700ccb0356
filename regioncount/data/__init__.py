"""Data sets in memory or streamed from files, and augmentation."""

from regioncount.data.augmentation import crop_flip, mixup
from regioncount.data.dataset import Dataset
from regioncount.data.sources import load
from regioncount.data.splits import Split, StreamedSplit

__all__ = ["Dataset", "Split", "StreamedSplit", "crop_flip", "load", "mixup"]
