"""Models by name: networks, scikit-learn classifiers, and the two-layer network of the paper's theorem.

The ten networks of the paper are the CIFAR variants (3x3 stem, no pooling after it) of kuangliu/pytorch-cifar.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regioncount.models.networks import build, default_options, names

__all__ = ["build", "default_options", "names"]


def __getattr__(name: str) -> Any:
    # Imported at first use, so that the options of models can be read without torch.
    if name in __all__:
        return getattr(import_module("regioncount.models.networks"), name)
    raise AttributeError(f"module 'regioncount.models' has no attribute {name!r}")
