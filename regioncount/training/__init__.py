"""Training a network: the loop, its steps, and the hardware it runs on."""

from regioncount.training.hardware import choose_compilation, choose_device, choose_precision
from regioncount.training.loop import diverged, fit, initialize

__all__ = ["choose_compilation", "choose_device", "choose_precision", "diverged", "fit", "initialize"]
