"""Tracking with W&B: the logs of offline runs are read back and compared with what was logged."""

import hashlib
import http.server
import json
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from wandb_log import history, read_runs

from regioncount import registry
from regioncount.errors import InputError
from regioncount.reporting import wandb_server, wandb_tracking
from regioncount.runs import trackers

CONFIG = {"model": {"name": "mlp", "width": None}, "batch_size": 64, "steps": [1, 2]}
ROOT = Path(trackers.__file__).parents[2]


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch, tmp_path):
    """Remove the developer's W&B account and settings from the environment."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        del os.environ[name]
    os.environ["NETRC"] = str(tmp_path / "no_netrc")
    monkeypatch.setattr(wandb_tracking, "_stay_offline", False)
    yield
    os.environ.clear()
    os.environ.update(before)


def identity_of(seed: int) -> str:
    return hashlib.sha256(str(seed).encode()).hexdigest()


def log_two_runs(worker: int, directory: Path, mode: str = "wandb_offline") -> None:
    for seed in (2 * worker, 2 * worker + 1):
        with trackers.start(
            mode,
            identity=identity_of(seed),
            name=f"run {seed}",
            config=CONFIG | {"seed": seed},
            directory=directory,
            group="a group",
        ) as track:
            for epoch in range(5):
                track.log({"train_loss": seed + epoch / 10, "test_accuracy": epoch / 5}, step=epoch)
            for epoch in (0, 2, 5):  # after training
                track.log_snapshot({"region_count_line": seed + epoch}, epoch)
            track.summarize({"region_count_line": seed + 0.5, "status": "finished"})


def check_runs(directory: Path, seeds: range) -> None:
    """Check that the logs contain everything that `log_two_runs` logged for these seeds."""
    runs = {run["id"]: run for run in read_runs(directory)}
    for seed in seeds:
        run = runs[identity_of(seed)[:32]]
        assert run["name"] == f"run {seed}"
        assert (run["group"], run["project"], run["job_type"]) == ("a group", "regioncount", "run")
        assert {key: run["config"][key] for key in (*CONFIG, "seed")} == CONFIG | {"seed": seed}
        expected = [(epoch, seed + epoch / 10, epoch / 5) for epoch in range(5)]
        assert history(run, "epoch", "train_loss", "test_accuracy") == expected
        assert history(run, "epoch", "region_count_line") == [(epoch, seed + epoch) for epoch in (0, 2, 5)]
        assert run["summary"]["region_count_line"] == seed + 0.5
        assert run["summary"]["status"] == "finished"
        assert run["exit_code"] == 0


def python(code: str, tmp_path: Path) -> subprocess.CompletedProcess:
    """Run code in a process with a new, empty home, working and temporary directory."""
    folders = {name: tmp_path / name for name in ("home", "working", "temporary")}
    for folder in folders.values():
        folder.mkdir()
    paths = os.pathsep.join(map(str, (ROOT, Path(__file__).parent, Path(__file__).parents[1])))
    environment = os.environ | {"HOME": str(folders["home"]), "TMPDIR": str(folders["temporary"]), "PYTHONPATH": paths}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folders["working"], env=environment, capture_output=True, text=True)


def files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if not path.is_dir()]


def start(directory: Path, mode: str = "wandb_offline", **options):
    return trackers.start(
        mode, **{"identity": identity_of(0), "name": "a run", "config": CONFIG, "directory": directory} | options
    )


def test_disabled_imports_no_wandb_and_writes_nothing(tmp_path):
    code = f"""
import sys
from regioncount.runs import trackers
with trackers.start("disabled", identity="ab", name="a run", config={{}}, directory={str(tmp_path / "results")!r}) as track:
    track.log({{"train_loss": 1.0}}, step=1)
    track.summarize({{"status": "finished"}})
    track.table("runs", None)
    track.figure("a figure", "missing.png")
    track.scatter("a scatter", None, "x", "y", "a title")
    track.chart("a chart", None)
print("wandb" in sys.modules)
"""
    done = python(code, tmp_path)
    assert (done.stdout, done.stderr) == ("False\n", "")
    assert files(tmp_path) == []
    assert not (tmp_path / "results").exists()


def test_offline_mode_prints_only_how_to_upload_and_writes_only_to_its_directory(tmp_path):
    results = tmp_path / "results"
    done = python(f"import pathlib, test_tracking as t; t.log_two_runs(0, pathlib.Path({str(results)!r}))", tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    directories = sorted(results.glob("wandb/offline-run-*"), key=os.path.getctime)
    expected = [f"tracker=wandb_offline: wandb sync {directory}" for directory in directories]
    assert sorted(done.stderr.splitlines()) == sorted(expected)
    assert len(expected) == 2
    assert [path for path in files(tmp_path) if not path.is_relative_to(results / "wandb")] == []
    check_runs(results, range(2))


@pytest.mark.parametrize("launcher", ["spawn", "loky"])
def test_runs_of_several_processes_are_complete(launcher, tmp_path):
    with start(tmp_path, identity=identity_of(99)) as track:  # the workers inherit the environment of a tracked parent
        track.log({"train_loss": 1.0}, step=1)
        if launcher == "spawn":
            context = multiprocessing.get_context("spawn")
            workers = [context.Process(target=log_two_runs, args=(worker, tmp_path)) for worker in range(3)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            assert [worker.exitcode for worker in workers] == [0, 0, 0]
        else:
            joblib = pytest.importorskip("joblib")
            joblib.Parallel(n_jobs=2)(joblib.delayed(log_two_runs)(worker, tmp_path) for worker in range(3))
    assert len(read_runs(tmp_path)) == 7
    check_runs(tmp_path, range(6))
    [parent] = [run for run in read_runs(tmp_path) if run["id"] == identity_of(99)[:32]]
    assert history(parent, "epoch", "train_loss") == [(1, 1.0)]


def test_scalars_of_every_type_are_logged(tmp_path):
    torch = pytest.importorskip("torch")
    with start(tmp_path) as track:
        track.log({"a": np.float32(0.5), "b": torch.tensor(2.5, dtype=torch.bfloat16), "c": np.int64(3), "d": True}, step=0)
        track.log({"a": float("nan"), "b": float("inf"), "c": -np.float64("inf"), "d": torch.tensor(float("nan"))}, step=1)
        track.summarize({"a": np.float32(0.25), "b": torch.tensor(4), "c": None, "d": "diverged"})
    [run] = read_runs(tmp_path)
    first, second = history(run, "a", "b", "c", "d")
    assert first == (0.5, 2.5, 3.0, 1.0)
    assert np.array_equal(np.array(second, dtype=float), [np.nan, np.inf, -np.inf, np.nan], equal_nan=True)
    assert {key: run["summary"][key] for key in "abcd"} == {"a": 0.25, "b": 4, "c": None, "d": "diverged"}


def test_tables_and_figures_are_logged(tmp_path):
    import pandas as pd
    import PIL.Image

    frame = pd.DataFrame({"model": [None, "vgg19"], "runs": [1, 2], "pearson": [np.nan, 0.9], "fitted": [True, False]})
    picture = tmp_path / "picture.png"
    PIL.Image.new("RGB", (4, 3), "red").save(picture)
    with start(tmp_path) as track:
        track.log({"train_loss": 1.0}, step=1)
        track.table("correlations", frame)
        track.figure("scatter", picture, "a caption")
        track.log({"train_loss": 0.5}, step=2)
    [table] = tmp_path.glob("wandb/offline-run-*/files/media/table/*.json")
    assert json.loads(table.read_text()) == {
        "columns": ["model", "runs", "pearson", "fitted"],
        "data": [[None, 1, None, True], ["vgg19", 2, 0.9, False]],
    }
    [image] = tmp_path.glob("wandb/offline-run-*/files/media/images/*.png")
    assert image.read_bytes() == picture.read_bytes()
    [run] = read_runs(tmp_path)
    assert history(run, "epoch", "train_loss") == [(1, 1.0), (2, 0.5)]
    [row] = [row for row in run["history"] if "scatter" in row]
    assert (row["scatter"]["width"], row["correlations"]["nrows"]) == (4, 2)
    assert row["scatter"]["caption"] == "a caption"


def test_charts_are_logged(tmp_path):
    import pandas as pd
    import plotly.graph_objects as go

    frame = pd.DataFrame({"run": ["a", "b"], "count": [2.5, 3.5], "gap": [0.1, np.nan]})
    with start(tmp_path) as track:
        track.scatter("count_against_gap", frame, "count", "gap", "a title")
        track.chart("heat_map", go.Figure(go.Heatmap(z=[[1.0, 2.0], [3.0, None]], x=["0.1", "0.01"], y=["64", "128"])))
    [run] = read_runs(tmp_path)
    chart = run["config"]["_wandb"]["visualize"]["count_against_gap"]["panel_config"]
    assert chart["panelDefId"] == "wandb/scatter/v0"
    assert chart["fieldSettings"] == {"x": "count", "y": "gap"}
    assert chart["stringSettings"]["title"] == "a title"
    [table] = tmp_path.glob("wandb/offline-run-*/files/media/table/*.json")
    assert json.loads(table.read_text()) == {"columns": ["run", "count", "gap"], "data": [["a", 2.5, 0.1], ["b", 3.5, None]]}
    [drawn] = tmp_path.glob("wandb/offline-run-*/files/media/plotly/*.json")
    [trace] = json.loads(drawn.read_text())["data"]
    assert (trace["type"], trace["z"], trace["x"]) == ("heatmap", [[1.0, 2.0], [3.0, None]], ["0.1", "0.01"])
    assert any("heat_map" in row and "count_against_gap_table" in row for row in run["history"])


def test_a_resumed_run_keeps_its_id(tmp_path):
    for epochs in (range(1, 4), range(3, 6)):  # resumed from the checkpoint of epoch 2: epoch 3 is repeated
        with start(tmp_path) as track:
            for epoch in epochs:
                track.log({"train_loss": 1 / epoch}, step=epoch)
    before, after = read_runs(tmp_path)
    assert before["id"] == after["id"] == identity_of(0)[:32]
    assert history(before, "epoch", "train_loss") == [(epoch, 1 / epoch) for epoch in (1, 2, 3)]
    assert history(after, "epoch", "train_loss") == [(epoch, 1 / epoch) for epoch in (3, 4, 5)]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_exception_propagates_and_marks_the_run_as_failed(error, tmp_path):
    def fail():
        with start(tmp_path) as track:
            track.log({"train_loss": 1.0}, step=1)
            raise error

    with pytest.raises(error):
        fail()
    [run] = read_runs(tmp_path)
    assert run["exit_code"] == 1
    assert history(run, "epoch", "train_loss") == [(1, 1.0)]


@contextmanager
def server(statuses: list[int]):
    """Start a server that answers with these HTTP statuses in turn, repeating the last; without any, it never answers."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    if not statuses:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        return
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


@pytest.mark.parametrize(
    ("statuses", "obstacle"),
    [
        pytest.param(None, "Connection refused", id="no server"),
        pytest.param([], "no answer|timed out", id="a server that never answers"),
        pytest.param([401], "HTTP status 401", id="a wrong key"),
        pytest.param([200, 401], "401", id="a server that fails only when the run starts"),
    ],
)
def test_an_unusable_server_switches_to_offline(statuses, obstacle, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(wandb_server, "ANSWER_TIMEOUT", 1)
    os.environ["WANDB_API_KEY"] = "0123456789" * 4
    with server(statuses) if statuses is not None else nullcontext("http://127.0.0.1:9") as url:
        os.environ["WANDB_BASE_URL"] = url
        log_two_runs(0, tmp_path, mode="wandb")
    output = capfd.readouterr()
    assert output.out == ""
    [line] = output.err.splitlines()  # a single line for both runs
    assert re.search(obstacle, line)
    assert f"logging offline under {tmp_path / 'wandb'}; upload later with `wandb sync " in line
    check_runs(tmp_path, range(2))


def test_a_missing_key_switches_to_offline(tmp_path, capfd):
    log_two_runs(0, tmp_path, mode="wandb")
    [line] = capfd.readouterr().err.splitlines()
    assert "no API key" in line
    check_runs(tmp_path, range(2))


def test_the_key_is_read_from_netrc(tmp_path):
    os.environ["NETRC"] = str(tmp_path / "netrc")
    (tmp_path / "netrc").write_text("machine example.org login user password secret")
    assert wandb_server.api_key(SimpleNamespace(api_key=None, base_url="https://example.org")) == "secret"
    assert wandb_server.api_key(SimpleNamespace(api_key=None, base_url="https://example.com")) is None


def test_an_exception_of_wandb_is_one_line(tmp_path, capfd):
    with start(tmp_path) as track:
        track.log({"train_loss": 1.0}, step=1)
        track.figure("scatter", tmp_path / "missing.png")
        track.log({"train_loss": 2.0}, step=2)
    assert len(capfd.readouterr().err.splitlines()) == 1
    [run] = read_runs(tmp_path)
    assert history(run, "epoch", "train_loss") == [(1, 1.0)]


def test_a_run_that_cannot_finish_does_not_affect_later_runs(tmp_path, monkeypatch, capfd):
    import wandb

    with monkeypatch.context() as patched, start(tmp_path, identity=identity_of(7)) as track:
        track.log({"train_loss": 1.0}, step=1)
        patched.setattr(wandb.sdk.wandb_run.Run, "finish", lambda *_, **__: (_ for _ in ()).throw(TimeoutError("too slow")))
    [line] = capfd.readouterr().err.splitlines()
    assert "too slow" in line
    log_two_runs(0, tmp_path)
    check_runs(tmp_path, range(2))


def test_an_unwritable_directory_is_one_line(tmp_path, capfd):
    (tmp_path / "file").write_text("")
    with start(tmp_path / "file") as track:
        track.log({"train_loss": 1.0}, step=1)
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_missing_wandb_and_unknown_mode_are_input_errors(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"pip install wandb.* tracker=disabled") as raised, start(tmp_path):
        pass
    assert "\n" not in str(raised.value)
    monkeypatch.undo()
    unknown = r"tracker\.mode=online: no such choice; choose one of disabled, wandb, wandb_offline, tensorboard, mlflow"
    with pytest.raises(InputError, match=unknown), start(tmp_path, mode="online"):
        pass


def test_a_registered_tracker_is_started_by_name(tmp_path, monkeypatch):
    """A subclass overrides what it supports; the other methods do nothing."""
    monkeypatch.setattr(registry.trackers, "_entries", dict(registry.trackers._entries))
    log = []

    class Printed(trackers.Tracker):
        def summarize(self, values):
            log.append(dict(values))

    @registry.register_tracker("printed")
    @contextmanager
    def printed(*, identity, name, config, directory, project, entity, group, job_type):
        log.append((identity, name, project, job_type))
        yield Printed()
        log.append("finished")

    with start(tmp_path, mode="printed") as tracker:
        tracker.log({"train_loss": 1.0}, step=1)
        tracker.table("runs", None)
        tracker.summarize({"status": "finished"})
        assert not tracker.lost
    assert log == [(identity_of(0), "a run", "regioncount", "run"), {"status": "finished"}, "finished"]


def test_a_tracker_whose_package_is_missing_is_an_input_error(tmp_path, monkeypatch):
    monkeypatch.setattr(registry.trackers, "_entries", dict(registry.trackers._entries))
    registry.register_tracker("other", trackers.disabled, requires="no_such_package")
    with pytest.raises(InputError, match="tracker=other needs no_such_package"), start(tmp_path, mode="other"):
        pass


@pytest.mark.parametrize("moment", ["log", "summarize", "table", "figure", "exit"])
def test_a_tracker_that_fails_does_not_end_the_run(tmp_path, monkeypatch, capsys, moment):
    monkeypatch.setattr(registry.trackers, "_entries", dict(registry.trackers._entries))
    calls = []

    class Failing(trackers.Tracker):
        def log(self, metrics, step):
            self._call("log")

        def summarize(self, values):
            self._call("summarize")

        def table(self, name, dataframe):
            self._call("table")

        def figure(self, name, path, caption):
            self._call("figure")

        def _call(self, name):
            calls.append(name)
            if name == moment:
                raise OSError("no\nserver")

    @registry.register_tracker("failing")
    @contextmanager
    def failing(**_):
        try:
            yield Failing()
        finally:
            calls.append("closed")
            if moment == "exit":
                raise OSError("no\nserver")

    with start(tmp_path, mode="failing") as tracker:
        tracker.log({}, step=1)
        tracker.summarize({})
        tracker.table("runs", None)
        tracker.figure("a", "a.png")
        assert tracker.lost == (moment != "exit")
    expected = ["log", "summarize", "table", "figure"][: {"log": 1, "summarize": 2, "table": 3}.get(moment, 4)]
    assert calls == [*expected, "closed"]
    assert capsys.readouterr().err == "tracker=failing failed (OSError: no server); results are not affected\n"


def test_a_tracker_that_lacks_a_method_does_not_end_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(registry.trackers, "_entries", dict(registry.trackers._entries))

    @registry.register_tracker("empty")
    @contextmanager
    def empty(**_):
        yield

    with start(tmp_path, mode="empty") as tracker:
        tracker.log({}, step=1)
        tracker.log_snapshot({}, 1)
        assert tracker.lost
    (line,) = capsys.readouterr().err.splitlines()
    assert "tracker=empty failed (AttributeError" in line


def test_a_tracker_that_cannot_be_started_is_an_input_error(tmp_path, monkeypatch):
    monkeypatch.setattr(registry.trackers, "_entries", dict(registry.trackers._entries))

    @registry.register_tracker("failing")
    @contextmanager
    def failing(**_):
        raise OSError("no server")
        yield

    message = r"tracker=failing cannot be started \(OSError: no server\); tracker=disabled"
    with pytest.raises(InputError, match=message), start(tmp_path, mode="failing"):
        pass


def test_an_interruption_reaches_the_tracker(tmp_path, monkeypatch):
    monkeypatch.setattr(registry.trackers, "_entries", dict(registry.trackers._entries))
    seen = []

    @registry.register_tracker("watching")
    @contextmanager
    def watching(**_):
        try:
            yield trackers.Tracker()
        except BaseException as error:
            seen.append(type(error))
            raise

    for kind in (KeyboardInterrupt, ValueError):
        with pytest.raises(kind), start(tmp_path, mode="watching"):
            raise kind
    assert seen == [KeyboardInterrupt, ValueError]
