"""Train a network: the loop, its steps, its stop rule, and the choice of hardware."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regioncount.training.hardware import choose_compilation, choose_device, choose_precision
    from regioncount.training.loop import fit
    from regioncount.training.seeding import initialize
    from regioncount.training.stopping import diverged

# Imported at first use, so that the options of optimizers can be read without torch.
_MODULES = {
    "choose_compilation": "hardware",
    "choose_device": "hardware",
    "choose_precision": "hardware",
    "diverged": "stopping",
    "fit": "loop",
    "initialize": "seeding",
}

__all__ = ["choose_compilation", "choose_device", "choose_precision", "diverged", "fit", "initialize"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"regioncount.training.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'regioncount.training' has no attribute {name!r}")
