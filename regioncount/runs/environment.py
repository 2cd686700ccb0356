"""Describe the hardware and the software that produced a result."""

import platform
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import regioncount

if TYPE_CHECKING:
    import torch


def environment(device: "torch.device", precision: str) -> dict[str, Any]:
    """Return the hardware and software of a run, as run.json records them.

    Args:
        device: The device of training.
        precision: The resolved training precision, "float32" or "bfloat16".
    """
    import torch

    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device_name(device),
        "precision": precision,
        "torch": torch.__version__,
        "scikit_learn": version("scikit-learn"),
        "python": platform.python_version(),
        "regioncount": regioncount.__version__,
        "commit": commit(),
        "machine": platform.machine(),
    }


def device_name(device: "torch.device") -> str:
    """Return the model name of a device; for a CPU, also the number of threads that torch uses."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"{_processor()}, MPS"
    return f"{_processor()}, {torch.get_num_threads()} threads"


@lru_cache
def _processor() -> str:
    """Return the processor's model name, or "cpu" if the system does not provide it."""
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        with suppress(OSError, subprocess.SubprocessError):
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor() or "cpu"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "") or "cpu"


@lru_cache
def commit(package: Path = Path(__file__).parent.parent) -> str | None:
    """Return the git commit of the package, followed by "-dirty" if tracked files have changed since.

    Args:
        package: The package's directory.

    Returns:
        40 hexadecimal digits; None if git is not available or does not track the package.
    """

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        # A virtual environment inside the repository of another project is not a checkout of this one.
        git("ls-files", "--error-unmatch", "__init__.py")
        return git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")
    except (OSError, subprocess.SubprocessError):
        return None
