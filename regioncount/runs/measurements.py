"""What is to be measured of a run, under which keys, and the values that are there. Works without torch."""

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
    """For each measure and each subspace by name, all that decides its values, given a model."""
    prints = dataset.fingerprints
    settings = {name: {"measure": name, "data": prints} for name in config.measures}
    for name in config.measures:
        if name != "accuracy":  # which takes every point
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
    """The epochs up to `last` at which weights are to be kept and measured."""
    every = range(0, last + 1, config.snapshots.every) if config.snapshots.every else ()
    return sorted({epoch for epoch in (*every, *config.snapshots.epochs) if epoch <= last})


def measured_values(found: Run, config: "RunConfig | MeasuringConfig", dataset, epoch: int | None = None) -> dict:
    """What was measured under a configuration's settings at an epoch (by default the last), as columns of a table.

    Region counts carry their subspace's name: region_count_line is a mean over lines, region_count_line_standard_error
    its standard error, region_entropy_line the mean region entropy in nats, region_share_one_line the share of lines
    that lie in a single region.
    """
    epoch = found.epochs_trained if epoch is None else epoch
    row = {}
    for name, setting in measurement_settings(config, dataset).items():
        entry = found.measures.get(measurement_key(setting, epoch))
        # JSON has no not-a-number, such as the standard error over a single subspace: null stands for it.
        measured = {key: math.nan if value is None else value for key, value in (entry["values"] if entry else {}).items()}
        if setting["measure"] != "region_count":
            row |= measured
            continue
        for column, number in measured.items():
            row[Column.stored(column, name).key] = number
    return row


def seed_agreement(planned: Sequence) -> list[float]:
    """For each of the runs of one configuration, the share of points in planes through three training images on which its
    labels are those of another seed's, averaged over the other seeds (Somepalli et al. 2022, section 3.3).

    planned: of a plan's runs. Not a number for a run whose labels have not been kept, or that is the only seed.
    """
    labels = []
    for run in planned:
        found = run.find_run()
        settings = measurement_settings(run.config, run.dataset)
        key = measurement_key(settings["seed_agreement"], found.epochs_trained) if found else None
        labels.append(found.region_arrays()[f"{key}/labels"] if found and key in found.measures else None)
    shares = []
    for position, own in enumerate(labels):
        others = [other for number, other in enumerate(labels) if number != position and other is not None]
        same = [float((own == other).mean()) for other in others] if own is not None else []
        shares.append(sum(same) / len(same) if same else math.nan)
    return shares
