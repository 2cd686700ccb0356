"""Images in folders, root/train/<class>/* and root/test/<class>/* (or root/val/...): listed, decoded, cached."""

import hashlib
import os
import uuid
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from regioncount.errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # no format that would start another program
LARGEST = 2**26  # pixels: a small file may hold so many that they fill the memory
CACHE_VERSION = 1  # raised when decoding changes, so that older caches are not read


@dataclass(frozen=True)
class Files:
    """The image files of one split, sorted by class and name; times are in nanoseconds."""

    paths: list[str]
    labels: list[int]
    sizes: list[int]
    modified: list[int]

    def __len__(self) -> int:
        return len(self.paths)


def list_folder(root: Path) -> tuple[Files, Files, tuple[str, ...]]:
    """The train files, the test files and the class names (sorted, as their labels are) below `root`.

    Files that do not end like an image, and hidden ones, are left out. Raises InputError where the layout is not
    `train/<class>/*` with `test/<class>/*` or `val/<class>/*`, where the classes differ, and where a class is empty.
    """
    layout = "expected train/<class>/* and test/<class>/* (or val/<class>/*) in it"
    train = root / "train"
    test = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if not train.is_dir():
        raise InputError(f"{root} has no folder 'train'; {layout}")
    if test is None:
        raise InputError(f"{root} has no folder 'test' or 'val'; {layout}")
    classes = _list_classes(train)
    if not classes:
        raise InputError(f"{train} has no class folders; {layout}")
    if different := set(classes) ^ set(_list_classes(test)):
        name = min(different)
        where, missing = (train, test) if name in classes else (test, train)
        raise InputError(f"class '{name}' is in {where} and not in {missing}; both need the same class folders")
    return _list_files(train, classes), _list_files(test, classes), classes


def _scan(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder} cannot be listed ({error.strerror})") from error


def _list_classes(folder: Path) -> tuple[str, ...]:
    names = tuple(entry.name for entry in _scan(folder) if entry.is_dir())
    if odd := [name for name in names if not name.isprintable()]:
        raise InputError(f"{folder} has a class folder named {odd[0]!r}, which cannot be printed; rename it")
    return names


def _list_files(folder: Path, classes: tuple[str, ...]) -> Files:
    files = Files([], [], [], [])
    for label, name in enumerate(classes):
        entries = [e for e in _scan(folder / name) if e.name.lower().endswith(EXTENSIONS) and e.is_file()]
        if not entries:
            raise InputError(f"{folder / name} has no images ({' '.join(EXTENSIONS)}); fill or remove it")
        for entry in entries:
            status = entry.stat()
            files.paths.append(entry.path)
            files.labels.append(label)
            files.sizes.append(status.st_size)
            files.modified.append(status.st_mtime_ns)
    return files


def decode(path: str, size: int | None = None, fraction: float = 1.0) -> np.ndarray:
    """The image in a file as RGB, uint8 (3, H, W).

    With `size`, its central square that spans `fraction` of the shorter side, resampled (bilinear, antialiased) to
    size x size: what resizing the shorter side to size / fraction and taking the centre crop gives, but without
    rounding to whole pixels in between, and a thin image's long side is never blown up. Raises InputError naming the
    file when it cannot be decoded.
    """
    try:
        with Image.open(path, formats=FORMATS) as opened:
            if opened.width * opened.height > LARGEST:
                raise ValueError(f"{opened.width} x {opened.height} pixels are too many")
            image = opened.convert("RGB")
    except Exception as error:  # a damaged file can raise nearly anything
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read as an image ({reason}); replace or remove it") from error
    if size is not None:
        side = min(image.size) * fraction
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def decode_all(paths: Sequence[str], size: int | None, fraction: float = 1.0, progress: bool = False) -> np.ndarray:
    """All images in one array, uint8 (n, 3, H, W); n > 0."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = pool.map(lambda path: decode(path, size, fraction), paths)
        quiet = None if progress else True  # None: only on a terminal
        try:
            for index, image in enumerate(tqdm(decoded, "decoding images", len(paths), disable=quiet)):
                if index == 0:
                    images = np.empty((len(paths), *image.shape), np.uint8)
                elif image.shape != images.shape[1:]:
                    sizes = [f"{width} x {height}" for _, height, width in (images.shape[1:], image.shape)]
                    raise InputError(
                        f"{paths[0]} is {sizes[0]} pixels and {paths[index]} is {sizes[1]}; "
                        "give one size for all, such as dataset.resize=32"
                    )
                images[index] = image
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return images


def read_images(root: Path, train: Files, test: Files, resize: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The decoded images of both splits, uint8 (n, 3, H, W), by way of a cache file in `root`.

    The cache counts only for the very files it was made from (names, sizes, modification times) and this `resize`;
    stale or damaged, it is made anew. Raises InputError for a file that is no image, and for images of several sizes.
    """
    paths = train.paths + test.paths
    cache = root / f"regioncount-{resize or 'original'}.npz"
    key = _listing_key(root, (train, test), resize)
    images = _read_cache(cache, key, len(paths))
    if images is None:
        images = decode_all(paths, resize, progress=True)
        _write_cache(cache, key, images)
    return images[: len(train)], images[len(train) :]


def _listing_key(root: Path, splits: Sequence[Files], resize: int | None) -> str:
    digest = hashlib.sha256(f"{CACHE_VERSION} {resize}".encode())
    for files in splits:
        for path, size, modified in zip(files.paths, files.sizes, files.modified, strict=True):
            digest.update(b"\0%b\0%d %d" % (os.fsencode(path.removeprefix(str(root))), size, modified))
    return digest.hexdigest()


def _read_cache(cache: Path, key: str, number: int) -> np.ndarray | None:
    try:
        with np.load(cache, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            images = stored["images"]
    except Exception:  # absent, or damaged in any way: the images themselves are still there
        return None
    return images if images.dtype == np.uint8 and images.ndim == 4 and images.shape[:2] == (number, 3) else None


def _write_cache(cache: Path, key: str, images: np.ndarray) -> None:
    temporary = cache.with_name(f".{cache.name}.{uuid.uuid4().hex}")
    try:
        try:
            with open(temporary, "xb") as file:
                np.savez(file, key=np.array(key), images=images)
            os.replace(temporary, cache)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        message = f"the decoded images are not kept for next time: {cache} cannot be written ({error.strerror})"
        warnings.warn(message, stacklevel=2)
