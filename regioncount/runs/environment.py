"""The machine a figure was made on, and the code that made it."""

import platform
import subprocess
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import torch

import regioncount


def environment(device: torch.device, precision: str) -> dict:
    """What the figures of a run depend on besides its configuration."""
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


def device_name(device: torch.device) -> str:
    """What a device is called; of a processor, how many threads work on it too."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {torch.get_num_threads()} threads"


@lru_cache
def _processor() -> str:
    """The processor's name where the system tells it, else "cpu"."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor() or "cpu"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "") or "cpu"


@lru_cache
def commit(package: Path = Path(__file__).parent.parent) -> str | None:
    """The git commit of the package, with -dirty after it where files have changed since.

    None where there is no git, or the package is not one of the files of the checkout that it lies in.
    """

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        # An environment that lies in somebody's own repository is not a checkout of this one.
        git("ls-files", "--error-unmatch", "__init__.py")
        return git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")
    except (OSError, subprocess.SubprocessError):
        return None
