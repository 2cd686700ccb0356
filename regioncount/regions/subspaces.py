"""Random simplices in input space, given by their vertices.

Every kind of subspace is an array of vertices (S, d + 1, *input_shape): a segment has two vertices, a triangle three.
Counting depends on the vertices only.
"""

import numpy as np
import torch
from torch import Tensor

from regioncount.errors import InputError
from regioncount.regions.checks import as_tensor, device_of_generator, require_count, require_floats, require_number


def sample_indices(population: int, dimension: int, number: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw d + 1 distinct indices for each of S simplices.

    With the same seed, a shorter draw is the beginning of a longer one: the first 10 of 100 lines are the same 10 lines.

    Args:
        population: Number of images N; the indices are 0, ..., N - 1.
        dimension: Dimension d of the simplices, at least 1.
        number: Number of simplices S, at least 1.
        generator: Source of randomness; by default torch's global one.

    Returns:
        int64 (S, d + 1).

    Raises:
        InputError: If the dimension or the number is not a whole number of at least 1, or there are fewer than d + 1 images.
    """
    require_count("dimension", dimension, 1)
    require_count("number", number, 1)
    device = device_of_generator(generator)
    if population < dimension + 1:
        raise InputError(f"{population} images cannot span a simplex of dimension {dimension}: {dimension + 1} are needed")
    uniform = torch.rand(number, dimension + 1, dtype=torch.float64, generator=generator, device=device).cpu()
    indices = torch.empty(number, dimension + 1, dtype=torch.int64)
    for k in range(dimension + 1):
        # The k-th vertex is uniform among the population - k unused images. Its rank among these becomes an index by
        # skipping the used images in ascending order.
        drawn = (uniform[:, k] * (population - k)).long()
        for used in indices[:, :k].sort(dim=1).values.unbind(dim=1):
            drawn += drawn >= used
        indices[:, k] = drawn
    return indices


def sample_simplices(
    images: Tensor | np.ndarray, dimension: int = 1, number: int = 100, generator: torch.Generator | None = None
) -> Tensor:
    """Draw simplices whose vertices are distinct random images.

    Dimension 1 is the default subspace of Li et al. 2025, section 3. Different simplices may share images.

    Args:
        images: (N, *input_shape), normalized as the model expects.
        dimension: Dimension d of the simplices, at least 1.
        number: Number of simplices S, at least 1.
        generator: Source of randomness; by default torch's global one.

    Returns:
        Vertices (S, d + 1, *input_shape).

    Raises:
        InputError: If the images are no tensor or array of numbers, the dimension or the number is no whole number of at
            least 1, or there are fewer than d + 1 images.
    """
    images = as_tensor("images", images)
    if images.dim() < 2 or images.layout != torch.strided or images.is_nested:
        raise InputError("images: one dense tensor or array of shape (N, *input_shape) is needed")
    indices = sample_indices(len(images), dimension, number, generator)
    return images[indices.to(images.device)]


def shorten_segments(segments: Tensor | np.ndarray, generator: torch.Generator | None = None) -> Tensor:
    """Shorten each segment to the part between two uniformly random points on it ("short segment" in Li et al. 2025).

    Args:
        segments: (S, 2, *input_shape).
        generator: Source of randomness; by default torch's global one.

    Returns:
        Segments (S, 2, *input_shape).

    Raises:
        InputError: If `segments` is no floating point tensor with two vertices per subspace.
    """
    segments = _as_segments(segments)
    device = device_of_generator(generator)
    ends = torch.rand(len(segments), 2, dtype=torch.float64, generator=generator, device=device)
    return _points_on(segments, ends)


def extend_segments(segments: Tensor | np.ndarray, start: float = -1.0, stop: float = 2.0) -> Tensor:
    """Move the ends of each segment along its line ("wider scope" in Li et al. 2025).

    Args:
        segments: (S, 2, *input_shape).
        start: Position of the new first end; the old ends are at 0 and 1.
        stop: Position of the new second end, above `start`.

    Returns:
        Segments (S, 2, *input_shape).

    Raises:
        InputError: If `segments` is no floating point tensor with two vertices per subspace, or `start` is
            not a finite number below `stop`.
    """
    segments = _as_segments(segments)
    require_number("start", start)
    require_number("stop", stop)
    if not start < stop:
        raise InputError(f"start={start}, stop={stop}: start must be below stop")
    return _points_on(segments, torch.tensor([start, stop], dtype=torch.float64).expand(len(segments), 2))


def random_directions(images: Tensor | np.ndarray, scale: float = 0.1, generator: torch.Generator | None = None) -> Tensor:
    """Draw a segment from each image x to x + scale * z, with z standard normal ("random direction" in Li et al. 2025).

    Args:
        images: (S, *input_shape), normalized as the model expects.
        scale: Standard deviation of the noise, above 0.
        generator: Source of randomness; by default torch's global one.

    Returns:
        Segments (S, 2, *input_shape).

    Raises:
        InputError: If the images are no floating point tensor of this shape, or the scale is not a finite number above 0.
    """
    images = as_tensor("images", images)
    require_floats("images", images)
    if images.dim() < 2:
        raise InputError(f"images of shape (S, *input_shape) are needed, not {tuple(images.shape)}")
    require_number("scale", scale)
    if not scale > 0:
        raise InputError(f"scale={scale}: the standard deviation of the noise must be above 0")
    device = device_of_generator(generator)
    noise = torch.randn(images.shape, generator=generator, device=device).to(images)
    return torch.stack([images, images + scale * noise], dim=1)


def _as_segments(segments: Tensor | np.ndarray) -> Tensor:
    segments = as_tensor("segments", segments)
    require_floats("segments", segments)
    if segments.dim() < 2 or segments.shape[1] != 2:
        raise InputError(f"segments of shape (S, 2, *input_shape) are needed, not {tuple(segments.shape)}")
    return segments


def _points_on(segments: Tensor, positions: Tensor) -> Tensor:
    """Return the points at positions (S, 2) on the segments' lines; the ends of a segment are at 0 and 1."""
    positions = positions.to(segments).view(len(segments), 2, *[1] * (segments.dim() - 2))
    return (1 - positions) * segments[:, :1] + positions * segments[:, 1:]
