"""Train the run of a configuration, or resume it, and measure it."""

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from regioncount import registry, training
from regioncount.config import RunConfig, as_mapping
from regioncount.data.dataset import Dataset
from regioncount.models.kinds import kind_of, trained_in_epochs
from regioncount.models.networks import build_for
from regioncount.runs import files, store
from regioncount.runs.environment import environment
from regioncount.runs.identity import measurement_key, run_identity
from regioncount.runs.loading import check, load_dataset
from regioncount.runs.measurements import epochs_to_measure, measured_values, measurement_settings, snapshot_epochs
from regioncount.runs.measuring import measure
from regioncount.runs.store import Run

# At most this share of the time is spent on writing checkpoints.
CHECKPOINT_SHARE = 0.02


class Tracker(Protocol):
    """What a run is logged to; see `regioncount.reporting.tracking`."""

    @property
    def lost(self) -> bool:
        """Whether nothing is logged."""
        ...

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Log the metrics of an epoch."""
        ...

    def summarize(self, values: dict[str, Any]) -> None:
        """Log final values."""
        ...


@dataclass(frozen=True)
class PreparedRun:
    """A checked configuration and what follows from it: the data, the hardware, and which run it is."""

    config: RunConfig
    dataset: Dataset
    device: torch.device
    precision: str
    compiled: bool
    name: str
    identity: str

    @property
    def results(self) -> Path:
        """The results directory."""
        return Path(self.config.results)

    def find_run(self) -> Run | None:
        """Return the run if its training is over; see `store.find`."""
        return store.find(self.results, self.name, self.identity)


def prepare(config: RunConfig) -> PreparedRun:
    """Load the data of a configuration and determine which run it is.

    Returns:
        The configuration with its data, hardware and identity.

    Raises:
        InputError: Data, model, device and tracker do not fit together.
    """
    registry.require_package(registry.trackers[config.tracker.mode])
    dataset = load_dataset(config.dataset)
    device = training.choose_device(config.device)
    precision = training.choose_precision(config.precision, device)
    passes = registry.optimizers[config.optimizer["name"]].traits.get("passes", 1) if config.optimizer else 1
    work = check(config, dataset) * len(dataset.train) * config.epochs * passes
    compiled = training.choose_compilation(config.compile, device, work)
    name = f"{config.dataset.name}-{config.model['name']}"
    identity = run_identity(as_mapping(config), dataset.fingerprints["train"], precision, compiled)
    return PreparedRun(config, dataset, device, precision, compiled, name, identity)


def run_or_resume(prepared: PreparedRun, wait: bool = True) -> Run:
    """Train a run unless it is finished, compute its missing measurements, and log both to the tracker.

    Args:
        prepared: The run.
        wait: Whether to wait for another process that holds the run.

    Returns:
        The run as it is on disk.

    Raises:
        Busy: Another process holds the run, and `wait` is false.
    """
    config = prepared.config
    destination = f"{config.tracker.mode}:{config.tracker.project}:{config.tracker.group}"
    with store.lock(store.run_directory(prepared.results, prepared.name, prepared.identity), wait):
        stored = _find_or_set_aside(prepared)
        run = None if stored is None or _missing_snapshots(prepared, stored) else stored
        logged = stored is not None and (config.tracker.mode == "disabled" or destination in stored.tracked)
        if run is not None and logged and not _has_missing_measurements(prepared, run):
            return run
        with _start_tracker(prepared) as tracker:
            if run is None:
                run = train(prepared, tracker, replaces=stored)
            else:
                for row in run.history().to_dict("records"):
                    tracker.log(_metrics(row), step=int(row["epoch"]))
            try:
                _measure(prepared, run)
            except files.Damaged as damage:
                print(f"{damage}; training it again", file=sys.stderr, flush=True)
                run = train(prepared, tracker, replaces=run)
                _measure(prepared, run)
            values = measured_values(run, config, prepared.dataset)
            tracker.summarize({"status": run.status, **run.summary, **values})
            lost = tracker.lost
        if not lost:  # otherwise the same command logs it again
            run.tracked.append(destination)
        run.save_record()
        run.worked_on = True
        return run


def train(prepared: PreparedRun, tracker: Tracker, replaces: Run | None = None) -> Run:
    """Train a run from its beginning, or from its last checkpoint. A run that diverges is recorded as such.

    A model that is fitted at once is fitted again wherever it is measured; training it only shows that it can be fitted.

    Args:
        prepared: The run.
        tracker: Where epochs are logged.
        replaces: The stored run that this one replaces, because weights of an epoch are missing or damaged.

    Returns:
        The run as it is stored.
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
        return store.publish(run)  # a process ended right before this last step
    if not trained_in_epochs(config.model):
        started = time.perf_counter()
        fit = kind_of(config.model).restorer(config.model, config.seed, dataset, prepared.device, run.directory)
        fit(lambda: run.weights(None))
        run.finish("finished", epochs_trained=0, seconds=round(time.perf_counter() - started, 3))
        return store.publish(run)
    model = training.initialize(lambda: build_for(config.model, dataset), config.seed)
    checkpoint = run.checkpoint()
    done = len(checkpoint["history"]) if checkpoint else 0
    if not all(run.has_weights(epoch) for epoch in (0, *snapshot_epochs(config, done))):
        checkpoint = None  # weights of epochs before the checkpoint are needed
    if checkpoint is None:
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
    run.save_history(history)
    run.save_weights(None, model.state_dict())
    run.remove_snapshot(len(history))  # model.pt holds this epoch's weights
    status = "diverged" if training.diverged(history) else "finished"
    run.finish(status, epochs_trained=len(history), seconds=round(sum(row["seconds"] for row in history), 3))
    return store.publish(run)


def _saver(run: Run, config: RunConfig, tracker: Tracker) -> Callable[[dict[str, Any], Callable[[], dict]], None]:
    """Return what happens after each epoch: logging, snapshots, and now and then a checkpoint."""
    snapshots = set(snapshot_epochs(config, config.epochs))
    saved, cost = time.monotonic(), 0.0

    def on_epoch(row: dict[str, Any], state: Callable[[], dict]) -> None:
        nonlocal saved, cost
        tracker.log(_metrics(row), step=row["epoch"])
        if row["epoch"] in snapshots:
            run.save_weights(row["epoch"], state()["model"])
        started = time.monotonic()
        if started - saved >= cost / CHECKPOINT_SHARE:
            run.save_history(state()["history"])
            run.save_checkpoint(state())
            saved = time.monotonic()
            cost = saved - started

    return on_epoch


def _find_or_set_aside(prepared: PreparedRun) -> Run | None:
    """Return the run if there is one. A damaged run is set aside, and so are damaged measurements of an intact run."""
    try:
        run = prepared.find_run()
    except files.Damaged as damage:
        directory = store.run_directory(prepared.results, prepared.name, prepared.identity)
        store.set_aside(directory, damage, "training starts anew")
        return None
    if run is not None:
        store.repair(run)
    return run


def _measure(prepared: PreparedRun, run: Run) -> None:
    """Measure a finished run, then remove the weights that were stored for that alone."""
    if run.status != "finished":
        return
    epochs = epochs_to_measure(prepared.config, run.epochs_trained)
    measure(run, prepared.config, prepared.dataset, prepared.device, epochs)
    if not prepared.config.snapshots.keep:
        for epoch in run.snapshot_epochs():
            run.remove_snapshot(epoch)


def _has_missing_measurements(prepared: PreparedRun, run: Run) -> bool:
    if run.status != "finished":
        return False
    settings = measurement_settings(prepared.config, prepared.dataset).values()
    epochs = epochs_to_measure(prepared.config, run.epochs_trained)
    return any(measurement_key(setting, epoch) not in run.measures for setting in settings for epoch in epochs)


def _missing_snapshots(prepared: PreparedRun, run: Run) -> bool:
    """Return whether weights of an epoch are needed that are not on disk."""
    if run.status != "finished":
        return False  # a run that diverged is not measured
    config = prepared.config
    settings = measurement_settings(config, prepared.dataset).values()
    return any(
        not run.has_weights(epoch)
        and (config.snapshots.keep or any(measurement_key(s, epoch) not in run.measures for s in settings))
        for epoch in snapshot_epochs(config, run.epochs_trained)
    )


def _start_tracker(prepared: PreparedRun) -> AbstractContextManager[Tracker]:
    options = prepared.config.tracker
    return registry.trackers[options.mode].load()(
        identity=prepared.identity,
        name=f"{prepared.name}-{prepared.identity}",
        config=as_mapping(prepared.config),
        directory=prepared.results,
        project=options.project,
        entity=options.entity,
        group=options.group,
        job_type="run",
    )


def _metrics(row: Mapping[Any, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "epoch" and value == value}
