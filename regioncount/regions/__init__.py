"""Counting the connected regions of a classifier's input space in low-dimensional subspaces.

Depends on torch, numpy and scipy alone, so that it serves models trained anywhere.
"""

from regioncount.regions.bounds import bounded_lines
from regioncount.regions.components import count_components
from regioncount.regions.counting import RegionCount, count_regions, default_resolution
from regioncount.regions.exact import ExactLines, exact_lines
from regioncount.regions.planes import label_planes, plane_grid
from regioncount.regions.subspaces import (
    extend_segments,
    random_directions,
    sample_indices,
    sample_simplices,
    shorten_segments,
)
from regioncount.regions.triangles import ExactPlane, exact_planes

__all__ = [
    "ExactLines",
    "ExactPlane",
    "RegionCount",
    "bounded_lines",
    "count_components",
    "count_regions",
    "default_resolution",
    "exact_lines",
    "exact_planes",
    "extend_segments",
    "label_planes",
    "plane_grid",
    "random_directions",
    "sample_indices",
    "sample_simplices",
    "shorten_segments",
]
