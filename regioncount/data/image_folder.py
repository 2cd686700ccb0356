"""Decoding of image files, with a cache of the pixels of a folder.

Images are decoded as by torchvision's `ImageFolder`: as RGB, without transparency, in the orientation in which they are
stored (EXIF's is not applied), and the first frame alone.
"""

import hashlib
import os
import uuid
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from regioncount.data.image_listing import ImageFiles
from regioncount.data.pixels import as_eight_bits
from regioncount.data.random_crops import crop_boxes
from regioncount.errors import InputError, one_line
from regioncount.runs.files import check_unpacked_size, open_regular, remove_partial_files

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # EPS is left out: Pillow decodes it with Ghostscript
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
MAX_PIXELS = 2**26  # a small compressed file can decode to an image that exhausts the memory
CACHE_VERSION = 1  # increment when decoding changes, to invalidate existing caches


def decode(
    path: str,
    size: int | None = None,
    fraction: float | None = 1.0,
    shorter_side: int | None = None,
    resampling: str = "bilinear",
) -> np.ndarray:
    """Decode an image file as RGB.

    Args:
        path: The file.
        size: Height and width of the result in pixels; None for the whole image at its original size.
        fraction: The side of the central square that is resampled to `size`, relative to the image's shorter side.
            Up to rounding, this equals resizing the shorter side to size / fraction and taking the centre crop. None to
            resample the whole image, without keeping its aspect ratio.
        shorter_side: If given, the shorter side is resized to this length and the central square of `size` pixels is
            cropped, exactly as by torchvision's `Resize` and `CenterCrop`. `fraction` is then ignored.
        resampling: The filter, "bilinear" or "bicubic".

    Returns:
        The image, uint8 (3, H, W).

    Raises:
        InputError: The file cannot be decoded, or has more than `MAX_PIXELS` pixels.
    """
    image = _read_rgb(path)
    if size is not None and shorter_side is not None:
        image = resize_and_crop(image, size, shorter_side, resampling, path)
    elif size is not None:
        # Cropping and resizing in one call avoids a huge intermediate image if one side is much longer than the other.
        side = min(image.size) * (fraction or 1.0)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = None if fraction is None else (left, top, left + side, top + side)
        image = image.resize((size, size), FILTERS[resampling], box=box)
    return _as_array(image)


def resize_and_crop(image: Image.Image, size: int, shorter_side: int, resampling: str, path: str = "image") -> Image.Image:
    """Resize the shorter side of a picture to `shorter_side` and return the central square of `size` pixels."""
    shorter = min(image.size)
    width, height = (shorter_side if side == shorter else int(shorter_side * side / shorter) for side in image.size)
    if width * height > MAX_PIXELS:
        raise InputError(f"{path} would be resized to {width} x {height} pixels, more than {MAX_PIXELS}; crop or remove it")
    resized = image.resize((width, height), FILTERS[resampling])
    left, top = round((width - size) / 2), round((height - size) / 2)
    return resized.crop((left, top, left + size, top + size))


def decode_random_crop(path: str, size: int, draws: np.ndarray) -> np.ndarray:
    """Decode a random crop of an image file as RGB, with a random horizontal flip.

    Args:
        path: The file.
        size: Height and width of the result in pixels.
        draws: The uniform numbers from which the crop and the flip follow, float64 (1, DRAWS); see `crop_boxes`.

    Returns:
        The crop, resampled without keeping its aspect ratio, uint8 (3, size, size).

    Raises:
        InputError: See `decode`.
    """
    image = _read_rgb(path)
    (box,), (flipped,) = crop_boxes(draws, image.height, image.width)
    top, left, height, width = box.tolist()
    crop = image.crop((left, top, left + width, top + height))
    pixels = _as_array(crop.resize((size, size), Image.Resampling.BILINEAR))
    return pixels[:, :, ::-1] if flipped else pixels


def _as_array(image: Image.Image) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def _read_rgb(path: str) -> Image.Image:
    try:
        return _open_rgb(path)
    except Exception as error:  # Pillow raises many types of exceptions for damaged files
        raise InputError(f"{path} cannot be read as an image ({one_line(error)}); replace or remove it") from error


def _open_rgb(path: str) -> Image.Image:
    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are too many; the limit is {MAX_PIXELS}")
        return as_eight_bits(image).convert("RGB")


def decode_all(
    paths: Sequence[str],
    size: int | None,
    fraction: float | None = 1.0,
    shorter_side: int | None = None,
    resampling: str = "bilinear",
    progress: bool = False,
) -> np.ndarray:
    """Decode images in parallel threads.

    Args:
        paths: At least one image file.
        size: See `decode`.
        fraction: See `decode`.
        shorter_side: See `decode`.
        resampling: See `decode`.
        progress: Whether to show a progress bar when the output is a terminal.

    Returns:
        The images, uint8 (len(paths), 3, H, W).
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = pool.map(lambda path: decode(path, size, fraction, shorter_side, resampling), paths)
        disable = None if progress else True  # None enables the bar on a terminal only
        try:
            return _stack(paths, tqdm(decoded, "decoding images", len(paths), disable=disable))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _stack(paths: Sequence[str], images: Iterable[np.ndarray]) -> np.ndarray:
    """Copy images (3, H, W) of one size into an array (N, 3, H, W) as they arrive, to hold each in memory once."""
    stacked = np.empty((0, 3, 0, 0), np.uint8)
    for index, image in enumerate(images):
        if index == 0:
            stacked = np.empty((len(paths), *image.shape), np.uint8)
        elif image.shape != stacked.shape[1:]:
            first, other = (f"{width} x {height}" for _, height, width in (stacked[0].shape, image.shape))
            raise InputError(
                f"{paths[0]} is {first} pixels and {paths[index]} is {other}; "
                "pass one size for all images, such as dataset.resize=32"
            )
        stacked[index] = image
    return stacked


def read_images(
    root: Path,
    train: ImageFiles,
    test: ImageFiles,
    resize: int | None,
    squash: bool = False,
    shorter_side: int | None = None,
    resampling: str = "bilinear",
) -> tuple[np.ndarray, np.ndarray]:
    """Return the decoded images of both splits, from the cache file in `root` if it is up to date.

    The cache is valid for the file names, file sizes, modification times and form of the images with which it was written.
    If it is out of date or damaged, the images are decoded again and the cache is replaced.

    Args:
        root: The folder of the data set.
        train: The training files.
        test: The test files.
        resize: Height and width of the images in pixels; None for their original size, which must be the same for all.
        squash: Whether the whole image is resampled to `resize`; otherwise, its central square is.
        shorter_side: See `decode`.
        resampling: See `decode`.

    Returns:
        The training images and the test images, uint8 (N, 3, H, W).
    """
    paths = train.paths + test.paths
    form = f"{resize}-squashed" if squash else resize
    if shorter_side is not None:
        form = f"{resize}-of-{shorter_side}"
    if resampling != "bilinear":
        form = f"{form or 'original'}-{resampling}"
    cache = root / f"regioncount-{form or 'original'}.npz"
    key = _listing_key(root, (train, test), form)
    images = _read_cache(cache, key, len(paths))
    if images is None:
        images = decode_all(paths, resize, None if squash else 1.0, shorter_side, resampling, progress=True)
        _write_cache(cache, key, images)
    return images[: len(train)], images[len(train) :]


def _listing_key(root: Path, splits: Sequence[ImageFiles], form: str | int | None) -> str:
    """Return a hash of the files' relative paths, sizes and times of change, and of the size and form of the images."""
    digest = hashlib.sha256(f"{CACHE_VERSION} {form}".encode())
    for files in splits:
        for path, size, changed in zip(files.paths, files.sizes, files.changed, strict=True):
            digest.update(b"\0%b\0%d %d %d" % (os.fsencode(path.removeprefix(str(root))), size, *changed))
    return digest.hexdigest()


def _read_cache(cache: Path, key: str, number: int) -> np.ndarray | None:
    """Return the `number` cached images, uint8 (N, 3, H, W); None if the cache is absent, damaged or out of date."""
    try:
        with open_regular(cache) as file:
            check_unpacked_size(file, os.fstat(file.fileno()).st_size)  # caches are not compressed
            file.seek(0)
            with np.load(file, allow_pickle=False) as stored:
                if str(stored["key"]) != key:
                    return None
                images = stored["images"]
    except Exception:  # numpy raises many types of exceptions for damaged files
        return None
    return images if images.dtype == np.uint8 and images.ndim == 4 and images.shape[:2] == (number, 3) else None


def _write_cache(cache: Path, key: str, images: np.ndarray) -> None:
    """Write the cache atomically; warn if it cannot be written. Remove what interrupted processes have left."""
    temporary = cache.with_name(f".{cache.name}.{uuid.uuid4().hex}.part")
    try:
        remove_partial_files(cache.parent.glob(".regioncount-*.npz.*"))
        try:
            with open(temporary, "xb", opener=_open_without_links) as file:
                np.savez(file, key=np.array(key), images=images)
            os.replace(temporary, cache)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        message = f"the decoded images are not cached: {cache} cannot be written ({error.strerror})"
        warnings.warn(message, stacklevel=2)


def _open_without_links(path: str, flags: int) -> int:
    """Open a new file without following links; `flags` of mode "x" include O_CREAT and O_EXCL."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
