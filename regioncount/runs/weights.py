"""Read and write state dictionaries. No code in a file is executed.

This module imports torch. `regioncount.runs.record` imports it only when weights are needed.
"""

import hashlib
import io
import zipfile
from pathlib import Path

import torch

from regioncount.runs import files
from regioncount.runs.files import Damaged


def tensor_bytes(state: dict) -> bytes:
    """Return the content of a file from which `torch.load` reads a nested dictionary of tensors and plain values."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def load_tensors(content: bytes, path: Path) -> dict:
    """Return the dictionary in a file, with its tensors on the CPU.

    Args:
        content: The content of the file.
        path: The file, for error messages.

    Raises:
        Damaged: The content is not a dictionary written by `torch.save`.
    """
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            files.check_unpacked_size(io.BytesIO(content), len(content))  # torch does not compress
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler and the archive reader raise many types of exceptions
        raise Damaged(f"{path} is not a file of weights, or is truncated ({type(error).__name__})") from error
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise Damaged(f"{path} is not a state dictionary")
    return state


def digest_tensors(state: dict[str, torch.Tensor]) -> str:
    """Return a hash of the names, types, shapes and values of tensors. It does not depend on the file format."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
