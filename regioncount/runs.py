"""A run on disk: its identity, what it holds; the only reader and writer of run directories.

    run.json          format, identity, configuration, status, summary, environment, a checksum of each other file
    history.csv       one row an epoch
    initial.pt        weights before training
    model.pt          weights after it
    snapshots/        weights at the epochs asked for, removed once measured unless kept
    checkpoint.pt     what training goes on from; only until it has finished
    measures.json     every value measured, under a hash of the settings it was measured with and the epoch
    regions.npz       every single region count, under the same keys

A file appears whole or not at all. What is read is data, whoever wrote it: JSON, CSV, arrays and weights without pickled
objects, each held against its checksum.
"""

import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock

from regioncount.errors import InputError

FORMAT = 1
STATUSES = ("running", "finished", "diverged")
JSON_SIZE_LIMIT = 64 * 2**20


@dataclass
class Run:
    """One run directory. `record` is the content of run.json, `measures` that of measures.json."""

    directory: Path
    record: dict
    measures: dict

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
        return pd.read_csv(io.BytesIO(self._read("history.csv")))

    def weights(self, epoch: int | None = None) -> dict:
        """The state dictionary at an epoch: 0 is before training, None after it. InputError where it is not on disk."""
        name = self._weights_name(epoch)
        return _load_tensors(self._read(name), self.directory / name)

    def has_weights(self, epoch: int | None) -> bool:
        """Whether weights are on disk; a file whose checksum did not get recorded counts as missing."""
        name = self._weights_name(epoch)
        return name in self.record["checksums"] and (self.directory / name).is_file()

    def snapshot_epochs(self) -> list[int]:
        """The epochs between the first and the last whose weights are on disk."""
        return sorted(int(path.stem) for path in (self.directory / "snapshots").glob("*.pt") if path.stem.isdigit())

    def checkpoint(self) -> dict | None:
        """What training goes on from, or None where there is nothing that can be read."""
        path = self.directory / "checkpoint.pt"
        try:
            return _load_tensors(path.read_bytes(), path)
        except (OSError, InputError):
            return None

    def save_weights(self, epoch: int | None, state: dict) -> None:
        self._write(self._weights_name(epoch), _tensor_bytes(state))
        self.save_record()

    def save_checkpoint(self, state: dict) -> None:
        _write_whole(self.directory / "checkpoint.pt", _tensor_bytes(state))

    def save_history(self, history: list[dict]) -> None:
        self._write("history.csv", pd.DataFrame(history).to_csv(index=False).encode())

    def remove_snapshot(self, epoch: int) -> None:
        self._remove(_snapshot_name(epoch))

    def finish(self, status: str, **summary) -> None:
        """Record how training ended; from here on there is no checkpoint."""
        self.record["status"] = status
        self.record["summary"] = summary
        self.save_record()
        self._remove("checkpoint.pt")

    def save_record(self) -> None:
        _write_whole(self.directory / "run.json", _json_bytes(self.record))

    def forget_measures(self) -> None:
        """Drop what was measured of other weights than the present ones."""
        self.measures.clear()
        for name in ("measures.json", "regions.npz"):
            self._remove(name)

    def save_measures(self, entries: dict[str, dict], arrays: dict[str, np.ndarray]) -> None:
        """Add measured entries (key -> settings, epoch, values) and the arrays that belong to them (key/name -> array)."""
        if arrays:
            kept = self.region_arrays() if (self.directory / "regions.npz").is_file() else {}
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **(kept | arrays))
            self._write("regions.npz", buffer.getvalue())
        self.measures |= entries
        self._write("measures.json", _json_bytes(self.measures))
        self.save_record()

    def region_arrays(self) -> dict[str, np.ndarray]:
        """Every single count and entropy: "<key>/counts" and "<key>/entropies", each (S,)."""
        try:
            with np.load(io.BytesIO(self._read("regions.npz")), allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (ValueError, zipfile.BadZipFile, OSError) as error:
            raise InputError(f"{self.directory / 'regions.npz'} cannot be read ({error}): measure again") from error

    def _weights_name(self, epoch: int | None) -> str:
        if epoch is None or (self.status == "finished" and epoch == self.epochs_trained):
            return "model.pt"
        return "initial.pt" if epoch == 0 else _snapshot_name(epoch)

    def _write(self, name: str, content: bytes) -> None:
        _write_whole(self.directory / name, content)
        self.record["checksums"][name] = hashlib.sha256(content).hexdigest()

    def _remove(self, name: str) -> None:
        (self.directory / name).unlink(missing_ok=True)
        if self.record["checksums"].pop(name, None):
            self.save_record()

    def _read(self, name: str) -> bytes:
        path = self.directory / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        expected = self.record["checksums"].get(name)
        if expected != hashlib.sha256(content).hexdigest():
            raise InputError(
                f"{path} is not the file its run recorded (its checksum differs): remove the run and train again"
            )
        return content


def identity(parts: dict) -> str:
    """A hash of what makes a model: 16 hexadecimal digits. 1 and 1.0 are the same number here."""
    return _digest({"format": FORMAT, **parts})[:16]


def measuring_key(settings: dict, epoch: int) -> str:
    """The key a measurement is kept under: a hash of its settings and the epoch."""
    return _digest({"settings": settings, "epoch": epoch})[:16]


def find(results: Path, name: str, identity: str) -> Run | None:
    """The run of this identity, or None where there is none that can be read."""
    directory = _directory(results, name, identity)
    try:
        run = load(directory)
    except InputError:
        return None
    return run if run.identity == identity else None


def create(results: Path, name: str, identity: str, config: dict, data: str, environment: dict) -> Run:
    """Start a run's directory, or take an unfinished one up again. What is already measured stays."""
    run = find(results, name, identity)
    record = {"format": FORMAT, "identity": identity, "name": name, "config": config, "status": "running"}
    record |= {"data": data, "summary": {}, "environment": environment, "checksums": run.record["checksums"] if run else {}}
    record["tracked"] = []
    run = Run(_directory(results, name, identity), record, run.measures if run else {})
    (run.directory / "snapshots").mkdir(parents=True, exist_ok=True)
    run.save_record()
    return run


def load(directory: str | os.PathLike) -> Run:
    """Read a run directory. InputError, in one line, where it is not one or its record is damaged."""
    directory = Path(directory)
    if not (directory / "run.json").is_file():
        raise InputError(f"{directory} is not a run: it has no run.json")
    record = read_json(directory / "run.json")
    wanted = {"format": int, "identity": str, "name": str, "data": str, "config": dict, "status": str, "summary": dict}
    wanted |= {"environment": dict, "checksums": dict, "tracked": list}
    for key, kind in wanted.items():
        if not isinstance(record.get(key), kind):
            raise InputError(f"{directory / 'run.json'} is damaged: {key} is missing or not a {kind.__name__}")
    if record["format"] != FORMAT or record["status"] not in STATUSES:
        raise InputError(f"{directory / 'run.json'} has format {record['format']}: this version reads {FORMAT}")
    run = Run(directory, record, {})
    if "measures.json" in record["checksums"]:
        try:
            run.measures = json.loads(run._read("measures.json"))
            if "regions.npz" in record["checksums"]:
                run._read("regions.npz")
        except (InputError, ValueError):
            run.forget_measures()  # they can be measured again; the model need not be
    return run


@contextmanager
def lock(results: Path, name: str, identity: str) -> Iterator[None]:
    """Hold a run for this process: another one that wants the same run waits, and then finds it finished."""
    with lock_directory(_directory(results, name, identity)):
        yield


@contextmanager
def lock_directory(directory: Path) -> Iterator[None]:
    """`lock`, for a run whose directory is known."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(directory.parent / f".{directory.name}.lock"):
        yield


def load_weights(path: str | os.PathLike) -> dict:
    """A state dictionary from a file of weights alone. InputError where it is missing, cut short or something else."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"checkpoint={path}: no such file")
    state = _load_tensors(path.read_bytes(), path)
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


def _snapshot_name(epoch: int) -> str:
    return f"snapshots/{epoch:06d}.pt"


def _directory(results: Path, name: str, identity: str) -> Path:
    return Path(results) / "runs" / f"{name}-{identity}"


def _canonical(value):
    if isinstance(value, dict):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _digest(parts: dict) -> str:
    return hashlib.sha256(json.dumps(_canonical(parts), sort_keys=True).encode()).hexdigest()


def _json_bytes(value) -> bytes:
    return (json.dumps(_without_nan(value), indent=1, allow_nan=False) + "\n").encode()


def _without_nan(value):
    """JSON has no not-a-number: null stands for it."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: dict) -> None:
    """Write a mapping, whole or not at all."""
    _write_whole(path, _json_bytes(value))


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table, whole or not at all."""
    _write_whole(path, table.to_csv(index=False).encode())


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all."""
    _write_whole(path, text.encode())


def read_json(path: Path) -> dict:
    """A mapping from a JSON file. InputError where it is missing, too large or something else."""
    try:
        if path.stat().st_size > JSON_SIZE_LIMIT:
            raise InputError(f"{path} is larger than {JSON_SIZE_LIMIT} bytes: not a record of ours")
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} is damaged: not a mapping")
    return value


def _tensor_bytes(state: dict) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _load_tensors(content: bytes, path: Path) -> dict:
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler and archive reader happen to meet
        raise InputError(f"{path} is not a file of weights, or is cut short ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise InputError(f"{path} is not a state dictionary")
    return state


def _write_whole(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
