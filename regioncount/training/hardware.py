"""Where a run is trained and in which precision: what `auto` resolves to on this machine."""

import os
import shutil

import torch

from regioncount.errors import InputError
from regioncount.regions.evaluation import fast_bfloat16

# The work of a run, in multiply-adds of all forward passes, from which compilation pays on a CPU: some ten minutes of
# training there, against a minute of compiling. On a GPU it has not been measured.
COMPILED_WORK = 3e13


def choose_device(device: str) -> torch.device:
    """The device asked for; `auto` is CUDA where there is one, the CPU otherwise.

    In one of several worker processes, `auto` takes GPUs in turn, by the worker's number. Raises InputError for a device
    this machine does not have.
    """
    if device == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", _worker() % torch.cuda.device_count())
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise InputError(f"device={device}: give auto, cpu, cuda or cuda:N") from None
    if chosen.type not in ("cpu", "cuda"):
        raise InputError(f"device={device}: give auto, cpu, cuda or cuda:N")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device={device}: this machine has {torch.cuda.device_count()} CUDA devices")
    return chosen


def choose_precision(precision: str, device: torch.device) -> str:
    """The training precision: `auto` is bfloat16 autocast where the hardware multiplies in it, float32 otherwise."""
    if precision != "auto":
        return precision
    return "bfloat16" if fast_bfloat16(device) else "float32"


def choose_compilation(asked: bool | str, device: torch.device, work: float) -> bool:
    """Whether training steps are compiled: `auto` does so on a CPU, where there is a C++ compiler, for runs of much work.

    work: multiply-adds of all forward passes of the run. Raises InputError where compilation is asked for and there is no
    compiler.
    """
    if asked is False or (asked == "auto" and (device.type != "cpu" or work < COMPILED_WORK)):
        return False
    found = device.type != "cpu" or any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++")))
    if asked is True and not found:
        raise InputError("compile=true: neither $CXX nor g++ nor clang++ is there; install a C++ compiler or leave it out")
    return found


def _worker() -> int:
    """The number of this process among joblib's workers (LokyProcess-1, ...), 0 elsewhere."""
    import multiprocessing

    _, _, number = multiprocessing.current_process().name.rpartition("LokyProcess-")
    return int(number) - 1 if number.isdigit() else 0
