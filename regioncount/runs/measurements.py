"""Which measurements of a run are asked for, under which keys they are stored, and their values. Works without torch."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from regioncount.columns import Column
from regioncount.regions.methods import EXACT_METHODS
from regioncount.runs.identity import measurement_key
from regioncount.runs.store import Run

if TYPE_CHECKING:
    from regioncount.config import MeasuringConfig, RunConfig

# Training points that a measure takes derivatives at; `accuracy` takes all of them.
POINTS = 1000

# Planes in which the decision regions of different seeds are compared, and points along their sides.
PLANES = 20
PLANE_RESOLUTION = 50


def measurement_settings(config: "RunConfig | MeasuringConfig", dataset) -> dict[str, dict]:
    """Return, by the name of each measure and subspace, the settings that determine its values for a given model."""
    prints = dataset.fingerprints
    settings = {name: {"measure": name, "data": prints} for name in config.measures}
    for name in config.measures:
        if name != "accuracy":  # it takes every point
            settings[name]["points"] = POINTS
    if "seed_agreement" in settings:
        settings["seed_agreement"] = {
            "measure": "seed_agreement",
            "data": prints["train"],
            "planes": PLANES,
            "resolution": PLANE_RESOLUTION,
            "seed": config.regions.seed,
            "method": "auto" if config.regions.method in EXACT_METHODS else config.regions.method,
        }
    for name in config.measures:
        if source := config.plugin_sources.get(f"measures.{name}"):
            settings[name]["plugin"] = source
    for name, subspace in config.regions.subspaces.items():
        exact = config.regions.method in EXACT_METHODS
        settings[name] = {
            "measure": "region_count",
            "data": prints[subspace.split],
            "subspace": subspace.model_dump() | {"resolution": None if exact else subspace.points_per_axis},
            "seed": config.regions.seed,
            "connectivity": config.regions.connectivity,
            "method": config.regions.method,
        }
        if exact:
            settings[name]["budget"] = config.regions.budget
        if source := config.plugin_sources.get(f"regions.{name}"):
            settings[name]["plugin"] = source
    return settings


def epochs_to_measure(config: "RunConfig", epochs_trained: int) -> list[int]:
    """Return the epochs at which a finished run is to be measured, ascending; the last one always is."""
    return sorted({*snapshot_epochs(config, epochs_trained), epochs_trained})


def snapshot_epochs(config: "RunConfig", last: int) -> list[int]:
    """Return the epochs up to `last` whose weights are stored and measured."""
    every = range(0, last + 1, config.snapshots.every) if config.snapshots.every else ()
    return sorted({epoch for epoch in (*every, *config.snapshots.epochs) if epoch <= last})


def measured_values(run: Run, config: "RunConfig | MeasuringConfig", dataset, epoch: int | None = None) -> dict:
    """Return what was measured of a run at an epoch as columns of a table.

    Args:
        run: The run.
        config: What was to be measured.
        dataset: Its data set, or any object with its `fingerprints`.
        epoch: The epoch; by default the last.

    Returns:
        Values by column. Region counts have their subspace's name: region_count_line is a mean over lines,
        region_count_line_standard_error its standard error, region_entropy_line the mean region entropy in nats, and
        region_share_one_line the share of lines within a single region.
    """
    epoch = run.epochs_trained if epoch is None else epoch
    row = {}
    for name, setting in measurement_settings(config, dataset).items():
        entry = run.measures.get(measurement_key(setting, epoch))
        # JSON has no NaN, such as the standard error over a single subspace; null is stored instead.
        measured = {key: math.nan if value is None else value for key, value in (entry["values"] if entry else {}).items()}
        if setting["measure"] != "region_count":
            row |= measured
            continue
        for column, number in measured.items():
            row[Column.stored(column, name).key] = number
    return row


def seed_agreement(planned: Sequence) -> list[float]:
    """Return how far the decision regions of the runs of one configuration agree with those of its other seeds.

    Args:
        planned: The plan's runs of the configuration.

    Returns:
        For each run, the share of points in planes through three training images at which its label is that of another
        seed's run, averaged over the other seeds (Somepalli et al. 2022, section 3.3). NaN for a run without stored labels,
        and for the only seed.
    """
    labels = []
    for run in planned:
        stored = run.find_run()
        settings = measurement_settings(run.config, run.dataset)
        key = measurement_key(settings["seed_agreement"], stored.epochs_trained) if stored else None
        labels.append(stored.region_arrays()[f"{key}/labels"] if stored and key in stored.measures else None)
    shares = []
    for position, own in enumerate(labels):
        others = [other for number, other in enumerate(labels) if number != position and other is not None]
        same = [float((own == other).mean()) for other in others] if own is not None else []
        shares.append(sum(same) / len(same) if same else math.nan)
    return shares
