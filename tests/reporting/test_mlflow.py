"""MLflow as a tracker: runs are read back from the local database."""

import socket

import pytest

from regioncount.runs import trackers

mlflow = pytest.importorskip("mlflow")

CONFIG = {"model": {"name": "mlp", "width": 8}, "measures": ["accuracy"], "commit": "c0ffee", "hardware": "a device"}


@pytest.fixture(autouse=True)
def _no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow.set_tracking_uri(None)


def start(directory, config=CONFIG, **options):
    options = {"mode": "mlflow", "identity": "ab" * 8, "name": "a run", "project": "a project"} | options
    return trackers.start(directory=directory, config=config, **options)


def read(directory):
    """Return the client, and the runs of the project, oldest first."""
    client = mlflow.tracking.MlflowClient(f"sqlite:///{directory}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("a project")
    return client, sorted(client.search_runs([experiment.experiment_id]), key=lambda run: run.info.start_time)


def steps(client, run, name):
    return sorted((metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name))


def test_a_run_with_empty_and_very_long_parameters_is_continued(tmp_path):
    config = {"measures": [], "dataset": {"output_classes": [f"class {number}" for number in range(1000)]}}
    for _ in range(2):
        with start(tmp_path, config) as track:
            assert not track.lost
    _, runs = read(tmp_path)
    assert len(runs) == 1


def test_parameters_metrics_by_epoch_tags_and_artifacts(tmp_path, capsys):
    import pandas as pd

    with start(tmp_path, group="a sweep", tags=["a", "b"], notes="a note") as track:
        for epoch in (1, 2):
            track.log({"running_loss": 1 / epoch, "undefined": float("nan")}, step=epoch)
        for epoch in (0, 2):
            track.log_snapshot({"test_accuracy": epoch / 4}, epoch)
        track.table("runs", pd.DataFrame({"seed": [0, 1]}))
        (tmp_path / "picture.png").write_bytes(b"PNG")
        track.figure("picture", tmp_path / "picture.png")
        final = {"status": "finished", "epochs_trained": 2, "test_accuracy": 0.5, "fitted": True, "vgg (a)/kendall": 0.5}
        track.summarize(final)
        assert not track.lost
    client, [run] = read(tmp_path)
    assert (run.info.run_name, run.info.status) == ("a run", "FINISHED")
    assert run.data.params == {"model.name": "mlp", "model.width": "8", "measures": "accuracy"}
    expected = {"identity": "ab" * 8, "group": "a sweep", "tags": "a, b", "mlflow.note.content": "a note"}
    expected |= {"hardware": "a device", "mlflow.source.git.commit": "c0ffee", "status": "finished", "job_type": "run"}
    assert expected.items() <= run.data.tags.items()
    assert steps(client, run, "running_loss") == [(1, 1.0), (2, 0.5)]
    assert steps(client, run, "test_accuracy") == [(0, 0.0), (2, 0.5)]
    assert (run.data.metrics["fitted"], run.data.metrics["vgg _a_/kendall"]) == (1.0, 0.5)
    found = {file.path for folder in ("tables", "figures") for file in client.list_artifacts(run.info.run_id, folder)}
    assert found == {"tables/runs.csv", "figures/picture.png"}
    assert (
        capsys.readouterr().err == f"tracker=mlflow: mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow/mlflow.db\n"
    )


def test_a_run_is_continued_unless_its_parameters_or_group_differ(tmp_path):
    def log(epochs, **options):
        with start(tmp_path, **options) as track:
            for epoch in epochs:
                track.log({"running_loss": 1 / epoch}, step=epoch)

    log((1, 2))
    log((2, 3))  # epoch 2 is not repeated
    client, [run] = read(tmp_path)
    assert steps(client, run, "running_loss") == [(epoch, 1 / epoch) for epoch in (1, 2, 3)]
    log((1,), config=CONFIG | {"measures": ["accuracy", "sharpness"]})
    log((1,), group="a sweep")
    log((1,), identity="cd" * 8)
    assert len(read(tmp_path)[1]) == 4
    log((4,))
    assert len(read(tmp_path)[1]) == 4


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_exception_marks_the_run(tmp_path, error):
    with pytest.raises(error), start(tmp_path):
        raise error
    [run] = read(tmp_path)[1]
    assert run.info.status == {ZeroDivisionError: "FAILED", KeyboardInterrupt: "KILLED"}[error]


def test_a_server_that_cannot_be_reached_does_not_end_the_run(tmp_path, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with start(tmp_path) as track:
        track.log({"running_loss": 1.0}, step=1)
        assert track.lost
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("tracker=mlflow did not start; the run continues untracked (")
