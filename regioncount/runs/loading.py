"""Load the data set of a configuration, and check the model against it."""

from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from regioncount.config import MeasuringConfig, RunConfig
from regioncount.data.dataset import Dataset, load_checked
from regioncount.data.sources import DatasetOptions, FileOptions
from regioncount.data.subspaces import draw_vertices
from regioncount.errors import InputError
from regioncount.models.kinds import kind_of
from regioncount.regions.methods import EXACT_METHODS
from regioncount.registry import subspaces


def load_dataset(options: DatasetOptions) -> Dataset:
    """Return the data set of a configuration. The two most recently used data sets are cached."""
    # In a Python session, a file of arrays may be written again under the same path.
    version = None
    if isinstance(options, FileOptions) and options.path is not None:
        with suppress(OSError):  # `load_checked` raises the error
            status = Path(options.path).expanduser().stat()
            version = status.st_size, status.st_mtime_ns
    return _load(type(options), options.model_dump_json(), version)


# More would fill the memory in a sweep over many data sets.
@lru_cache(maxsize=2)
def _load(schema: type[DatasetOptions], options: str, version: tuple[int, int] | None) -> Dataset:
    return load_checked(schema.model_validate_json(options))


def check(config: RunConfig | MeasuringConfig, dataset: Dataset) -> int:
    """Check a configuration's model and subspaces against its data.

    Args:
        config: The configuration.
        dataset: Its data set.

    Returns:
        The multiply-adds of the model for one image; 0 for a model that is not trained in epochs.

    Raises:
        InputError: The model does not support the data, the counting method does not support the model, a split has too
            few images, or the subspace of a plugin cannot be drawn.
    """
    exact = config.regions.method if config.regions.method in EXACT_METHODS and config.regions.subspaces else None
    multiply_adds = kind_of(config.model).check(config.model, dataset, exact)
    for name, subspace in config.regions.subspaces.items():
        available = len(dataset.train if subspace.split == "train" else dataset.test)
        if available < subspace.images_per_subspace:
            needed = subspace.images_per_subspace
            raise InputError(f"regions.{name}: needs {needed} images, but the {subspace.split} split has {available}")
        if subspaces[subspace.kind].plugin:
            draw_vertices(subspace, dataset, config.regions.seed)  # raises the errors of the plugin before training
    return multiply_adds
