"""Compare exact region counts of triangles with lattice counts.

    python benchmarks/exact_planes.py [--data DIR]

The triangles connect training images; the networks are trained and untrained perceptrons. The label of every polygon is
compared with the network's label at its centre, and the sum of the areas with that of the triangle. Writes
docs/exact_plane.png.
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
UPRIGHT = np.array([[1.0, 0.0], [0.5, 0.75**0.5]])  # maps barycentric weights of vertices 2 and 3 to an equilateral triangle


def labels_at(model, triangle: torch.Tensor, positions: np.ndarray) -> np.ndarray:
    """Return the labels of a float64 network at positions (P, 2), the barycentric weights of the second and third vertex."""
    weights = torch.from_numpy(np.column_stack([1 - positions.sum(axis=1), positions]))
    with torch.no_grad():
        return model((weights @ triangle.double().flatten(1)).view(-1, *triangle.shape[1:])).argmax(dim=1).numpy()


def wrong_polygons(model, triangle: torch.Tensor, plane: ExactPlane) -> int:
    """Return how many polygons have another label than the network at their centre. Tiny polygons are left out."""
    assert abs(plane.areas.sum() - 1) < 1e-9, plane.areas.sum()
    large = plane.areas > 1e-15
    centres = np.array([polygon.mean(axis=0) for polygon in plane.polygons])[large]
    return int((labels_at(model, triangle, centres) != plane.labels[large]).sum())


def draw(model, triangle: torch.Tensor, plane: ExactPlane, seen: int) -> None:
    """Draw the exact regions, and the paper's lattice with the number of regions it detects."""
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
    options.add_argument("--share", type=float, default=1.0, help="fraction of the triangles to use")
    options = options.parse_args()
    print(
        "| model | triangles | affine pieces per triangle | seconds per triangle | polygons with a different label |", end=""
    )
    print(" exact count | points | count | too few | too many |\n|---|---|---|---|---|---|---|---|---|---|")
    for name, model, dataset, number in exact.models(options, NETWORKS):
        triangles = sample_simplices(
            dataset.normalize(dataset.train.images[:2000]), 2, number, torch.Generator().manual_seed(0)
        )
        start = time.perf_counter()
        planes = exact_planes(model, triangles)
        seconds = (time.perf_counter() - start) / number
        counts = {points: count_regions(model, triangles, resolution=points, method="grid").counts for points in LATTICES}
        model = model.double()
        wrong = sum(wrong_polygons(model, *pair) for pair in zip(triangles, planes, strict=True))
        polygons = sum(len(plane.polygons) for plane in planes)
        exact_counts = np.array([plane.count for plane in planes])
        head = f"| {name} | {number} | {np.mean([plane.pieces for plane in planes]):,.0f} | {seconds:.2f} "
        head += f"| {wrong} of {polygons:,} | {exact_counts.mean():.2f} "
        for points, seen in counts.items():
            few, many = (100 * (differs).mean() for differs in (seen < exact_counts, seen > exact_counts))
            cells = f"| {points * (points + 1) // 2:,} | {seen.mean():.2f} | {few:.0f} % | {many:.0f} % |"
            print(head + cells, flush=True)
        missed = exact_counts - counts[LATTICES[0]]
    chosen = int(missed.argmax())
    draw(model, triangles[chosen], planes[chosen], counts[LATTICES[0]][chosen])


if __name__ == "__main__":
    main()
