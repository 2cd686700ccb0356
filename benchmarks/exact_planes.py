"""Exact regions of triangles beside those of lattices: python benchmarks/exact_planes.py [--data DIR]

Between training images, of perceptrons trained and not; the label of every polygon is held against the network's own in its
middle, and the areas against the triangle's. Writes docs/exact_plane.png.
"""

import time

import exact
import matplotlib.pyplot as plt
import numpy as np
import torch
import zoo
from matplotlib.collections import PolyCollection

from regioncount.regions import ExactPlane, count_regions, exact_planes, sample_simplices
from regioncount.reporting.plots import CLASS_COLOURS

NETWORKS = (("mlp", 16, 100), ("mlp", 64, 100))
LATTICES = (10, 20, 50, 100)  # points per axis
UPRIGHT = np.array([[1.0, 0.0], [0.5, 0.75**0.5]])  # of the second and third vertex's shares, for a triangle of equal sides


def labels_at(model, triangle: torch.Tensor, places: np.ndarray) -> np.ndarray:
    """Those of a float64 network, at places (P, 2): the shares of the second and third vertex."""
    shares = torch.from_numpy(np.column_stack([1 - places.sum(axis=1), places]))
    with torch.no_grad():
        return model((shares @ triangle.double().flatten(1)).view(-1, *triangle.shape[1:])).argmax(dim=1).numpy()


def wrong_polygons(model, triangle: torch.Tensor, plane: ExactPlane) -> int:
    """Those with another label in their middle than the network gives; those too small to have a middle are left out."""
    assert abs(plane.areas.sum() - 1) < 1e-9, plane.areas.sum()
    large = plane.areas > 1e-15
    middles = np.array([polygon.mean(axis=0) for polygon in plane.polygons])[large]
    return int((labels_at(model, triangle, middles) != plane.labels[large]).sum())


def draw(model, triangle: torch.Tensor, plane: ExactPlane, seen: int) -> None:
    """The exact regions, and the paper's lattice with the number of regions seen on it."""
    steps = np.array([(x, y) for y in range(LATTICES[0]) for x in range(LATTICES[0] - y)]) / (LATTICES[0] - 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    colours = [CLASS_COLOURS[label] for label in plane.labels]
    outlines = [polygon @ UPRIGHT for polygon in plane.polygons]
    left.add_collection(PolyCollection(outlines, facecolors=colours, edgecolors="white", linewidths=0.15))
    left.set_title(f"exact: {plane.count} regions, {plane.pieces:,} affine pieces")
    right.scatter(*(steps @ UPRIGHT).T, c=[CLASS_COLOURS[label] for label in labels_at(model, triangle, steps)], s=110)
    right.set_title(f"{len(steps)} points: {seen} regions")
    for axes in (left, right):
        axes.set(xlim=(-0.04, 1.04), ylim=(-0.04, 0.91), aspect="equal")
        axes.axis("off")
    figure.savefig(exact.DOCS / "exact_plane.png", dpi=150)


def main() -> None:
    options = zoo.arguments(__doc__)
    options.add_argument("--share", type=float, default=1.0, help="of the triangles")
    options = options.parse_args()
    print("| model | triangles | affine pieces a triangle | seconds a triangle | polygons with another label |", end="")
    print(" exact count | points | count | too few | too many |\n|---|---|---|---|---|---|---|---|---|---|")
    for name, model, dataset, number in exact.models(options, NETWORKS):
        triangles = sample_simplices(
            dataset.normalize(dataset.train.images[:2000]), 2, number, torch.Generator().manual_seed(0)
        )
        start = time.perf_counter()
        planes = exact_planes(model, triangles)
        took = (time.perf_counter() - start) / number
        counts = {points: count_regions(model, triangles, resolution=points, method="grid").counts for points in LATTICES}
        model = model.double()
        wrong = sum(wrong_polygons(model, *pair) for pair in zip(triangles, planes, strict=True))
        polygons, found = sum(len(plane.polygons) for plane in planes), np.array([plane.count for plane in planes])
        head = f"| {name} | {number} | {np.mean([plane.pieces for plane in planes]):,.0f} | {took:.2f} "
        head += f"| {wrong} of {polygons:,} | {found.mean():.2f} "
        for points, seen in counts.items():
            few, many = (100 * (differs).mean() for differs in (seen < found, seen > found))
            told = f"| {points * (points + 1) // 2:,} | {seen.mean():.2f} | {few:.0f} % | {many:.0f} % |"
            print(head + told, flush=True)
        missed = found - counts[LATTICES[0]]
    most = int(missed.argmax())
    draw(model, triangles[most], planes[most], counts[LATTICES[0]][most])


if __name__ == "__main__":
    main()
