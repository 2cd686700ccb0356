"""The commands train, measure and sweep: flags, normalized arguments, help and errors."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from command_line import run_command
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from regioncount.arguments import parse_arguments
from regioncount.composition import compose, hydra_ready
from regioncount.config import parse_run
from regioncount.errors import InputError

REPOSITORY = Path(__file__).resolve().parent.parent
TINY = ["model=mlp", "model.width=8", "model.depth=1", "dataset.train_size=60", "dataset.test_size=100", "epochs=1"]
TINY += ["regions.line.number=5", "regions.line.resolution=10", "precision=float32"]


@pytest.mark.parametrize("name", ["train", "measure", "sweep"])
def test_help_lists_groups_options_and_flags_without_torch(name):
    code = f"import sys; sys.modules['torch'] = None; sys.argv = ['{name}.py', '--help']; "
    code += f"from regioncount.commands import {name}; sys.exit({name}())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "  model: custom, decision_tree" in shown.stdout
    assert "  results: results" in shown.stdout
    assert "--config-dir DIR" in shown.stdout
    assert "hydra:" not in shown.stdout
    assert ("time_budget: null" in shown.stdout) == (name == "sweep")


def test_training_an_experiment_names_the_command_for_its_grid(tmp_path):
    options = ["regions.line.number=2", "regions.line.resolution=5", "dataset.test_size=100", f"results={tmp_path}"]
    result = run_command("train.py", "experiment=quickstart", "dataset.train_size=60", "epochs=1", "seed=3", *options)
    assert result.returncode == 0, result.stderr
    note = "one run of the experiment; sweep.py runs its grid (optimizer.learning_rate, batch_size)\n"
    assert note in result.stderr


@pytest.mark.parametrize("script", ["train.py", "sweep.py"])
@pytest.mark.parametrize("results", ["file", "file/below", "link"])
def test_results_that_cannot_be_a_directory_are_refused_before_any_work(tmp_path, script, results):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to("file")
    result = run_command(script, *TINY, "dataset=digits", f"results={tmp_path / results}")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "is not a directory; pass another results=DIR" in result.stderr
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("name", ["train", "measure", "sweep", "report", "analysis"])
def test_the_version_is_printed(name):
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts[f"regioncount-{name}"].partition(":")
    code = f"import sys; sys.argv = ['x', '--version']; from {module} import {function}; sys.exit({function}())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "regioncount 0.1.0\n"


@pytest.mark.parametrize(
    ("config_name", "arguments", "reason"),
    [
        ("train", ["--config-name=sweep"], "--config-name is not supported"),
        ("sweep", ["-cp", "elsewhere"], "--config-path is not supported"),
        ("train", ["--experimental-rerun=x.pickle"], "--experimental-rerun is not supported"),
        ("sweep", ["--run", "seed=0,1"], "--run is not supported"),
        ("train", ["--run", "-m"], "--run is not supported"),
        ("measure", ["-m"], "--multirun is not supported"),
        ("train", ["-m", "--cfg", "job"], "--multirun is not supported"),
        ("train", ["-sc"], "--shell-completion needs install=bash"),
        ("train", ["--resolve"], "--resolve needs --cfg"),
        ("train", ["--package", "model"], "--package needs --cfg"),
        ("train", ["--nonsense"], "unrecognized arguments: --nonsense"),
        ("train", ["--cfg", "nonsense"], "invalid choice"),
        ("train", ["--config-dir", "nowhere"], "the directory does not exist"),
        ("measure", ["results/runs/x"], "'results/runs/x' has no value; write for example run=results/runs/x"),
        ("train", ["seed"], "'seed' has no value; write for example seed=VALUE"),
    ],
)
def test_unsupported_flags_are_rejected(config_name, arguments, reason):
    with pytest.raises(InputError, match=reason):
        parse_arguments(config_name, arguments)


PATHS = st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" ")).map(str.strip)


@given(PATHS.filter(lambda path: path not in ("", "null") and "${" not in path and path[0] not in "'\"~"))
@example("it's")
@example("a b,c=[d]{e}#ü\\'\"")
def test_every_path_is_taken_literally(path):
    with hydra_ready():
        for config_name in ("train", "sweep"):
            _, overrides = parse_arguments(config_name, ["--", f"results={path}"])
            assert compose(config_name, overrides)["results"] == path


@pytest.mark.parametrize("value", ["'a b,c'", '"a b,c"'])
def test_a_quoted_path_is_not_quoted_again(value):
    with hydra_ready():
        assert compose("train", parse_arguments("train", [f"results={value}"])[1])["results"] == "a b,c"


def test_a_text_that_hydra_cannot_parse_is_quoted():
    title = """it's <i>"x"</i> & ca$$h | =SUM(1) [l](u) ü"""
    with hydra_ready():
        assert compose("train", parse_arguments("train", [f"dataset.title={title}"])[1])["dataset"]["title"] == title


def test_a_tilde_is_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    with hydra_ready():
        config = parse_run(compose("train", parse_arguments("train", ["results=~/x"])[1]))
    assert config.results == "/somewhere/x"


def test_several_values_outside_a_sweep_are_rejected():
    with pytest.raises(InputError, match=r"^seed=0,1: only a sweep takes several values"), hydra_ready():
        compose("train", ["seed=0,1"])


def test_a_rejected_flag_is_one_line_with_exit_status_2():
    refused = run_command("train.py", "--config-name=sweep")
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr.startswith("train.py: --config-name is not supported")
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize("option", ["hydra/sweeper=nonsense", "hydra/launcher=nonsense", "hydra.nonsense=1"])
def test_an_invalid_option_of_hydra_is_one_line(option):
    refused = run_command("sweep.py", option, "seed=0,1")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert "nonsense" in refused.stderr


def test_cfg_prints_the_composed_configuration():
    shown = run_command("train.py", "optimizer=sam", "--cfg", "job", "-p", "optimizer", "optimizer.rho=0.5")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("# @package optimizer\nname: sam\n")
    assert "rho: 0.5" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["model._target_=a.B"], ["model=custom", "model._target_=a.B"]),
        (["seed=1", "model.h=3", "model._target_=a.B"], ["model=custom", "seed=1", "++model.h=3", "model._target_=a.B"]),
        (["model=custom", "model._target_=a.B", "model.h=3"], ["model=custom", "model._target_=a.B", "++model.h=3"]),
        (["model=mlp", "model._target_=a.B"], ["model=mlp", "model._target_=a.B"]),
        (["model.width=3"], ["model.width=3"]),
    ],
)
def test_a_target_chooses_the_custom_model(arguments, expected):
    assert parse_arguments("train", arguments)[1] == expected


def test_the_custom_model_composes():
    overrides = parse_arguments("train", ["model._target_=a.B", "model.hidden=3"])[1]
    with hydra_ready():
        assert OmegaConf.to_container(compose("train", overrides).model) == {"_target_": "a.B", "hidden": 3}


def test_files_of_a_config_dir_are_composed(tmp_path):
    folder = tmp_path / "it's mine"
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "mine.yaml").write_text("# @package _global_\nepochs: 77\n")
    for added in ([], ["hydra.searchpath=[pkg://regioncount]"]):
        overrides = parse_arguments("train", [f"--config-dir={folder}", "experiment=mine", *added])[1]
        with hydra_ready():
            assert compose("train", overrides).epochs == 77


def test_multirun_is_a_sweep_that_another_command_continues(tmp_path):
    """train.py -m and sweep.py with the same grid and --config-dir make one plan, under any launcher."""
    (tmp_path / "experiment").mkdir()
    grid = "# @package _global_\nhydra:\n  sweeper:\n    params:\n      seed: 0,1\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(grid)
    options = ["--config-dir=.", "experiment=mine", *TINY]
    first = run_command("train.py", "-m", *options, directory=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "[2/2] seed=1: 1 epochs" in first.stdout
    again = run_command("sweep.py", *options, "hydra/launcher=joblib", "hydra.launcher.n_jobs=1", directory=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("(already complete)") == 2
    (table,) = tmp_path.glob("results/sweeps/mine-*/runs.csv")
    assert set(pd.read_csv(table)["status"]) == {"finished"}


def test_another_sweeper_runs_the_cells_without_a_plan(tmp_path):
    done = run_command("sweep.py", "hydra/sweeper=basic", "seed=0,1", *TINY, directory=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("results/runs/*/model.pt"))) == 2
    assert not (tmp_path / "results" / "sweeps").exists()


@pytest.mark.parametrize("launcher", [[], ["hydra/launcher=basic"], ["hydra.launcher.n_jobs=4"]])
def test_the_small_scale_composes_with_any_launcher(launcher):
    with hydra_ready():
        config = compose("sweep", ["experiment=paper/cifar10", "scale=small", *launcher], with_hydra=True)
    expected = {"": 2, "hydra/launcher=basic": None, "hydra.launcher.n_jobs=4": 4}["".join(launcher)]
    assert config.hydra.launcher.get("n_jobs") == expected


@pytest.mark.parametrize(
    ("override", "similar"),
    [("model=mpl", "mlp"), ("optimizer.learning_rte=1", "learning_rate"), ("regions=[lin]", "line")],
)
def test_a_misspelled_group_choice_or_option_gets_a_suggestion(override, similar):
    with pytest.raises(InputError) as refused, hydra_ready():
        compose("train", [override])
    assert f"did you mean {similar}?" in str(refused.value)
    assert "\n" not in str(refused.value)
