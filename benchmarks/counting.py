"""Compare region counts of a trained ResNet-18 between regioncount and the plain version, in one process.

    python benchmarks/counting.py [--width 64] [--lines 100] [--triangles 100] [--squares 2] [--device auto]

The plain version counts half of the subspaces before regioncount and half after it, so that a drift in the machine's speed
favours neither.
"""

import time

import numpy as np
import plain
import torch
import zoo
from torch import nn

from regioncount.regions import count_components, count_regions, label_planes, sample_simplices
from regioncount.regions.lattice import barycentric, neighbour_offsets, simplex_lattice
from regioncount.regions.planes import plane_grid
from regioncount.training import choose_device

SQUARE = 100  # points along each side


def neighbour_steps(dimension: int) -> list[tuple]:
    """Return the offsets from a lattice point to all its neighbours."""
    offsets = neighbour_offsets(dimension, "paper")
    return [tuple(step) for step in np.concatenate([offsets, -offsets]).tolist()]


def plain_simplices(model: nn.Module, vertices: np.ndarray, resolution: int, device) -> list[int]:
    dimension = vertices.shape[1] - 1
    points = simplex_lattice(dimension, resolution)
    lattice = [tuple(point) for point in points.tolist()]
    return plain.count_regions(model, vertices, lattice, barycentric(points, resolution), neighbour_steps(dimension), device)


def plain_squares(model: nn.Module, triangles: np.ndarray, device) -> list[int]:
    lattice = [(y, x) for y in range(SQUARE) for x in range(SQUARE)]
    counts = []
    for triangle in triangles:
        weights, _ = plane_grid(torch.from_numpy(triangle), SQUARE)
        counts += plain.count_regions(model, triangle[None], lattice, weights, neighbour_steps(2), device)
    return counts


def fast_squares(model: nn.Module, triangles: torch.Tensor) -> np.ndarray:
    return count_components(label_planes(model, triangles, SQUARE)[0])


def compare(name: str, slow, fast, vertices: torch.Tensor, device) -> None:
    """Print a row of the table: the times and counts of two functions from vertices to counts."""
    device_vertices = vertices.to(device)
    fast(device_vertices[:1])  # warm up: the first call builds kernels
    slow(vertices[:1].numpy())
    half = len(vertices) // 2
    first_counts, first_seconds = timed(lambda: slow(vertices[:half].numpy()))
    counts, fast_seconds = timed(lambda: fast(device_vertices))
    second_counts, second_seconds = timed(lambda: slow(vertices[half:].numpy()))
    expected = np.array([*first_counts, *second_counts])
    slow_seconds = first_seconds + second_seconds
    print(
        f"| {name} | {slow_seconds:.2f} s | {fast_seconds:.2f} s | {slow_seconds / fast_seconds:.1f}x "
        f"| {(counts == expected).sum()} of {len(counts)} | {expected.mean():.3f} | {counts.mean():.3f} |",
        flush=True,
    )


def timed(function) -> tuple:
    """Return a function's result and the seconds it took."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def main() -> None:
    parser = zoo.make_parser(__doc__)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--lines", type=int, default=100)
    parser.add_argument("--triangles", type=int, default=100)
    parser.add_argument("--squares", type=int, default=2)
    options = parser.parse_args()
    device = choose_device(options.device)
    torch.backends.cudnn.allow_tf32 = False
    *_, (_, model, dataset, _) = zoo.stages("resnet18", options.width, options)
    model.to(device)
    images = dataset.normalize(dataset.train.images)
    print("| | plain | regioncount | ratio | equal counts | mean, plain | mean |\n|---|---|---|---|---|---|---|")
    generator = torch.Generator().manual_seed(0)
    for dimension, number in ((1, options.lines), (2, options.triangles)):
        resolution, name = {1: (200, "lines x 200 points"), 2: (10, "triangles x 55 points")}[dimension]
        compare(
            f"{number} {name}",
            lambda vertices, resolution=resolution: plain_simplices(model, vertices, resolution, device),
            lambda vertices, resolution=resolution: count_regions(model, vertices, resolution=resolution).counts,
            sample_simplices(images, dimension, number, generator),
            device,
        )
    compare(
        f"{options.squares} squares x {SQUARE} x {SQUARE} points",
        lambda vertices: plain_squares(model, vertices, device),
        lambda vertices: fast_squares(model, vertices),
        sample_simplices(images, 2, options.squares, generator),
        device,
    )


if __name__ == "__main__":
    main()
