"""Region counts of a model in subspaces, with their uncertainty."""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit
from torch import Tensor

from regioncount.errors import InputError
from regioncount.regions.bounds import bounded_lines
from regioncount.regions.callables import as_model
from regioncount.regions.checks import as_vertices, require_count, require_number, require_type
from regioncount.regions.components import region_sizes
from regioncount.regions.evaluation import Model
from regioncount.regions.exact import ExactLines, exact_lines
from regioncount.regions.labelling import Labeller
from regioncount.regions.lattice import (
    barycentric,
    box_lattice,
    index_grid,
    neighbour_offsets,
    neighbour_pairs,
    simplex_lattice,
)
from regioncount.regions.methods import (
    EXACT_METHODS,
    LATTICE_METHODS,
    check_lattice,
    default_resolution,
    exact_scope,
    require_connectivity,
    require_method,
)
from regioncount.regions.screening import Preparation
from regioncount.regions.triangles import ExactPlane, exact_planes

COMPARED_SHARE = 100  # "auto" is compared with "grid" in one of so many subspaces
FEW_COMPARED = (10, 3)  # of fewer subspaces, in one of so many, at most in so many


@dataclass(frozen=True)
class RegionCount:
    """Region counts in S subspaces, and how they were computed."""

    counts: np.ndarray
    """int64 (S,): regions in each subspace; a lower bound if an exact method exhausted its budget."""
    entropies: np.ndarray
    """float64 (S,): region entropy -sum p log p of each subspace, in nats, where p is a region's share of the lattice points
    (of the length or area, if exact)."""
    dimension: int
    """Dimension d of the subspaces."""
    resolution: int | None
    """Lattice points per axis; None if exact."""
    connectivity: str
    """Definition of neighbouring lattice points, "paper" or "lattice"."""
    method: str
    """The method that was used; "auto" is resolved to "grid" or "adaptive"."""
    evaluations: int
    """Model evaluations, in inputs."""
    screening_bound: float | None = None
    """Margin in bfloat16 below which a point was also evaluated in float32; None if bfloat16 was not used."""
    lattice: str = "simplex"
    """Set of lattice points, "simplex" or "box"."""
    exact: ExactLines | list[ExactPlane] | None = None
    """Result of an exact method: boundaries, affine pieces of the network, and the share of each line that is proved."""

    @property
    def mean(self) -> float:
        """Region count: the mean over subspaces."""
        return float(self.counts.mean())

    @property
    def entropy(self) -> float:
        """Mean region entropy over subspaces, in nats."""
        return float(self.entropies.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean over subspaces; NaN for a single subspace."""
        number = len(self.counts)
        return float(self.counts.std(ddof=1) / np.sqrt(number)) if number > 1 else float("nan")

    def confidence_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return Student's t interval of the mean.

        It covers the random choice of subspaces, not the variation between training seeds.

        Args:
            level: Confidence level, between 0 and 1.

        Returns:
            Lower and upper end.

        Raises:
            InputError: If the level is not between 0 and 1.
        """
        require_number("level", level)
        if not 0 < level < 1:
            raise InputError(f"level={level}: a confidence level must be between 0 and 1")
        half_width = stdtrit(max(1, len(self.counts) - 1), (1 + level) / 2) * self.standard_error
        return float(self.mean - half_width), float(self.mean + half_width)

    def paired_difference(self, other: "RegionCount") -> tuple[float, float]:
        """Return the mean count minus that of another model in the same subspaces, and the standard error of the difference.

        Counts of two models in the same subspaces are correlated, so this standard error is smaller than that of a
        difference of independent means. Only the caller knows whether the subspaces, and their order, are the same.

        Args:
            other: The count of the other model.

        Returns:
            The difference, and its standard error over subspaces (NaN for a single subspace).

        Raises:
            InputError: If `other` is no count, or the numbers of subspaces, or what was counted in them, differ.
        """
        require_type("other", other, RegionCount)
        advice = "count both models in the same subspaces"
        for name in ("dimension", "resolution", "connectivity", "lattice"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                raise InputError(f"the counts differ in {name}, {ours} and {theirs}: {advice}")
        if len(self.counts) != len(other.counts):
            raise InputError(f"the counts have {len(self.counts)} and {len(other.counts)} subspaces: {advice}")
        differences = self.counts - other.counts
        number = len(differences)
        error = differences.std(ddof=1) / np.sqrt(number) if number > 1 else float("nan")
        return float(differences.mean()), float(error)


def count_regions(
    model: Model,
    vertices: Tensor,
    *,
    resolution: int | None = None,
    method: str = "auto",
    connectivity: str = "paper",
    batch_size: int | None = None,
    budget: int | None = None,
    lattice: str = "simplex",
    preparation: Preparation | None = None,
) -> RegionCount:
    """Count the connected regions of constant predicted label in each of S simplices.

    The methods "auto", "grid" and "adaptive" evaluate points of a lattice and miss regions that lie between lattice
    points. "exact" and "bounds" compute every boundary, for torch modules that are piecewise linear in evaluation mode.

    - "grid" evaluates every lattice point in IEEE float32, without TF32 and autocast.
    - "adaptive" evaluates only the points needed to locate changes of the label; see `regioncount.regions.adaptive`. It
      needs logits.
    - "auto" is the fastest method shown to agree with "grid" on trained networks. It may miss regions that are narrower
      than the cells of its coarse lattice, such as a spike on flat logits. One subspace in a hundred (of fewer, one in
      ten, at most three) is therefore also counted by "grid", and a different count gives a warning. For modules that return
      logits, it is "adaptive" with batch normalization folded and, on hardware with fast bfloat16, float32 evaluations only
      where bfloat16 does not decide the label; see `regioncount.regions.screening`. For every other callable, and for
      modules of torch.ao that quantize, it is "grid".
    - "exact" computes the boundaries on lines (`regioncount.regions.exact`) and, for small networks, in triangles
      (`regioncount.regions.triangles`).
    - "bounds" finds the same regions on lines, with fewer evaluations for networks with few layers
      (`regioncount.regions.bounds`).

    Args:
        model: Any callable from inputs (B, *input_shape) to logits (B, classes) or integer labels (B,). A module is
            evaluated on its own device in evaluation mode; its mode is restored afterwards.
        vertices: Floating point (S, d + 1, *input_shape), normalized as the model expects; a tensor or an array.
        resolution: Lattice points per axis, ends included. By default 200 for d = 1, 10 for d = 2, 5 for larger d.
        method: One of the methods above.
        connectivity: "paper" or "lattice"; see `count_components`.
        batch_size: Inputs evaluated at once. By default it follows from the input's shape and the device.
        budget: For "exact" and "bounds" on lines, the number of evaluations after which the proof stops.
        lattice: "simplex": the points of the simplex itself. "box": those of the box that its edges from the first vertex
            span, the parallelogram of a triangle, as in the paper's first experiments with planes. On lines, both are equal.
        preparation: `Preparation(model)`, which several counts of one network share: the check that it is a function of its
            input, and its faster copies. The weights must not change in between. Exact methods do not use it.

    Returns:
        Counts and entropies of the subspaces, with their mean and its standard error.

    Raises:
        InputError: If an argument is out of range, the model returns neither logits nor labels, a logit is not a number, or
            the model gives two answers for one input (`regioncount.regions.model_check` describes the check).

    References:
        Li et al. 2025, "Understanding Nonlinear Implicit Bias via Region Counts in Input Space", section 3.
    """
    model = as_model(model)
    vertices = as_vertices(vertices)
    for name, value, least in (("resolution", resolution, 2), ("batch_size", batch_size, 1), ("budget", budget, 1)):
        if value is not None:
            require_count(name, value, least)
    require_method(method, (*LATTICE_METHODS, *EXACT_METHODS))
    require_connectivity(connectivity)
    if method in EXACT_METHODS:
        if lattice != "simplex":
            raise InputError(f"lattice={lattice}: method={method} uses no lattice; omit it")
        return _count_exactly(model, vertices, resolution, method, connectivity, budget)
    if budget is not None:
        raise InputError(f"budget={budget}: only method={' and method='.join(EXACT_METHODS)} accept a budget, not {method}")
    dimension = vertices.shape[1] - 1
    resolution = default_resolution(dimension) if resolution is None else int(resolution)

    check_lattice(dimension, resolution, lattice)
    points = (box_lattice if lattice == "box" else simplex_lattice)(dimension, resolution)
    pairs = neighbour_pairs(points, neighbour_offsets(dimension, connectivity))
    weights = barycentric(points, resolution)
    if preparation is not None:
        preparation.require(model)
    labeller = Labeller(model, vertices, weights, index_grid(points, resolution), method, batch_size, preparation)
    counts: list[np.ndarray] = []
    entropies: list[np.ndarray] = []
    for block in vertices.split(labeller.block_size):
        labels = labeller(block)
        subspaces, sizes = region_sizes(_from_zero(labels), pairs)
        share = sizes / len(points)
        counts.append(np.bincount(subspaces, minlength=len(block)))
        entropies.append(np.bincount(subspaces, weights=-share * np.log(share), minlength=len(block)))
    if method == "auto" and labeller.method == "adaptive":
        _compare_with_grid(labeller, vertices, pairs, np.concatenate(counts))
    return RegionCount(
        counts=np.concatenate(counts),
        entropies=np.concatenate(entropies) + 0.0,  # turns the -0.0 of a single region into 0.0
        dimension=dimension,
        resolution=resolution,
        connectivity=connectivity,
        method=labeller.method,
        evaluations=labeller.evaluations,
        screening_bound=labeller.screening_bound,
        lattice=lattice if dimension > 1 else "simplex",
    )


def _compare_with_grid(labeller: Labeller, vertices: Tensor, pairs: np.ndarray, counts: np.ndarray) -> None:
    """Count some subspaces by evaluating every point, and warn if a count differs."""
    share, most = FEW_COMPARED
    number = len(vertices) // COMPARED_SHARE or min(len(vertices) // share, most)
    chosen = np.random.default_rng(0).permutation(len(vertices))[:number]
    for subspace in chosen:
        labels = labeller.evaluate_all(vertices[subspace : subspace + 1])
        expected = len(region_sizes(_from_zero(labels), pairs)[0])
        if expected != counts[subspace]:
            warnings.warn(
                f"method=auto counts {counts[subspace]} regions in subspace {subspace}, every point of the lattice gives "
                f"{expected}: this model is not as smooth as those auto was tested with; use method=grid",
                stacklevel=3,
            )


def _from_zero(labels: np.ndarray) -> np.ndarray:
    """Return labels that start at 0: classifiers may use negative ones (-1 and 1), and -1 means outside on a lattice."""
    low, high = int(labels.min()), int(labels.max())
    if high - low < 2**63:
        return labels - low
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape)


def _count_exactly(
    model: Model, vertices: Tensor, resolution: int | None, method: str, connectivity: str, budget: int | None
) -> RegionCount:
    """Return the count by a method that uses no lattice.

    Raises:
        InputError: If the method does not support the dimension, or an argument that it does not use is given.
    """
    dimension = vertices.shape[1] - 1
    if dimension > EXACT_METHODS[method]:
        raise InputError(f"method={method} counts {exact_scope(method)}, not in {dimension} dimensions")
    if resolution is not None:
        raise InputError(f"resolution={resolution}: method={method} uses no lattice; omit the resolution")
    if connectivity != "paper":
        raise InputError(f"connectivity={connectivity}: method={method} uses no lattice; omit the connectivity")
    if dimension == 2:
        if budget is not None:
            raise InputError(f"budget={budget}: exact counts in triangles accept no budget; omit it")
        planes = exact_planes(model, vertices)
        counts = np.array([plane.count for plane in planes])
        entropies = np.array([plane.entropy for plane in planes])
        evaluations = sum(plane.evaluations for plane in planes)
        return RegionCount(counts, entropies, 2, None, connectivity, method, evaluations, exact=planes)
    lines = (bounded_lines if method == "bounds" else exact_lines)(model, vertices, budget)
    return RegionCount(lines.counts, lines.entropies, 1, None, connectivity, method, lines.evaluations, exact=lines)
