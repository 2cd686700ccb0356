"""regioncount: a classifier's implicit bias, measured by counting the connected regions of its input space.

import regioncount as rc
simplices = rc.sample_simplices(images, dimension=1, number=100)
result = rc.count_regions(model, simplices)
result.mean, result.standard_error, result.confidence_interval(0.95), result.counts, result.entropy
"""

from importlib import import_module

__version__ = "0.1.0"

# Everything loads when it is first asked for: counting regions needs torch, numpy and scipy alone, and a command that
# only prints its help needs none of them.
_HOMES = {
    "InputError": "errors",
    "RegionCount": "regions",
    "count_components": "regions",
    "count_regions": "regions",
    "extend_segments": "regions",
    "measure": "measures",
    "random_directions": "regions",
    "sample_simplices": "regions",
    "shorten_segments": "regions",
}
_MODULES = ("analysis", "models", "regions", "runs")

__all__ = [*_HOMES, *_MODULES]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(f"regioncount.{_HOMES[name]}"), name)
    if name in _MODULES:
        return import_module(f"regioncount.{name}")
    raise AttributeError(f"module 'regioncount' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
