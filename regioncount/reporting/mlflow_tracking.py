"""Log runs to MLflow: to the server in MLFLOW_TRACKING_URI or, if none is configured, to a database in the results.

A failure of MLflow does not affect a run: a reason is printed as one line, and the run continues untracked.
"""

import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from regioncount.errors import one_line, say
from regioncount.runs.trackers import NoTracker, Tracker, hyperparameters
from regioncount.spreadsheet import to_csv

if TYPE_CHECKING:
    import pandas as pd

# MLflow waits for minutes by default if a server does not answer.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
BATCH = 100  # the most parameters that MLflow accepts at a time
MAX_VALUE = 6000  # the characters of a parameter that MLflow stores; `_find` compares them


class MLflowTracker(Tracker):
    """One run in MLflow.

    Args:
        client: MLflow's client.
        run: The run of MLflow.
        address: Where to see it.
        is_new: Whether nothing has been logged to it yet.
    """

    draws_charts = False  # the pictures are logged

    def __init__(self, client: Any, run: Any, address: str, is_new: bool) -> None:
        self._client, self._id, self._is_new = client, run.info.run_id, is_new
        self.address = address
        self._known: dict[str, dict[int, float]] = {}
        """The values of each metric by step, as far as they have been logged."""

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Log the metrics of an epoch. A value that a continued run has already is not repeated."""
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        now, new = int(time.time() * 1000), []
        for name, value in metrics.items():
            number, key = float(value), _valid_key(name)
            known = self._known_values(key)
            if number == number and known.get(step) != number:
                known[step] = number
                new.append(Metric(key, number, now, step))
        if new:
            self._client.log_batch(self._id, metrics=new)

    def log_snapshot(self, values: Mapping[str, Any], epoch: int) -> None:
        """Log what was measured at an epoch."""
        self.log(values, epoch)

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Log the final numbers as metrics at the last epoch, and texts as tags."""
        texts = {name: value for name, value in values.items() if isinstance(value, str)}
        self.log(
            {name: v for name, v in values.items() if v is not None and name not in texts}, values.get("epochs_trained", 0)
        )
        for name, text in texts.items():
            self._client.set_tag(self._id, _valid_key(name), text)

    def table(self, name: str, dataframe: "pd.DataFrame") -> None:
        """Log a table as a CSV file."""
        self._client.log_text(self._id, to_csv(dataframe), f"tables/{name}.csv")

    def figure(self, name: str, path: Path | str, caption: str = "") -> None:
        """Log a PNG file."""
        self._client.log_artifact(self._id, str(path), "figures")

    def close(self, status: str) -> None:
        """End the run with one of MLflow's statuses."""
        self._client.set_terminated(self._id, status)

    def _known_values(self, key: str) -> dict[int, float]:
        if key not in self._known:
            stored = [] if self._is_new else self._client.get_metric_history(self._id, key)
            self._known[key] = {metric.step: metric.value for metric in sorted(stored, key=lambda metric: metric.timestamp)}
        return self._known[key]


@contextmanager
def run(
    *,
    identity: str,
    name: str,
    config: Mapping[str, Any],
    directory: Path | str,
    project: str,
    group: str | None = None,
    job_type: str = "run",
    tags: Sequence[str] = (),
    notes: str | None = None,
    **_: Any,
) -> Iterator[Tracker]:
    """Track a run in MLflow. A run of the same identity, group and options is continued.

    Args:
        identity: The run's identity.
        name: The run's name.
        config: The configuration. Its options become parameters.
        directory: The results directory, which contains the database if no server is configured.
        project: The experiment.
        group: The sweep that the run belongs to.
        job_type: "run" or "sweep".
        tags: Tags, logged as one.
        notes: The description.

    Yields:
        The tracker.

    Raises:
        KeyboardInterrupt: It was raised inside the block; the run is marked as killed.
    """
    parameters = {_valid_key(option): str(value)[:MAX_VALUE] for option, value in hyperparameters(config)}
    labels = {
        "identity": identity,
        "group": group,
        "job_type": job_type,
        "hardware": config.get("hardware"),
        "tags": ", ".join(tags) or None,
        "mlflow.note.content": notes,
        "mlflow.source.name": "regioncount",
        "mlflow.source.git.commit": config.get("commit"),
    }
    known_labels = {key: str(label) for key, label in labels.items() if label is not None}
    tracker = _open(name, parameters, known_labels, Path(directory).absolute() / "mlflow", project)
    status = "FAILED"
    try:
        yield tracker or NoTracker()
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        if tracker is not None:
            tracker.close(status)


def _open(
    name: str, parameters: dict[str, str], labels: dict[str, str], directory: Path, project: str
) -> MLflowTracker | None:
    """Create or continue a run of MLflow; return None, and print a line, if that fails."""
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    try:
        import mlflow  # pyright: ignore[reportMissingImports]
        from mlflow.entities import Param, RunTag  # pyright: ignore[reportMissingImports]
        from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]

        is_local = not mlflow.is_tracking_uri_set()
        if not is_local:
            client = MlflowClient()
            experiment = _experiment(client, project, None)
            uri = mlflow.get_tracking_uri()
        else:
            directory.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{directory / 'mlflow.db'}"
            logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
            with FileLock(directory / ".lock"):  # of processes that create the database at once, some would fail
                client = MlflowClient(uri)
                experiment = _experiment(client, project, str(directory / "artifacts"))
        existing = _find(client, experiment, parameters, labels)
        run = existing or client.create_run(experiment, run_name=name, tags={"identity": labels["identity"]})
        run_id = run.info.run_id
        entries = [Param(key, value) for key, value in parameters.items()] if existing is None else []
        for first in range(0, len(entries), BATCH):
            client.log_batch(run_id, params=entries[first : first + BATCH])
        # The labels by which `_find` recognizes a run are complete only after its parameters.
        client.log_batch(run_id, tags=[RunTag(key, label) for key, label in labels.items()])
        client.update_run(run_id, status="RUNNING", name=name)
        is_web = re.match("https?://", uri) is not None
        address = f"{uri.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}" if is_web else uri
        if is_local:
            address = f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
        return MLflowTracker(client, run, address, existing is None)
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}")[:300]
        say(f"tracker=mlflow did not start; the run continues untracked ({reason})", sys.stderr)
        return None


def _experiment(client: Any, name: str, artifacts: str | None) -> str:
    """Return the id of the experiment of this name, which is created if there is none."""
    from mlflow.exceptions import MlflowException  # pyright: ignore[reportMissingImports]

    if (experiment := client.get_experiment_by_name(name)) is None:
        try:
            return client.create_experiment(name, artifact_location=artifacts)
        except MlflowException:  # another process has created it meanwhile
            if (experiment := client.get_experiment_by_name(name)) is None:
                raise
    return experiment.experiment_id


def _find(client: Any, experiment: str, parameters: dict[str, str], labels: dict[str, str]) -> Any:
    """Return the last run with these parameters, identity and group, or None. MLflow does not change parameters of a run."""
    for run in client.search_runs([experiment], f"tags.identity = '{labels['identity']}'"):
        same_group = run.data.tags.get("group") == labels.get("group") and "job_type" in run.data.tags
        if same_group and run.data.params == parameters:
            return run
    return None


def _valid_key(name: str) -> str:
    """Return a name with the characters that MLflow does not accept replaced."""
    return re.sub(r"[^\w\-./: ]", "_", name)[:250]
