"""The subspaces that regions are counted in: simplices spanned by images of a data set.

Each kind of subspace has a pydantic model of its options and a function from images to vertices. This module does not
import torch, so that configurations can be read without it.
"""

from typing import TYPE_CHECKING, Annotated, Literal, cast

from pydantic import Field, model_validator

from regioncount.errors import InputError
from regioncount.options import Float, Int, Options, PositiveInt, Str
from regioncount.regions.methods import default_resolution
from regioncount.registry import register_subspace, subspaces

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from regioncount.data.dataset import Dataset


class SubspaceOptions(Options):
    """The options common to all kinds of subspaces. A kind adds its own in a subclass."""

    kind: Str
    """The kind of subspace; set by the file in configs/regions."""
    number: Annotated[Int, Field(ge=1, le=10**6)] = 100
    """The number of subspaces."""
    resolution: Annotated[Int, Field(ge=2)] | None = None
    """The lattice points per axis; null: the paper's, 200 on lines, 10 in planes, 5 in higher dimensions."""
    split: Literal["train", "test"] = "train"
    """The split whose images are drawn."""

    @property
    def dimension_counted(self) -> int:
        """The dimension of the simplices that regions are counted in."""
        return 1

    @property
    def images_per_subspace(self) -> int:
        """The number of images drawn for each subspace."""
        return 2

    @property
    def lattice(self) -> str:
        """The set of lattice points; see `regioncount.regions.lattice`."""
        return "simplex"

    @property
    def points_per_axis(self) -> int:
        """The resolution; if it is None, the paper's."""
        return self.resolution or default_resolution(self.dimension_counted)


class SimplexOptions(SubspaceOptions):
    """A simplex whose vertices are images: a segment for dimension 1, a triangle for dimension 2."""

    dimension: PositiveInt = 1
    """The dimension: 1 for segments, 2 for triangles."""

    @property
    def dimension_counted(self) -> int:
        """The dimension of the simplices that regions are counted in."""
        return self.dimension

    @property
    def images_per_subspace(self) -> int:
        """The number of images drawn for each subspace."""
        return self.dimension + 1


class ParallelogramOptions(SubspaceOptions):
    """The parallelogram x + s (y - x) + t (z - x), with s and t from 0 to 1, of three images x, y and z."""

    @property
    def dimension_counted(self) -> int:
        """The dimension of the subspaces that regions are counted in."""
        return 2

    @property
    def images_per_subspace(self) -> int:
        """The number of images drawn for each subspace."""
        return 3

    @property
    def lattice(self) -> str:
        """The set of lattice points; see `regioncount.regions.lattice`."""
        return "box"


class RandomDirectionOptions(SubspaceOptions):
    """A segment from an image along Gaussian noise."""

    scale: Annotated[Float, Field(gt=0)] = 0.1
    """The standard deviation of the noise, in normalized units."""


class WiderScopeOptions(SubspaceOptions):
    """A segment from `start` to `stop` on the line through two images, which are at 0 and 1."""

    start: Float = -1.0
    """The start of the segment; the two images are at 0 and 1."""
    stop: Float = 2.0
    """The end of the segment."""

    @model_validator(mode="after")
    def _check_order(self) -> "WiderScopeOptions":
        if not self.start < self.stop:
            raise ValueError(f"start={self.start}: must be below stop={self.stop}")
        return self


@register_subspace("simplex", options=SimplexOptions)
def simplex(vertices: "Tensor", options: SimplexOptions, generator: "Generator") -> "Tensor":
    """Return the images themselves, (S, d + 1, C, H, W)."""
    return vertices


@register_subspace("parallelogram", options=ParallelogramOptions)
def parallelogram(vertices: "Tensor", options: ParallelogramOptions, generator: "Generator") -> "Tensor":
    """Return the images themselves, (S, 3, C, H, W): the corner x and its two neighbours y and z."""
    return vertices


@register_subspace("short_segment", options=SubspaceOptions)
def short_segment(vertices: "Tensor", options: SubspaceOptions, generator: "Generator") -> "Tensor":
    """Return the part of each segment between two uniformly random points of it, (S, 2, C, H, W)."""
    from regioncount.regions import shorten_segments

    return shorten_segments(vertices, generator)


@register_subspace("random_direction", options=RandomDirectionOptions)
def random_direction(vertices: "Tensor", options: RandomDirectionOptions, generator: "Generator") -> "Tensor":
    """Return segments from images along Gaussian noise, (S, 2, C, H, W)."""
    from regioncount.regions import random_directions

    return random_directions(vertices[:, 0], options.scale, generator)


@register_subspace("wider_scope", options=WiderScopeOptions)
def wider_scope(vertices: "Tensor", options: WiderScopeOptions, generator: "Generator") -> "Tensor":
    """Return segments extended beyond their images, (S, 2, C, H, W)."""
    from regioncount.regions import extend_segments

    return extend_segments(vertices, options.start, options.stop)


def draw_vertices(options: SubspaceOptions, dataset: "Dataset", seed: int) -> "Tensor":
    """Draw the subspaces of a configuration. The same seed gives the same subspaces for every model.

    Args:
        options: The kind of subspace and its options.
        dataset: The data set whose images are drawn.
        seed: The seed of the draw.

    Returns:
        Vertices (S, d + 1, C, H, W), normalized, on the device of the data set.

    Raises:
        InputError: The split has fewer images than a subspace needs, or a plugin returns vertices of another shape.
    """
    import torch

    from regioncount.regions import sample_indices

    generator = torch.Generator().manual_seed(seed)
    split = dataset.train if options.split == "train" else dataset.test
    simplex_indices = sample_indices(len(split), options.images_per_subspace - 1, options.number, generator)
    indices, inverse = simplex_indices.unique(return_inverse=True)  # each image is read once
    images = dataset.normalize(split.take(indices))
    entry = subspaces[options.kind]
    vertices = entry.build(images[inverse.to(images.device)], options, generator)
    expected = (options.number, options.dimension_counted + 1, *images.shape[1:])
    if entry.plugin and isinstance(vertices, torch.Tensor) and vertices.shape == expected:
        if not vertices.is_floating_point() or not vertices.isfinite().all():
            raise InputError(
                f"the subspace {entry.name} of the plugin {entry.plugin} has vertices that are not finite numbers"
            )
    elif entry.plugin:
        returned = tuple(vertices.shape) if isinstance(vertices, torch.Tensor) else type(vertices).__name__
        raise InputError(f"the subspace {entry.name} of the plugin {entry.plugin} is {returned}; return vertices {expected}")
    return cast("Tensor", vertices)
