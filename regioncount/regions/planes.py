"""Pictures of decision regions: labels on a square grid of the plane through three inputs (Somepalli et al. 2022)."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from regioncount.regions.labelling import Labeller


def plane_grid(triangle: Tensor, resolution: int = 150, margin: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """A square grid, undistorted, of the plane through three inputs, with the triangle in its middle.

    triangle: (3, *input_shape). Returns barycentric weights (n * n, 3) of the grid's points, row by row from the bottom
    (they sum to 1 and may be negative: outside the triangle), and the positions (3, 2) of the three inputs, as (x, y) in
    units of grid steps. n = resolution; margin is what is left on each side, as a share of the triangle's longer extent.
    """
    corners, places = _square(triangle, margin)
    return _grid_weights(resolution) @ corners, places * (resolution - 1)


def label_planes(
    model: Callable, triangles: Tensor, resolution: int = 150, method: str = "auto"
) -> tuple[np.ndarray, np.ndarray]:
    """Labels int32 (S, n, n) on the grid of `plane_grid` for each of S triangles, row 0 at the bottom, and the positions
    (S, 3, 2) of the inputs.

    model, triangles (S, 3, *input_shape) and method are as in `count_regions`, whose InputErrors apply.
    """
    squares, positions = [], []
    for triangle in triangles:
        corners, places = _square(triangle)
        weights = torch.as_tensor(corners, dtype=torch.float64, device=triangle.device)
        squares.append((weights @ triangle.double().flatten(1)).view(triangle.shape).to(triangle.dtype))
        positions.append(places * (resolution - 1))
    vertices = torch.stack(squares)
    grid = np.arange(resolution**2).reshape(resolution, resolution)
    label = Labeller(model, vertices, _grid_weights(resolution), grid, method)
    labels = np.concatenate([label(block) for block in vertices.split(label.block)])
    return labels.reshape(-1, resolution, resolution), np.stack(positions)


def _square(triangle: Tensor, margin: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """The square around a triangle: barycentric weights (3, 3) of its lower left, lower right and upper left corner, and
    the positions (3, 2) of the triangle's vertices in it, as (x, y) in units of its side.
    """
    first, second, third = triangle.detach().double().flatten(1).cpu().numpy()
    right, up = second - first, third - first
    width = np.linalg.norm(right) or 1.0
    along = up @ right / width
    height = np.linalg.norm(up - along * right / width) or 1.0
    vertices = np.array([[0.0, 0.0], [width, 0.0], [along, height]])
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    side = (high - low).max() * (1 + 2 * margin)
    origin = (low + high) / 2 - side / 2
    x, y = (origin + side * np.array([[0, 0], [1, 0], [0, 1]])).T
    to_third = y / height
    to_second = (x - to_third * along) / width
    corners = np.stack([1 - to_second - to_third, to_second, to_third], axis=-1)
    return corners, (vertices - origin) / side


def _grid_weights(resolution: int) -> np.ndarray:
    """Weights (n * n, 3) of a square's lower left, lower right and upper left corner at the points of its grid."""
    y, x = np.indices((resolution, resolution)).reshape(2, -1) / (resolution - 1)
    return np.stack([1 - x - y, x, y], axis=-1)
