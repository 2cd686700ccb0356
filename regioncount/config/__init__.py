"""Configurations: schemas built from the registries, and their parsing with one-line errors."""

from regioncount.config.datasets import parse_dataset
from regioncount.config.parsing import (
    SWEEP_NAME,
    parse_measuring,
    parse_model,
    parse_run,
    parse_sweep,
    require_plugins,
)
from regioncount.config.schemas import (
    MAX_EPOCHS,
    MeasuringConfig,
    Regions,
    RunConfig,
    Snapshots,
    Stop,
    SweepOptions,
    Tracking,
    as_mapping,
)
from regioncount.config.values import parse_duration

__all__ = [
    "MAX_EPOCHS",
    "SWEEP_NAME",
    "MeasuringConfig",
    "Regions",
    "RunConfig",
    "Snapshots",
    "Stop",
    "SweepOptions",
    "Tracking",
    "as_mapping",
    "parse_dataset",
    "parse_duration",
    "parse_measuring",
    "parse_model",
    "parse_run",
    "parse_sweep",
    "require_plugins",
]
