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
from regioncount.config import parse_measuring, parse_run
from regioncount.errors import InputError
from regioncount.runs.loading import load_dataset

REPOSITORY = Path(__file__).resolve().parent.parent
TINY = ["model=mlp", "model.width=8", "model.depth=1", "dataset.train_size=60", "dataset.test_size=100", "epochs=1"]
TINY += ["regions.line.number=5", "regions.line.resolution=10", "precision=float32"]


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
        ("train", ["--seed", "3"], "for an option, write seed=VALUE"),
        ("train", ["--dry-run"], "for an option, write dry-run=VALUE"),
        ("train", ["--conf=x", "--hel"], "unrecognized arguments: --hel"),
        ("train", ["hydra.run.dir=x"], r"^hydra\.run\.dir=x has no effect: .* pass results=DIR"),
        ("sweep", ["hydra.run.dir=x"], r"^hydra\.run\.dir=x has no effect: .* pass results=DIR"),
        ("sweep", ["hydra.sweep.dir=x"], r"^hydra\.sweep\.dir=x has no effect: .* pass results=DIR"),
        ("sweep", ["hydra.job.chdir=true"], "pass results=DIR"),
        ("sweep", ["++hydra.verbose=true"], "no log"),
        ("train", ["hydra.job.name=x"], "has no effect on one run"),
        ("train", ["hydra/launcher=joblib"], "has no effect on one run"),
        ("train", ["hydra.mode=MULTIRUN"], "sweep.py or -m for a grid"),
        ("sweep", ["hydra.mode=RUN"], "train.py or regioncount-train for one run"),
        ("train", ["hydra.searchpath=[nowhere]"], "hydra.searchpath=nowhere: the directory does not exist"),
        ("train", ["~"], "names no option"),
        ("train", ["~optimizer.momentum"], "cannot be removed; give its value, optimizer.momentum=VALUE"),
        ("sweep", ["~optimizer.momentum=0.9", "seed=0,1"], "cannot be removed"),
        ("train", ["~epochs"], "cannot be removed; give its value, epochs=VALUE"),
        ("train", ["~regions.seed"], "cannot be removed"),
        ("train", ["~regions.line.number"], "cannot be removed"),
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


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--seed=3", "--optimizer.learning_rate=0.1"], ["seed=3", "optimizer.learning_rate=0.1"]),
        (["--+model.x=3", "-m", "--model=mlp"], ["+model.x=3", "model=mlp"]),
        (["--run=DIR"], ["run='DIR'"]),  # Hydra's flag --run takes no value
        (["--results=~/x y"], ["results='~/x y'"]),
        (["hydra/sweeper=basic", "hydra.sweep.dir=x"], ["hydra/sweeper=basic", "hydra.sweep.dir=x"]),
    ],
)
def test_options_may_begin_with_dashes(arguments, expected):
    assert parse_arguments("train", ["-m", *arguments])[1] == expected


@given(st.sampled_from(["seed", "optimizer.learning_rate", "dataset.title"]), PATHS)
def test_a_dashed_option_is_the_same_as_a_plain_one(option, value):
    assert parse_arguments("train", [f"--{option}={value}"]) == parse_arguments("train", [f"{option}={value}"])


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
        measured = parse_measuring(compose("measure", parse_arguments("measure", ["run=~/y"])[1]))
        from_file = parse_measuring(compose("measure", parse_arguments("measure", ["checkpoint=~/z"])[1]))
    assert config.results == "/somewhere/x"
    assert (measured.run, from_file.checkpoint) == ("/somewhere/y", "/somewhere/z")


def test_a_tilde_in_the_folder_of_the_data_is_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    overrides = parse_arguments("train", ["dataset=image_folder", "dataset.root=~/x"])[1]
    with hydra_ready(), pytest.raises(InputError, match=r"dataset\.root=/somewhere/x is not a folder"):
        load_dataset(parse_run(compose("train", overrides)).dataset)


def test_a_tilde_in_a_directory_of_configurations_is_the_home_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    for arguments in (["--config-dir=~/mine"], ["hydra.searchpath=[~/mine]"], ["hydra.searchpath=[file://~/mine]"]):
        assert parse_arguments("train", arguments)[1] == [f"hydra.searchpath=['file://{tmp_path.resolve()}/mine']"]


def test_several_values_outside_a_sweep_are_rejected():
    with pytest.raises(InputError, match=r"^seed=0,1: only a grid takes several values: run sweep\.py"), hydra_ready():
        compose("train", ["seed=0,1"])


def test_an_option_of_another_choice_gets_the_options_of_this_one():
    options = r"^optimizer\.rho: no such option; the options of optimizer are learning_rate, weight_decay"
    with pytest.raises(InputError, match=options), hydra_ready():
        compose("train", ["optimizer.rho=1"])
    with pytest.raises(InputError, match=r"did you mean optimizer\.rho"), hydra_ready():
        compose("train", ["optimizer.roh=1", "optimizer=sam"])


def test_an_option_of_a_subspace_that_is_not_chosen_names_the_choice():
    message = r"^regions\.line\.number: line is not among the subspaces .* pass regions=\[plane,simplex_3,line\]$"
    with pytest.raises(InputError, match=message), hydra_ready():
        compose("train", ["regions=[plane,simplex_3]", "regions.line.number=3"])
    with pytest.raises(InputError, match=r"did you mean regions\.line\.number"), hydra_ready():
        compose("train", ["regions=[line,plane]", "regions.line.numbre=3"])
    assert parse_arguments("train", ["~regions.line", "regions=[plane]"])[1] == ["~regions.line", "regions=[plane]"]


def test_choices_of_a_config_dir_are_suggested(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nepochs: 77\n")
    overrides = parse_arguments("train", [f"--config-dir={tmp_path}", "experiment=mien"])[1]
    with pytest.raises(InputError, match="did you mean mine"), hydra_ready():
        compose("train", overrides)


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


@pytest.mark.parametrize(
    ("launcher", "name", "jobs"),
    [
        ([], "ParallelLauncher", None),
        (["hydra/launcher=basic"], "BasicLauncher", None),
        (["hydra/launcher=joblib"], "JoblibLauncher", -1),
        (["hydra.launcher.n_jobs=4"], "ParallelLauncher", 4),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=3"], "JoblibLauncher", 3),
        (["hydra/launcher=submitit_local"], "LocalLauncher", None),
        (["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu"], "SlurmLauncher", None),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_the_small_scale_composes_with_any_launcher(launcher, name, jobs, first):
    scale = ["experiment=paper/cifar10", "scale=small"]
    with hydra_ready():
        config = compose("sweep", [*launcher, *scale] if first else [*scale, *launcher], with_hydra=True)
    assert config.hydra.launcher._target_.endswith(f".{name}")
    assert config.hydra.launcher.get("n_jobs") == jobs


@pytest.mark.parametrize(
    ("override", "similar"),
    [
        ("model=mpl", "mlp"),
        ("modle=resnet18", "model"),
        ("regions=[lin]", "line"),
        ("experiment=paper/cifar", "paper/cifar10"),
        ("experiment=cifar100", "paper/cifar100"),
        ("optimizer.learning_rte=1", "optimizer.learning_rate"),
        ("optimizer.lr=1", "optimizer.learning_rate"),
        ("lr=1", "optimizer.learning_rate"),
        ("batchsize=3", "batch_size"),
        ("weight_decay=0", "optimizer.weight_decay"),
        ("regions.line.numbr=3", "regions.line.number"),
        ("regions.lin.number=3", "regions.line.number"),
        ("dataset.train_sise=3", "dataset.train_size"),
        ("snapshot.every=3", "snapshots.every"),
    ],
)
def test_a_misspelled_group_choice_or_option_gets_a_suggestion(override, similar):
    with pytest.raises(InputError) as refused, hydra_ready():
        compose("train", [override])
    assert f"did you mean {similar}?" in str(refused.value)
    assert "\n" not in str(refused.value)
