"""What trackers get of a trained run, W&B's agent, and sweepers that minimize the test error."""

import math
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from wandb_log import history, read_runs

import regioncount as rc
from regioncount import analysis
from regioncount.columns import check_measure_name
from regioncount.composition import compose, hydra_ready
from regioncount.config import parse_run
from regioncount.errors import InputError
from regioncount.runs import runner, tracking
from regioncount.sweeps import cell

DOCS = Path(__file__).parents[2] / "docs" / "tracking.md"
TINY = [
    *("model=mlp", "model.width=8", "model.depth=1", "dataset.train_size=60", "dataset.test_size=100", "epochs=3"),
    *("regions.line.number=5", "regions.line.resolution=10", "precision=float32", "device=cpu"),
]


@pytest.fixture(autouse=True)
def _no_wandb_account(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))


def train(results, *options, tracker="wandb_offline"):
    return rc.train([*TINY, f"results={results}", f"tracker={tracker}", *options])


def documented_keys(where):
    """Return the keys in the rows of the table of W&B's keys for "config", "history" or "summary"."""
    rows = re.findall(r"^\| ([a-z, ]+) \| (.*?) \| .*\|$", DOCS.read_text().partition("## Weights & Biases")[2], flags=re.M)
    return {key for places, keys in rows if where in places.split(", ") for key in re.findall(r"`(\w+)`", keys)}


def own_keys(mapping):
    return {key for key in mapping if not key.startswith("_")}


def test_the_documented_table_has_exactly_the_keys_of_a_log(tmp_path):
    """The run is stopped after its first epoch by its stop rule, and its batches grow, so that every key is there."""
    growing = ["schedule=growing_batch", "schedule.step_size=1", "schedule.gamma=0.5", "batch_size=16"]
    options = [*growing, "stop.train_accuracy=0.01", "snapshots.every=1"]
    train(tmp_path, *options)
    [run] = read_runs(tmp_path)
    assert own_keys(run["config"]) == documented_keys("config")
    logged = {key for row in run["history"] for key in own_keys(row)}
    assert logged == documented_keys("history")
    assert own_keys(run["summary"]) == documented_keys("summary") | logged  # W&B adds the last values of the history


def test_a_log_has_the_values_of_the_run(tmp_path):
    """The hyperparameter, the schedule, the running loss and the measured loss have names of their own."""
    done = train(tmp_path, "snapshots.every=1", "tracker.tags=[a,b c]", "tracker.notes='a note'")
    [run] = read_runs(tmp_path)
    assert run["name"] == "digits-mlp learning_rate=0.1 batch_size=64 seed=0"
    assert (run["tags"], run["notes"]) == (["a", "b c"], "a note")
    assert run["config"]["learning_rate"] == run["config"]["optimizer"]["learning_rate"] == 0.1
    recorded = {"identity": done.identity, "commit": done.record["environment"]["commit"]}
    recorded |= {"hardware": done.record["environment"]["device"], "training_precision": "float32"}
    assert {key: run["config"][key] for key in recorded} == recorded
    written = done.history()
    expected = list(written[["epoch", "learning_rate", "train_loss"]].itertuples(index=False, name=None))
    assert history(run, "epoch", "scheduled_learning_rate", "running_loss") == expected
    assert [epoch for epoch, _, _ in history(run, "epoch", "region_count_line", "test_accuracy")] == [0, 1, 2, 3]
    for name in ("train_loss", "test_accuracy", "region_count_line", "status"):
        assert run["summary"][name] == done.values[name]
        assert run["summary"]["seconds"] == done.values["seconds"]
    assert run["summary"]["train_loss"] != run["summary"]["running_loss"]
    assert run["summary"]["scheduled_learning_rate"] < 0.1
    for mark in ("fitted", "degenerate"):
        assert run["summary"][mark] is bool(done.values[mark])


def test_accuracies_of_the_stop_rule_do_not_hide_those_of_other_epochs(tmp_path):
    """The history has train_accuracy at the epochs in which the stop rule evaluated it, and snapshots at all others."""
    train(tmp_path, "snapshots.every=1", "stop.train_accuracy=0.01")
    [run] = read_runs(tmp_path)
    assert sorted(epoch for epoch, _ in history(run, "epoch", "train_accuracy")) == [0, 1]


@pytest.mark.parametrize(
    ("values", "fitted", "degenerate"),
    [
        ({"train_accuracy": 0.995, "test_accuracy": 0.9, "region_share_one_line": 0.1}, True, False),
        ({"train_accuracy": 0.98, "test_accuracy": 0.9, "region_share_one_line": 0.6}, False, True),
        ({"train_accuracy": 1.0, "test_accuracy": 0.15}, True, True),
    ],
)
def test_marks_are_those_of_tables(monkeypatch, values, fitted, degenerate):
    logged = {}
    tracker = SimpleNamespace(summarize=logged.update)
    prepared = SimpleNamespace(config=None, dataset=SimpleNamespace(classes=tuple("abcdefghij")))
    monkeypatch.setattr(tracking, "measured_values", lambda *_: values)
    tracking.log_summary(tracker, prepared, SimpleNamespace(status="finished", summary={}))  # pyright: ignore[reportArgumentType]
    assert (logged["fitted"], logged["degenerate"]) == (fitted, degenerate)
    table = analysis.mark(pd.DataFrame([values | {"num_classes": 10}]))
    assert (bool(table["fitted"][0]), bool(table["degenerate"][0])) == (fitted, degenerate)


@pytest.mark.parametrize(
    ("varied", "name"),
    [
        (None, "digits-mlp learning_rate=0.1 batch_size=64 seed=4"),
        ({"width": "8", "seed": "4"}, "width=8 seed=4"),
        ({"model": "mlp", "learning_rate": "0.1"}, "model=mlp learning_rate=0.1 seed=4"),
    ],
)
def test_a_run_is_named_by_what_varies(varied, name):
    config = SimpleNamespace(optimizer={"learning_rate": 0.1}, batch_size=64, seed=4)
    assert tracking.run_name(SimpleNamespace(name="digits-mlp", config=config), varied) == name  # pyright: ignore[reportArgumentType]


def test_tags_and_notes_do_not_change_the_identity_and_invalid_ones_are_refused(tmp_path):
    def identity(*options):
        with hydra_ready():
            composed = compose("train", [*TINY, f"results={tmp_path}", *options])
        return runner.prepare(parse_run(composed)).identity

    assert identity() == identity("tracker=wandb_offline", "tracker.tags=[a]", "tracker.notes=b")
    for invalid in (["tracker.tags=['']"], [f"tracker.tags=[{'x' * 65}]"], ["tracker.mode=tensorboard", "tracker.tags=[a]"]):
        with pytest.raises(InputError, match=r"tracker\.tags"):
            identity("tracker=wandb_offline", *invalid)


def start_trial(monkeypatch, tmp_path, trial, parameters):
    """Set what W&B's agent sets for a trial, and return the arguments with which it starts the documented program."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args
    from wandb.sdk.lib import config_util

    path = tmp_path / f"config-{trial}.yaml"
    chosen = {name: {"value": value} for name, value in parameters.items()}
    config_util.save_config_file_from_dict(str(path), chosen)
    for name, value in (("SWEEP_ID", "sweep1"), ("RUN_ID", trial), ("SWEEP_PARAM_PATH", str(path))):
        monkeypatch.setenv(f"WANDB_{name}", value)
    [sweep] = re.findall(r"`sweep\.yaml`:\n\n```yaml\n(.*?)```", DOCS.read_text(), flags=re.S)
    command = yaml.safe_load(sweep)["command"]
    given = create_sweep_command_args({"args": chosen})["args_no_hyphens"]
    assert command[:3] == ["${env}", "${interpreter}", "${program}"]
    arguments = [part for word in command[3:] for part in (given if word == "${args_no_hyphens}" else [word])]
    return ["tracker=wandb_offline" if argument == "tracker=wandb" else argument for argument in arguments]


def test_every_trial_of_an_agent_reports_its_metric(tmp_path, monkeypatch):
    """A trial is a run with the agent's id, also if the run of the library is complete; a trial is logged once."""
    parameters = {"optimizer.learning_rate": 0.05, "batch_size": 32}
    runs = []
    for trial in ("trial1", "trial2", "trial2"):
        runs.append(train(tmp_path, *start_trial(monkeypatch, tmp_path, trial, parameters)))
    assert [run.identity for run in runs] == [runs[0].identity] * 3
    assert [run.updated for run in runs] == [True, True, False]
    logged = read_runs(tmp_path)
    assert [run["id"] for run in logged] == ["trial1", "trial2"]
    for run in logged:
        assert run["summary"]["test_error"] == runs[0].values["test_error"]
        assert run["config"]["optimizer.learning_rate"] == run["config"]["learning_rate"] == 0.05
        assert [epoch for epoch, _ in history(run, "epoch", "running_loss")] == [1, 2, 3]


def test_a_sweep_under_an_agent_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    with pytest.raises(InputError, match=r"WANDB_SWEEP_ID is set.*use train\.py"):
        rc.sweep([*TINY, f"results={tmp_path}", "tracker=wandb_offline", "seed=0,1"])
    assert not list(tmp_path.glob("sweeps/*"))


def minimized(monkeypatch, tmp_path, *options, sweeper="optuna"):
    """Return what a job returns to another sweeper."""
    with hydra_ready():
        composed = compose("sweep", [*TINY, f"results={tmp_path}", *options])
    choices = SimpleNamespace(runtime=SimpleNamespace(choices={"hydra/sweeper": sweeper}))
    monkeypatch.setattr(cell.HydraConfig, "get", lambda: choices)
    return cell.run(composed)


def test_another_sweeper_gets_the_test_error_also_of_a_complete_run(tmp_path, monkeypatch, capsys):
    expected = train(tmp_path, tracker="disabled").values["test_error"]
    assert minimized(monkeypatch, tmp_path) == expected
    assert "(already complete)" in capsys.readouterr().out
    assert minimized(monkeypatch, tmp_path, "optimizer.learning_rate=1e30") == math.inf
    with pytest.raises(InputError, match="hydra/sweeper=optuna minimizes the test error: add accuracy"):
        minimized(monkeypatch, tmp_path, "measures=[]")
    assert math.isnan(minimized(monkeypatch, tmp_path, "measures=[]", sweeper="basic"))  # which ignores it


def test_the_documented_search_with_optuna_runs(tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    [code] = re.findall(r"```python\n(import optuna.*?)```", DOCS.read_text(), flags=re.S)
    monkeypatch.chdir(tmp_path)
    train_options = rc.train
    monkeypatch.setattr(rc, "train", lambda options: train_options([*options, *TINY]))
    names = {}
    exec(code.replace("n_trials=20", "n_trials=2"), names)
    assert names["study"].best_value in {trial.value for trial in names["study"].trials}
    assert len(list(tmp_path.glob("results/runs/*/run.json"))) == 2


@pytest.mark.parametrize("name", [*tracking.HISTORY_NAMES.values(), "running_accuracy", "stop_loss"])
def test_no_measure_takes_the_name_of_a_column_of_the_history(name):
    """Its values would be missing in the history at the epochs of this column."""
    with pytest.raises(InputError, match=f"measures={name}: tables have a column of this name"):
        check_measure_name(name)
