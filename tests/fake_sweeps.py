"""Write sweeps with made-up numbers to disk, so that the content of their reports is known; nothing is trained."""

import itertools
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from regioncount.config import SweepOptions, as_mapping, parse_run
from regioncount.runs import plans, store
from regioncount.runs.identity import identity_of, measurement_key
from regioncount.runs.measurements import PLANE_RESOLUTION, PLANES, measurement_settings

ENVIRONMENT = {
    "date": "2026-01-02T03:04:05+00:00",
    "device": "a device",
    "torch": "2.0",
    "python": "3.11",
    "commit": "c" * 40,
}
FIGURES = 2.0, 0.05  # region count and gap at the largest learning rate and the smallest batch


def data_facts(name="digits", fingerprint="a") -> plans.DataFacts:
    classes = tuple(f"class {number}" for number in range(10))
    return plans.DataFacts(name, {"train": fingerprint * 64, "test": "b" * 64}, classes, 1000, 500)


def count_and_gap(rate: float, size: int, seed: int) -> tuple[float, float]:
    """Return a region count and a generalization gap, which both grow with a lower rate and a larger batch."""
    count, gap = FIGURES
    decades = -math.log10(rate) - 1
    count = count + 0.8 * decades + 0.1 * math.log2(size / 32) + 0.05 * seed
    return count, gap + 0.04 * decades**1.5 + 0.01 * math.log2(size / 32)


def write_sweep(
    results: Path,
    *,
    name="example",
    networks=("mlp",),
    data=None,
    rates=(0.1, 0.01, 0.001),
    sizes=(32, 64),
    seeds=(0, 1),
    subspaces=("line",),
    measures=("accuracy",),
    snapshots=(),
    unfitted=(),
    failed=(),
    diverged=(),
    error="ValueError: a reason",
    overrides=("experiment=example",),
    environment=ENVIRONMENT,
    counts=0,
    labels=False,
    **options,
) -> Path:
    """Write a sweep and its runs; return the sweep's directory.

    The arguments unfitted, failed and diverged are indices of cells, in the order networks, rates, sizes, seeds. Both
    accuracies of an unfitted run are lower by 0.2. counts is the number of individual counts to store, labels whether
    to store labels of seed_agreement, which are all 0, and options are those of the group sweep.
    """
    data = data or data_facts()
    directory = results / "sweeps" / f"{name}-00000000"
    planned = []
    common = parse_run(
        {
            "dataset": {"name": "digits", "title": data.name},
            "model": {"name": "mlp"},
            "optimizer": {"name": "sgd", "learning_rate": 0.1},
            "schedule": {"name": "constant"},
            "batch_size": 32,
            "epochs": 20,
            "snapshots": {"epochs": list(snapshots)},
            "regions": {s: {"dimension": dimension} for dimension, s in enumerate(subspaces, 1)},
            "measures": list(measures),
            "results": str(results),
        }
    )
    grid = itertools.product(networks, rates, sizes, seeds)
    for number, (network, rate, size, seed) in enumerate(grid):
        optimizer = common.optimizer | {"learning_rate": rate}
        config = replace(common, model={"name": network}, optimizer=optimizer, batch_size=size, seed=seed)
        varied = {"model": network} if len(networks) > 1 else {}
        varied |= {"learning_rate": str(rate), "batch_size": str(size), "seed": str(seed)}
        identity = identity_of({"data": data.name, "cell": [network, rate, size, seed]})
        planned.append(plans.PlannedRun(identity, f"digits-{network}", varied, config, data, "float32"))
        if number in failed:
            directory.mkdir(parents=True, exist_ok=True)
            plans.record_failure(plans.failure_path(directory, identity, varied), error)
            continue
        status = "diverged" if number in diverged else "finished"
        values = _values(*count_and_gap(rate, size, seed), 0.2 * (number in unfitted))
        _write_run(planned[-1], status, values, environment, {*snapshots, 20}, counts, labels)
    plan = plans.Plan(name, directory, planned, list(overrides), "example", environment, SweepOptions(**options))
    plans.write(plan)
    return directory


def _values(count: float, gap: float, lower: float) -> dict[str, dict]:
    train, test = 1 - lower, 1 - lower - gap
    accuracies = {"train_accuracy": train, "test_accuracy": test, "train_loss": count / 100, "test_loss": 1.0}
    accuracies |= {"generalization_gap": gap, "test_error": 1 - test}
    regions = {"region_count": count, "region_count_standard_error": 0.07, "region_entropy": 0.5, "region_share_one": 0.1}
    return {"accuracy": accuracies, "region_count": regions}


def _write_run(planned, status: str, values: dict, environment: dict, epochs, counts: int, labels: bool) -> None:
    results = Path(planned.config.results)
    shutil.rmtree(store.run_directory(results, planned.name, planned.identity), ignore_errors=True)
    run = store.begin(
        results,
        planned.name,
        planned.identity,
        as_mapping(planned.config),
        planned.dataset.fingerprints["train"],
        environment,
    )
    run.save_history([{"epoch": epoch, "learning_rate": 0.1, "seconds": 4.5} for epoch in range(1, 21)])
    run.finish(status, epochs_trained=20, seconds=90.0)
    run = store.publish(run)
    if status != "finished":
        return
    entries, arrays = {}, {}
    for name, setting in measurement_settings(planned.config, planned.dataset).items():
        measured = values.get(setting["measure"], {name: values["region_count"]["region_count"] ** 2})
        for epoch in epochs:
            entry = {"settings": setting, "epoch": epoch, "values": measured, "how": {"device": "a device", "seconds": 10.0}}
            key = measurement_key(setting, epoch)
            entries[key] = entry
            if labels and name == "seed_agreement":
                entry["values"] = {}
                arrays[f"{key}/labels"] = np.zeros((PLANES, PLANE_RESOLUTION, PLANE_RESOLUTION), np.uint16)
            if counts and setting["measure"] == "region_count":
                arrays |= {f"{key}/counts": np.arange(counts) % 7, f"{key}/entropies": np.linspace(0, 1, counts)}
    run.save_measures(entries, arrays)
