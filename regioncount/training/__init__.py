"""Train a network: the loop, its steps, its stop rule, and the choice of hardware."""

from typing import TYPE_CHECKING

from regioncount.lazy import lazy_names

if TYPE_CHECKING:
    from regioncount.training.hardware import choose_compilation, choose_device, choose_precision
    from regioncount.training.loop import UnusableCheckpoint, epochs_done, fit
    from regioncount.training.seeding import initialize
    from regioncount.training.stopping import diverged

# Imported at first use, so that the options of optimizers can be read without torch.
_MODULE_OF_NAME = {
    "UnusableCheckpoint": "loop",
    "choose_compilation": "hardware",
    "choose_device": "hardware",
    "choose_precision": "hardware",
    "diverged": "stopping",
    "epochs_done": "loop",
    "fit": "loop",
    "initialize": "seeding",
}

__all__ = [
    "UnusableCheckpoint",
    "choose_compilation",
    "choose_device",
    "choose_precision",
    "diverged",
    "epochs_done",
    "fit",
    "initialize",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULE_OF_NAME)
