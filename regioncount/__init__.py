"""regioncount: measure a classifier's implicit bias by counting the connected regions of its input space.

import regioncount as rc
simplices = rc.sample_simplices(images, dimension=1, number=100)
result = rc.count_regions(model, simplices)
result.mean, result.standard_error, result.confidence_interval(0.95), result.counts, result.entropy
"""

from typing import TYPE_CHECKING

from regioncount.lazy import lazy_names

if TYPE_CHECKING:
    from regioncount import analysis, models, regions, runs
    from regioncount.errors import InputError
    from regioncount.measures import measure
    from regioncount.programs import sweep, train
    from regioncount.regions import (
        RegionCount,
        count_components,
        count_regions,
        extend_segments,
        random_directions,
        sample_simplices,
        shorten_segments,
    )
    from regioncount.registry import (
        register_augmentation,
        register_dataset,
        register_measure,
        register_model,
        register_optimizer,
        register_schedule,
        register_subspace,
        register_tracker,
    )

__version__ = "0.1.0"

# Names are imported on first use: counting regions needs only torch, numpy and scipy, and printing a command's help
# needs none of them.
_MODULE_OF_NAME = {
    "InputError": "errors",
    "RegionCount": "regions",
    "analysis": "analysis",
    "count_components": "regions",
    "count_regions": "regions",
    "extend_segments": "regions",
    "measure": "measures",
    "models": "models",
    "random_directions": "regions",
    "regions": "regions",
    "register_augmentation": "registry",
    "register_dataset": "registry",
    "register_measure": "registry",
    "register_model": "registry",
    "register_optimizer": "registry",
    "register_schedule": "registry",
    "register_subspace": "registry",
    "register_tracker": "registry",
    "runs": "runs",
    "sample_simplices": "regions",
    "shorten_segments": "regions",
    "sweep": "programs",
    "train": "programs",
}

__all__ = [
    "InputError",
    "RegionCount",
    "analysis",
    "count_components",
    "count_regions",
    "extend_segments",
    "measure",
    "models",
    "random_directions",
    "regions",
    "register_augmentation",
    "register_dataset",
    "register_measure",
    "register_model",
    "register_optimizer",
    "register_schedule",
    "register_subspace",
    "register_tracker",
    "runs",
    "sample_simplices",
    "shorten_segments",
    "sweep",
    "train",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULE_OF_NAME)
