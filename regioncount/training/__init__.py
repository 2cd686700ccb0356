"""Train a network: the loop, its steps, its stop rule, and the hardware that it runs on."""

from regioncount.training.hardware import choose_compilation, choose_device, choose_precision
from regioncount.training.loop import fit
from regioncount.training.seeding import initialize
from regioncount.training.stopping import diverged

__all__ = ["choose_compilation", "choose_device", "choose_precision", "diverged", "fit", "initialize"]
