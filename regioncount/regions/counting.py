"""Region counts: a model and subspaces in, counts with their uncertainty out."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit
from torch import Tensor, nn

from regioncount.errors import InputError
from regioncount.regions.bounds import bounded_lines
from regioncount.regions.components import region_sizes
from regioncount.regions.exact import ExactLines, exact_lines
from regioncount.regions.labelling import Labeller
from regioncount.regions.lattice import barycentric, edges, neighbour_offsets, positions, simplex_lattice
from regioncount.regions.triangles import ExactPlane, exact_planes

# These take no lattice: the most dimensions of a subspace that each counts in.
EXACT_METHODS = {"exact": 2, "bounds": 1}


@dataclass(frozen=True)
class RegionCount:
    """Region counts over S subspaces, and how they were made."""

    counts: np.ndarray
    """int64 (S,): regions in each subspace; at least so many, where an exact count ran out of its budget"""
    entropies: np.ndarray
    """float64 (S,): region entropy -sum p log p of each subspace, in nats, p a region's share of the lattice points; of the
    line's length or the triangle's area, where the count is exact"""
    dimension: int
    resolution: int | None
    """lattice points per axis; None where the count is exact"""
    connectivity: str
    method: str
    evaluations: int
    """model evaluations, in inputs"""
    screening_bound: float | None = None
    """points whose margin in bfloat16 is below it were evaluated in float32 too; None where all are evaluated in float32"""
    exact: ExactLines | list[ExactPlane] | None = None
    """of an exact count: where the boundaries are, the network's affine pieces, the share of each line that is proved"""

    @property
    def mean(self) -> float:
        """The region count: the mean over subspaces."""
        return float(self.counts.mean())

    @property
    def entropy(self) -> float:
        """Mean region entropy, in nats."""
        return float(self.entropies.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean over subspaces; not a number for a single one."""
        number = len(self.counts)
        return float(self.counts.std(ddof=1) / np.sqrt(number)) if number > 1 else float("nan")

    def confidence_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Student's t interval (low, high) of the mean; speaks of the choice of subspaces, not of training seeds."""
        if not 0 < level < 1:
            raise InputError(f"level={level}: a confidence level lies between 0 and 1")
        half = stdtrit(max(1, len(self.counts) - 1), (1 + level) / 2) * self.standard_error
        return float(self.mean - half), float(self.mean + half)


def default_resolution(dimension: int) -> int:
    """Lattice points per axis in the paper: 200 on lines, 10 in planes, 5 beyond."""
    return {1: 200, 2: 10}.get(dimension, 5)


def count_regions(
    model: Callable,
    vertices: Tensor,
    *,
    resolution: int | None = None,
    method: str = "auto",
    connectivity: str = "paper",
    batch_size: int | None = None,
    budget: int | None = None,
) -> RegionCount:
    """Count the connected regions of constant predicted label that meet each of S simplices.

    model: any callable from a batch of inputs (B, *input_shape) to logits (B, classes) or to integer labels (B,). A
    module is evaluated where its parameters are, in evaluation mode, and put back as it was.
    vertices: floating point (S, d + 1, *input_shape), normalized as the model takes them.
    resolution: lattice points per axis, ends included; 200 for d = 1, 10 for d = 2, 5 beyond unless given.
    method: "grid" evaluates every lattice point in true float32 (no TF32, no autocast). "adaptive" evaluates only those
    it needs to tell where labels change (see `regioncount.regions.adaptive`); it takes logits, not labels. "auto" is the
    fastest way shown to agree with the grid: for a module that gives logits, adaptive, with batch normalization folded and
    with bfloat16 evaluations, where the hardware is fast at them, wherever these are sure of the label; for every other
    callable, the grid. "exact" takes no lattice: through networks of piecewise linear operations it finds every boundary,
    on lines (see `regioncount.regions.exact`) and, where they are small, in triangles (`regioncount.regions.triangles`).
    "bounds" finds the same on lines, at less cost in networks of few layers (see `regioncount.regions.bounds`).
    connectivity: "paper" or "lattice", see `count_components`.
    batch_size: inputs evaluated at once; by default it follows from the input's shape.
    budget: of "exact" and "bounds", the evaluations after which no more is proved.

    Raises InputError where an argument is out of range, the model's output is neither logits nor labels, or a logit is
    not a number. Source: Li et al. 2025, "Understanding Nonlinear Implicit Bias via Region Counts in Input Space",
    section 3.
    """
    if vertices.dim() < 3 or vertices.shape[1] < 2 or len(vertices) < 1:
        raise InputError(f"vertices of shape (S, d + 1, *input_shape) are needed, not {tuple(vertices.shape)}")
    if method in EXACT_METHODS:
        return _count_exactly(model, vertices, resolution, method, connectivity, budget)
    if budget is not None:
        raise InputError(f"budget={budget}: method={method} has none, only {' and '.join(EXACT_METHODS)} have")
    dimension = vertices.shape[1] - 1
    resolution = default_resolution(dimension) if resolution is None else resolution
    if resolution < 2:
        raise InputError(f"resolution={resolution}: at least 2 lattice points per axis are needed")

    points = simplex_lattice(dimension, resolution)
    joins = edges(points, neighbour_offsets(dimension, connectivity))
    weights = barycentric(points, resolution)
    label = Labeller(model, vertices, weights, positions(points, resolution), method, batch_size)
    counts, entropies = [], []
    for block in vertices.split(label.block):
        labels = label(block)
        # A classifier's own labels may be negative (-1 and 1, say), where -1 means outside on a lattice.
        owners, sizes = region_sizes(labels - labels.min(), joins)
        share = sizes / len(points)
        counts.append(np.bincount(owners, minlength=len(block)))
        entropies.append(np.bincount(owners, weights=-share * np.log(share), minlength=len(block)))
    return RegionCount(
        counts=np.concatenate(counts),
        entropies=np.concatenate(entropies) + 0.0,  # -0.0, of a single region, reads better as 0.0
        dimension=dimension,
        resolution=resolution,
        connectivity=connectivity,
        method=label.method,
        evaluations=label.evaluations,
        screening_bound=label.screening_bound,
    )


def where_exact(method: str) -> str:
    """In what an exact method counts, for a message."""
    return "on lines" if EXACT_METHODS[method] == 1 else "on lines and in planes"


def _count_exactly(
    model: nn.Module, vertices: Tensor, resolution: int | None, method: str, connectivity: str, budget: int | None
) -> RegionCount:
    dimension = vertices.shape[1] - 1
    if dimension > EXACT_METHODS[method]:
        raise InputError(f"method={method} counts {where_exact(method)}, not in {dimension} dimensions")
    if resolution is not None:
        raise InputError(f"resolution={resolution}: method={method} takes no lattice; leave it out")
    if dimension == 2:
        if budget is not None:
            raise InputError(f"budget={budget}: exact counts in triangles have none; leave it out")
        planes = exact_planes(model, vertices)
        counts, entropies = (np.array([getattr(plane, name) for plane in planes]) for name in ("count", "entropy"))
        evaluations = sum(plane.evaluations for plane in planes)
        return RegionCount(counts, entropies, 2, None, connectivity, method, evaluations, exact=planes)
    found = (bounded_lines if method == "bounds" else exact_lines)(model, vertices, budget)
    return RegionCount(found.counts, found.entropies, 1, None, connectivity, method, found.evaluations, exact=found)
