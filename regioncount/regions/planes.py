"""Pictures of decision regions: labels on a square grid of the plane through three inputs (Somepalli et al. 2022)."""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from regioncount.regions.labelling import Labeller


def plane_grid(triangle: Tensor, resolution: int = 150, margin: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """A square grid, undistorted, of the plane through three inputs, with the triangle in its middle.

    triangle: (3, *input_shape). Returns barycentric weights (n * n, 3) of the grid's points, row by row from the bottom
    (they sum to 1 and may be negative: outside the triangle), and the positions (3, 2) of the three inputs, as (x, y) in
    units of grid steps. n = resolution; margin is what is left on each side, as a share of the triangle's longer extent.
    """
    first, second, third = triangle.detach().double().flatten(1).cpu().numpy()
    right, up = second - first, third - first
    width = np.linalg.norm(right) or 1.0
    along = up @ right / width
    height = np.linalg.norm(up - along * right / width) or 1.0
    corners = np.array([[0.0, 0.0], [width, 0.0], [along, height]])
    low, high = corners.min(axis=0), corners.max(axis=0)
    side = (high - low).max() * (1 + 2 * margin)
    origin = (low + high) / 2 - side / 2
    steps = np.arange(resolution) / (resolution - 1) * side
    y, x = np.meshgrid(origin[1] + steps, origin[0] + steps, indexing="ij")
    to_third = y / height
    to_second = (x - to_third * along) / width
    weights = np.stack([1 - to_second - to_third, to_second, to_third], axis=-1).reshape(-1, 3)
    return weights, (corners - origin) / side * (resolution - 1)


def label_plane(
    model: Callable, triangle: Tensor, resolution: int = 150, method: str = "auto"
) -> tuple[np.ndarray, np.ndarray]:
    """Labels int32 (n, n) on the grid of `plane_grid`, row 0 at the bottom, and the positions (3, 2) of the inputs.

    model, triangle (3, *input_shape) and method are as in `count_regions`, whose InputErrors apply.
    """
    weights, positions = plane_grid(triangle, resolution)
    square = np.arange(resolution**2).reshape(resolution, resolution)
    label = Labeller(model, triangle[None], weights, square, method)
    return label(triangle[None]).reshape(resolution, resolution), positions
