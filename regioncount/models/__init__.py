"""Models by name: networks, classifiers of scikit-learn, and the two-layer network of the theorem.

The ten networks of the paper are the CIFAR variants (3x3 stem, no early pooling) of kuangliu/pytorch-cifar.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regioncount.models.networks import build, default_options, names

__all__ = ["build", "default_options", "names"]


def __getattr__(name: str):
    # Imported at first use: the options of models are read without torch.
    if name in __all__:
        return getattr(import_module("regioncount.models.networks"), name)
    raise AttributeError(f"module 'regioncount.models' has no attribute {name!r}")
