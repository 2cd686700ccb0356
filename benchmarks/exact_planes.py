"""Compare exact region counts of triangles with lattice counts.

    python benchmarks/exact_planes.py [--data DIR]

The triangles connect training images; the networks are trained and untrained perceptrons. The script also checks that the
label of every polygon is the network's label at its centre, and that the areas of the polygons add up to that of the
triangle. Writes docs/exact_plane.png.
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

NETWORKS = (("mlp", 16, 100), ("mlp", 64, 100))  # name, width, triangles
LATTICES = (10, 20, 50, 100)  # points per axis
# Maps the barycentric weights of the second and third vertex to an equilateral triangle.
TO_EQUILATERAL = np.array([[1.0, 0.0], [0.5, 0.75**0.5]])


def labels_at(model, triangle: torch.Tensor, positions: np.ndarray) -> np.ndarray:
    """Return the labels of a float64 network at positions (P, 2), the barycentric weights of the second and third vertex."""
    weights = torch.from_numpy(np.column_stack([1 - positions.sum(axis=1), positions]))
    with torch.no_grad():
        return model((weights @ triangle.double().flatten(1)).view(-1, *triangle.shape[1:])).argmax(dim=1).numpy()


def wrong_polygons(model, triangle: torch.Tensor, plane: ExactPlane) -> int:
    """Return the number of polygons whose label is not that of the network at their centre, except tiny polygons."""
    assert abs(plane.areas.sum() - 1) < 1e-9, plane.areas.sum()
    large = plane.areas > 1e-15
    centres = np.array([polygon.mean(axis=0) for polygon in plane.polygons])[large]
    return int((labels_at(model, triangle, centres) != plane.labels[large]).sum())


def draw(model, triangle: torch.Tensor, plane: ExactPlane, lattice_count: int) -> None:
    """Draw the exact regions, and the paper's lattice with the number of regions that it detects."""
    steps = np.array([(x, y) for y in range(LATTICES[0]) for x in range(LATTICES[0] - y)]) / (LATTICES[0] - 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    colours = [CLASS_COLOURS[label] for label in plane.labels]
    outlines = [polygon @ TO_EQUILATERAL for polygon in plane.polygons]
    left.add_collection(PolyCollection(outlines, facecolors=colours, edgecolors="white", linewidths=0.15))
    left.set_title(f"exact: {plane.count} regions, {plane.pieces:,} affine pieces")
    point_colours = [CLASS_COLOURS[label] for label in labels_at(model, triangle, steps)]
    right.scatter(*(steps @ TO_EQUILATERAL).T, c=point_colours, s=110)
    right.set_title(f"{len(steps)} points: {lattice_count} regions")
    for axes in (left, right):
        axes.set(xlim=(-0.04, 1.04), ylim=(-0.04, 0.91), aspect="equal")
        axes.axis("off")
    figure.savefig(exact.DOCS / "exact_plane.png", dpi=150)


def main() -> None:
    parser = zoo.make_parser(__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="fraction of the triangles to use")
    options = parser.parse_args()
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
        for points, lattice_counts in counts.items():
            too_few = 100 * (lattice_counts < exact_counts).mean()
            too_many = 100 * (lattice_counts > exact_counts).mean()
            cells = f"| {points * (points + 1) // 2:,} | {lattice_counts.mean():.2f} | {too_few:.0f} % | {too_many:.0f} % |"
            print(head + cells, flush=True)
        missed = exact_counts - counts[LATTICES[0]]
    worst = int(missed.argmax())  # the triangle of the last network with the most missed regions
    draw(model, triangles[worst], planes[worst], counts[LATTICES[0]][worst])


if __name__ == "__main__":
    main()
