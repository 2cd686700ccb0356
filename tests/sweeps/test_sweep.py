"""Sweeps from the command line: grids, tables, reruns, failures and invalid input."""

import base64
import itertools
import shutil
import signal
import subprocess
import sys
import weakref
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import hydra
import numpy as np
import pandas as pd
import pytest
from command_line import run_command
from grids import make_plan
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf
from PIL import Image
from wandb_log import history, read_runs

from regioncount.composition import compose, hydra_ready
from regioncount.config import as_mapping
from regioncount.config_files import CONFIGS
from regioncount.errors import InputError
from regioncount.reporting import report
from regioncount.reporting.collect import collect
from regioncount.reporting.group_figures import group_figures
from regioncount.reporting.groups import group_columns
from regioncount.reporting.sweep_figures import sweep_figures
from regioncount.runs import files, loading, plans, store
from regioncount.runs.identity import run_identity
from regioncount.sweeps import cell
from regioncount.sweeps.grid import compose_cells, split_grid
from regioncount.sweeps.launch import launch

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = [
    "model=mlp",
    "model.width=8",
    "model.depth=1",
    "dataset.train_size=60",
    "dataset.test_size=100",
    "epochs=3",
    "regions.line.number=10",
    "regions.line.resolution=20",
    "precision=float32",
]
GRID = ["optimizer.learning_rate=0.1,0.05,0.01", "seed=0,1"]
TIMES = ["seconds", "directory"]
PLANNED = ["plan.json", "cells.jsonl"]


def sweep(results, *options, launcher="basic", **environment):
    """Run a sweep; processes that run side by side would take longer to start than these runs."""
    return run_command("sweep.py", f"hydra/launcher={launcher}", f"results={results}", *TINY, *options, **environment)


def only_sweep(results):
    (directory,) = (path for path in (results / "sweeps").iterdir() if path.is_dir())
    return directory


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    results = tmp_path_factory.mktemp("sweep")
    first = sweep(results, *GRID, "snapshots.every=1")
    assert first.returncode == 0, first.stderr
    return results, first


def test_a_sweep_writes_tables_and_figures(done):
    results, first = done
    directory = only_sweep(results)
    runs = pd.read_csv(directory / "runs.csv")
    assert len(runs) == 6
    assert set(runs["status"]) == {"finished"}
    assert list(zip(runs["learning_rate"], runs["seed"], strict=True)) == [(r, s) for r in (0.1, 0.05, 0.01) for s in (0, 1)]
    assert (runs["generalization_gap"] - (runs["train_accuracy"] - runs["test_accuracy"])).abs().max() < 1e-12
    assert runs["train_accuracy"].between(0, 1).all()
    assert (runs["region_count_line"] >= 1).all()
    correlations = pd.read_csv(directory / "correlations.csv")
    rows = correlations[correlations["measure"] == "region_count_line"]
    assert set(rows["target"]) == {"generalization_gap", "test_error"}
    assert set(rows["configurations"]) == {3}
    assert set(rows["runs"]) == {6}
    averages = runs.groupby("learning_rate")[["region_count_line", "test_error"]].mean()
    expected = averages["region_count_line"].corr(averages["test_error"])
    assert rows.set_index("target").loc["test_error", "pearson"] == pytest.approx(expected, abs=1e-4)
    counts = pd.read_csv(directory / "region_counts.csv")
    assert sorted(counts["epoch"].unique()) == [0, 1, 2, 3]
    for name in ("count_against_gap_line", "heat_maps", "count_through_training_line", "decision_regions"):
        assert (directory / f"{name}.png").stat().st_size > 1000
    page = (directory / "report.html").read_text()
    assert "Over 3 configurations (6 runs, " in page
    assert base64.b64encode((directory / "decision_regions.png").read_bytes()).decode() in page
    # A scatter plot, three heat maps, count, gap and error against the learning rate, and the counts through training.
    assert page.count('class="plot"') == 1 + 3 + 3 + 1
    assert "learning_rate" in first.stdout
    assert "Kendall" in first.stdout


def test_counts_are_drawn_against_the_number_of_lines_and_by_augmentation(tmp_path):
    """The data of the figures equal averages of runs.csv, and the tau drawn beside them those of correlations.csv."""
    grid = ["optimizer.learning_rate=0.1,0.01,0.001", "augmentation=none,mixup", "regions.line.number=1,5,20"]
    tiny = ["dataset.train_size=60", "model=mlp", "model.width=8", "epochs=1", "tracker=disabled", f"results={tmp_path}"]
    tiny.append("sweep.targets=[test_error]")
    done = subprocess.run([sys.executable, str(REPOSITORY / "sweep.py"), *tiny, *grid], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    directory = only_sweep(tmp_path)
    names = [f"count_against_{target}_line{part}_1" for target in ("gap", "test_error") for part in ("", "_by_augmentation")]
    for name in ("count_against_number_line", *names):
        assert {path.suffix for path in directory.glob(f"{name}.*")} == {".png", ".pdf"}, name
    results = collect(plans.read(directory))
    figures = sweep_figures(results)
    runs, correlations = pd.read_csv(directory / "runs.csv"), pd.read_csv(directory / "correlations.csv")
    [against] = figures.against_measuring.values()
    by = runs.groupby(["learning_rate", "augmentation"])
    assert [line.values for line in against.lines.lines] == list(by.groups)
    for line, (_, rows) in zip(against.lines.lines, by, strict=True):
        rows = rows.sort_values("number")
        assert list(line.x) == [1, 5, 20]  # also the single line, which has no standard error
        assert list(line.mean) == pytest.approx(list(rows["region_count_line"]))
        assert list(line.error[1:]) == pytest.approx(list(rows["region_count_line_standard_error"])[1:])
    taus = correlations.query("measure == 'region_count_line' and target == 'generalization_gap'").sort_values("number")
    assert list(against.correlation.tau) == pytest.approx(list(taus["kendall"]), nan_ok=True)
    series = figures.series["count_against_gap_line_by_augmentation_20"]
    for value, data in zip(("none", "mixup"), series.scatters.values(), strict=True):
        expected = runs.query(f"augmentation == '{value}' and number == 20").sort_values("learning_rate")
        dots = data.dots.sort_values("learning_rate")
        assert list(dots["region_count_line"]) == pytest.approx(list(expected["region_count_line"]))
        assert list(dots["generalization_gap"]) == pytest.approx(list(100 * expected["generalization_gap"]))
    for number, group in zip((1, 5, 20), results.groups, strict=True):
        expected = runs[runs["number"] == number].sort_values(["learning_rate", "augmentation"])
        gap, error = group_figures(results, group).scatters
        assert list(gap.dots["generalization_gap"]) == pytest.approx(list(100 * expected["generalization_gap"]))
        assert list(error.dots["test_error"]) == pytest.approx(list(100 * expected["test_error"]))
        assert list(error.dots["region_count_line"]) == pytest.approx(list(expected["region_count_line"]))


def test_counts_of_early_epochs_are_correlated_with_the_final_gap(done):
    results, first = done
    directory = only_sweep(results)
    runs, counts = pd.read_csv(directory / "runs.csv"), pd.read_csv(directory / "region_counts.csv")
    early = pd.read_csv(directory / "early.csv").query("measure == 'region_count_line'").set_index("epoch")
    gaps = runs.groupby("learning_rate")["generalization_gap"].mean()
    for epoch, rows in counts.groupby("epoch"):
        averages = rows.groupby("learning_rate")["mean"].mean()
        assert early.loc[epoch, "mean"] == pytest.approx(rows["mean"].mean())
        assert early.loc[epoch, "pearson"] == pytest.approx(averages.corr(gaps), abs=1e-4, nan_ok=True)
    assert "at an epoch and the generalization gap at the end" in first.stdout
    snapshots = pd.read_csv(directory / "snapshots.csv")
    assert snapshots["epoch"].value_counts().to_dict() == dict.fromkeys(range(4), 6)
    last = snapshots[snapshots["epoch"] == 3].set_index("identity")
    for column in ("train_accuracy", "test_loss", "region_count_line", "region_entropy_line"):
        assert last[column].to_dict() == runs.set_index("identity")[column].to_dict()
    assert (directory / "measures_through_training.png").is_file()


def test_rerunning_a_sweep_trains_nothing_and_writes_the_same_tables(done):
    results, _ = done
    directory = only_sweep(results)
    before = {name: (directory / name).read_bytes() for name in ("runs.csv", "correlations.csv", "region_counts.csv")}
    models = {path: path.stat().st_mtime_ns for path in results.glob("runs/*/model.pt")}
    again = sweep(results, *GRID, "snapshots.every=1")
    assert again.returncode == 0
    assert again.stdout.count("(already complete)") == 6
    assert {name: (directory / name).read_bytes() for name in before} == before
    assert {path: path.stat().st_mtime_ns for path in results.glob("runs/*/model.pt")} == models


def test_a_run_that_another_process_has_locked_is_postponed(tmp_path):
    options = [f"results={tmp_path}", *TINY, "seed=0,1,2"]
    first = make_plan(options).runs[0]
    with store.lock(store.run_directory(tmp_path, first.name, first.identity)):
        command = [sys.executable, str(REPOSITORY / "sweep.py"), *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        lines = []
        while not lines or not lines[-1].startswith("[3/3]"):
            lines.append(process.stdout.readline())
    rest, _ = process.communicate()
    assert process.returncode == 0
    assert [line.partition(":")[0] for line in lines[1:]] == ["[1/3] seed=0", "[2/3] seed=1", "[3/3] seed=2"]
    assert "postponed to the end" in lines[1]
    assert rest.startswith("[1/3] seed=0: 3 epochs")


def test_the_report_is_rewritten_without_data_or_models(done, tmp_path, monkeypatch):
    results, _ = done
    shutil.copytree(results, tmp_path / "moved")
    directory = only_sweep(tmp_path / "moved")
    before = {path.name: path.read_bytes() for path in directory.glob("*.*") if path.name not in PLANNED}
    summary = files.read_json(directory / "report.json")
    for name in before:
        if not name.startswith("decision_regions"):
            (directory / name).unlink()
    for owner, name in ((loading, "load_checked"), (store.Run, "weights")):
        monkeypatch.setattr(owner, name, lambda *_, **__: pytest.fail("data and weights must not be loaded"))
    assert report.main([str(directory)]) == 0
    again = {path.name: path.read_bytes() for path in directory.glob("*.*") if path.name not in PLANNED}
    assert set(again) == set(before)
    assert {name for name in before if before[name] != again[name]} == {"runs.csv", "report.json"}
    without_record = {key: value for key, value in summary.items() if key not in ("inputs", "printed", "files")}
    assert files.read_json(directory / "report.json") == without_record
    original, moved = (pd.read_csv(only_sweep(folder) / "runs.csv") for folder in (results, tmp_path / "moved"))
    pd.testing.assert_frame_equal(original.drop(columns="directory"), moved.drop(columns="directory"), check_exact=True)
    assert all(Path(path).is_relative_to(tmp_path) for path in moved["directory"])


def test_a_tracked_sweep_under_joblib_gives_the_same_table(done, tmp_path):
    """W&B's logs, read back, contain every run completely."""
    results, _ = done
    several = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "tracker=wandb_offline"]
    options = [f"results={tmp_path}", *TINY, *GRID, "snapshots.every=1", *several]
    other = subprocess.run([sys.executable, str(REPOSITORY / "sweep.py"), *options], stderr=subprocess.PIPE, text=True)
    assert other.returncode == 0, other.stderr
    addresses = [line for line in other.stderr.splitlines() if line.startswith("tracker=")]
    assert addresses == [f"tracker=wandb_offline: wandb sync {tmp_path}/wandb/offline-run-*"]  # once for the whole sweep
    one, two = (pd.read_csv(only_sweep(folder) / "runs.csv") for folder in (results, tmp_path))
    pd.testing.assert_frame_equal(one.drop(columns=TIMES), two.drop(columns=TIMES), check_exact=True)
    assert only_sweep(results).name == only_sweep(tmp_path).name
    weights = [
        {path.parent.name: files.read_json(path)["checksums"]["model.pt"] for path in folder.glob("runs/*/run.json")}
        for folder in (results, tmp_path)
    ]
    assert weights[0] == weights[1]  # bit-identical
    assert len(weights[0]) == 6

    logged = {run["id"]: run for run in read_runs(tmp_path)}
    assert len(logged) == 7
    for _, row in two.iterrows():
        run = logged.pop(row["identity"])
        assert run["group"] == only_sweep(tmp_path).name
        assert run["name"] == f"learning_rate={row['learning_rate']} seed={row['seed']}"
        assert run["config"]["optimizer"]["learning_rate"] == row["learning_rate"]
        assert run["config"]["seed"] == row["seed"]
        columns = {"data": "dataset", "network": "model", "learning_rate": "learning_rate", "batch_size": "batch_size"}
        assert {key: run["config"][key] for key in columns} == {key: row[column] for key, column in columns.items()}
        assert run["summary"]["test_accuracy"] == pytest.approx(row["test_accuracy"])
        assert run["summary"]["region_count_line"] == pytest.approx(row["region_count_line"])
        written = pd.read_csv(Path(row["directory"]) / "history.csv")
        assert [epoch for epoch, _ in history(run, "epoch", "running_loss")] == written["epoch"].tolist()
        snapshots = pd.read_csv(only_sweep(tmp_path) / "snapshots.csv").query(f"identity == '{row['identity']}'")
        counts = history(run, "epoch", "region_count_line")  # measured after training
        assert counts == list(snapshots[["epoch", "region_count_line"]].itertuples(index=False, name=None))
        assert [loss for (loss,) in history(run, "running_loss")] == pytest.approx(written["train_loss"].tolist())
    (summary,) = logged.values()
    assert summary["job_type"] == "sweep"
    assert (summary["config"]["networks"], summary["config"]["data"]) == ([two["model"][0]], [two["dataset"][0]])
    correlations = pd.read_csv(only_sweep(tmp_path) / "correlations.csv").set_index(["measure", "target"])
    kendall = correlations.loc[("region_count_line", "generalization_gap"), "kendall"]
    assert summary["summary"]["region_count_line/kendall"] == pytest.approx(kendall)
    logged = {key for row in summary["history"] for key in row}
    assert {"runs", "configurations", "correlations", "decision_regions", "count_through_training_line"} <= logged
    assert {"heat_map_region_count_line", "heat_map_test_accuracy", "count_against_gap_line_table"} <= logged
    assert "heat_maps" not in logged  # logged as charts


def test_no_run_starts_after_the_time_budget(tmp_path):
    first = sweep(tmp_path, *GRID, "sweep.time_budget=0.001s")
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("not started, the time budget is used up") == 6
    assert "6 runs were not started" in first.stdout
    assert not list(tmp_path.glob("runs/*/model.pt"))
    again = sweep(tmp_path, *GRID, "sweep.time_budget=1h")
    assert again.returncode == 0
    assert set(pd.read_csv(only_sweep(tmp_path) / "runs.csv")["status"]) == {"finished"}


def test_a_launcher_that_stops_early_is_not_reported_as_a_used_up_time_budget(tmp_path):
    stopped = sweep(tmp_path, *GRID, "sweep.time_budget=1h", "hydra.launcher.batch_size=0", launcher="joblib")
    assert stopped.returncode == 1
    (line,) = [line for line in stopped.stderr.splitlines() if line.startswith("the launcher stopped early")]
    log = only_sweep(tmp_path) / "hydra" / "launcher.log"
    assert "batch_size" in line
    assert str(log) in line
    assert "Traceback" not in stopped.stderr
    assert "Traceback" in log.read_text()
    assert set(pd.read_csv(only_sweep(tmp_path) / "runs.csv")["status"]) == {"missing"}


def test_the_slurm_launcher_is_refused_without_slurm(tmp_path):
    refused = sweep(tmp_path, *GRID, launcher="submitit_slurm", PATH="")
    assert refused.returncode == 2
    assert refused.stderr == (
        "sweep.py: hydra/launcher=submitit_slurm needs Slurm, but the command srun is missing: run the sweep on a node of "
        "the cluster, or use hydra/launcher=parallel or submitit_local\n"
    )
    assert not list(tmp_path.iterdir())


def test_a_sweep_reports_published_figures_and_a_regression(tmp_path):
    grid = ["optimizer.learning_rate=0.1,0.05,0.01", "batch_size=8,64"]
    options = ["sweep.regression=[region_count_line,parameter_norm]", "sweep.targets=[region_count_line]"]
    done = sweep(tmp_path, *grid, *options, "measures=[accuracy,parameter_norm]", "+sweep.published.line=cifar10")
    assert done.returncode == 0, done.stderr
    directory = only_sweep(tmp_path)
    runs = pd.read_csv(directory / "runs.csv")
    regression = pd.read_csv(directory / "regression.csv").set_index("measure")
    design = np.column_stack([np.ones(6), runs["region_count_line"], runs["parameter_norm"]])
    coefficients = np.linalg.lstsq(design, runs["test_error"], rcond=None)[0]
    for measure, expected in zip(("region_count_line", "parameter_norm"), coefficients[1:], strict=True):
        assert regression.loc[measure, "coefficient"] == pytest.approx(expected, rel=1e-6, abs=1e-9)
    correlations = pd.read_csv(directory / "correlations.csv").set_index(["measure", "target"])
    assert set(correlations.index.get_level_values("target")) == {"generalization_gap", "test_error", "region_count_line"}
    pearson = correlations.loc[("parameter_norm", "region_count_line"), "pearson"]
    assert pearson == pytest.approx(runs["parameter_norm"].corr(runs["region_count_line"]), abs=1e-4)
    row = "| parameter norm | region count (line) | all |"
    [printed] = [line for line in (directory / "tables.md").read_text().splitlines() if line.startswith(row)]
    assert f"{pearson:.3f} (no interval)" in printed
    compared = pd.read_csv(directory / "comparison.csv")
    assert compared["published_pearson"].isna().all()  # the paper does not have this network
    assert compared["pearson"].tolist() == pytest.approx(
        [correlations.loc[("region_count_line", "generalization_gap"), "pearson"]]
    )
    assert "beside the paper" in (directory / "report.html").read_text()


def test_a_failed_run_is_reported_and_the_other_runs_finish(tmp_path):
    """A file has the name of one cell's run directory, so that run cannot be written."""
    plan = make_plan([f"results={tmp_path}", *TINY, *GRID])
    victim = plan.runs[2]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / f"{victim.name}-{victim.identity}").write_text("in the way")
    failed = sweep(tmp_path, *GRID)
    assert failed.returncode == 1
    assert "learning_rate=0.05 seed=0" in failed.stderr
    runs = pd.read_csv(only_sweep(tmp_path) / "runs.csv")
    assert runs["status"].tolist() == ["finished", "finished", "failed", "finished", "finished", "finished"]
    assert runs["error"].notna().tolist() == [False, False, True, False, False, False]
    (tmp_path / "runs" / f"{victim.name}-{victim.identity}").unlink()
    rerun = sweep(tmp_path, *GRID)
    assert rerun.returncode == 0, rerun.stderr
    assert rerun.stdout.count("(already complete)") == 5


def test_a_diverged_run_is_kept_in_the_table(tmp_path):
    done = sweep(tmp_path, "optimizer.learning_rate=0.1,1e12")
    assert done.returncode == 0, done.stderr
    runs = pd.read_csv(only_sweep(tmp_path) / "runs.csv")
    assert runs["status"].tolist() == ["finished", "diverged"]
    assert runs["train_accuracy"].isna().tolist() == [False, True]
    assert "1 diverged" in done.stdout


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["optimizer.learning_rate=0.1,-0.1"], "optimizer.learning_rate=-0.1"),
        (["batch_size=16,0"], "batch_size=0"),
        (["seed=0,1", "regions.line.resolution=1"], "regions.line.resolution=1"),
        (["regions=[line,simplex_3]", "regions.simplex_3.dimension=3,0"], "dimension=0"),
        (["model=mlp,vgg19"], "vgg19"),
        (["model=mlp,nonsense"], "nonsense"),
        (["learning_rate=0.1,0.2"], "learning_rate"),
        (["seed=0,0"], "twice"),
        (["device=auto,cpu", "seed=0,1"], "twice: device=auto and cpu train and measure the same"),
        (["sweep.name=a,b"], "twice: sweep.name=a and b"),
        (["tracker.group=mine", "seed=0,1"], "tracker.group=mine"),
        (["tracker=wandb_offline", "tracker.project=a/b", "seed=0,1"], "tracker.project=a/b"),
        (["sweep.targets=[sharpness_foo]", "measures=[sharpness]", "seed=0,1"], "sweep.targets=sharpness_foo"),
        (["+sweep.published.line=nothing", "seed=0,1"], "sweep.published.line=nothing"),
        (["+sweep.published.lime=cifar10", "seed=0,1"], "sweep.published.lime: no subspace or measure has this name; did"),
        (["sweep.name=../x", "seed=0,1"], "sweep.name"),
        (["seed=range(0"], "range"),
        (["sweep.time_budget=20", "seed=0,1"], "sweep.time_budget=20"),
        (["sweep.targets=[nonsense]", "seed=0,1"], "sweep.targets=nonsense"),
        (["sweep.regression=[parameter_norm]", "seed=0,1"], "sweep.regression=parameter_norm"),
    ],
)
def test_an_invalid_cell_is_rejected_before_anything_starts(tmp_path, options, reason):
    with pytest.raises(InputError) as caught:
        make_plan([f"results={tmp_path}", *(o for o in TINY if not o.startswith("model.")), *options])
    assert reason in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("launcher_class", "size"), [("BasicLauncher", 1), ("JoblibLauncher", 250), ("SlurmLauncher", 1000)]
)
def test_results_of_a_batch_of_jobs_are_not_kept_in_memory(launcher_class, size):
    """A launcher returns two configurations with each job. Those of a sweep of a thousand runs would take 200 MB."""

    class Configuration:
        pass

    class Launcher:
        def launch(self, job_overrides, initial_job_idx):
            alive.append(sum(reference() is not None for reference in returned))
            results = [JobReturn(cfg=Configuration(), status=JobStatus.COMPLETED) for _ in job_overrides]
            returned.extend(weakref.ref(result.cfg) for result in results)
            return results

    returned, alive = [], []
    launch(None, {number: ["seed=0"] for number in range(2000)}, type(launcher_class, (Launcher,), {})())
    assert len(alive) == 2000 // size
    assert max(alive) <= size


@pytest.mark.parametrize("scale", [[], ["scale=small"]])
def test_composed_cells_match_those_of_hydra(scale):
    """Test every second experiment: Hydra composes each cell from files, `compose_cells` only some of them."""
    folder = CONFIGS / "experiment"
    names = sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("[!_]*.yaml"))
    with hydra_ready():
        loader = GlobalHydra.instance().config_loader()
        for name in names[::8] if scale else names[1::2]:
            fixed = [f"experiment={name}", *scale, "measures=[accuracy]", "++sweep.published.plane=cifar10"]
            config = compose("sweep", fixed, with_hydra=True)
            cells = split_grid([*fixed, "++model.extra=4,8"], config.hydra.sweeper.params, loader)
            cells = [cells[0], cells[-1]]
            _, composed = compose_cells(cells, config, loader)
            expected = hydra.compose("sweep", [override.input_line for override in cells[1]])
            assert OmegaConf.to_container(composed) == OmegaConf.to_container(expected)
            assert OmegaConf.to_container(composed, resolve=True) == OmegaConf.to_container(expected, resolve=True)


@pytest.mark.parametrize(
    "options",
    [
        ["seed=0,1", "regions.line={number:5}", "regions.line.number=7,8"],
        ["regions.line.number=7,8", "regions.line={number:5}"],
        ["~regions.line", "seed=0,1"],
        ["+model.depth=1,2", "seed=range(0,2)"],
        ["optimizer=choice(sgd,adam)", "optimizer.learning_rate=0.1,0.2"],
        ["schedule=glob(co*)", "schedule=constant,cosine", "results='a b,c'"],
    ],
)
def test_overrides_of_every_kind_are_composed_as_in_hydra(options):
    with hydra_ready():
        loader = GlobalHydra.instance().config_loader()
        config = compose("sweep", [], with_hydra=True)
        cells = split_grid(options, {}, loader)
        assert len(cells) > 1
        for cell, composed in zip(cells, compose_cells(cells, config, loader), strict=True):
            assert composed == hydra.compose("sweep", [override.input_line for override in cell])


def test_a_grid_varies_its_last_option_fastest():
    with hydra_ready():
        cells = split_grid(["seed=0,1", "epochs=3"], {"batch_size": "8,16", "epochs": "1,2"}, None)
    lines = [" ".join(override.input_line for override in cell) for cell in cells]
    assert lines == [f"batch_size={size} epochs=3 seed={seed}" for size in (8, 16) for seed in (0, 1)]


def test_measuring_settings_share_runs(tmp_path):
    """Cells that differ only in the number of lines share runs, and each number of lines is a group."""
    plan = make_plan([f"results={tmp_path}", *TINY, *GRID, "regions.line.number=5,10"])
    assert len({run.identity for run in plan.runs}) == 6
    assert plan.measuring_columns == ["number"]


@pytest.fixture
def colours(tmp_path):
    """The option for an image folder: two classes of images of one colour each."""
    for split, colour, number in itertools.product(("train", "test"), ("red", "blue"), range(8)):
        path = tmp_path / "colours" / split / colour / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (200 + number, 0, 0) if colour == "red" else (0, 0, 200 + number)).save(path)
    return f"++dataset.root={tmp_path / 'colours'}"


@pytest.mark.parametrize(
    "options",
    [
        ["dataset=image_folder", "model=imagenet_resnet18,imagenet_resnet34"],
        ["dataset=image_folder", "model=torchvision", "model.architecture=resnet18,resnet34"],
        ["dataset=image_folder", "model=imagenet_resnet18,mlp"],
        ["dataset=image_folder", "model=mlp", "model.width=8,16", "optimizer=sgd,adam", "precision=float32,bfloat16"],
        ["dataset=digits,image_folder", "dataset.title=one name", "model=mlp", "augmentation=none,mixup"],
        [
            "dataset=image_folder",
            "model=mlp",
            "dataset.train_size=4,8",
            "dataset.seed=0,1",
            "epochs=1,2",
            "schedule=constant,cosine",
        ],
    ],
)
def test_no_table_averages_over_what_distinguishes_trained_models(tmp_path, colours, options):
    """Runs of one configuration differ in their seeds alone, whichever options a grid varies."""
    plan = make_plan([f"results={tmp_path}", colours, "regions.line.number=5", "batch_size=8", "seed=0,1", *options])
    table = collect(plan).runs
    columns = [*group_columns(plan), *plan.hyperparameters]
    trained = [
        run_identity(as_mapping(replace(run.config, seed=0)), run.dataset.fingerprints["train"], run.precision, False)
        for run in plan.runs
    ]
    configurations = [tuple(row) for row in table[columns].itertuples(index=False)]
    assert len({*zip(configurations, trained, strict=True)}) == len({*configurations}) == len({*trained}) > 1
    assert len({*zip(table["dataset"], table["model"], strict=True)}) == (1 if options[1] == "model=mlp" else 2)


@pytest.mark.parametrize("script", ["train.py", "measure.py", "sweep.py"])
def test_an_unknown_option_is_one_line_with_exit_status_2(script, tmp_path):
    done = run_command(script, f"results={tmp_path}", "nonsense=1")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "nonsense" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_measure_prints_a_table_and_draws_decision_regions(done):
    results, _ = done
    directory = sorted((results / "runs").glob("*/run.json"))[0].parent
    measured = run_command(
        "measure.py", f"run={directory}", "regions=[line,plane]", "regions.plane.number=5", "regions.line.number=10"
    )
    assert measured.returncode == 0, measured.stderr
    assert "region_count plane" in measured.stdout
    assert (directory / "decision_regions.png").stat().st_size > 1000
    missing = run_command("measure.py", f"run={results / 'nowhere'}")
    assert missing.returncode == 2
    assert len(missing.stderr.splitlines()) == 1


def test_a_sweep_ranks_all_requested_measures(done):
    results, _ = done
    names = ["parameter_norm", "output_margin", "epochs_to_fit", "seed_agreement"]
    ranked = sweep(results, *GRID, "sweep.name=ranked", f"measures=[accuracy,{','.join(names)}]")
    assert ranked.returncode == 0, ranked.stderr
    (directory,) = (results / "sweeps").glob("ranked-*")
    table, ranking = pd.read_csv(directory / "runs.csv"), pd.read_csv(directory / "ranking.csv")
    assert set(ranking["measure"]) == {"region_count_line", "region_entropy_line", "train_loss", *names}
    defined = ranking["kendall"].abs().dropna()
    assert list(defined) == sorted(defined, reverse=True)
    assert "measures against generalization_gap" in ranked.stdout
    assert (directory / "measures_against_gap.png").stat().st_size > 10_000
    # No run reaches 99 % in three epochs: the measure is undefined, with a reason.
    assert table["epochs_to_fit"].isna().all()
    assert table["epochs_to_fit_error"].str.contains("no epoch").all()
    first, second = (store.load(path) for path in table["directory"][:2])  # two seeds of one configuration
    labels = [
        next(array for name, array in run.region_arrays().items() if name.endswith("/labels")) for run in (first, second)
    ]
    same = sum(int(one == other) for one, other in zip(labels[0].flat, labels[1].flat, strict=True)) / labels[0].size
    assert 0 < same < 1
    assert list(table["seed_agreement"][:2]) == pytest.approx([same, same])


@pytest.mark.parametrize("damage", ["missing", "corrupted"])
def test_a_rerun_measures_again_what_is_damaged(done, tmp_path, damage):
    results, first = done
    shutil.copytree(results, tmp_path / "copy")
    directory = tmp_path / "copy" / "sweeps" / Path(first.stdout.split(", in ")[1].splitlines()[0]).name
    before = pd.read_csv(directory / "runs.csv")
    arrays = next(iter(sorted((tmp_path / "copy").glob("runs/*/regions.npz"))))
    arrays.unlink()
    if damage == "corrupted":
        arrays.write_bytes(b"garbage")
    again = sweep(tmp_path / "copy", *GRID, "snapshots.every=1")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("(already complete)") == 5
    assert store.load(arrays.parent).region_arrays()
    pd.testing.assert_frame_equal(
        pd.read_csv(directory / "runs.csv").drop(columns=TIMES), before.drop(columns=TIMES), check_exact=True
    )


def test_a_failure_belongs_to_its_cell_and_not_to_its_run(tmp_path):
    (tmp_path / "failing.py").write_text(
        "import torch\nimport regioncount as rc\n\n"
        "@rc.register_measure()\ndef failing(measured):\n    raise torch.OutOfMemoryError('full')\n"
    )
    options = ["plugins=[failing]", "measures=[accuracy,failing],[accuracy]", "seed=0,1"]
    for _ in range(2):
        command = run_command("sweep.py", *TINY, *options, directory=tmp_path)
        assert command.returncode == 1
        runs = pd.read_csv(only_sweep(tmp_path / "results") / "runs.csv")
        assert runs["status"].tolist() == ["failed", "failed", "finished", "finished"]


@pytest.mark.parametrize("requeued", [True, False])
def test_the_exit_of_a_requeued_job_is_not_a_failure_of_its_cell(tmp_path, monkeypatch, requeued):
    """Submitit's signal handler exits from whatever code it interrupts; a plugin that exits is a failure."""
    options = [f"results={tmp_path}", *TINY]
    plan = make_plan(options)
    plans.write(plan)
    with hydra_ready():
        config = compose("train", [*options, f"+sweep.directory={plan.directory}", "+sweep.cell=0", "+sweep.line=0"])
    leave = partial(signal.raise_signal, signal.SIGUSR2) if requeued else sys.exit
    monkeypatch.setattr(cell.runner, "run_or_resume", lambda *_, **__: leave())
    before = signal.signal(signal.SIGUSR2, lambda *_: sys.exit(-1))
    try:
        with pytest.raises(SystemExit) if requeued else nullcontext():
            assert cell.run(config) == "failed"
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert len(list(plan.directory.glob("failures/*"))) == (0 if requeued else 1)


def test_a_forced_option_has_the_column_of_the_option():
    overrides = [["++seed=0,1", "++optimizer.learning_rate=0.1,0.05"], ["seed=0,1", "optimizer.learning_rate=0.1,0.05"]]
    plans = [make_plan([*TINY, *options]) for options in overrides]
    assert plans[0].hyperparameters == plans[1].hyperparameters
    for forced, plain in zip(plans[0].runs, plans[1].runs, strict=True):
        assert (forced.varied, forced.identity) == (plain.varied, plain.identity)


@pytest.mark.parametrize("option", ["model=mlp", "model.width=9", "dataset=cifar10", "results=elsewhere"])
def test_options_that_a_run_has_itself_are_refused(done, option):
    directory = next((done[0] / "runs").iterdir())
    result = run_command("measure.py", f"run={directory}", option)
    assert (result.returncode, result.stdout) == (2, "")
    assert f"{option.partition('=')[0]}: a run has its own" in result.stderr


def test_a_launcher_without_processes_is_refused(tmp_path):
    result = sweep(tmp_path, *GRID, "hydra.launcher.n_jobs=0", launcher="joblib")
    assert result.returncode == 2
    assert "n_jobs=0" in result.stderr
    assert not list((tmp_path / "sweeps").glob("*/plan.json"))


def test_an_option_named_like_a_measured_column_keeps_its_full_name():
    plan = make_plan([*TINY, "stop.train_loss=1.9,1.5", "stop.train_accuracy=0.3,0.9", "seed=0,1"])
    assert list(plan.runs[0].varied) == ["stop.train_loss", "stop.train_accuracy", "seed"]


def test_a_grid_over_experiments_is_refused():
    with pytest.raises(InputError, match="choose one experiment"):
        make_plan(["experiment=quickstart,cifar10_small"])
