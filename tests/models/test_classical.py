"""Classical classifiers: their regions in closed form, their runs without weights, their sweeps."""

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

import regioncount as rc
from regioncount import data, models, registry
from regioncount.commands import compose, hydra_ready
from regioncount.config import parse_measuring, parse_run
from regioncount.data.splits import Split, StreamedSplit
from regioncount.models import classifiers
from regioncount.runs import describe, measuring, runner
from regioncount.runs.measurements import measured_values

REPOSITORY = Path(__file__).resolve().parents[2]
DIGITS = data.load("digits", train_size=130, test_size=100)
CLASSIFIERS = [name for name in registry.models.names() if registry.models[name].traits.get("kind") == "classifier"]
SMALL = ["dataset.train_size=100", "dataset.test_size=200", "regions.line.number=10", "regions.line.resolution=30"]


def grey(levels: list[int], labels: list[int]) -> data.Dataset:
    """Images of a single pixel."""
    split = Split(torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1), torch.tensor(labels))
    return data.Dataset("grey", split, split, ("a", "b", "c"), (0.5,), (0.25,))


def ramp(dataset: data.Dataset) -> torch.Tensor:
    """The segment from black to white, normalized."""
    return dataset.normalize(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1))[None]


def configuration(*overrides: str):
    with hydra_ready():
        return parse_run(compose("train", overrides))


def command(script: str, *options: str) -> subprocess.CompletedProcess:
    arguments = [sys.executable, str(REPOSITORY / script), *options]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def reference(max_depth: int | None, seed: int) -> dict[str, float]:
    """Accuracies of scikit-learn's tree on the data set of SMALL."""
    dataset = data.load("digits", train_size=100, test_size=200)
    train, test = (dataset.normalize(split.images).flatten(1).numpy() for split in (dataset.train, dataset.test))
    tree = DecisionTreeClassifier(max_depth=max_depth, random_state=seed).fit(train, dataset.train.labels.numpy())
    splits = {"train_accuracy": (train, dataset.train), "test_accuracy": (test, dataset.test)}
    return {name: tree.score(points, split.labels.numpy()) for name, (points, split) in splits.items()}


@given(st.lists(st.integers(1, 254), max_size=30, unique=True), st.data())
@settings(max_examples=30)
def test_regions_of_a_tree_and_of_the_nearest_neighbour_on_a_line_are_runs_of_labels(levels, draw):
    """Both put every boundary halfway between neighbours of different labels, so that as many regions are seen as there
    are runs of equal labels."""
    levels = [0, *sorted(levels), 255]
    labels = draw.draw(st.lists(st.integers(0, 2), min_size=len(levels), max_size=len(levels)))
    dataset = grey(levels, labels)
    runs = 1 + sum(one != other for one, other in itertools.pairwise(labels))
    for model in ({"name": "decision_tree"}, {"name": "nearest_neighbours", "n_neighbors": 1}):
        predict = classifiers.fit(model, 0, dataset)
        assert list(rc.count_regions(predict, ramp(dataset), resolution=256).counts) == [runs]


@given(st.lists(st.integers(1, 8), min_size=3, max_size=3))
@settings(max_examples=20)
def test_a_shallow_tree_has_fewer_regions(sizes):
    """Three blocks of one label each: one cut, which is best between two blocks, then another."""
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    dataset = grey(np.linspace(0, 255, len(labels)).astype(int).tolist(), labels)
    for depth, expected in ((1, 2), (2, 3), (3, 3)):
        predict = classifiers.fit({"name": "decision_tree", "max_depth": depth}, 0, dataset)
        assert list(rc.count_regions(predict, ramp(dataset), resolution=256).counts) == [expected]


@given(st.integers(0, 2**31), st.floats(0, 1))
@settings(max_examples=30)
def test_the_nearest_neighbour_is_the_nearest(seed, share):
    generator = torch.Generator().manual_seed(seed)
    images = DIGITS.normalize(DIGITS.train.images)
    first, second = (images[torch.randint(130, (20,), generator=generator)] for _ in range(2))
    points = first + share * (second - first)
    found = classifiers.fit({"name": "nearest_neighbours", "n_neighbors": 1}, 0, DIGITS)(points)
    distances = (points.double().flatten(1)[:, None] - images.double().flatten(1)).norm(dim=2)
    of_found = torch.stack([row[DIGITS.train.labels == label].min() for row, label in zip(distances, found, strict=True)])
    assert (of_found <= distances.amin(dim=1) + 1e-5).all()  # where two labels are as near, either will do


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_fitted_again_it_gives_the_same_labels(name):
    points = torch.randn(400, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model = {"name": name, **models.default_options(name)}
    labels = []
    for _ in range(2):
        classifiers._fit.cache_clear()
        labels.append(classifiers.fit(model, 3, DIGITS)(points))
    assert labels[0].dtype == np.int64
    assert len({*labels[0]}) > 1
    assert np.array_equal(*labels)


def test_the_seed_and_the_options_reach_scikit_learn():
    points = torch.randn(400, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    train, labels = DIGITS.normalize(DIGITS.train.images).flatten(1).numpy(), DIGITS.train.labels.numpy()
    for seed in (0, 1):
        options = {"n_estimators": 7, "max_depth": 3, "min_samples_leaf": 2}
        forest = RandomForestClassifier(**options, random_state=seed).fit(train, labels)
        found = classifiers.fit({"name": "random_forest", **options}, seed, DIGITS)(points)
        assert np.array_equal(found, forest.predict(points.flatten(1).numpy()))


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["model=decision_tree", "+model.depth=3"], "model.depth: decision_tree has no such option"),
        (["model=decision_tree", "model.max_depth=0"], "max_depth"),
        (["model=decision_tree", "model.max_depth=deep"], "max_depth"),
        (["model=random_forest", "model.n_estimators=-1"], "n_estimators"),
        (["model=nearest_neighbours", "model.n_neighbors=0"], "n_neighbors"),
        (["model=nearest_neighbours", "model.n_neighbors=many"], "n_neighbors"),
        (["model=nearest_neighbours", "model.n_neighbors=301"], "n_neighbors=301 exceeds the 300 training images"),
        (["model=support_vector_machine", "model.kernel=round"], "kernel"),
        (["model=support_vector_machine", "model.kernel=precomputed"], "model.kernel=precomputed"),
        (["model=logistic_regression", "model.C=-1"], "model.C=-1"),
        (["model=decision_tree", "seed=4294967296"], "seed=4294967296"),
        (["model=decision_tree", "seed=-1"], "seed=-1"),
    ],
)
def test_what_cannot_be_fitted_is_one_line_before_anything_starts(tmp_path, overrides, reason):
    with pytest.raises(rc.InputError, match=r"^(model|seed)") as caught:
        runner.prepare(configuration(f"results={tmp_path}", *overrides))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_streamed_data_are_refused():
    streamed = StreamedSplit(["a.png", "b.png"], [1, 1], torch.tensor([0, 1]), 32, 0)
    dataset = data.Dataset("photographs", streamed, streamed, ("a", "b"), (0.5,) * 3, (0.25,) * 3)
    with pytest.raises(rc.InputError, match="photographs is streamed"):
        classifiers.check({"name": "decision_tree"}, dataset, None)


def test_a_file_of_weights_is_not_a_classical_classifier():
    with pytest.raises(rc.InputError, match="model=decision_tree has no weights"):
        parse_measuring({"checkpoint": "weights.pt", "dataset": {"name": "digits"}, "model": {"name": "decision_tree"}})


def test_a_run_is_made_by_options_seed_and_data_alone(tmp_path):
    tree = ["model=decision_tree", f"results={tmp_path}"]
    plain = runner.prepare(configuration(*tree)).identity
    for override in ("optimizer=adam", "optimizer.learning_rate=0.5", "schedule=step", "augmentation=mixup", "batch_size=7"):
        assert runner.prepare(configuration(*tree, override)).identity == plain
    for override in ("epochs=3", "stop.train_accuracy=0.5", "snapshots.every=1", "precision=bfloat16", "regions=[line]"):
        assert runner.prepare(configuration(*tree, override)).identity == plain
    for override in ("seed=1", "model.max_depth=3", "dataset.train_size=200", "model=random_forest"):
        assert runner.prepare(configuration(*tree, override)).identity != plain


def test_a_run_keeps_no_model_and_is_fitted_once_to_measure_it(tmp_path, monkeypatch):
    expected = reference(None, 0)
    fits = []
    fit = DecisionTreeClassifier.fit
    monkeypatch.setattr(DecisionTreeClassifier, "fit", lambda tree, x, y: fits.append(len(x)) or fit(tree, x, y))
    overrides = ["model=decision_tree", *SMALL[:2], f"results={tmp_path}", "snapshots.every=1"]
    job = runner.prepare(configuration(*overrides, "regions=[line]", *SMALL[2:]))
    found = runner.run_or_resume(job)
    assert fits.count(100) == 1
    assert sorted(path.name for path in found.directory.iterdir() if path.is_file()) == [
        "measures.json",
        "regions.npz",
        "run.json",
    ]
    record = json.loads((found.directory / "run.json").read_text())
    assert (record["status"], record["summary"]["epochs_trained"]) == ("finished", 0)
    assert record["config"]["optimizer"] == {}
    row = measured_values(found, job.config, job.dataset)
    assert row["generalization_gap"] == pytest.approx(expected["train_accuracy"] - expected["test_accuracy"])
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    assert runner.run_or_resume(job).record == found.record
    runner.run_or_resume(runner.prepare(configuration(*overrides, "regions=[line]", "regions.seed=1", *SMALL[2:])))
    assert fits.count(100) == 1

    classifiers._fit.cache_clear()  # as in a later process, which has the directory alone
    more = parse_measuring({"run": str(found.directory), "regions": {"plane": {"dimension": 2, "number": 5}}})
    again, dataset = measuring.open_for_measuring(more)
    measuring.measure_epochs(again, more, dataset, torch.device("cpu"))
    measuring.decision_regions(again, dataset, torch.device("cpu"))
    assert fits.count(100) == 2
    assert measured_values(again, more, dataset)["region_count_plane"] >= 1
    assert measured_values(again, job.config, job.dataset) == pytest.approx(row, nan_ok=True)


def test_every_other_measure_says_that_it_is_of_networks(tmp_path):
    config = configuration("model=logistic_regression", "measures=[all]", *SMALL[:2], f"results={tmp_path}")
    job = runner.prepare(config)
    found = runner.run_or_resume(job)
    row = measured_values(found, config, job.dataset)
    others = [name for name in config.measures if name not in ("accuracy", "seed_agreement")]
    assert len(others) > 30
    assert all(math.isnan(row[name]) and "needs a network" in row[f"{name}_error"] for name in others)
    assert math.isnan(row["train_loss"])
    assert "needs logits" in row["train_loss_error"]
    assert 0 < row["test_accuracy"] < 1
    shown = describe.describe(found, config, job.dataset, [0])
    assert "sharpness: it needs a network" in shown


def test_another_process_fits_the_same_classifier_again(tmp_path):
    """measure.py, which finds no weights, counts on lines of its own what is counted here."""
    config = configuration("model=random_forest", "model.n_estimators=10", *SMALL[:2], f"results={tmp_path}")
    job = runner.prepare(config)
    directory = runner.run_or_resume(job).directory
    asked = ["regions=[line,plane]", "regions.plane.number=5", "regions.seed=3", *SMALL[2:]]
    done = command("measure.py", f"run={directory}", *asked)
    assert done.returncode == 0, done.stderr
    assert (directory / "decision_regions.png").stat().st_size > 1000
    predict = classifiers.fit(config.model, config.seed, job.dataset)
    images = job.dataset.normalize(job.dataset.train.images)
    lines = rc.sample_simplices(images, 1, 10, torch.Generator().manual_seed(3))
    expected = rc.count_regions(predict, lines, resolution=30)
    shown = [line.split() for line in done.stdout.splitlines()]
    assert ["region_count", "line", f"{expected.mean:.3f}", "±", f"{expected.standard_error:.3f}"] in shown
    assert any(line[:2] == ["region_count", "plane"] for line in shown)


def test_a_sweep_over_a_classifiers_own_options(tmp_path):
    grid = ["model=decision_tree", "model.max_depth=2,4,8", "seed=0,1", "measures=[accuracy,seed_agreement,sharpness]"]
    done = command("sweep.py", *grid, *SMALL, f"results={tmp_path}")
    assert done.returncode == 0, done.stderr
    directory = next(tmp_path.glob("sweeps/*/plan.json")).parent
    runs = pd.read_csv(directory / "runs.csv")
    assert runs[["max_depth", "seed"]].to_numpy().tolist() == [[d, s] for d in (2, 4, 8) for s in (0, 1)]
    assert runs[["learning_rate", "batch_size", "weight_decay"]].isna().all(axis=None)
    for _, run in runs.iterrows():
        expected = reference(int(run["max_depth"]), int(run["seed"]))
        assert {name: run[name] for name in expected} == pytest.approx(expected)
    averages = runs.groupby("max_depth")[["region_count_line", "generalization_gap"]].mean()
    correlations = pd.read_csv(directory / "correlations.csv").set_index(["measure", "target"])
    row = correlations.loc["region_count_line", "generalization_gap"]
    assert (row["configurations"], row["runs"]) == (3, 6)
    expected = averages["region_count_line"].corr(averages["generalization_gap"])
    assert row["pearson"] == pytest.approx(expected, abs=1e-6)
    assert runs["seed_agreement"].between(0, 1).all()
    assert runs["sharpness_error"].str.contains("needs a network").all()
    for name in ("count_against_gap_line", "heat_maps", "decision_regions", "measures_against_gap"):
        assert (directory / f"{name}.png").stat().st_size > 1000
    assert not list(tmp_path.rglob("*.pt"))
