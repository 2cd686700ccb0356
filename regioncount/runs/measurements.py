"""Determine the requested measurements of a run, their keys on disk, and their values. Works without torch."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from regioncount.columns import Column
from regioncount.regions.methods import EXACT_METHODS
from regioncount.runs.identity import measurement_key
from regioncount.runs.store import Run

if TYPE_CHECKING:
    from regioncount.config import MeasuringConfig, RunConfig

# The size of the training sample that measures use, as recorded in their settings; `accuracy` uses all images.
POINTS = 1000

# Versions of measures whose definition has changed. Version 1 is omitted from the settings.
VERSIONS = dict.fromkeys(
    (
        # Version 2: the norm of a grouped convolution is the largest one of its groups, not that of the stacked blocks.
        *("log_product_spectral", "log_product_spectral_over_margin", "sum_spectral", "sum_spectral_over_margin"),
        *("frobenius_over_spectral", "margin_over_spectral_product"),
        # Version 2: the ascent begins with longer steps, and ends when they add little.
        *("sharpness", "adaptive_sharpness"),
    ),
    2,
)

# The planes in which the decision regions of different seeds are compared, and the points along each side of a plane.
PLANES = 20
PLANE_RESOLUTION = 50


def measurement_settings(config: "RunConfig | MeasuringConfig", dataset) -> dict[str, dict]:
    """Return the settings that determine the values of each measurement for a given model.

    Args:
        config: The configuration that selects the measurements.
        dataset: The run's data set, or any object with its `fingerprints`.

    Returns:
        The settings by name of the measure or subspace.
    """
    fingerprints = dataset.fingerprints
    settings = {name: {"measure": name, "data": fingerprints} for name in config.measures}
    for name in config.measures:
        if name == "minibatch_gradient_variance":
            settings[name] |= {"batch_size": config.batch_size, "seed": config.regions.seed}
        elif name != "accuracy":
            settings[name]["points"] = POINTS
    if "seed_agreement" in settings:
        settings["seed_agreement"] = {
            "measure": "seed_agreement",
            "data": fingerprints["train"],
            "planes": PLANES,
            "resolution": PLANE_RESOLUTION,
            "seed": config.regions.seed,
            "method": "auto" if config.regions.method in EXACT_METHODS else config.regions.method,
        }
    for name in config.measures:
        if name in VERSIONS:
            settings[name]["version"] = VERSIONS[name]
        if source := config.plugin_sources.get(f"measures.{name}"):
            settings[name]["plugin"] = source
    for name, subspace in config.regions.subspaces.items():
        exact = config.regions.method in EXACT_METHODS
        settings[name] = {
            "measure": "region_count",
            "data": fingerprints[subspace.split],
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
    """Return the epochs at which to measure a finished run, ascending; the last epoch is always included."""
    return sorted({*snapshot_epochs(config, epochs_trained), epochs_trained})


def snapshot_epochs(config: "RunConfig", last: int) -> list[int]:
    """Return the epochs up to `last` whose weights are stored and measured."""
    regular_epochs = range(0, last + 1, config.snapshots.every) if config.snapshots.every else ()
    return sorted({epoch for epoch in (*regular_epochs, *config.snapshots.epochs) if epoch <= last})


def measured_values(run: Run, config: "RunConfig | MeasuringConfig", dataset, epoch: int | None = None) -> dict:
    """Return the measured values of a run at an epoch.

    Args:
        run: The run.
        config: The configuration that selects the measurements.
        dataset: The run's data set, or any object with its `fingerprints`.
        epoch: The epoch; the last one by default.

    Returns:
        The values by table column. Columns of region counts contain the subspace's name: region_count_line is the mean
        over lines, region_count_line_standard_error its standard error, region_entropy_line the mean region entropy in
        nats, and region_share_one_line the share of lines within a single region.
    """
    epoch = run.epochs_trained if epoch is None else epoch
    row = {}
    for name, setting in measurement_settings(config, dataset).items():
        entry = run.measures.get(measurement_key(setting, epoch))
        # NaN, such as the standard error of a single subspace, is stored as null.
        measured = {key: math.nan if value is None else value for key, value in (entry["values"] if entry else {}).items()}
        if setting["measure"] != "region_count":
            row |= measured
            continue
        for column, number in measured.items():
            row[Column.parse_stored(column, name).key] = number
    return row


def plane_labels(run: Run, config: "RunConfig | MeasuringConfig", dataset) -> np.ndarray | None:
    """Return the labels of a run in the planes that seed agreement compares.

    Args:
        run: The run.
        config: The configuration that selects the measurements.
        dataset: The run's data set, or any object with its `fingerprints`.

    Returns:
        The labels, integers (PLANES, n, n); None if they were not measured.

    Raises:
        Damaged: The labels on disk are not what was measured.
    """
    key = measurement_key(measurement_settings(config, dataset)["seed_agreement"], run.epochs_trained)
    if key not in run.measures:
        return None
    return run.region_arrays()[f"{key}/labels"]


def seed_agreement(labels: Sequence[np.ndarray | None]) -> list[float]:
    """Return the agreement of the decision regions of each seed of a configuration with those of its other seeds.

    Args:
        labels: The labels of each seed in the same planes, integers (PLANES, n, n), or None.

    Returns:
        For each run, the share of points in planes through three training images at which it predicts the same label as
        the run of another seed, averaged over the other seeds (Somepalli et al. 2022, section 3.3). NaN if the run has no
        stored labels or there is no other seed.
    """
    shares = []
    for i, own in enumerate(labels):
        others = [other for j, other in enumerate(labels) if j != i and other is not None]
        agreements = [float((own == other).mean()) for other in others] if own is not None else []
        shares.append(sum(agreements) / len(agreements) if agreements else math.nan)
    return shares
