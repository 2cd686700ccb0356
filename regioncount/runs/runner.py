"""What the commands do with a run's configuration: train it, measure it, keep both on disk."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from regioncount import data, training
from regioncount.config import RunConfig, as_mapping
from regioncount.models import classical
from regioncount.reporting import tracking
from regioncount.runs import files, store
from regioncount.runs.environment import environment
from regioncount.runs.identity import measurement_key, run_identity
from regioncount.runs.loading import build_model, check, load_dataset
from regioncount.runs.measurements import epochs_to_measure, measured_values, measurement_settings, snapshot_epochs
from regioncount.runs.measuring import measure
from regioncount.runs.store import Run

# At most this share of the time goes into writing checkpoints.
CHECKPOINT_SHARE = 0.02


@dataclass(frozen=True)
class Job:
    """A checked configuration and what follows from it: the data, where and how it trains, which run it is."""

    config: RunConfig
    dataset: data.Dataset
    device: torch.device
    precision: str
    compiled: bool
    name: str
    identity: str

    @property
    def results(self) -> Path:
        return Path(self.config.results)

    def find_run(self) -> Run | None:
        return store.find(self.results, self.name, self.identity)


def prepare(config: RunConfig) -> Job:
    """Load the data and work out which run this is. InputError where data, model and device do not go together."""
    tracking.check(config.tracker.mode)
    dataset = load_dataset(config.dataset)
    device = training.choose_device(config.device)
    precision = training.choose_precision(config.precision, device)
    passes = 2 if config.optimizer.get("name") == "sam" else 1
    work = check(config, dataset) * len(dataset.train) * config.epochs * passes
    compiled = training.choose_compilation(config.compile, device, work)
    name = f"{config.dataset.name}-{config.model['name']}"
    return Job(
        config,
        dataset,
        device,
        precision,
        compiled,
        name,
        run_identity(config, dataset.fingerprints["train"], precision, compiled),
    )


def run(job: Job, wait: bool = True) -> Run:
    """Train the run unless it is finished, measure of it what has not been measured yet, and tell the tracker of both.

    wait: whether to wait for another process that holds the run; otherwise store.Busy is raised.
    """
    config = job.config
    tracked = f"{config.tracker.mode}:{config.tracker.project}:{config.tracker.group}"
    with store.lock(store.place(job.results, job.name, job.identity), wait):
        found = _find_or_set_aside(job)
        trained = found is not None and not _missing_snapshots(job, found)
        if trained and not _unmeasured(job, found) and (config.tracker.mode == "disabled" or tracked in found.tracked):
            return found
        with tracking.start(
            config.tracker.mode,
            identity=job.identity,
            name=f"{job.name}-{job.identity}",
            config=as_mapping(config),
            directory=job.results,
            project=config.tracker.project,
            entity=config.tracker.entity,
            group=config.tracker.group,
        ) as track:
            if trained:
                for row in found.history().to_dict("records"):
                    track.log(_metrics(row), step=int(row["epoch"]))
            else:
                found = train(job, track, found)
            try:
                _measure(job, found)
            except files.Damaged as damage:
                print(f"{damage}; training it again", file=sys.stderr, flush=True)
                found = train(job, track, found)
                _measure(job, found)
            track.summarize({"status": found.status, **found.summary, **measured_values(found, config, job.dataset)})
            lost = track.lost
        if not lost:  # or the same command tells it again
            found.tracked.append(tracked)
        found.save_record()
        found.worked_on = True
        return found


def _find_or_set_aside(job: Job) -> Run | None:
    """The run, its damaged measures set aside; None where there is none, or a damaged one has been set aside."""
    try:
        found = job.find_run()
    except files.Damaged as damage:
        store.set_aside(store.place(job.results, job.name, job.identity), damage, "training starts anew")
        return None
    if found is not None:
        found.mend()
    return found


def _measure(job: Job, found: Run) -> None:
    """Measure a finished run at the epochs asked for, and remove weights that were kept for that alone."""
    if found.status != "finished":
        return
    epochs = epochs_to_measure(job.config, found.epochs_trained)
    measure(found, job.config, job.dataset, job.device, epochs)
    if not job.config.snapshots.keep:
        for epoch in found.snapshot_epochs():
            found.remove_snapshot(epoch)


def train(job: Job, track: tracking.Tracker, instead_of: Run | None = None) -> Run:
    """Train a run from its beginning, or from its last checkpoint. A diverged one is recorded as such.

    instead_of: the run that it replaces, whose weights of some epoch are missing or damaged. Of a classical classifier,
    which is fitted anew wherever it is measured, no more is kept than that it can be fitted.
    """
    config = job.config
    found = store.begin(
        job.results,
        job.name,
        job.identity,
        as_mapping(config),
        job.dataset.fingerprints["train"],
        environment(job.device, job.precision) | {"compiled": job.compiled},
        instead_of,
    )
    if found.status != "running":
        return store.publish(found)  # all but that has been done
    if classical.is_classical(config.model):
        started = time.perf_counter()
        classical.fit(config.model, config.seed, job.dataset)
        found.finish("finished", epochs_trained=0, seconds=round(time.perf_counter() - started, 3))
        return store.publish(found)
    model = training.initialize(lambda: build_model(config.model, job.dataset), config.seed)
    checkpoint = found.checkpoint()
    done = len(checkpoint["history"]) if checkpoint else 0
    if not all(found.has_weights(epoch) for epoch in (0, *snapshot_epochs(config, done))):
        checkpoint = None  # weights are asked for of epochs that are over
    if checkpoint is None:
        found.save_weights(0, model.state_dict())
    snapshots = set(snapshot_epochs(config, config.epochs))
    saved, cost = time.monotonic(), 0.0

    def on_epoch(row: dict, state: Callable[[], dict]) -> None:
        nonlocal saved, cost
        track.log(_metrics(row), step=row["epoch"])
        if row["epoch"] in snapshots:
            found.save_weights(row["epoch"], state()["model"])
        started = time.monotonic()
        if started - saved >= cost / CHECKPOINT_SHARE:
            found.save_history(state()["history"])
            found.save_checkpoint(state())
            saved = time.monotonic()
            cost = saved - started

    history = training.fit(
        model,
        job.dataset.to(job.device),
        config,
        device=job.device,
        precision=job.precision,
        compiled=job.compiled,
        checkpoint=checkpoint,
        on_epoch=on_epoch,
    )
    found.save_history(history)
    found.save_weights(None, model.state_dict())
    found.remove_snapshot(len(history))  # model.pt is this epoch's
    status = "diverged" if training.diverged(history) else "finished"
    found.finish(status, epochs_trained=len(history), seconds=round(sum(row["seconds"] for row in history), 3))
    return store.publish(found)


def _unmeasured(job: Job, found: Run) -> bool:
    if found.status != "finished":
        return False
    settings = measurement_settings(job.config, job.dataset).values()
    epochs = epochs_to_measure(job.config, found.epochs_trained)
    return any(measurement_key(setting, epoch) not in found.measures for setting in settings for epoch in epochs)


def _missing_snapshots(job: Job, found: Run) -> bool:
    """Whether weights are asked for of an epoch that are neither on disk nor measured already."""
    if found.status != "finished":
        return False  # of a diverged run nothing is measured
    settings = measurement_settings(job.config, job.dataset).values()
    return any(
        not found.has_weights(epoch)
        and (job.config.snapshots.keep or any(measurement_key(s, epoch) not in found.measures for s in settings))
        for epoch in snapshot_epochs(job.config, found.epochs_trained)
    )


def _metrics(row: dict) -> dict:
    return {name: value for name, value in row.items() if name != "epoch" and value == value}
