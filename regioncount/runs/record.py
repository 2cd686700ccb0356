"""Read and write one run directory.

    run.json          format, identity, configuration, status, summary, environment, checksums of the next four
    history.csv       one row per epoch
    initial.pt        weights before training
    model.pt          weights after training
    snapshots/        weights after the epochs to measure; removed once measured unless `snapshots.keep` is set
    checkpoint.pt     the state from which training resumes; removed when training has ended
    measures.json     all measured values; each key is a hash of the settings and the epoch
    regions.npz       the arrays behind the values, under the same keys; their checksums are in measures.json

Files are written atomically, and verified by checksums when read. A run directory is untrusted: nothing in it is executed.
"""

import hashlib
import io
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regioncount.errors import InputError, say
from regioncount.runs import files, validation
from regioncount.runs.files import Damaged

FORMAT = 2  # of run.json


class Superseded(InputError):
    """Another process has taken over the run that this process was training."""


@dataclass
class Run:
    """A run directory."""

    directory: Path
    record: dict[str, Any]
    """The content of run.json."""
    measures: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The entries of measures.json by key: "settings", "epoch", "values", "how" and "arrays" (checksums)."""
    damaged: dict[str, str] = field(default_factory=dict)
    """The measurement files that cannot be used, and the reason for each. Their measurements count as missing."""
    updated: bool = False
    """Whether this process has trained, measured or logged the run."""

    @property
    def identity(self) -> str:
        """The hash of all that determines the trained model; see `runs.identity`."""
        return self.record["identity"]

    @property
    def status(self) -> str:
        """The outcome of training, "finished" or "diverged"; "running" until training ends."""
        return self.record["status"]

    @property
    def config(self) -> dict[str, Any]:
        """The recorded configuration."""
        return self.record["config"]

    @property
    def data(self) -> str:
        """The fingerprint of the training data."""
        return self.record["data"]

    @property
    def summary(self) -> dict[str, Any]:
        """The number of epochs trained and the seconds of training; empty until training ends."""
        return self.record["summary"]

    @property
    def epochs_trained(self) -> int:
        """The number of epochs trained; 0 until training ends."""
        return self.summary.get("epochs_trained", 0)

    def environments(self) -> list[dict[str, Any]]:
        """Return the hardware and software of training, one entry per machine or version, oldest first."""
        return [*self.record.get("earlier_environments", []), self.record["environment"]]

    @property
    def tracked(self) -> list[str]:
        """The trackers that this run has been logged to; see `tracking.destination`."""
        return self.record["tracked"]

    def history(self) -> pd.DataFrame:
        """Return one row per epoch (see `training.fit`); empty for a model that is not trained in epochs.

        Raises:
            Damaged: The file is missing, has changed, or does not have one row per epoch.
        """
        if not self.epochs_trained:
            return pd.DataFrame()
        content = self._read("history.csv", files.TEXT_LIMIT)
        try:
            history = pd.read_csv(io.BytesIO(content), dtype=str).astype(float)  # pandas 2 itself parses numbers inexactly
            complete = history["epoch"].tolist() == list(range(1, self.epochs_trained + 1))
        except (KeyError, ValueError):  # pandas raises a ValueError for an empty file
            complete = False
        if not complete:
            raise Damaged(f"{self.directory / 'history.csv'} is damaged: it does not have one row per epoch")
        return history.astype({"epoch": int})

    def weights(self, epoch: int | None = None) -> dict[str, Any]:
        """Return the state dictionary after an epoch.

        Args:
            epoch: 0 for the weights before training, None for those after the last epoch.

        Raises:
            Damaged: The weights are not on disk or have changed.
        """
        from regioncount.runs.weights import load_tensors

        name = self._weights_name(epoch)
        return load_tensors(self._read(name), self.directory / name)

    def has_weights(self, epoch: int | None) -> bool:
        """Return whether the weights after an epoch are on disk. A file without a recorded checksum does not count."""
        name = self._weights_name(epoch)
        return name in self.record["checksums"] and (self.directory / name).is_file()

    def snapshot_epochs(self) -> list[int]:
        """Return the epochs in `snapshots/`, ascending."""
        return sorted(int(path.stem) for path in (self.directory / "snapshots").glob("*.pt") if path.stem.isdecimal())

    def region_arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays behind the measurements by "<key>/<name>", such as the "counts" (S,) of each subspace.

        Raises:
            Damaged: An array that was recorded is missing or has changed.
        """
        path = self.directory / "regions.npz"
        entries = self.measures.items()
        digests = {f"{key}/{name}": digest for key, entry in entries for name, digest in entry["arrays"].items()}
        limits = {f"{key}/{name}": validation.max_array_bytes(entry) for key, entry in entries for name in entry["arrays"]}
        arrays = files.load_arrays(files.read(path, files.BINARY_LIMIT), path, limits) if digests else {}
        for name, digest in digests.items():
            if name not in arrays or files.array_digest(arrays[name]) != digest:
                raise Damaged(f"{path} is damaged: the checksum of {name} differs")
        for key, entry in entries:
            if not validation.has_plane_labels(entry, arrays.get(f"{key}/labels")):
                raise Damaged(f"{path} is damaged: labels of seed_agreement are missing or have the wrong shape")
        return {name: arrays[name] for name in digests}

    def checkpoint(self) -> dict[str, Any] | None:
        """Return the state from which training resumes, or None. A damaged checkpoint is set aside."""
        path = self.directory / "checkpoint.pt"
        if not path.exists():
            return None
        from regioncount.runs.weights import load_tensors

        try:
            return load_tensors(files.unseal(files.read(path, files.BINARY_LIMIT), path), path)
        except Damaged as damage:
            set_aside(self.directory, damage, "training starts from the first epoch", path.name)
            return None

    def save_weights(self, epoch: int | None, state: dict[str, Any]) -> None:
        """Write the weights after an epoch, which is numbered as in `weights`."""
        from regioncount.runs.weights import tensor_bytes

        self._write_with_checksum(self._weights_name(epoch), tensor_bytes(state))
        self.save_record()

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Write the state from which training resumes."""
        from regioncount.runs.weights import tensor_bytes

        self._write("checkpoint.pt", files.seal(tensor_bytes(state)))

    def save_history(self, history: list[dict[str, Any]]) -> None:
        """Write the history, one row per epoch. `save_record` saves its checksum."""
        self._write_with_checksum("history.csv", pd.DataFrame(history).to_csv(index=False).encode())

    def remove_snapshot(self, epoch: int) -> None:
        """Remove the snapshot of an epoch, if there is one."""
        name = snapshot_name(epoch)
        (self.directory / name).unlink(missing_ok=True)
        if self.record["checksums"].pop(name, None):
            self.save_record()

    def finish(self, status: str, **summary: Any) -> None:
        """Record how training ended, and remove the checkpoint.

        Args:
            status: "finished" or "diverged".
            **summary: "epochs_trained" and "seconds".
        """
        self.record |= {"status": status, "summary": summary}
        self.save_record()
        (self.directory / "checkpoint.pt").unlink(missing_ok=True)

    def save_record(self) -> None:
        """Write run.json."""
        with detect_takeover(self.directory):
            files.write_json(self.directory / "run.json", self.record)

    def save_measures(self, entries: dict[str, dict[str, Any]], arrays: dict[str, np.ndarray]) -> None:
        """Add measurements to those on disk.

        Args:
            entries: "settings", "epoch", "values" and "how" by key.
            arrays: The arrays behind them by "<key>/<name>".
        """
        entries = {key: entry | {"arrays": {}} for key, entry in entries.items()}
        for name, array in arrays.items():
            key, _, array_name = name.partition("/")
            entries[key]["arrays"][array_name] = files.array_digest(array)
        if arrays:  # before the entries: arrays without an entry are ignored
            path = self.directory / "regions.npz"
            try:
                stored = files.load_arrays(files.read(path, files.BINARY_LIMIT), path) if path.exists() else {}
            except Damaged:
                stored = {}
            self._write("regions.npz", files.array_bytes(stored | arrays))
        with suppress(Damaged):
            self.measures |= _read_measures(self.directory, self.identity)  # another process may have added some
        self.measures |= entries
        self._write_measures()

    def repair_measurements(self) -> None:
        """Set aside damaged measurement files. Their measurements count as missing from now on."""
        try:
            self.region_arrays()
        except Damaged as damage:
            self.damaged["regions.npz"] = str(damage)
            entries = self.measures.items()
            self.measures = {
                key: entry for key, entry in entries if not entry["arrays"] and validation.has_plane_labels(entry, None)
            }
        for name, damage in self.damaged.items():
            if os.path.lexists(self.directory / name):
                set_aside(self.directory, damage, "its measurements are computed again", name)
        if self.damaged:
            self._write_measures()
            self.damaged.clear()

    def _weights_name(self, epoch: int | None) -> str:
        if epoch is None or (self.status == "finished" and epoch == self.epochs_trained):
            return "model.pt"
        return "initial.pt" if epoch == 0 else snapshot_name(epoch)

    def _write_with_checksum(self, name: str, content: bytes) -> None:
        self._write(name, content)
        self.record["checksums"][name] = hashlib.sha256(content).hexdigest()

    def _write(self, name: str, content: bytes) -> None:
        with detect_takeover(self.directory):
            files.write(self.directory / name, content)

    def _write_measures(self) -> None:
        with detect_takeover(self.directory):
            files.write_json(self.directory / "measures.json", {"run": self.identity, "entries": self.measures})

    def _read(self, name: str, limit: int = files.BINARY_LIMIT) -> bytes:
        path = self.directory / name
        if path.parent.is_symlink() and path.parent != self.directory:
            raise Damaged(f"{path.parent} cannot be read: it is a link")
        content = files.read(path, limit)
        if self.record["checksums"].get(name) != hashlib.sha256(content).hexdigest():
            raise Damaged(f"{path} is damaged: its checksum differs")
        return content


def load(directory: str | os.PathLike) -> Run:
    """Return the run in a directory. The checksums of weights are checked when they are read.

    Args:
        directory: The run directory. Damaged measurements are listed in `Run.damaged`.

    Raises:
        Damaged: The directory is not a run, or run.json or history.csv has changed.
        InputError: The run has a format that this version does not read.
    """
    directory = Path(directory)
    path = directory / "run.json"
    if not path.is_file():
        raise Damaged(f"{directory} is not a run: it has no run.json")
    record = files.read_json(path)
    if record.get("format") != FORMAT:
        raise InputError(
            f"{path} has format {record.get('format')!r:.20}, this version reads {FORMAT}: "
            "pass another results=DIR, or remove the run"
        )
    if key := validation.invalid_key(record):
        raise Damaged(f"{path} is damaged: {key} is missing or invalid")
    run = Run(directory, record)
    if run.epochs_trained:
        run.history()
    try:
        run.measures = _read_measures(directory, run.identity)
    except Damaged as damage:  # the model is intact, so it can be measured again
        run.damaged["measures.json"] = str(damage)
    return run


def set_aside(directory: Path, damage: InputError | str, consequence: str, name: str | None = None) -> Path:
    """Move a damaged run, or one file of it, to `damaged` in the results directory, and print a message.

    Args:
        directory: The run directory.
        damage: The damage, for the message.
        consequence: What happens next, for the message.
        name: The file's name; None for the whole directory.

    Returns:
        The new path.
    """
    path = directory / name if name else directory
    target = directory.parent.parent / "damaged" / f"{'-'.join(filter(None, (directory.name, name)))}.{secrets.token_hex(4)}"
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    say(f"{damage}; set aside as {target}, {consequence}", sys.stderr)
    return target


@contextmanager
def detect_takeover(directory: Path) -> Iterator[None]:
    """Raise `Superseded` if the run directory is gone: another process has renamed it to take over the run."""
    try:
        yield
    except FileNotFoundError as error:
        raise Superseded(f"{directory.name}: another process has taken over this run") from error


def snapshot_name(epoch: int) -> str:
    """Return the path of a snapshot inside its run directory."""
    return f"snapshots/{epoch:06d}.pt"


def _read_measures(directory: Path, identity: str) -> dict[str, dict[str, Any]]:
    path = directory / "measures.json"
    content = files.read_json(path) if os.path.lexists(path) else {"entries": {}}
    if (owner := content.get("run", identity)) != identity:  # earlier versions did not record it
        raise Damaged(f"{path} is damaged: it belongs to the run {owner!s:.20}")
    entries = content.get("entries")
    if not isinstance(entries, dict) or not all(map(validation.is_measurement, entries.values())):
        raise Damaged(f"{path} is damaged: an entry is not a measurement")
    return entries
