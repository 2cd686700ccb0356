"""Log runs to Weights & Biases, online or offline. No other module imports W&B.

Failures of W&B do not affect a run: a reason is printed as one line on standard error, and the run continues untracked.
"""

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from regioncount.errors import one_line, say
from regioncount.reporting.wandb_server import find_obstacle
from regioncount.runs.trackers import NoTracker, Tracker

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

# Settings that older versions of W&B lack are skipped.
SETTINGS = {
    "silent": True,
    "quiet": True,
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "symlink": False,  # no link to the latest run, because several processes share the directory
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
    "init_timeout": 30.0,  # seconds
    "finish_timeout": 60.0,
    "finish_timeout_raises": True,
}

# True once the server could not be reached: later runs of this process do not wait for it.
_stay_offline = False


class WandbTracker(Tracker):
    """One run in W&B.

    Args:
        run: The run of W&B.
        address: Its URL, or the command that uploads it.
    """

    def __init__(self, run: Any, address: str | None) -> None:
        self._run = run
        self.address = address

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Log the metrics of an epoch in one call; steps must ascend within a run."""
        # Without `commit`, W&B would write the last row after the summary, and overwrite the summary.
        self._run.log({"epoch": step} | {name: float(value) for name, value in metrics.items()}, step=step, commit=True)

    def log_snapshot(self, values: Mapping[str, Any], epoch: int) -> None:
        """Log a row of the history at an epoch, W&B's axis; W&B's own step counts on."""
        self._run.log({"epoch": epoch} | {name: _plain(value) for name, value in values.items()}, commit=True)

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Write the final values into the run's summary."""
        self._run.summary.update({name: _plain(value) for name, value in values.items()})

    def table(self, name: str, dataframe: "pd.DataFrame") -> None:
        """Log a table; missing values become null."""
        self._run.log({name: _as_table(dataframe)}, commit=False)

    def scatter(self, name: str, dataframe: "pd.DataFrame", x: str, y: str, title: str) -> None:
        """Log a scatter plot of W&B's own kind."""
        import wandb

        self._run.log({name: wandb.plot.scatter(_as_table(dataframe), x, y, title)}, commit=False)

    def chart(self, name: str, figure: "go.Figure") -> None:
        """Log a plotly figure as an interactive chart."""
        import wandb

        self._run.log({name: wandb.Plotly(figure)}, commit=False)

    def figure(self, name: str, path: Path | str, caption: str = "") -> None:
        """Log a PNG file as an image with a caption."""
        import wandb

        self._run.log({name: wandb.Image(str(path), caption=caption)}, commit=False)


@contextmanager
def online(**options: Any) -> Iterator[Tracker]:
    """Track a run on W&B's server. If it cannot be reached, print a line and track the run offline.

    Args:
        **options: The options of `trackers.start`. W&B writes only to directory/wandb.

    Yields:
        The tracker.
    """
    with _track(True, **options) as tracker:
        yield tracker


@contextmanager
def offline(**options: Any) -> Iterator[Tracker]:
    """Track a run in files that `wandb sync` uploads. Each start writes a directory; syncing merges those of one run.

    Args:
        **options: The options of `trackers.start`. W&B writes only to directory/wandb.

    Yields:
        The tracker.
    """
    with _track(False, **options) as tracker:
        yield tracker


@contextmanager
def _track(on_server: bool, *, identity: str, directory: Path | str, **options: Any) -> Iterator[Tracker]:
    directory = Path(directory).absolute()
    run = _open(on_server, {"id": identity[:32], "job_type": "run", **options}, directory)
    if run is None:
        yield NoTracker()
        return
    tracker, exit_code = WandbTracker(run, _address(run, on_server, directory)), 1
    try:
        yield tracker
        exit_code = 0
    finally:
        if not _finish(run, exit_code):
            tracker.address = None  # `_finish` has printed how to upload the run


def _open(on_server: bool, options: dict[str, Any], directory: Path) -> Any:
    """Start a run of W&B and return it; return None if not even an offline run can be started."""
    global _stay_offline
    _prepare_environment(directory)
    import wandb

    try:
        directory.mkdir(parents=True, exist_ok=True)
        defaults = wandb.Settings()
        settings = wandb.Settings(**{name: value for name, value in SETTINGS.items() if hasattr(defaults, name)})
        complete_settings = wandb.setup(settings=settings).settings
        if on_server and not _stay_offline:
            obstacle = find_obstacle(complete_settings)
            if obstacle is None:
                try:
                    return _init("online", options, directory, settings)
                except Exception as error:
                    obstacle = _reason(error)
                    _stop_service()  # it has reserved the run's id
            _stay_offline = True
            folder = directory / "wandb"
            upload = f"upload later with `wandb sync {shlex.quote(str(folder))}/offline-run-*`"
            _report(f"W&B cannot be reached ({obstacle}): logging offline under {folder}; {upload}")
        return _init("offline", options, directory, settings)
    except Exception as error:
        _report(f"W&B did not start; the run continues untracked: {_reason(error)}")
        return None


def _address(run: Any, on_server: bool, directory: Path) -> str | None:
    if on_server:
        return None if run.offline else run.url  # offline although on_server: `_open` has printed how to upload it
    if run.job_type == "sweep":
        return f"wandb sync {shlex.quote(str(directory / 'wandb'))}/offline-run-*"
    return f"wandb sync {shlex.quote(str(Path(run.dir).parent))}"


def _init(mode: Literal["online", "offline"], options: dict[str, Any], directory: Path, settings: Any) -> Any:
    import wandb

    run = wandb.init(
        mode=mode,
        dir=str(directory),
        resume="allow",
        reinit=True,  # finish a run that is still open instead of writing into it
        allow_val_change=True,
        settings=settings,
        **options,
    )
    # With the epoch as the axis, a resumed history continues the earlier one, whatever W&B's own step counter is.
    run.define_metric("epoch")
    run.define_metric("*", step_metric="epoch")
    return run


def _finish(run: Any, exit_code: int) -> bool:
    """End a run of W&B; return False, and print how to upload it, if that fails."""
    global _stay_offline
    directory, has_finished = Path(run.dir).parent, True
    try:
        run.finish(exit_code=exit_code)
    except Exception as error:
        _stay_offline, has_finished = True, False
        _report(f"W&B did not finish: {_reason(error)}; upload later with `wandb sync {shlex.quote(str(directory))}`")
    # `finish` returns before the log is complete on disk, and a worker process may be killed right after it.
    _stop_service()
    return has_finished


def _stop_service() -> None:
    """End W&B's background process after it has written everything; the next run starts a new one."""
    with suppress(Exception, SystemExit):
        import wandb

        wandb.teardown()


def _prepare_environment(directory: Path) -> None:
    """Set the environment variables that W&B reads when it is imported, unless the user has set them."""
    os.environ.setdefault("WANDB_CACHE_DIR", str(directory / "wandb" / "cache"))
    os.environ.setdefault("WANDB_DATA_DIR", str(directory / "wandb" / "data"))
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    # A worker process that inherits its parent's background service would lose its runs when the parent ends.
    if f"-{os.getpid()}-" not in os.environ.get("WANDB_SERVICE", ""):
        os.environ.pop("WANDB_SERVICE", None)


def _as_table(dataframe: "pd.DataFrame") -> Any:
    import wandb

    # W&B infers a column's type from its first values: missing values among strings or numbers must be None.
    frame = dataframe.astype(object).where(dataframe.notna(), None)
    rows: list[Any] = frame.values.tolist()
    return wandb.Table(columns=[str(column) for column in frame], data=rows)


def _plain(value: Any) -> Any:
    """Convert a scalar of NumPy or torch to a Python number."""
    return value.item() if hasattr(value, "item") else value


def _reason(error: Exception) -> str:
    return one_line(error) or type(error).__name__


def _report(line: str) -> None:
    say(line, sys.stderr)
