"""Where regions are counted: simplices in input space, as the vertices that span them.

Every subspace is an array of vertices (S, d + 1, *input_shape): a segment has two vertices, a triangle three. What is
special about a kind of subspace (a random direction, a line extended past its images) ends here; counting sees vertices.
"""

import torch
from torch import Tensor

from regioncount.errors import InputError


def sample_indices(population: int, dimension: int, number: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw, for each of `number` simplices, d + 1 distinct indices below `population`: int64 (S, d + 1).

    The first simplices of a longer draw from the same seed are those of a shorter one, so that counts over 10, 100 and
    1,000 lines are nested. Raises InputError where a simplex needs more vertices than there are images.
    """
    if dimension < 1:
        raise InputError(f"dimension={dimension}: a subspace has dimension 1 (a line) or more")
    if number < 1:
        raise InputError(f"number={number}: at least 1 subspace is needed")
    if population < dimension + 1:
        raise InputError(f"{population} images cannot span a simplex of dimension {dimension}: {dimension + 1} are needed")
    device = "cpu" if generator is None else generator.device
    uniform = torch.rand(number, dimension + 1, dtype=torch.float64, generator=generator, device=device).cpu()
    indices = torch.empty(number, dimension + 1, dtype=torch.int64)
    for k in range(dimension + 1):
        # The k-th vertex is uniform among the population - k images left; stepping over the taken ones in ascending
        # order turns its rank among those left into an index.
        drawn = (uniform[:, k] * (population - k)).long()
        for taken in indices[:, :k].sort(dim=1).values.unbind(dim=1):
            drawn += drawn >= taken
        indices[:, k] = drawn
    return indices


def sample_simplices(
    images: Tensor, dimension: int = 1, number: int = 100, generator: torch.Generator | None = None
) -> Tensor:
    """Draw simplices whose vertices are distinct random images.

    images: (N, *input_shape), as the model takes them (normalized). Returns (S, d + 1, *input_shape) with S = number:
    for dimension 1 two images a segment, the paper's default subspace (Li et al. 2025, section 3). Within one simplex
    the images are distinct; different simplices may share some. Raises InputError where dimension or number is below 1,
    or fewer than d + 1 images are given.
    """
    indices = sample_indices(len(images), dimension, number, generator)
    return images[indices.to(images.device)]


def shorten_segments(segments: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The part of each segment between two uniform random points of it (the paper's "short segment").

    segments: (S, 2, *input_shape); returns the same shape. Raises InputError for simplices of higher dimension.
    """
    _require_segments(segments)
    device = "cpu" if generator is None else generator.device
    ends = torch.rand(len(segments), 2, dtype=torch.float64, generator=generator, device=device)
    return _points_on(segments, ends)


def extend_segments(segments: Tensor, start: float = -1.0, stop: float = 2.0) -> Tensor:
    """Segments lengthened (or cut) to the parameters start..stop of the line through their ends (the paper's "wider scope").

    segments: (S, 2, *input_shape), whose own ends are at 0 and 1; returns the same shape. Raises InputError for simplices
    of higher dimension or where start is not below stop.
    """
    _require_segments(segments)
    if not start < stop:
        raise InputError(f"start={start}, stop={stop}: the start of a segment must lie below its stop")
    return _points_on(segments, torch.tensor([start, stop], dtype=torch.float64).expand(len(segments), 2))


def random_directions(images: Tensor, scale: float = 0.1, generator: torch.Generator | None = None) -> Tensor:
    """Segments from each image x to x + scale * z with z standard normal noise (the paper's "random direction").

    images: (S, *input_shape), normalized; returns (S, 2, *input_shape). Raises InputError where scale is not positive.
    """
    if not scale > 0:
        raise InputError(f"scale={scale}: the noise along which a segment runs needs a scale above 0")
    device = "cpu" if generator is None else generator.device
    noise = torch.randn(images.shape, generator=generator, device=device).to(images)
    return torch.stack([images, images + scale * noise], dim=1)


def _require_segments(segments: Tensor) -> None:
    if segments.dim() < 2 or segments.shape[1] != 2:
        raise InputError(f"segments of shape (S, 2, *input_shape) are needed, not {tuple(segments.shape)}")


def _points_on(segments: Tensor, parameters: Tensor) -> Tensor:
    """The points at the given parameters (S, 2) of the lines through the segments' ends."""
    parameters = parameters.to(segments).view(len(segments), 2, *[1] * (segments.dim() - 2))
    return (1 - parameters) * segments[:, :1] + parameters * segments[:, 1:]
