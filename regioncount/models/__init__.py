"""Models by name: networks, scikit-learn classifiers, and the two-layer network of the paper's theorem.

The ten networks of the paper are the CIFAR variants (3x3 stem, no pooling after it) of kuangliu/pytorch-cifar.
"""

from typing import TYPE_CHECKING

from regioncount.lazy import lazy_names

if TYPE_CHECKING:
    from regioncount.models.networks import build, default_options, names

__all__ = ["build", "default_options", "names"]

# Imported at first use, so that the options of models can be read without torch.
__getattr__, __dir__ = lazy_names(__name__, dict.fromkeys(__all__, "networks"))
