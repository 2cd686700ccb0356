"""Read and write files safely.

Writing is atomic: a file has either its old content or all of the new one. Reading treats every file as untrusted: only
regular files are opened, links are not followed, sizes are limited, and no content is executed.
"""

import hashlib
import io
import json
import math
import os
import secrets
import stat
import zipfile
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from regioncount.errors import DISK_ERRORS, InputError
from regioncount.spreadsheet import to_csv

TEXT_LIMIT = 64 * 2**20  # bytes
BINARY_LIMIT = 16 * 2**30

# Not defined on every system.
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
NO_WAIT = getattr(os, "O_NONBLOCK", 0)


class Damaged(InputError):
    """A file is missing, or its content is not what was written."""


def make_directory(path: Path) -> None:
    """Create a directory and its parents, if necessary.

    Raises:
        InputError: The path cannot be a directory: a part of it is no directory, too long or in a special file system.
        OSError: The disk is full or not writable; see `DISK_ERRORS`.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise
        raise InputError(
            f"{path} cannot be created ({error.strerror}); pass another results=DIR or a shorter name"
        ) from error


def read(path: Path, limit: int = TEXT_LIMIT) -> bytes:
    """Return the content of a regular file.

    Args:
        path: The file.
        limit: Its maximum size in bytes.

    Raises:
        Damaged: The file is missing, larger than `limit`, a link, or not a regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | NO_FOLLOW | NO_WAIT)  # opening a pipe would wait for its writer
    except OSError as error:
        reason = "it is a link" if path.is_symlink() else error.strerror
        raise Damaged(f"{path} cannot be read: {reason}") from error
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Damaged(f"{path} cannot be read: it is not a regular file")
        if status.st_size > limit:
            raise Damaged(f"{path} cannot be read: it is larger than {limit} bytes")
        return file.read(limit)


def write(path: Path, content: bytes) -> None:
    """Write a file atomically. Its directory must exist.

    Raises:
        OSError: The file cannot be written; `filename` is its path. The previous content is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW, 0o666)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None  # without it, the error of a full disk names no path
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text atomically, in UTF-8."""
    write(path, text.encode())


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table atomically, without its index; see `spreadsheet.to_csv`."""
    write(path, to_csv(table).encode())


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a mapping and its checksum atomically. NaN and infinity are written as null."""
    plain = json.loads(json.dumps(_without_nan(value), allow_nan=False))
    write(path, (json.dumps(plain | {"checksum": json_digest(plain)}, indent=1) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Return a mapping that `write_json` wrote.

    Raises:
        Damaged: The file cannot be read, or its content is not what was written.
    """
    content = read(path)
    try:
        value = json.loads(content, parse_constant=_refuse_constant)
        _check_printable(value)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path} is damaged: it is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise Damaged(f"{path} is damaged: it is not a mapping")
    if value.pop("checksum", None) != json_digest(value):
        raise Damaged(f"{path} is damaged: its checksum differs")
    return value


def json_digest(value: dict[str, Any]) -> str:
    """Return the checksum of a mapping as `write_json` records it."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def seal(content: bytes) -> bytes:
    """Return content preceded by its SHA-256 checksum, 32 bytes."""
    return hashlib.sha256(content).digest() + content


def unseal(sealed: bytes, path: Path) -> bytes:
    """Return the content that was passed to `seal`.

    Args:
        sealed: The content of the file.
        path: The file, for error messages.

    Raises:
        Damaged: The content has changed.
    """
    content = sealed[32:]
    if hashlib.sha256(content).digest() != sealed[:32]:
        raise Damaged(f"{path} is damaged: its checksum differs")
    return content


def array_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """Return the content of a file from which `numpy.load` reads named arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


def load_arrays(content: bytes, path: Path) -> dict[str, np.ndarray]:
    """Return the arrays that a file holds, by name.

    Args:
        content: The content of the file.
        path: The file, for error messages.

    Raises:
        Damaged: The content is not an archive of arrays.
    """
    try:
        check_unpacked_size(content, BINARY_LIMIT)
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # numpy and the archive reader raise many types of exceptions
        raise Damaged(f"{path} is damaged: it cannot be read ({type(error).__name__})") from error


def array_digest(array: np.ndarray) -> str:
    """Return a hash of an array's type, shape and values."""
    return hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()


def check_unpacked_size(content: bytes, limit: int) -> None:
    """Check that a ZIP archive does not unpack to more than a limit.

    Raises:
        ValueError: The declared sizes of its members add up to more than `limit` bytes.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(member.file_size for member in archive.infolist()) > limit:
            raise ValueError(f"it unpacks to more than {limit} bytes")


def _check_printable(value: Any) -> None:
    """Check that no string contains control characters, which a terminal would interpret, or lone surrogates.

    Raises:
        ValueError: A string contains one.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            _check_printable(key)
            _check_printable(item)
    elif isinstance(value, list):
        for item in value:
            _check_printable(item)
    elif isinstance(value, str) and not value.isprintable():
        raise ValueError("a string contains unprintable characters")


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _without_nan(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
