"""Recognize files from elsewhere that are damaged, or that are not what was to be downloaded."""

import os
import zipfile
from pathlib import Path
from typing import BinaryIO

from regioncount.runs.files import Damaged, check_unpacked_size

ZIP_START = b"PK\x03\x04"
# How files begin that people save in place of the ones they want, and what such a file is.
STARTS = {
    b"<!doctype html": "is a web page (HTML); download the file itself",
    b"<html": "is a web page (HTML); download the file itself",
    b"<?xml": "is an XML document, such as a server's error message; download the file itself",
    b"version https://git-lfs": "is a pointer of Git LFS, not the file itself; run `git lfs pull`, or download the file",
}


def check_foreign_file(path: Path) -> None:
    """Check that a file of weights or arrays is intact, as far as its format shows, and no download of something else.

    `torch.load` ignores the CRC-32 checksums of the records in a file, and so reads damaged values. They are verified here,
    without reading the file into memory. Files of safetensors, and those of torch before 1.6, have no checksums.

    Args:
        path: A file of `torch.save`, safetensors or NumPy.

    Raises:
        Damaged: A checksum differs or is missing, or the file is empty or of another kind, such as a web page.
        zipfile.BadZipFile: The file is truncated.
        ValueError: It unpacks to more than its size.
    """
    with path.open("rb") as file:
        start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
        if not start:
            raise Damaged(f"{path} is empty; copy or download it again")
        if reason := next((reason for prefix, reason in STARTS.items() if start.startswith(prefix)), None):
            raise Damaged(f"{path} {reason}")
        if start.startswith(ZIP_START.lower()):
            _check_archive(file, path)


def _check_archive(file: BinaryIO, path: Path) -> None:
    is_npz = path.suffix == ".npz"
    with zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if member.file_size]
        names = [member.filename for member in members]
        if not is_npz and names and all(name.endswith(".npy") for name in names):
            raise Damaged(f"{path} is a file of NumPy arrays; name it {path.stem}.npz")
        if any(name.endswith("/constants.pkl") for name in names):
            raise Damaged(
                f"{path} is a TorchScript program; save its weights: torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)"
            )
        if not is_npz:
            check_unpacked_size(file, os.fstat(file.fileno()).st_size)  # torch does not compress
        if members and not any(member.CRC for member in members):
            raise Damaged(
                f"{path} has no checksums, so damage to it could not be seen; save it again with "
                "torch.serialization.set_crc32_options(True), which is torch's default"
            )
        if name := archive.testzip():
            raise Damaged(f"{path} is damaged: the checksum of its record {name} differs; copy or download it again")
