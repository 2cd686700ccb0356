"""The device, precision and compilation of a run: what `auto` resolves to on this machine."""

import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from functools import lru_cache

import torch

from regioncount.errors import InputError
from regioncount.regions.evaluation import fast_bfloat16

# The number of multiply-adds, over all forward passes of a run, above which compilation pays off on a CPU: about ten
# minutes of training, compared with one minute of compiling. Not measured on a GPU.
MIN_COMPILED_WORK = 3e13


def choose_device(device: str) -> torch.device:
    """Return the device on which to train and to measure.

    Args:
        device: "auto", "cpu", "cuda", "cuda:N" or "mps" (the GPU of a Mac). "auto" is CUDA if available, else the CPU.
            The processes that the launchers parallel and joblib start share the GPUs: number i gets GPU i modulo the number
            of GPUs. Any other process takes, and keeps, the GPU with the most free memory among those of the same model as
            the first one, so that the choice changes neither the precision nor the recorded hardware.

    Returns:
        The device.

    Raises:
        InputError: The device is unknown, or this machine does not have it.
    """
    if device == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        index = _worker_index()
        return torch.device("cuda", _freest_gpu() if index is None else index % torch.cuda.device_count())
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise InputError(f"device={device}: give auto, cpu, cuda, cuda:N or mps") from None
    if chosen.type not in ("cpu", "cuda", "mps") or (chosen.type == "mps" and chosen.index):
        raise InputError(f"device={device}: give auto, cpu, cuda, cuda:N or mps")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"device={device}: this machine, or this version of torch, has no MPS; pass device=cpu")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        number = torch.cuda.device_count()
        raise InputError(f"device={device}: this machine has {number} CUDA device{'s' * (number != 1)}; pass device=auto")
    return chosen


def choose_precision(precision: str, device: torch.device) -> str:
    """Return the training precision, "float32" or "bfloat16".

    Args:
        precision: One of the two, or "auto": bfloat16 autocast if the hardware multiplies in bfloat16, else float32.
        device: The device of training.

    Returns:
        The precision.
    """
    if precision != "auto":
        return precision
    return "bfloat16" if fast_bfloat16(device) else "float32"


def choose_compilation(compilation: bool | str, device: torch.device, work: float) -> bool:
    """Return whether to compile the training step with torch.compile.

    Args:
        compilation: True, False or "auto". "auto" compiles long runs on a CPU if there is a C++ compiler, except on a Mac,
            whose compiler lacks OpenMP.
        device: The device of training.
        work: The multiply-adds in all forward passes of the run.

    Returns:
        Whether to compile.

    Raises:
        InputError: Compilation is requested on a CPU, but there is no C++ compiler.
    """
    pays_off = device.type == "cpu" and work >= MIN_COMPILED_WORK and sys.platform != "darwin"
    if compilation is False or (compilation == "auto" and not pays_off):
        return False
    possible = device.type != "cpu" or any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++")))
    if compilation is True and not possible:
        raise InputError("compile=true: no C++ compiler found ($CXX, g++, clang++); install one or remove compile=true")
    return possible


def _worker_index() -> int | None:
    """Return the index of this process among those that a launcher has started; None in any other process."""
    name = re.fullmatch(r"(?:SweepProcess|LokyProcess)-(\d+)", multiprocessing.current_process().name)
    return int(name[1]) - 1 if name else None


@lru_cache(maxsize=1)
def _freest_gpu() -> int:
    """Return the index of the GPU with the most free memory among those of the same model as GPU 0.

    The memory is that which nvidia-smi reports: `torch.cuda.mem_get_info` would occupy memory of every GPU until the process
    ends. Without nvidia-smi, return 0.
    """
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    alike = [index for index, gpu in enumerate(gpus) if gpu.name == gpus[0].name]
    if len(alike) == 1:
        return alike[0]
    try:
        command = ["nvidia-smi", "--query-gpu=uuid,memory.free", "--format=csv,noheader,nounits"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
        free = {uuid: int(memory) for uuid, memory in (line.split(", ") for line in printed.splitlines())}
        return max(alike, key=lambda index: free[f"GPU-{gpus[index].uuid}"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, AttributeError):
        return alike[0]
