"""Train or resume the run of a configuration, and measure it."""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from regioncount import registry, training
from regioncount.config import RunConfig, as_mapping
from regioncount.data.augmentation import check_augmentation
from regioncount.errors import say
from regioncount.models.catalogue import asks_for_weights
from regioncount.models.kinds import kind_of, trained_in_epochs
from regioncount.models.networks import check_last_batch
from regioncount.models.pretrained import build_initial, check_pixels, pretrained_digest
from regioncount.runs import files, store, tracking
from regioncount.runs.environment import environment
from regioncount.runs.identity import measurement_key, run_identity
from regioncount.runs.loading import check, load_dataset
from regioncount.runs.measurements import epochs_to_measure, measurement_settings, snapshot_epochs
from regioncount.runs.measuring import measure
from regioncount.runs.prepared import PreparedRun
from regioncount.runs.store import Run
from regioncount.runs.trackers import Tracker
from regioncount.training.optimizers import batch_size_at
from regioncount.training.trial import check_layers, try_training_step

# At most this share of the time is spent on writing checkpoints.
CHECKPOINT_SHARE = 0.02


def prepare(config: RunConfig) -> PreparedRun:
    """Load the data of a configuration, choose the hardware, and determine the identity of the run.

    Args:
        config: The configuration.

    Returns:
        The configuration with its data, hardware and identity.

    Raises:
        InputError: The results cannot be written, the model does not support the data, the device or tracker is not
            available, or a part that a plugin supplies is invalid.
    """
    files.require_writable(Path(config.results))
    registry.require_package(registry.trackers[config.tracker.mode])
    dataset = load_dataset(config.dataset)
    device = training.choose_device(config.device)
    precision = training.choose_precision(config.precision, device)
    passes = registry.optimizers[config.optimizer["name"]].traits.get("passes", 1) if config.optimizer else 1
    multiply_adds = check(config, dataset)
    if asks_for_weights(config.model):
        check_pixels(dataset, config.model)
        build_initial(config.model, dataset)  # raises its errors before training
    if config.optimizer:
        for batch_size in {batch_size_at(config, epoch, len(dataset.train)) for epoch in range(1, config.epochs + 1)}:
            check_last_batch(config.model, dataset, batch_size, config.ghost_batch_size)
        check_layers(config, dataset)
        check_augmentation(config.augmentation, dataset)
        try_training_step(config, dataset)
    work = multiply_adds * len(dataset.train) * config.epochs * passes
    compiled = training.choose_compilation(config.compile, device, work)
    name = f"{config.dataset.name}-{config.model['name']}"
    weights = pretrained_digest(config.model)
    identity = run_identity(as_mapping(config), dataset.fingerprints["train"], precision, compiled, weights)
    return PreparedRun(config, dataset, device, precision, compiled, name, identity)


def run_or_resume(prepared: PreparedRun, wait: bool = True, varied: Mapping[str, str] | None = None) -> Run:
    """Train a run unless it is finished, compute its missing measurements, and log both to the tracker.

    Args:
        prepared: The run.
        wait: Whether to wait for another process that holds the run.
        varied: The options that the run's sweep varies, which name it in the tracker; None for a single run.

    Returns:
        The run on disk.

    Raises:
        Busy: Another process holds the run, and `wait` is false.
    """
    with store.lock(prepared.directory, wait):
        stored = _find_or_set_aside(prepared)
        if stored is not None and _is_complete(prepared, stored):
            return stored
        run = None if stored is None or _has_missing_snapshots(prepared, stored) else stored
        with tracking.start_tracker(prepared, run, varied) as tracker:
            if run is None:
                run = train(prepared, tracker, replaces=stored)
            else:
                tracking.log_history(tracker, run)
            try:
                _measure(prepared, run)
            except files.Damaged as damage:
                say(f"{damage}; training the run again", sys.stderr)
                run = train(prepared, tracker, replaces=run)
                _measure(prepared, run)
            tracking.log_snapshots(tracker, prepared, run)
            tracking.log_summary(tracker, prepared, run)
            lost = tracker.lost
        if not lost:  # otherwise, rerunning the command logs the run again
            run.record["tracked"] = [*dict.fromkeys([*run.tracked, tracking.destination(prepared)])]
        run.save_record()
        run.updated = True
        return run


def find_complete(prepared: PreparedRun) -> Run | None:
    """Return a run if it is on disk, undamaged, measured and logged, so that `run_or_resume` has nothing to do.

    Raises:
        Damaged: A file of the run is damaged.
    """
    run = prepared.find_run()
    if run is None or run.damaged or not _is_complete(prepared, run):
        return None
    run.region_arrays()  # verifies regions.npz
    return run


def train(prepared: PreparedRun, tracker: Tracker, replaces: Run | None = None) -> Run:
    """Train a run from the beginning or from its last checkpoint. A run that diverges is recorded as such.

    A model that is not trained in epochs is fitted here only as a check: it is not stored, but fitted again to be measured.

    Args:
        prepared: The run.
        tracker: The tracker that logs each epoch.
        replaces: The stored run that this one replaces, because weights of an epoch are missing or damaged.

    Returns:
        The published run.
    """
    config, dataset = prepared.config, prepared.dataset
    run = store.begin(
        prepared.results,
        prepared.name,
        prepared.identity,
        as_mapping(config),
        dataset.fingerprints["train"],
        environment(prepared.device, prepared.precision) | {"compiled": prepared.compiled},
        replaces,
    )
    if run.status != "running":
        return store.publish(run)  # an earlier process ended before it could publish the run
    if not trained_in_epochs(config.model):
        start = time.perf_counter()
        fit = kind_of(config.model).restorer(config.model, config.seed, dataset, prepared.device, run.directory)
        fit(lambda: run.weights(None))
        run.finish("finished", epochs_trained=0, seconds=round(time.perf_counter() - start, 3))
        return store.publish(run)
    fitted = None
    try:
        fitted = _fit(prepared, run, tracker, run.checkpoint())
    except training.UnusableCheckpoint as damage:
        store.set_aside(run.directory, damage, "training starts from the first epoch", "checkpoint.pt")
    model, history = fitted or _fit(prepared, run, tracker, None)
    run.save_history(history)
    run.save_weights(None, model.state_dict())
    run.remove_snapshot(len(history))  # model.pt holds this epoch's weights
    status = "diverged" if training.diverged(history) else "finished"
    run.finish(status, epochs_trained=len(history), seconds=round(sum(row["seconds"] for row in history), 3))
    return store.publish(run)


def _fit(
    prepared: PreparedRun, run: Run, tracker: Tracker, checkpoint: dict[str, Any] | None
) -> tuple[torch.nn.Module, list[dict[str, Any]]]:
    """Train the model of a run from a checkpoint or, without one, from the beginning; return it with its history."""
    config, dataset = prepared.config, prepared.dataset
    model = training.initialize(lambda: build_initial(config.model, dataset), config.seed)
    epochs_done = training.epochs_done(checkpoint)
    if not all(run.has_weights(epoch) for epoch in (0, *snapshot_epochs(config, epochs_done))):
        checkpoint = None  # the weights of earlier epochs are needed
    if checkpoint is None:
        run.record.pop("earlier_environments", None)  # what was trained there is not used
        run.save_weights(0, model.state_dict())
    history = training.fit(
        model,
        dataset.to(prepared.device),
        config,
        device=prepared.device,
        precision=prepared.precision,
        compiled=prepared.compiled,
        checkpoint=checkpoint,
        on_epoch=_saver(run, config, tracker),
    )
    return model, history


def _saver(run: Run, config: RunConfig, tracker: Tracker) -> Callable[[dict[str, Any], Callable[[], dict]], None]:
    """Return the callback of each epoch, which logs it and writes snapshots and, from time to time, a checkpoint."""
    snapshots = set(snapshot_epochs(config, config.epochs))
    last_save, cost = time.monotonic(), 0.0

    def on_epoch(row: dict[str, Any], state: Callable[[], dict]) -> None:
        nonlocal last_save, cost
        tracking.log_epoch(tracker, row)
        if row["epoch"] in snapshots:
            run.save_weights(row["epoch"], state()["model"])
        start = time.monotonic()
        if start - last_save >= cost / CHECKPOINT_SHARE:
            run.save_history(state()["history"])
            run.save_checkpoint(state())
            last_save = time.monotonic()
            cost = last_save - start

    return on_epoch


def _find_or_set_aside(prepared: PreparedRun) -> Run | None:
    """Return the stored run, or None. Set aside a damaged run, or the damaged measurements of an intact run."""
    try:
        run = prepared.find_run()
    except files.Damaged as damage:
        store.set_aside(prepared.directory, damage, "training starts from the first epoch")
        return None
    if run is not None:
        store.repair(run)
    return run


def _measure(prepared: PreparedRun, run: Run) -> None:
    """Measure a finished run, then remove its snapshots unless `snapshots.keep` is set."""
    if run.status != "finished":
        return
    epochs = epochs_to_measure(prepared.config, run.epochs_trained)
    measure(run, prepared.config, prepared.dataset, prepared.device, epochs)
    if not prepared.config.snapshots.keep:
        for epoch in run.snapshot_epochs():
            run.remove_snapshot(epoch)


def _is_complete(prepared: PreparedRun, run: Run) -> bool:
    logged = prepared.config.tracker.mode == "disabled" or tracking.destination(prepared) in run.tracked
    return logged and not _has_missing_snapshots(prepared, run) and not _has_missing_measurements(prepared, run)


def _has_missing_measurements(prepared: PreparedRun, run: Run) -> bool:
    if run.status != "finished":
        return False
    settings = measurement_settings(prepared.config, prepared.dataset).values()
    epochs = epochs_to_measure(prepared.config, run.epochs_trained)
    return any(measurement_key(setting, epoch) not in run.measures for setting in settings for epoch in epochs)


def _has_missing_snapshots(prepared: PreparedRun, run: Run) -> bool:
    """Return whether the weights of an epoch that must be kept or measured are not on disk."""
    if run.status != "finished":
        return False  # a run that diverged is not measured
    config = prepared.config
    settings = measurement_settings(config, prepared.dataset).values()
    return any(
        not run.has_weights(epoch)
        and (config.snapshots.keep or any(measurement_key(s, epoch) not in run.measures for s in settings))
        for epoch in snapshot_epochs(config, run.epochs_trained)
    )
