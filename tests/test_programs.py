"""Training and sweeping from Python: the same runs and values as the commands, and no changes of the process."""

import signal
import sys

import pandas as pd
import pytest
import torch
from command_line import run_command
from hydra.core.global_hydra import GlobalHydra

import regioncount as rc
from regioncount.runs import loading

TINY = ["model=mlp", "model.width=8", "model.depth=1", "dataset.train_size=60", "dataset.test_size=100", "epochs=2"]
TINY += ["regions.line.number=5", "regions.line.resolution=10", "precision=float32"]


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train_returns_the_run_with_its_values(directory):
    before = list(sys.argv), signal.getsignal(signal.SIGTERM)
    run = rc.train([*TINY, "optimizer.learning_rate=0.05", "--seed=3"])
    assert (run.status, run.values["status"], run.epochs_trained) == ("finished", "finished", 2)
    stored = rc.runs.load(run.directory)
    assert stored.history().equals(run.history())
    entries = {entry["settings"]["measure"]: entry["values"] for entry in stored.measures.values()}
    assert run.values["test_accuracy"] == entries["accuracy"]["test_accuracy"]
    assert run.values["region_count_line"] == entries["region_count"]["region_count"]
    expected = {
        "model": "mlp",
        "dataset": "digits",
        "learning_rate": 0.05,
        "seed": 3,
        "width": 8,
        "depth": 1,
        "batch_size": 64,
    }
    expected |= {"optimizer": "sgd", "momentum": 0.9, "epochs": 2, "train_size": 60, "dataset.seed": 0}
    assert {name: run.values[name] for name in expected} == expected
    assert before == (sys.argv, signal.getsignal(signal.SIGTERM))
    assert not GlobalHydra.instance().is_initialized()


def test_training_again_loads_the_run_of_the_command(directory):
    shown = run_command("train.py", *TINY, directory=directory)
    assert shown.returncode == 0, shown.stderr
    run = rc.train(TINY)
    assert not run.updated
    assert shown.stdout.startswith(str(run.directory))


def test_a_sweep_returns_its_runs_in_the_order_of_the_grid(directory, capsys):
    runs = rc.sweep([*TINY, "model.width=8,4", "seed=0,1", "regions.line.number=5,6"])
    assert [(run.values["width"], run.values["seed"], run.values["number"]) for run in runs] == [
        (width, seed, number) for width in (8, 4) for number in (5, 6) for seed in (0, 1)
    ]
    table = pd.read_csv(next(directory.glob("results/sweeps/*/runs.csv")))
    for run, row in zip(runs, table.to_dict("records"), strict=True):
        for column in ("region_count_line", "test_accuracy", "learning_rate", "generalization_gap", "width", "fitted"):
            assert run.values[column] == row[column], column
    assert "report:" in capsys.readouterr().out
    assert not any(run.updated for run in rc.sweep([*TINY, "model.width=8,4", "seed=0,1", "regions.line.number=5,6"]))


@pytest.mark.filterwarnings("error:.*runs failed")
def test_a_dry_run_prints_the_state_of_each_cell_and_writes_nothing(directory, capsys):
    options = [*TINY, "seed=0,1,2,3", "sweep.dry_run=true"]
    rc.train([*TINY, "seed=1"])
    rc.train([*(option for option in TINY if not option.startswith("regions.")), "seed=2", "regions=[]"])
    interrupted = rc.train([*TINY, "seed=3"]).directory
    (directory / "results/unfinished").mkdir(exist_ok=True)
    interrupted.rename(directory / "results/unfinished" / f"{interrupted.name}.0")
    before = sorted(directory.rglob("*"))
    capsys.readouterr()
    runs = rc.sweep(options)
    assert [run.values["seed"] for run in runs] == [1, 2]
    assert capsys.readouterr().out.splitlines()[1:] == [
        "[1/4] seed=0: not trained",
        "[2/4] seed=1: complete",
        "[3/4] seed=2: trained, not measured or logged",
        "[4/4] seed=3: interrupted",
        "sweep.dry_run=true: 3 of 4 cells would be run; nothing was written",
    ]
    assert sorted(directory.rglob("*")) == before


def test_a_dry_run_of_another_sweeper_is_refused(directory):
    with pytest.raises(rc.InputError, match="no effect with hydra/sweeper=basic"):
        rc.sweep([*TINY, "seed=0,1", "sweep.dry_run=true", "hydra/sweeper=basic", "hydra/launcher=basic"])
    assert not (directory / "results").exists()


def test_runs_that_are_missing_are_left_out_with_a_warning():
    rc.train([*TINY, "seed=1"])
    with pytest.warns(UserWarning, match="1 of 2 runs failed or were not started"):
        (run,) = rc.sweep([*TINY, "seed=0,1", "sweep.time_budget=0.000001s"])
    assert run.values["seed"] == 1


@pytest.mark.parametrize(
    ("program", "options", "message"),
    [
        (rc.train, ["optimizer.lr=1"], "did you mean optimizer.learning_rate"),
        (rc.train, ["seed=0,1"], "only a grid takes several values"),
        (rc.train, ["seed=x"], "give a whole number"),
        (rc.train, ["--version"], "--version: from Python, give options only"),
        (rc.train, "seed=3", "give a list of strings"),
        (rc.train, [3], "give a list of strings"),
        (rc.sweep, ["seed=0,0"], "the same run twice"),
        (rc.sweep, ["optimizer.lr=1,2"], "did you mean optimizer.learning_rate"),
        (rc.sweep, ["-m", "seed=0"], "--multirun: from Python"),
        (rc.sweep, ["experiment=quickstrt"], "did you mean quickstart"),
    ],
)
def test_invalid_options_raise_an_input_error(directory, program, options, message):
    with pytest.raises(rc.InputError, match=message) as refused:
        program(options)
    assert "\n" not in str(refused.value)
    assert not (directory / "results").exists()
    assert not GlobalHydra.instance().is_initialized()


def test_a_slurm_launcher_without_slurm_is_refused_before_any_work(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(loading, "load_dataset", lambda options: pytest.fail("data were loaded"))
    monkeypatch.setattr("regioncount.runs.runner.load_dataset", lambda options: pytest.fail("data were loaded"))
    with pytest.raises(rc.InputError, match="hydra/launcher=submitit_slurm needs Slurm"):
        rc.sweep([*TINY, "seed=0,1", "hydra/launcher=submitit_slurm"])


def test_an_application_of_hydra_may_train():
    from omegaconf import OmegaConf

    from regioncount.composition import compose, hydra_ready

    with hydra_ready():
        application = GlobalHydra.instance().hydra
        rc.train(TINY)
        assert GlobalHydra.instance().hydra is application
        assert OmegaConf.is_config(compose("train", []))


def test_the_model_of_a_run_is_loaded_with_its_data(directory):
    run = rc.train([*TINY, "snapshots.epochs=[1]", "snapshots.keep=true"])
    model, dataset = rc.runs.load_model(run.directory)
    inputs = dataset.normalize(dataset.test.take(range(len(dataset.test))))
    assert (model(inputs).argmax(dim=1) == dataset.test.labels).double().mean() == run.values["test_accuracy"]
    assert not model.training
    for epoch in (0, 1):
        weights = run.weights(epoch)
        loaded, _ = rc.runs.load_model(run.directory, epoch)
        assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())
    with pytest.raises(rc.InputError, match=r"has no weights of epoch 7; those of the epochs \[0, 1\] are on disk"):
        rc.runs.load_model(run.directory, 7)
