"""Trackers, by name, to which runs and sweeps are logged.

A tracker is a context manager that yields a `Tracker`. It is registered with `regioncount.register_tracker` and started
with `start`. A plugin adds one by subclassing `Tracker`:

    @rc.register_tracker("my_tracker", requires="my_package")
    @contextmanager
    def my_tracker(*, identity, name, config, directory, project, entity, group, job_type):
        yield MyTracker(...)

It is also called with `tags` and `notes` if the options tracker.tags and tracker.notes are set.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regioncount.errors import InputError, one_line, say
from regioncount.registry import register_tracker, require_package, trackers

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


# Parts of a tracked configuration that describe neither the model nor the measurements.
NOT_HYPERPARAMETERS = ("tracker", "results", "device", "identity", "commit", "hardware")


class Tracker:
    """One run of a tracker. The methods do nothing; a subclass overrides those that it supports.

    An exception of a method is printed and ends the logging of the run, but not the run.
    """

    address: str | None = None
    """Where to see the run: its URL, or the command that shows or uploads it. It is printed when the run has ended."""
    draws_charts: bool = True
    """Whether `scatter` and `chart` log something. If not, `figure` gets the pictures that they replace."""

    @property
    def lost(self) -> bool:
        """Whether logging has stopped. If so, a later process logs the run again."""
        return False

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Log the metrics of an epoch.

        Args:
            metrics: Numbers, or arrays and tensors with one element.
            step: The epoch. Steps must ascend.
        """

    def log_snapshot(self, values: Mapping[str, Any], epoch: int) -> None:
        """Log what was measured at an epoch, after training. Epochs need not follow the steps of `log`."""

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Log the final values of a run."""

    def table(self, name: str, dataframe: "pd.DataFrame") -> None:
        """Log a table."""

    def scatter(self, name: str, dataframe: "pd.DataFrame", x: str, y: str, title: str) -> None:
        """Log a scatter plot of two columns of a table; the other columns describe the dots."""

    def chart(self, name: str, figure: "go.Figure") -> None:
        """Log an interactive chart."""

    def figure(self, name: str, path: Path | str, caption: str = "") -> None:
        """Log a PNG file, with a line of text."""


class NoTracker(Tracker):
    """A tracker that logs nothing."""

    @property
    def lost(self) -> bool:
        """Return true: nothing has been logged."""
        return True


class _Guarded(Tracker):
    """A tracker whose exceptions are printed and end its use."""

    def __init__(self, tracker: Tracker, mode: str):
        self._tracker, self._mode, self._failed = tracker, mode, False
        self.draws_charts = getattr(tracker, "draws_charts", True)

    @property
    def lost(self) -> bool:
        try:
            return self._failed or self._tracker.lost
        except Exception as error:
            self._fail(error)
            return True

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        self._attempt("log", metrics, step)

    def log_snapshot(self, values: Mapping[str, Any], epoch: int) -> None:
        self._attempt("log_snapshot", values, epoch)

    def summarize(self, values: Mapping[str, Any]) -> None:
        self._attempt("summarize", values)

    def table(self, name: str, dataframe: "pd.DataFrame") -> None:
        self._attempt("table", name, dataframe)

    def scatter(self, name: str, dataframe: "pd.DataFrame", x: str, y: str, title: str) -> None:
        self._attempt("scatter", name, dataframe, x, y, title)

    def chart(self, name: str, figure: "go.Figure") -> None:
        self._attempt("chart", name, figure)

    def figure(self, name: str, path: Path | str, caption: str = "") -> None:
        self._attempt("figure", name, path, caption)

    def close(self, manager: AbstractContextManager[Tracker], error: BaseException | None) -> None:
        """Leave the context manager of the tracker, also after a method has failed."""
        try:
            manager.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)
        except Exception as failure:
            if failure is not error:
                self._fail(failure)

    def _attempt(self, method: str, *arguments: Any) -> None:
        if self._failed:
            return
        try:
            getattr(self._tracker, method)(*arguments)  # a plugin's tracker may lack it
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failed = True
        reason = one_line(f"{type(error).__name__}: {error}")
        say(f"tracker={self._mode} failed ({reason}); results are not affected", sys.stderr)


@contextmanager
def start(
    mode: str,
    *,
    identity: str,
    name: str,
    config: Mapping[str, Any],
    directory: Path | str,
    project: str = "regioncount",
    entity: str | None = None,
    group: str | None = None,
    job_type: str = "run",
    tags: Sequence[str] = (),
    notes: str | None = None,
    announce: bool = True,
) -> Iterator[Tracker]:
    """Track what happens inside the block as one run. An exception that leaves the block marks the run as failed.

    Args:
        mode: The tracker's name, such as "disabled", "wandb" or "wandb_offline".
        identity: A hexadecimal string. A run with the same identity is continued.
        name: The run's name.
        config: Its configuration, a nested mapping of plain values.
        directory: The directory for the tracker's files.
        project: The project that the run belongs to.
        entity: The user or team that owns the project.
        group: The sweep that the run belongs to.
        job_type: "run" or "sweep".
        tags: Tags of the run.
        notes: A description of the run.
        announce: Whether to print where to see the run, on standard error, when it has ended.

    Yields:
        The tracker.

    Raises:
        InputError: There is no such tracker, the package that it requires is not installed, or it cannot be started.
    """
    entry = trackers[mode]
    require_package(entry)
    manager = entry.build(
        identity=identity,
        name=name,
        config=config,
        directory=directory,
        project=project,
        entity=entity,
        group=group,
        job_type=job_type,
        **({"tags": list(tags)} if tags else {}),
        **({"notes": notes} if notes else {}),
    )
    if not isinstance(manager, AbstractContextManager):
        raise InputError(f"tracker={mode}: its factory returned no context manager; decorate it with @contextmanager")
    try:
        inner = manager.__enter__()
        tracker = _Guarded(inner, mode)
    except InputError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"tracker={mode} cannot be started ({reason}); tracker=disabled runs without it") from error
    try:
        yield tracker
    except BaseException as error:
        tracker.close(manager, error)
        raise
    tracker.close(manager, None)
    if announce and not tracker.lost and (address := getattr(inner, "address", None)):
        say(f"tracker={mode}: {address}", sys.stderr)


def hyperparameters(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the options of a tracked configuration by their full names, for trackers whose parameters are plain values.

    Options without a value, and those that describe neither the model nor the measurements, are left out.

    Args:
        config: The configuration, a nested mapping.
        prefix: The start of all names.
    """
    for name, value in config.items():
        if not prefix and name in NOT_HYPERPARAMETERS:
            continue
        if isinstance(value, Mapping):
            yield from hyperparameters(value, f"{prefix}{name}.")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        elif value is not None:
            yield f"{prefix}{name}", value


@contextmanager
def disabled(**_: Any) -> Iterator[Tracker]:
    """Log nothing."""
    yield NoTracker()


register_tracker("disabled", disabled)
register_tracker("wandb", "regioncount.reporting.wandb_tracking:online", requires="wandb")
register_tracker("wandb_offline", "regioncount.reporting.wandb_tracking:offline", requires="wandb")
register_tracker(
    "tensorboard", "regioncount.reporting.tensorboard_tracking:run", requires="tensorboard", extra="tensorboard"
)
register_tracker("mlflow", "regioncount.reporting.mlflow_tracking:run", requires="mlflow", extra="mlflow")
