"""Labels on a square grid of the plane through three inputs, for pictures of decision regions (Somepalli et al. 2022)."""

import numpy as np
import torch
from torch import Tensor

from regioncount.regions.callables import as_model
from regioncount.regions.checks import as_vertices, require_count
from regioncount.regions.evaluation import Model, as_float64
from regioncount.regions.labelling import Labeller
from regioncount.regions.progress import progress_bar

SHOWN_AFTER = 2.0  # seconds of labelling after which its progress is shown


def plane_grid(triangle: Tensor, resolution: int = 150, margin: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Return an undistorted square grid of the plane through three inputs, centred on the triangle.

    Args:
        triangle: The inputs, (3, *input_shape).
        resolution: Grid points n along each side.
        margin: Space on each side, as a share of the longer side of the triangle's bounding box.

    Returns:
        Barycentric coordinates of the grid points, float64 (n * n, 3), row by row from the bottom. Each row sums to
        1; outside the triangle, some coordinate is negative. And the positions of the inputs, float64 (3, 2), as (x, y)
        in grid steps.
    """
    corners, positions = _square(triangle, margin)
    return _grid_weights(resolution) @ corners, positions * (resolution - 1)


def label_planes(
    model: Model, triangles: Tensor, resolution: int = 150, method: str = "auto"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the predicted labels on the grid of `plane_grid` for each of S triangles.

    Args:
        model: As for `count_regions`.
        triangles: Three inputs per triangle, floating point (S, 3, *input_shape).
        resolution: Grid points n along each side.
        method: "auto", "grid" or "adaptive", as for `count_regions`.

    Returns:
        Labels, integers (S, n, n), with row 0 at the bottom, so that `pyplot.imshow(labels[0], origin="lower")` draws one
        plane. And the positions of the inputs, float64 (S, 3, 2), as (x, y) in grid steps.

    Raises:
        InputError: If `count_regions` would raise it.
    """
    model = as_model(model)
    triangles = as_vertices(triangles, dimension=2)
    require_count("resolution", resolution, 2)
    squares: list[Tensor] = []
    positions: list[np.ndarray] = []
    for triangle in triangles:
        corners, vertex_positions = _square(triangle)
        exact = as_float64(triangle)
        weights = torch.as_tensor(corners, dtype=torch.float64, device=exact.device)
        square = (weights @ exact.flatten(1)).view(triangle.shape)
        squares.append(square.to(triangle.dtype).to(triangle.device))
        positions.append(vertex_positions * (resolution - 1))
    vertices = torch.stack(squares)
    index_grid = np.arange(resolution**2).reshape(resolution, resolution)
    labeller = Labeller(model, vertices, _grid_weights(resolution), index_grid, method)
    # The adaptive method evaluates fewer points than the total.
    with progress_bar(len(vertices) * resolution**2, "points of planes", delay=SHOWN_AFTER) as bar:
        if bar is not None:
            labeller.advance = bar.update
        labels = np.concatenate([labeller(block) for block in vertices.split(labeller.block_size)])
    return labels.reshape(-1, resolution, resolution), np.stack(positions)


def _square(triangle: Tensor, margin: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Return the square around a triangle, and the triangle's vertices in it.

    The square is given by the barycentric coordinates (3, 3) of its lower left, lower right and upper left corner; the
    vertices (3, 2) as (x, y) in units of its side.
    """
    first, second, third = as_float64(triangle.detach()).flatten(1).cpu().numpy()
    edge, other_edge = second - first, third - first
    width = np.linalg.norm(edge) or 1.0
    along = other_edge @ edge / width
    height = np.linalg.norm(other_edge - along * edge / width) or 1.0
    vertices = np.array([[0.0, 0.0], [width, 0.0], [along, height]])
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    side = (high - low).max() * (1 + 2 * margin)
    origin = (low + high) / 2 - side / 2
    x, y = (origin + side * np.array([[0, 0], [1, 0], [0, 1]])).T
    third_share = y / height
    second_share = (x - third_share * along) / width
    corners = np.stack([1 - second_share - third_share, second_share, third_share], axis=-1)
    return corners, (vertices - origin) / side


def _grid_weights(resolution: int) -> np.ndarray:
    """Return the weights (n * n, 3) of a square's lower left, lower right and upper left corner at its grid points."""
    y, x = np.indices((resolution, resolution)).reshape(2, -1) / (resolution - 1)
    return np.stack([1 - x - y, x, y], axis=-1)
