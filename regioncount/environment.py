"""The machine a figure was made on."""

import platform
from datetime import UTC, datetime
from importlib.metadata import version

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
        "machine": platform.machine(),
    }


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
