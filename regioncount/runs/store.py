"""Find, begin, publish and lock the runs of a results directory.

    runs/<name>-<identity>/                    runs whose training has ended
    unfinished/<name>-<identity>.<attempt>/    runs in training, one directory per attempt
    damaged/                                   runs and files that could not be used

A run is trained in a directory of its own and moved to `runs` by one rename when training has ended. Every directory in
`runs` is therefore complete, and if two processes train the same run, the first one published is kept. An interrupted
attempt is taken over by a rename as well; if its process is still alive, its next write raises `Superseded`. Correctness
relies on these atomic renames; locks only avoid duplicate training.
"""

import errno
import re
import secrets
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from regioncount.errors import say
from regioncount.runs import files
from regioncount.runs.files import Damaged
from regioncount.runs.record import FORMAT, Run, Superseded, load, set_aside, snapshot_name

# The error codes of a file system that does not support locks.
LOCKS_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
PARTIAL_FILES = ".*.part"


class Busy(Exception):
    """Another process holds the lock of a run."""


def run_directory(results: Path, name: str, identity: str) -> Path:
    """Return the directory of a run whose training has ended."""
    return Path(results) / "runs" / f"{name}-{identity}"


def find(results: Path, name: str, identity: str) -> Run | None:
    """Return a run whose training has ended, or None if there is none.

    Args:
        results: The results directory.
        name: The first part of the run's directory name, "<data set>-<model>".
        identity: Its identity; see `regioncount.runs.identity`.

    Raises:
        Damaged: The run cannot be read.
    """
    directory = run_directory(results, name, identity)
    if not directory.is_dir():
        return None
    run = load(directory)
    if run.identity != identity or run.status == "running":
        raise Damaged(f"{directory / 'run.json'} is damaged: it records another run, or one that is still in training")
    return run


def unfinished_names(results: Path) -> set[str]:
    """Return "<name>-<identity>" of each run whose training has begun but has not ended."""
    folder = Path(results) / "unfinished"
    return {path.name.rpartition(".")[0] for path in folder.iterdir()} if folder.is_dir() else set()


def begin(
    results: Path,
    name: str,
    identity: str,
    config: dict[str, Any],
    data: str,
    environment: dict[str, Any],
    replaces: Run | None = None,
) -> Run:
    """Begin an attempt to train a run, or take over an interrupted attempt.

    Args:
        results: The results directory.
        name: The first part of the run's directory name, "<data set>-<model>".
        identity: Its identity.
        config: The configuration to record.
        data: The fingerprint of the training data.
        environment: The environment to record; see `regioncount.runs.environment`.
        replaces: The published run that this one replaces. Any other run published meanwhile is kept.

    Returns:
        The run in `unfinished`. Its status is "running", or "finished" or "diverged" if the attempt that was taken over
        had ended; then it can be published.
    """
    attempt = secrets.token_hex(4)
    directory = Path(results) / "unfinished" / f"{name}-{identity}.{attempt}"
    record = {"format": FORMAT, "identity": identity, "name": name, "config": config, "data": data, "status": "running"}
    record |= {"attempt": attempt, "instead_of": replaces.record["attempt"] if replaces else None}
    record |= {"summary": {}, "environment": environment, "checksums": {}, "tracked": []}
    files.make_directory(directory.parent)
    if interrupted := _take_over(results, name, identity, directory):
        record["checksums"] = interrupted.record["checksums"]
        if interrupted.status == "running":
            if earlier := _earlier_environments(interrupted, environment):
                record["earlier_environments"] = earlier
        else:
            keys = ("status", "summary", "environment", "earlier_environments")
            record |= {key: interrupted.record[key] for key in keys if key in interrupted.record}
    (directory / "snapshots").mkdir(parents=True, exist_ok=True)
    run = Run(directory, record)
    run.save_record()
    return run


def publish(run: Run) -> Run:
    """Move a run whose training has ended to `runs`.

    Args:
        run: A run that `begin` returned.

    Returns:
        The published run. If another process published the same run first, its result is kept and this one is removed.

    Raises:
        Superseded: Another process has taken over this run.
        OSError: The directory cannot be moved.
    """
    results = run.directory.parent.parent
    final = run_directory(results, run.record["name"], run.identity)
    final.parent.mkdir(parents=True, exist_ok=True)
    files.remove_partial_files(run.directory.rglob(PARTIAL_FILES), age=0)
    try:
        published = find(results, run.record["name"], run.identity)
        if published is not None and published.record["attempt"] == run.record["instead_of"]:
            _displace(published, run)
    except Damaged as damage:
        set_aside(final, damage, "the run just trained replaces it")
    try:
        run.directory.rename(final)
    except FileNotFoundError as error:
        raise Superseded(f"{run.directory.name}: another process has taken over this run") from error
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another process published it first
            raise
    _remove_attempts(final)
    return load(final)


def repair(run: Run) -> None:
    """Set aside damaged measurements of a published run, and remove the leftovers of interrupted processes."""
    run.repair_measurements()
    files.remove_partial_files(run.directory.rglob(PARTIAL_FILES))
    _remove_attempts(run.directory)


@contextmanager
def lock(directory: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a run. It is released when the process ends.

    On a file system without locks, this warns and continues.

    Args:
        directory: The run directory, which need not exist yet.
        wait: Whether to wait for another process that holds the lock.

    Raises:
        Busy: Another process holds the lock, and `wait` is false.
        OSError: The lock file cannot be opened.
    """
    files.make_directory(directory.parent)
    file_lock = FileLock(directory.parent / f".{directory.name}.lock")
    try:
        try:
            file_lock.acquire(blocking=False)
        except Timeout:
            if not wait:
                raise Busy(directory.name) from None
            say(f"{directory.name}: waiting for another process that holds this run", sys.stderr)
            file_lock.acquire()
    except OSError as error:
        if error.errno not in LOCKS_UNSUPPORTED:
            raise
        warnings.warn(f"{directory.parent}: files cannot be locked; two processes may train the same run", stacklevel=3)
    try:
        yield
    finally:
        file_lock.release()


def _take_over(results: Path, name: str, identity: str, directory: Path) -> Run | None:
    """Return the run of an unfinished attempt after renaming its directory; None if there is nothing to resume."""
    for attempt in _attempts(results, name, identity):
        try:
            attempt.rename(directory)
        except FileNotFoundError:  # another process was faster
            continue
        if not (directory / "run.json").exists():  # it was interrupted before anything was saved
            return None
        try:
            return load(directory)
        except Damaged as damage:
            set_aside(directory, damage, "training starts from the first epoch")
    return None


def _earlier_environments(interrupted: Run, environment: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the environments in which a run was trained before, oldest first.

    An environment that differs from the next one only in its date is left out.
    """
    earlier = interrupted.environments()
    following = [*earlier[1:], environment]
    pairs = zip(earlier, following, strict=True)
    return [before for before, after in pairs if before | {"date": None} != after | {"date": None}]


def _displace(published: Run, new: Run) -> None:
    """Remove a published run to make room for its replacement.

    If both have the same weights, the replacement inherits the snapshots and measurements.
    """
    if published.record["checksums"].get("model.pt") != new.record["checksums"].get("model.pt"):
        damage = f"{published.directory}: retraining gave a different model"
        set_aside(published.directory, damage, "the new model is measured again")
        return
    for epoch in published.snapshot_epochs():
        name = snapshot_name(epoch)
        if not new.has_weights(epoch) and published.has_weights(epoch):
            shutil.copyfile(published.directory / name, new.directory / name)
            new.record["checksums"][name] = published.record["checksums"][name]
    for name in ("measures.json", "regions.npz"):
        if (published.directory / name).is_file():
            shutil.copyfile(published.directory / name, new.directory / name)
    new.save_record()
    # Renamed first: a directory in `runs` must never be incomplete.
    old = new.directory.with_name(f"{new.directory.name}.old")
    published.directory.rename(old)
    shutil.rmtree(old, ignore_errors=True)


def _attempts(results: Path, name: str, identity: str) -> list[Path]:
    """Return the directories of all unfinished attempts to train a run."""
    pattern = re.compile(re.escape(f"{name}-{identity}.") + "[0-9a-f]{8}")
    return sorted(path for path in (Path(results) / "unfinished").iterdir() if pattern.fullmatch(path.name))


def _remove_attempts(directory: Path) -> None:
    """Remove the unfinished attempts to train a run that is published."""
    for attempt in (directory.parent.parent / "unfinished").glob(f"{directory.name}.*"):
        shutil.rmtree(attempt, ignore_errors=True)
