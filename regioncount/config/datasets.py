"""Parse the data set of a composed or recorded configuration."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict

from regioncount.config.values import import_advice, named_part, plain
from regioncount.data import targets
from regioncount.data.sources import DatasetOptions
from regioncount.errors import InputError
from regioncount.options import abbreviate, validate_options
from regioncount.registry import Entry, datasets
from regioncount.suggestions import unknown_choice


class RecordedDataset(DatasetOptions):
    """A recorded data set of a plugin that is not loaded."""

    model_config = ConfigDict(extra="allow")


def parse_dataset(recorded: Mapping[str, Any], changes: Sequence[str] = ()) -> DatasetOptions:
    """Return the checked data set of a run's record, with changes such as "dataset.root=DIR" applied.

    Raises:
        InputError: The data set is unknown, its module is not among the plugins, or an option is invalid.
    """
    changed = OmegaConf.from_dotlist([change.removeprefix("dataset.") for change in changes])
    options = _without_workers(plain(recorded, "dataset"))
    different = plain(cast(DictConfig, changed), "dataset")
    if "_target_" in different:
        raise InputError("dataset._target_: a run has its own data set; omit the option, or pass checkpoint=FILE")
    options |= different
    if "_target_" in options and not targets.is_available(options):
        raise InputError(import_advice("dataset", options["_target_"]))
    return _validate(options, options.get("name"), recorded=False)


def validate_dataset(options: dict[str, Any], recorded: bool) -> DatasetOptions:
    """Return the checked options of a configuration's data set.

    Args:
        options: The options, with the data set's name or `_target_`.
        recorded: Whether they were read from disk. If so, no module is imported, and the number of workers is dropped.

    Raises:
        InputError: The data set is unknown, or an option is invalid.
    """
    options = _without_workers(options) if recorded else options
    return _validate(options, options.get("name", "digits"), recorded)


def _validate(options: dict[str, Any], name: object, recorded: bool) -> DatasetOptions:
    if "_target_" in options:
        options = options | {"name": named_part(options, "dataset")["name"]}
        available = not recorded or targets.is_available(options)
        entry = targets.entry(options) if available else None
    else:
        entry = datasets.get(name) if isinstance(name, str) else None
    if entry is None and not (recorded and isinstance(name, str)):
        raise InputError(unknown_choice("dataset", abbreviate(name), datasets.names()))
    entry = entry or Entry("dataset", str(name), "", RecordedDataset)
    return cast(DatasetOptions, validate_options(entry, options, "dataset"))


def _without_workers(dataset: dict[str, Any]) -> dict[str, Any]:
    """Return a recorded data set without its number of worker processes, which suits the machine of the record."""
    return {key: value for key, value in dataset.items() if key != "workers"}
