"""Conversion of pictures of any number of bits to 8 bits per channel."""

import warnings

import numpy as np
from PIL import Image

TWELVE_BITS = 4095


def as_eight_bits(image: Image.Image) -> Image.Image:
    """Return a picture whose channels have 8 bits.

    Grey pictures of 16 bits are divided by 65535 / 255 and rounded. Of colour pictures of 16 bits, Pillow itself keeps the
    upper 8 bits. Pictures of floating-point numbers must be between 0 and 1; they are multiplied by 255 and rounded.

    Args:
        image: A picture as Pillow opened it.

    Returns:
        A grey picture (mode L) for those of 16 bits and of floating-point numbers; any other one as it is.

    Raises:
        ValueError: The pixels are integers of another range, or floating-point numbers outside of [0, 1].
    """
    # Pillow scales the levels of PGM files to 16 bits. Earlier versions opened PNG files of 16 bits in mode I.
    is_sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if not is_sixteen and not image.mode.startswith(("I", "F")):
        return image
    pixels = np.asarray(image)
    if is_sixteen:
        if 0 < pixels.max() <= TWELVE_BITS:
            warnings.warn(
                f"a 16-bit picture has no value above {TWELVE_BITS}: of its levels, at most 17 are left, since 65535 is "
                "scaled to 255; if its pixels have 12 bits or fewer, save them multiplied to the range of 16 bits",
                stacklevel=2,
            )
        levels = np.rint(pixels.astype(np.float64) * (255 / 65535))
    elif image.mode == "F":
        if not ((pixels >= 0) & (pixels <= 1)).all():  # false for NaN, too
            raise ValueError("its floating-point pixels are not all from 0 to 1; scale them, or convert it to 8 or 16 bits")
        levels = np.rint(pixels.astype(np.float64) * 255)
    else:
        raise ValueError(f"its pixels are signed or 32-bit integers (mode {image.mode}); convert it to 8 or 16 bits")
    return Image.fromarray(levels.astype(np.uint8))
