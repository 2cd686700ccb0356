"""Count the connected regions into which a classifier divides low-dimensional subspaces of its input space.

Requires torch, numpy and scipy only, so that it can be used with any model.
"""

from typing import TYPE_CHECKING

from regioncount.lazy import lazy_names

if TYPE_CHECKING:
    from regioncount.regions.bounds import bounded_lines
    from regioncount.regions.components import count_components
    from regioncount.regions.counting import RegionCount, count_regions
    from regioncount.regions.exact import ExactLines, exact_lines
    from regioncount.regions.methods import default_resolution
    from regioncount.regions.planes import label_planes, plane_grid
    from regioncount.regions.screening import Preparation
    from regioncount.regions.subspaces import (
        extend_segments,
        random_directions,
        sample_indices,
        sample_simplices,
        shorten_segments,
    )
    from regioncount.regions.triangles import ExactPlane, exact_planes

# Names are imported on first use, so that `regioncount.regions.methods` can be imported without torch.
_MODULE_OF_NAME = {
    "ExactLines": "exact",
    "ExactPlane": "triangles",
    "Preparation": "screening",
    "RegionCount": "counting",
    "bounded_lines": "bounds",
    "count_components": "components",
    "count_regions": "counting",
    "default_resolution": "methods",
    "exact_lines": "exact",
    "exact_planes": "triangles",
    "extend_segments": "subspaces",
    "label_planes": "planes",
    "plane_grid": "planes",
    "random_directions": "subspaces",
    "sample_indices": "subspaces",
    "sample_simplices": "subspaces",
    "shorten_segments": "subspaces",
}

__all__ = [
    "ExactLines",
    "ExactPlane",
    "Preparation",
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

__getattr__, __dir__ = lazy_names(__name__, _MODULE_OF_NAME)
