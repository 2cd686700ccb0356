"""Files that appear whole or not at all, and that are read as data, whoever wrote them.

Reading opens plain files alone, follows no link, and takes no more than a limit; of what is read nothing is executed.
"""

import hashlib
import io
import json
import math
import os
import stat
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from regioncount.errors import InputError

TEXT_LIMIT = 64 * 2**20
BINARY_LIMIT = 16 * 2**30


class Damaged(InputError):
    """A file is not as it was written: cut short, changed, missing, or something else altogether."""


def read(path: Path, limit: int = TEXT_LIMIT) -> bytes:
    """The content of a plain file of at most `limit` bytes. Damaged where it is something else."""
    try:
        # Without waiting, should it be a pipe.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        reason = "it is a link" if path.is_symlink() else error.strerror
        raise Damaged(f"{path} cannot be read: {reason}") from error
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Damaged(f"{path} cannot be read: it is not a plain file")
        if status.st_size > limit:
            raise Damaged(f"{path} is larger than {limit} bytes: not a file of ours")
        return file.read(limit)


def write(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all, into a directory that is there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None  # a full disk does not say where it is
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all."""
    write(path, text.encode())


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table, whole or not at all."""
    write(path, table.to_csv(index=False).encode())


def write_json(path: Path, value: dict) -> None:
    """Write a mapping with its checksum, whole or not at all. What is not a number becomes null."""
    plain = json.loads(json.dumps(_without_nan(value), allow_nan=False))
    write(path, (json.dumps(plain | {"checksum": _json_digest(plain)}, indent=1) + "\n").encode())


def read_json(path: Path) -> dict:
    """A mapping that `write_json` wrote. Damaged where it is not as it was written."""
    try:
        value = json.loads(read(path), parse_constant=_refuse)
        _check_texts(value)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path} is damaged: it is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise Damaged(f"{path} is damaged: it is not a mapping")
    if value.pop("checksum", None) != _json_digest(value):
        raise Damaged(f"{path} is damaged: it is not what was written (its checksum differs)")
    return value


def seal(content: bytes) -> bytes:
    """Content with its checksum in front."""
    return hashlib.sha256(content).digest() + content


def unseal(sealed: bytes, path: Path) -> bytes:
    """The content that was sealed. Damaged where it has changed."""
    content = sealed[32:]
    if hashlib.sha256(content).digest() != sealed[:32]:
        raise Damaged(f"{path} is damaged: it is not what was written (its checksum differs)")
    return content


def tensor_bytes(state: dict) -> bytes:
    """A nested dictionary of tensors and plain values as a file for `load_tensors` or torch.load."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def load_tensors(content: bytes, path: Path) -> dict:
    """The dictionary in a file of weights; code in it is not executed. Damaged, naming the path, where there is none."""
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            _check_unpacked(content, len(content))  # torch packs without compression
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler and archive reader happen to meet
        raise Damaged(f"{path} is not a file of weights, or is cut short ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise Damaged(f"{path} is not a state dictionary")
    return state


def array_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """Arrays by name as a file for `load_arrays` or numpy.load."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def load_arrays(content: bytes, path: Path) -> dict[str, np.ndarray]:
    """The arrays in a file, by name. Damaged, naming the path, where it cannot be read."""
    try:
        _check_unpacked(content, BINARY_LIMIT)
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # as above
        raise Damaged(f"{path} is damaged: it cannot be read ({type(error).__name__})") from error


def array_digest(array: np.ndarray) -> str:
    """A hash of an array's type, shape and values."""
    return hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()


def _check_unpacked(content: bytes, limit: int) -> None:
    """ValueError for an archive that says it unpacks to more than `limit` bytes."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(member.file_size for member in archive.infolist()) > limit:
            raise ValueError("it unpacks to more than it should")


def _json_digest(value: dict) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _check_texts(value) -> None:
    """ValueError where there is a text with anything that a terminal would obey, or that is no character at all."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_texts(key)
            _check_texts(item)
    elif isinstance(value, list):
        for item in value:
            _check_texts(item)
    elif isinstance(value, str) and not value.isprintable():
        raise ValueError("it has a text that cannot be printed")


def _refuse(constant: str):
    raise ValueError(f"{constant} is not a number")


def _without_nan(value):
    """JSON has no not-a-number: null stands for it."""
    if isinstance(value, dict):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
