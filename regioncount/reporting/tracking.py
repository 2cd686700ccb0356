"""Runs in Weights & Biases, online or offline; the only module that knows of it, and it needs it only when asked to.

Nothing that W&B does or cannot do reaches a run: what it raises becomes one line on standard error, and the run goes on.
"""

import base64
import netrc
import os
import queue
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from regioncount.errors import InputError

MODES = ("disabled", "wandb", "wandb_offline")
ANSWER_TIMEOUT = 3  # seconds

# Those that an older version of W&B does not have are left out.
SETTINGS = {
    "silent": True,
    "quiet": True,
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "symlink": False,  # of the latest run: several processes share the directory
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
    "init_timeout": 30.0,  # seconds
    "finish_timeout": 60.0,
    "finish_timeout_raises": True,
}

# Once W&B could not be reached, later runs of this process do not wait for it again.
_given_up = False


class Tracker:
    """One run in W&B; without a run (disabled, or after W&B failed) its functions do nothing."""

    def __init__(self, run=None):
        self._run = run

    @property
    def lost(self) -> bool:
        """Whether nothing is tracked: it was not asked for, or W&B failed."""
        return self._run is None

    def log(self, metrics: dict[str, float], step: int) -> None:
        """An epoch's metrics, all in one call: numbers, or arrays or tensors of one; steps only go up within a `start`."""

        def log(run):
            # Committed at once: W&B would else write the last row after the summary, and over it.
            run.log({"epoch": step} | {name: float(value) for name, value in metrics.items()}, step=step, commit=True)

        self._attempt(log)

    def summarize(self, values: dict) -> None:
        """Final values, into the run's summary."""
        self._attempt(lambda run: run.summary.update({name: _plain(value) for name, value in values.items()}))

    def table(self, name: str, dataframe) -> None:
        """A pandas DataFrame, as a table; what is missing in it is null."""
        self._attempt(lambda run: run.log({name: _as_table(dataframe)}, commit=False))

    def scatter(self, name: str, dataframe, x: str, y: str, title: str) -> None:
        """One column of a pandas DataFrame against another, as W&B's own scatter plot; the other columns go with it."""

        def log(run):
            import wandb

            run.log({name: wandb.plot.scatter(_as_table(dataframe), x, y, title)}, commit=False)

        self._attempt(log)

    def chart(self, name: str, figure) -> None:
        """A plotly Figure, as an interactive chart."""

        def log(run):
            import wandb

            run.log({name: wandb.Plotly(figure)}, commit=False)

        self._attempt(log)

    def figure(self, name: str, path: Path | str) -> None:
        """A PNG file, as an image."""

        def log(run):
            import wandb

            run.log({name: wandb.Image(str(path))}, commit=False)

        self._attempt(log)

    def _attempt(self, action: Callable) -> None:
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:
            self._run = None
            _say(f"W&B failed, so this run goes on without it: {_one_line(error)}")


def check(mode: str) -> None:
    """InputError for an unknown mode, or where wandb is asked for and is not installed."""
    if mode not in MODES:
        raise InputError(f"tracker mode {mode!r} is unknown: use one of {', '.join(MODES)}")
    # A mere directory called wandb, such as one that W&B itself has written, can be found too; it has no origin.
    if mode != "disabled" and getattr(find_spec("wandb"), "origin", None) is None:
        raise InputError("the tracker needs wandb: install it with `pip install wandb`, or use tracker=disabled")


@contextmanager
def start(
    mode: str,
    *,
    identity: str,
    name: str,
    config: dict,
    directory: Path | str,
    project: str = "regioncount",
    entity: str | None = None,
    group: str | None = None,
    job_type: str = "run",
) -> Iterator[Tracker]:
    """Track what happens inside the block as one run in W&B; an exception that leaves the block marks it failed.

    mode: "disabled", "wandb" (offline, with a line that says so, where the server cannot be reached) or "wandb_offline".
    identity: a hexadecimal string; the same identity goes on in the same W&B run. Offline, each start writes a directory of
    its own, and `wandb sync` joins them.
    config: a nested dictionary of plain values. directory: W&B writes in directory/wandb and nowhere else.
    Raises InputError for an unknown mode, or where wandb is asked for and cannot be imported.
    """
    check(mode)
    run = None
    if mode != "disabled":
        about = {"id": identity[:32], "name": name, "config": config, "project": project, "entity": entity}
        about |= {"group": group, "job_type": job_type}
        run = _open(mode == "wandb", about, Path(directory).absolute())
    exit_code = 1
    try:
        yield Tracker(run)
        exit_code = 0
    finally:
        if run is not None:
            _finish(run, exit_code)


def _open(online: bool, about: dict, directory: Path):
    """The opened W&B run, or None where even an offline one fails."""
    global _given_up
    _prepare_environment(directory)
    import wandb

    try:
        directory.mkdir(parents=True, exist_ok=True)
        known = wandb.Settings()
        settings = wandb.Settings(**{name: value for name, value in SETTINGS.items() if hasattr(known, name)})
        server = wandb.setup(settings=settings).settings
        if online and not _given_up:
            obstacle = _obstacle(server)
            if obstacle is None:
                try:
                    return _init("online", about, directory, settings)
                except Exception as error:
                    obstacle = _one_line(error)
                    _stop_service()  # it holds the run's id
            _given_up = True
            where = directory / "wandb"
            _say(
                f"W&B cannot be reached ({obstacle}): logging offline under {where}; "
                f"upload later with `wandb sync {where / 'offline-run-*'}`"
            )
        return _init("offline", about, directory, settings)
    except Exception as error:
        _say(f"W&B did not start, so this run goes on without it: {_one_line(error)}")
        return None


def _init(mode: str, about: dict, directory: Path, settings):
    import wandb

    run = wandb.init(
        mode=mode,
        dir=str(directory),
        resume="allow",
        reinit=True,  # finish a run that is still open, rather than write into it
        allow_val_change=True,
        settings=settings,
        **about,
    )
    # The epoch is the axis: a resumed history joins the one before, whatever W&B counts as steps.
    run.define_metric("epoch")
    run.define_metric("*", step_metric="epoch")
    return run


def _finish(run, exit_code: int) -> None:
    global _given_up
    directory = Path(run.dir).parent
    try:
        run.finish(exit_code=exit_code)
    except Exception as error:
        _given_up = True
        _say(f"W&B did not finish: {_one_line(error)}; upload later with `wandb sync {directory}`")
    # `finish` returns before the log is whole on disk, and a worker process may be killed right after it.
    _stop_service()


def _stop_service() -> None:
    """End W&B's background process, once it has written everything; the next run starts another."""
    with suppress(Exception, SystemExit):
        import wandb

        wandb.teardown()


def _prepare_environment(directory: Path) -> None:
    """What W&B takes from the environment alone, from its import on; what the user has set stays."""
    os.environ.setdefault("WANDB_CACHE_DIR", str(directory / "wandb" / "cache"))
    os.environ.setdefault("WANDB_DATA_DIR", str(directory / "wandb" / "data"))
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    # A worker process that inherits its parent's background service would lose its runs when the parent ends.
    if f"-{os.getpid()}-" not in os.environ.get("WANDB_SERVICE", ""):
        os.environ.pop("WANDB_SERVICE", None)


def _obstacle(server) -> str | None:
    """What keeps W&B's server from being used, or None: an empty query, answered in time, tells."""
    key = _api_key(server)
    if not key and not server.identity_token_file:
        return "no API key is configured"
    query = Request(f"{server.base_url}/graphql", b'{"query": "{ viewer { id } }"}', {"Content-Type": "application/json"})
    if key:
        query.add_unredirected_header("Authorization", "Basic " + base64.b64encode(f"api:{key}".encode()).decode())
    answers = queue.SimpleQueue()

    def ask():
        try:
            urlopen(query, timeout=ANSWER_TIMEOUT).close()
            answers.put(None)
        except HTTPError as error:
            answers.put(f"HTTP status {error.code}" if error.code in (401, 403) or error.code >= 500 else None)
        except Exception as error:
            # W&B may know other certificates than Python does: let it try.
            is_certificate = isinstance(getattr(error, "reason", None), ssl.SSLError)
            answers.put(None if is_certificate else _one_line(error))

    # In a thread, because looking up a name has no timeout of its own.
    threading.Thread(target=ask, daemon=True).start()
    try:
        return answers.get(timeout=ANSWER_TIMEOUT)
    except queue.Empty:
        return f"no answer within {ANSWER_TIMEOUT} seconds"


def _api_key(server) -> str | None:
    if server.api_key:
        return server.api_key
    for file in [os.environ["NETRC"]] if "NETRC" in os.environ else ["~/.netrc", "~/_netrc"]:
        with suppress(OSError, netrc.NetrcParseError):
            if entry := netrc.netrc(os.path.expanduser(file)).authenticators(urlsplit(server.base_url).netloc):
                return entry[2]
    return None


def _as_table(dataframe):
    import wandb

    # W&B fixes a column's type by its first values; a missing one among strings or numbers must not break it.
    frame = dataframe.astype(object).where(dataframe.notna(), None)
    return wandb.Table(columns=[str(column) for column in frame], data=frame.values.tolist())


def _plain(value):
    """NumPy's and torch's scalars as Python's."""
    return value.item() if hasattr(value, "item") else value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _register() -> None:
    from functools import partial

    from regioncount.registry import register_tracker

    register_tracker("disabled", partial(start, "disabled"))
    register_tracker("wandb", partial(start, "wandb"), requires="wandb")
    register_tracker("wandb_offline", partial(start, "wandb_offline"), requires="wandb")


_register()
