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
import time
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import numpy as np

from regioncount.errors import DISK_ERRORS, InputError
from regioncount.spreadsheet import to_csv

if TYPE_CHECKING:
    import pandas as pd

TEXT_LIMIT = 64 * 2**20  # bytes
BINARY_LIMIT = 16 * 2**30
PARTIAL_FILE_SECONDS = 3600  # temporary files that have not been written to for so long are leftovers
ARRAY_LIMIT = 2**28  # bytes of an array of measurements: the counts of 33 million subspaces
TOTAL_ARRAY_LIMIT = 2**30  # bytes of all arrays of a run
ARRAY_HEADER = 1024  # the largest number of bytes before the values of a stored array
MAX_DIGITS = 40  # of an integer: enough for every seed, and few enough to convert to a float

# Not defined on every system.
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
NO_WAIT = getattr(os, "O_NONBLOCK", 0)


class Damaged(InputError):
    """A file is missing, or its content is not what was written."""


def require_writable(path: Path) -> None:
    """Check that files can be written to a directory or, if it does not exist, that it can be created.

    Raises:
        InputError: They cannot.
    """
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise InputError(f"results={path}: {existing} is not a directory; pass another results=DIR")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"results={path}: {existing} is not writable; pass another results=DIR")


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
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > limit:
            raise Damaged(f"{path} cannot be read: it is larger than {limit} bytes")
        return file.read(limit)


def open_regular(path: Path) -> BinaryIO:
    """Return an open regular file. A link is not followed, and a pipe is not waited for.

    Raises:
        Damaged: The file is missing, a link, or not a regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | NO_FOLLOW | NO_WAIT)  # opening a pipe would wait for its writer
    except OSError as error:
        reason = "it is a link" if path.is_symlink() else error.strerror
        raise Damaged(f"{path} cannot be read: {reason}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Damaged(f"{path} cannot be read: it is not a regular file")
    return open(descriptor, "rb")


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
        if isinstance(error, OSError):  # the error of a full disk names no path
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def remove_partial_files(paths: Iterable[Path], age: float = PARTIAL_FILE_SECONDS) -> None:
    """Remove those temporary files of interrupted processes that are at least `age` seconds old."""
    for path in paths:
        with suppress(OSError):
            if path.lstat().st_mtime <= time.time() - age:
                path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text atomically, in UTF-8."""
    write(path, text.encode())


def write_csv(path: Path, table: "pd.DataFrame") -> None:
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
        value = json.loads(content, parse_constant=_refuse_number, parse_float=_parse_float, parse_int=_parse_int)
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


def load_arrays(content: bytes, path: Path, limits: Mapping[str, int] | None = None) -> dict[str, np.ndarray]:
    """Return the arrays that a file holds, by name.

    Args:
        content: The content of the file.
        path: The file, for error messages.
        limits: The maximum size in bytes of each array to read; None for all arrays of at most `ARRAY_LIMIT` bytes.

    Raises:
        Damaged: The content is not an archive of arrays, or an array is larger than its limit.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            limits = dict.fromkeys(arrays.files, ARRAY_LIMIT) if limits is None else limits
            sizes = {name: arrays.zip.getinfo(f"{name}.npy").file_size for name in arrays.files if name in limits}
            if sum(sizes.values()) > TOTAL_ARRAY_LIMIT:
                raise Damaged(f"{path} is damaged: its arrays are larger than {TOTAL_ARRAY_LIMIT} bytes")
            if large := [name for name, size in sizes.items() if size > limits[name] + ARRAY_HEADER]:
                raise Damaged(f"{path} is damaged: {large[0]} is larger than {limits[large[0]]} bytes")
            return {name: arrays[name] for name in sizes}
    except Damaged:
        raise
    except Exception as error:  # numpy and the archive reader raise many types of exceptions
        raise Damaged(f"{path} is damaged: it cannot be read ({type(error).__name__})") from error


def array_digest(array: np.ndarray) -> str:
    """Return a hash of an array's type, shape and values."""
    return hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()


def check_unpacked_size(file: BinaryIO, limit: int) -> None:
    """Check that a ZIP archive does not unpack to more than a limit.

    Raises:
        ValueError: The declared sizes of its members add up to more than `limit` bytes.
    """
    with zipfile.ZipFile(file) as archive:
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


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{text:.20} is not a finite number")


def _parse_float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_number(text)


def _parse_int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"an integer has more than {MAX_DIGITS} digits")
    return int(text)


def _without_nan(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
