"""Random crops of varying size and aspect ratio, as in `torchvision.transforms.RandomResizedCrop`, from uniform numbers."""

import numpy as np

AREA = (0.08, 1.0)  # of the crop, relative to the image
ASPECT_RATIO = (3 / 4, 4 / 3)  # width over height of the crop
TRIES = 10  # a crop that does not fit into the image is drawn again
DRAWS = 2 * TRIES + 3  # uniform numbers for one image: an area and a ratio for each try, a position (y, x), and the flip


def crop_boxes(draws: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes of random crops of images of one size, and which of the crops are flipped.

    The area of a box is uniform in `AREA`, the logarithm of its aspect ratio uniform in that of `ASPECT_RATIO`, and its
    position uniform among those inside the image. If none of `TRIES` boxes fits into the image, the largest central box
    with an allowed aspect ratio is returned. A crop is flipped with probability 1/2.

    Args:
        draws: Independent uniform numbers in [0, 1), float64 (B, DRAWS).
        height: The height of the images in pixels.
        width: Their width in pixels.

    Returns:
        The boxes, int64 (B, 4): top, left, height and width in pixels; and the flips, bool (B,).
    """
    area, ratio = draws[:, :TRIES], draws[:, TRIES : 2 * TRIES]
    area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * area)
    smallest, largest = ASPECT_RATIO
    ratio = np.exp(np.log(smallest) + np.log(largest / smallest) * ratio)
    heights, widths = np.rint(np.sqrt(area / ratio)), np.rint(np.sqrt(area * ratio))
    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    first, images = fits.argmax(axis=1), np.arange(len(draws))
    size = np.stack([heights[images, first], widths[images, first]], axis=1)
    top_left = np.floor(draws[:, 2 * TRIES : 2 * TRIES + 2] * (np.array([height, width]) - size + 1))
    largest_size = np.array([min(height, round(width / smallest)), min(width, round(height * largest))])
    none_fits = ~fits.any(axis=1, keepdims=True)
    size = np.where(none_fits, largest_size, size)
    top_left = np.where(none_fits, (np.array([height, width]) - largest_size) // 2, top_left)
    return np.concatenate([top_left, size], axis=1).astype(np.int64), draws[:, -1] < 0.5


def draws_of_image(seed: int, index: int) -> np.ndarray:
    """Return the uniform numbers, float64 (1, DRAWS), of the image at an index, which follow from the seed and the index."""
    return np.random.default_rng([seed, index]).random((1, DRAWS))
