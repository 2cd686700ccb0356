"""A run on disk: its identity, what it holds; the only reader and writer of run directories.

    run.json          format, identity, configuration, status, summary, environment, checksums of the next four
    history.csv       one row an epoch
    initial.pt        weights before training
    model.pt          weights after it
    snapshots/        weights at the epochs asked for, removed once measured unless kept
    checkpoint.pt     what training goes on from; only until it has finished
    measures.json     every value measured, under a hash of the settings it was measured with and the epoch
    regions.npz       every single region count, under the same keys; their checksums are in measures.json

A run is trained in a directory of its own, results/unfinished/<name>-<identity>.<attempt>, and becomes results/runs/<name>-
<identity> by one rename once it is over: what lies there is whole, and of two processes that trained the same run the
first gives the result. Locks keep that from happening in vain. Taking up what another process left is a rename too, after
which that process, should it still live, can write no more. So nothing rests on locks but time.

A file appears whole or not at all. What is read is data, whoever wrote it, and held against its checksum. What turns out to
be damaged is set aside in results/damaged, and made again.
"""

import errno
import hashlib
import io
import os
import re
import secrets
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout

from regioncount.errors import InputError
from regioncount.runs import files
from regioncount.runs.files import Damaged

FORMAT = 2  # of the record
STATUSES = ("running", "finished", "diverged")
NAME = r"(?!\.)[\w.-]{1,200}"  # a part of a path
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
MOST_EPOCHS = 10**6
OLD_SECONDS = 3600  # from that age on, half a file belongs to no process that is still writing it


class Superseded(InputError):
    """Another process has taken up the run that this one was training."""


class Busy(Exception):
    """Another process holds this run."""


@dataclass
class Run:
    """One run directory. `record` is the content of run.json, `measures` that of measures.json.

    damaged: what is wrong with its measures, by the name of the file. They count as not measured. worked_on: whether this
    process trained or measured it, or told a tracker of it.
    """

    directory: Path
    record: dict
    measures: dict = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    worked_on: bool = False

    @property
    def identity(self) -> str:
        return self.record["identity"]

    @property
    def status(self) -> str:
        return self.record["status"]

    @property
    def config(self) -> dict:
        return self.record["config"]

    @property
    def epochs_trained(self) -> int:
        return self.record["summary"].get("epochs_trained", 0)

    @property
    def data(self) -> str:
        """The fingerprint of the training data."""
        return self.record["data"]

    @property
    def summary(self) -> dict:
        return self.record["summary"]

    @property
    def tracked(self) -> list[str]:
        """Where this run has been logged to already."""
        return self.record["tracked"]

    def history(self) -> pd.DataFrame:
        """One row an epoch; see `training.fit`. Empty where there was none."""
        if not self.epochs_trained:
            return pd.DataFrame()
        return pd.read_csv(io.BytesIO(self._read("history.csv", files.TEXT_LIMIT)))

    def weights(self, epoch: int | None = None) -> dict:
        """The state dictionary at an epoch: 0 is before training, None after it. Damaged where it is not on disk."""
        name = self._weights_name(epoch)
        return files.load_tensors(self._read(name), self.directory / name)

    def has_weights(self, epoch: int | None) -> bool:
        """Whether weights are on disk; a file whose checksum did not get recorded counts as missing."""
        name = self._weights_name(epoch)
        return name in self.record["checksums"] and (self.directory / name).is_file()

    def snapshot_epochs(self) -> list[int]:
        """The epochs between the first and the last whose weights are on disk."""
        return sorted(int(path.stem) for path in (self.directory / "snapshots").glob("*.pt") if path.stem.isdecimal())

    def region_arrays(self) -> dict[str, np.ndarray]:
        """Every single count and entropy: "<key>/counts" and "<key>/entropies", each (S,).

        Damaged where one that was measured is not there as it was written.
        """
        path = self.directory / "regions.npz"
        wanted = {f"{key}/{name}": value for key, entry in self.measures.items() for name, value in entry["arrays"].items()}
        if not wanted:
            return {}
        arrays = files.load_arrays(files.read(path, files.BINARY_LIMIT), path)
        for name, digest in wanted.items():
            if name not in arrays or files.array_digest(arrays[name]) != digest:
                raise Damaged(f"{path} is damaged: {name} is not what was written")
        return {name: arrays[name] for name in wanted}

    def checkpoint(self) -> dict | None:
        """What training goes on from, or None where there is none that can be used; a damaged one is named and set aside."""
        path = self.directory / "checkpoint.pt"
        if not path.exists():
            return None
        try:
            return files.load_tensors(files.unseal(files.read(path, files.BINARY_LIMIT), path), path)
        except Damaged as damage:
            set_aside(self.directory, damage, "training starts anew", path.name)
            return None

    def save_weights(self, epoch: int | None, state: dict) -> None:
        self._write_recorded(self._weights_name(epoch), files.tensor_bytes(state))
        self.save_record()

    def save_checkpoint(self, state: dict) -> None:
        self._write("checkpoint.pt", files.seal(files.tensor_bytes(state)))

    def save_history(self, history: list[dict]) -> None:
        self._write_recorded("history.csv", pd.DataFrame(history).to_csv(index=False).encode())

    def remove_snapshot(self, epoch: int) -> None:
        name = _snapshot_name(epoch)
        (self.directory / name).unlink(missing_ok=True)
        if self.record["checksums"].pop(name, None):
            self.save_record()

    def finish(self, status: str, **summary) -> None:
        """Record how training ended; from here on there is no checkpoint."""
        self.record |= {"status": status, "summary": summary}
        self.save_record()
        (self.directory / "checkpoint.pt").unlink(missing_ok=True)

    def save_record(self) -> None:
        with self._ours():
            files.write_json(self.directory / "run.json", self.record)

    def save_measures(self, entries: dict[str, dict], arrays: dict[str, np.ndarray]) -> None:
        """Add measured entries (key -> settings, epoch, values) and the arrays that belong to them (key/name -> array)."""
        entries = {key: entry | {"arrays": {}} for key, entry in entries.items()}
        for name, array in arrays.items():
            key, _, short = name.partition("/")
            entries[key]["arrays"][short] = files.array_digest(array)
        if arrays:  # first: without an entry they do no harm
            path = self.directory / "regions.npz"
            try:
                kept = files.load_arrays(files.read(path, files.BINARY_LIMIT), path) if path.exists() else {}
            except Damaged:
                kept = {}
            self._write("regions.npz", files.array_bytes(kept | arrays))
        with suppress(Damaged):
            self.measures |= _read_measures(self.directory)  # another process may have added some
        self.measures |= entries
        self._write_measures()

    def mend(self) -> None:
        """Set aside what is damaged of the measures, so that they are made again, and drop what processes that died left."""
        try:
            self.region_arrays()
        except Damaged as damage:
            self.damaged["regions.npz"] = str(damage)
            self.measures = {key: entry for key, entry in self.measures.items() if not entry["arrays"]}
        for name, damage in self.damaged.items():
            if os.path.lexists(self.directory / name):
                set_aside(self.directory, damage, "it is measured again", name)
        if self.damaged:
            self._write_measures()
            self.damaged.clear()
        _remove_parts(self.directory)
        _drop_left(self.directory)

    def _weights_name(self, epoch: int | None) -> str:
        if epoch is None or (self.status == "finished" and epoch == self.epochs_trained):
            return "model.pt"
        return "initial.pt" if epoch == 0 else _snapshot_name(epoch)

    def _write_recorded(self, name: str, content: bytes) -> None:
        self._write(name, content)
        self.record["checksums"][name] = hashlib.sha256(content).hexdigest()

    def _write(self, name: str, content: bytes) -> None:
        with self._ours():
            files.write(self.directory / name, content)

    def _write_measures(self) -> None:
        with self._ours():
            files.write_json(self.directory / "measures.json", {"entries": self.measures})

    @contextmanager
    def _ours(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise Superseded(f"{self.directory.name}: another process has taken this run up") from error

    def _read(self, name: str, limit: int = files.BINARY_LIMIT) -> bytes:
        path = self.directory / name
        if path.parent.is_symlink() and path.parent != self.directory:
            raise Damaged(f"{path.parent} cannot be read: it is a link")
        content = files.read(path, limit)
        if self.record["checksums"].get(name) != hashlib.sha256(content).hexdigest():
            raise Damaged(f"{path} is damaged: it is not what was written (its checksum differs)")
        return content


def find(results: Path, name: str, identity: str) -> Run | None:
    """The run of this identity whose training is over, or None where there is none. Damaged where it cannot be read."""
    directory = place(results, name, identity)
    if not directory.is_dir():
        return None
    run = load(directory)
    if run.identity != identity or run.status == "running":
        raise Damaged(f"{directory / 'run.json'} is damaged: it is the record of another run, or of one in training")
    return run


def begun(results: Path) -> set[str]:
    """<name>-<identity> of the runs whose training has begun and is not over."""
    folder = Path(results) / "unfinished"
    return {path.name.rpartition(".")[0] for path in folder.iterdir()} if folder.is_dir() else set()


def begin(
    results: Path, name: str, identity: str, config: dict, data: str, environment: dict, instead_of: Run | None = None
) -> Run:
    """Start to train a run, or go on where another process left off. What comes of it counts once it is published.

    instead_of: the run that is to be replaced by it; any other that may turn up meanwhile is not.
    """
    attempt = secrets.token_hex(4)
    directory = Path(results) / "unfinished" / f"{name}-{identity}.{attempt}"
    record = {"format": FORMAT, "identity": identity, "name": name, "config": config, "data": data, "status": "running"}
    record |= {"attempt": attempt, "instead_of": instead_of.record["attempt"] if instead_of else None}
    record |= {"summary": {}, "environment": environment, "checksums": {}, "tracked": []}
    directory.parent.mkdir(parents=True, exist_ok=True)
    for left in _left(results, name, identity):
        try:
            left.rename(directory)
        except FileNotFoundError:
            continue  # yet another process took it
        if not (directory / "run.json").exists():
            break  # it had hardly begun
        try:
            found = load(directory)
        except Damaged as damage:
            set_aside(directory, damage, "training starts anew")
            continue
        record["checksums"] = found.record["checksums"]
        if found.status != "running":  # over, but for the last step
            record |= {key: found.record[key] for key in ("status", "summary", "environment")}
        break
    (directory / "snapshots").mkdir(parents=True, exist_ok=True)
    run = Run(directory, record)
    run.save_record()
    return run


def publish(run: Run) -> Run:
    """Make a run that `begin` gave and that is over the run of its identity, and return that.

    Where another process was faster, what it trained is the run, and this one is dropped.
    """
    results, name = run.directory.parent.parent, f"{run.record['name']}-{run.identity}"
    final = results / "runs" / name
    final.parent.mkdir(parents=True, exist_ok=True)
    _remove_parts(run.directory, age=0)
    try:
        there = find(results, run.record["name"], run.identity)
        if there is not None and there.record["attempt"] == run.record["instead_of"]:
            _replace(there, run)
    except Damaged as damage:
        set_aside(final, damage, "the run just trained takes its place")
    try:
        with run._ours():
            run.directory.rename(final)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    _drop_left(final)
    return load(final)


def load(directory: str | os.PathLike) -> Run:
    """Read a run directory. InputError, in one line, where it is not one; Damaged where it is not as it was written.

    Weights are held against their checksums when they are read.
    """
    directory = Path(directory)
    if not (directory / "run.json").is_file():
        raise Damaged(f"{directory} is not a run: it has no run.json")
    record = files.read_json(directory / "run.json")
    if record.get("format") != FORMAT:
        raise InputError(
            f"{directory / 'run.json'} has format {record.get('format')!r:.20}, this version reads {FORMAT}: "
            "give another results=DIR, or remove the run"
        )
    if wrong := _wrong_in_record(record):
        raise Damaged(f"{directory / 'run.json'} is damaged: {wrong} is missing or not what it should be")
    run = Run(directory, record)
    if run.epochs_trained:
        run.history()
    try:
        run.measures = _read_measures(directory)
    except Damaged as damage:
        run.damaged["measures.json"] = str(damage)  # they can be made again; the model need not be
    return run


def set_aside(directory: Path, damage: Damaged | str, consequence: str, name: str | None = None) -> Path:
    """Move a damaged run directory, or the file of that name in it, into results/damaged, and say so."""
    path = directory / name if name else directory
    aside = directory.parent.parent / "damaged" / f"{'-'.join(filter(None, (directory.name, name)))}.{secrets.token_hex(4)}"
    aside.parent.mkdir(parents=True, exist_ok=True)
    path.rename(aside)
    print(f"{damage}; set aside as {aside}, {consequence}", file=sys.stderr, flush=True)
    return aside


@contextmanager
def lock(directory: Path, wait: bool = True) -> Iterator[None]:
    """Hold a run's directory for this process, which need not be there yet: others that want the same run wait.

    wait: whether to wait, too, where another process holds it; otherwise Busy is raised. The lock of a process that has
    died is free. Where locks do not work, there is a warning, and no lock.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(directory.parent / f".{directory.name}.lock")
    try:
        try:
            held.acquire(blocking=False)
        except Timeout:
            if not wait:
                raise Busy(directory.name) from None
            print(f"{directory.name}: another process works on this run; waiting for it", file=sys.stderr, flush=True)
            held.acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        warnings.warn(f"{directory.parent}: files cannot be locked here; processes may train a run twice", stacklevel=3)
    try:
        yield
    finally:
        held.release()


def place(results: Path, name: str, identity: str) -> Path:
    """Where a run lies once its training is over."""
    return Path(results) / "runs" / f"{name}-{identity}"


def load_weights(path: str | os.PathLike) -> dict:
    """A state dictionary from a file of weights alone. InputError where it is missing, cut short or something else."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"checkpoint={path}: no such file")
    state = files.load_tensors(path.read_bytes(), path)
    # Files written by others often hold the weights under one of these names, beside an optimizer's state.
    for name in ("state_dict", "model", "net"):
        if isinstance(state.get(name), dict):
            state = state[name]
    if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path} is not a state dictionary of tensors")
    return state


def digest_tensors(state: dict[str, torch.Tensor]) -> str:
    """A hash of tensors' names, types, shapes and values, however the file that held them was written."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _replace(old: Run, new: Run) -> None:
    """Clear the place of a run for another that has been trained again; where it is the same model, keep what it has."""
    if old.record["checksums"].get("model.pt") != new.record["checksums"].get("model.pt"):
        set_aside(old.directory, f"{old.directory} is another model, trained again", "what was measured is measured again")
        return
    for epoch in old.snapshot_epochs():
        name = _snapshot_name(epoch)
        if not new.has_weights(epoch) and old.has_weights(epoch):
            shutil.copyfile(old.directory / name, new.directory / name)
            new.record["checksums"][name] = old.record["checksums"][name]
    for name in ("measures.json", "regions.npz"):
        if (old.directory / name).is_file():
            shutil.copyfile(old.directory / name, new.directory / name)
    new.save_record()
    gone = new.directory.with_name(f"{new.directory.name}.old")
    old.directory.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _left(results: Path, name: str, identity: str) -> list[Path]:
    """The directories in which a run was or is being trained."""
    pattern = re.compile(re.escape(f"{name}-{identity}.") + "[0-9a-f]{8}")
    return sorted(path for path in (Path(results) / "unfinished").iterdir() if pattern.fullmatch(path.name))


def _drop_left(final: Path) -> None:
    """Remove what is left of training a run that is over."""
    for left in (final.parent.parent / "unfinished").glob(f"{final.name}.*"):
        shutil.rmtree(left, ignore_errors=True)


def _remove_parts(directory: Path, age: float = OLD_SECONDS) -> None:
    """Remove what processes that died left half written."""
    for part in directory.rglob(".*.part"):
        with suppress(OSError):
            if part.stat().st_mtime <= time.time() - age:
                part.unlink()


def _read_measures(directory: Path) -> dict[str, dict]:
    path = directory / "measures.json"
    if not path.exists():
        return {}
    entries = files.read_json(path).get("entries")
    if not isinstance(entries, dict) or not all(map(_is_entry, entries.values())):
        raise Damaged(f"{path} is damaged: its entries are not measurements")
    return entries


def _is_entry(entry) -> bool:
    parts = ("settings", "values", "how", "arrays")
    if not isinstance(entry, dict) or not all(isinstance(entry.get(part), dict) for part in parts):
        return False
    numbers = all(value is None or _is_number(value) or _is_reason(key) for key, value in entry["values"].items())
    plain = all(_is_plain(value) for part in ("values", "how", "arrays") for value in entry[part].values())
    return numbers and plain and type(entry.get("epoch")) is int and _is_number(entry["how"].get("seconds", 0))


def _is_reason(key: str) -> bool:
    """Whether a value may be a text, which says why a number is undefined."""
    return key.endswith("error") and key != "test_error" and not key.endswith("standard_error")


def _is_plain(value) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _is_number(value) -> bool:
    return type(value) in (int, float)


def _wrong_in_record(record: dict) -> str | None:
    """The first member of a record that is not as this module writes it."""
    kinds = {"identity": str, "name": str, "attempt": str, "data": str, "config": dict, "status": str, "summary": dict}
    kinds |= {"environment": dict, "checksums": dict, "tracked": list}
    for key, kind in kinds.items():
        if type(record.get(key)) is not kind:
            return key
    summary, over = record["summary"], record["status"] != "running"
    epochs, seconds = (summary.get(key, None if over else 0) for key in ("epochs_trained", "seconds"))
    right = {
        "identity": re.fullmatch("[0-9a-f]{16}", record["identity"]),
        "name": re.fullmatch(NAME, record["name"]),
        "status": record["status"] in STATUSES,
        "summary": type(epochs) is int and 0 <= epochs <= MOST_EPOCHS and _is_number(seconds),
        "environment": all(map(_is_plain, record["environment"].values())),
        "checksums": all(isinstance(value, str) for value in record["checksums"].values()),
        "tracked": all(isinstance(value, str) for value in record["tracked"]),
    }
    return next((key for key, holds in right.items() if not holds), None)


def _snapshot_name(epoch: int) -> str:
    return f"snapshots/{epoch:06d}.pt"
