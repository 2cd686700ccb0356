"""Classical classifiers: region counts in closed form, runs without weights, and sweeps."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.linear_model
import torch
from command_line import run_command
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

import regioncount as rc
from regioncount import data, models, registry
from regioncount.commands import compose, hydra_ready
from regioncount.config import parse_measuring, parse_run
from regioncount.data.splits import Split, StreamedSplit
from regioncount.models import classifiers
from regioncount.runs import decision_planes, describe, measuring, runner
from regioncount.runs.measurements import measured_values

REPOSITORY = Path(__file__).resolve().parents[2]
DIGITS = data.load("digits", train_size=130, test_size=100)
CLASSIFIERS = [name for name in registry.models.names() if registry.models[name].traits.get("kind") == "classifier"]
SMALL = ["dataset.train_size=100", "dataset.test_size=200", "regions.line.number=10", "regions.line.resolution=30"]


def grey(levels: list[int], labels: list[int]) -> data.Dataset:
    """Return a data set of one-pixel images."""
    split = Split(torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1), torch.tensor(labels))
    return data.Dataset("grey", split, split, ("a", "b", "c"), (0.5,), (0.25,))


def ramp(dataset: data.Dataset) -> torch.Tensor:
    """Return the normalized segment from black to white."""
    return dataset.normalize(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1))[None]


def configuration(*overrides: str):
    with hydra_ready():
        return parse_run(compose("train", overrides))


def reference(max_depth: int | None, seed: int) -> dict[str, float]:
    """Return the accuracies of scikit-learn's tree on the data set of SMALL."""
    dataset = data.load("digits", train_size=100, test_size=200)
    train, test = (dataset.normalize(split.images).flatten(1).numpy() for split in (dataset.train, dataset.test))
    tree = DecisionTreeClassifier(max_depth=max_depth, random_state=seed).fit(train, dataset.train.labels.numpy())
    splits = {"train_accuracy": (train, dataset.train), "test_accuracy": (test, dataset.test)}
    return {name: tree.score(points, split.labels.numpy()) for name, (points, split) in splits.items()}


@given(st.lists(st.integers(1, 254), max_size=30, unique=True), st.data())
@settings(max_examples=30)
def test_regions_of_a_tree_and_a_nearest_neighbour_classifier_are_runs_of_equal_labels(levels, draw):
    """Both put a boundary halfway between neighbours of different labels, so each run of equal labels is one region."""
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
    """Each level of the tree adds a cut between two of the three blocks of equal labels."""
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    dataset = grey(np.linspace(0, 255, len(labels)).astype(int).tolist(), labels)
    for depth, expected in ((1, 2), (2, 3), (3, 3)):
        predict = classifiers.fit({"name": "decision_tree", "max_depth": depth}, 0, dataset)
        assert list(rc.count_regions(predict, ramp(dataset), resolution=256).counts) == [expected]


@given(st.integers(0, 2**31), st.floats(0, 1))
@settings(max_examples=30)
def test_the_predicted_label_is_that_of_a_nearest_training_image(seed, share):
    generator = torch.Generator().manual_seed(seed)
    images = DIGITS.normalize(DIGITS.train.images)
    first, second = (images[torch.randint(130, (20,), generator=generator)] for _ in range(2))
    points = first + share * (second - first)
    predicted = classifiers.fit({"name": "nearest_neighbours", "n_neighbors": 1}, 0, DIGITS)(points)
    distances = (points.double().flatten(1)[:, None] - images.double().flatten(1)).norm(dim=2)
    rows = zip(distances, predicted, strict=True)
    to_predicted = torch.stack([row[DIGITS.train.labels == label].min() for row, label in rows])
    assert (to_predicted <= distances.amin(dim=1) + 1e-5).all()  # either label is right in a tie


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_refitting_gives_the_same_labels(name):
    points = torch.randn(400, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model = {"name": name, **models.default_options(name)}
    labels = []
    for _ in range(2):
        classifiers._fit.cache_clear()
        labels.append(classifiers.fit(model, 3, DIGITS)(points))
    assert labels[0].dtype == np.int64
    assert len({*labels[0]}) > 1
    assert np.array_equal(*labels)


def test_the_seed_and_the_options_are_passed_to_scikit_learn():
    points = torch.randn(400, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    train, labels = DIGITS.normalize(DIGITS.train.images).flatten(1).numpy(), DIGITS.train.labels.numpy()
    for seed in (0, 1):
        options = {"n_estimators": 7, "max_depth": 3, "min_samples_leaf": 2}
        forest = RandomForestClassifier(**options, random_state=seed).fit(train, labels)
        predicted = classifiers.fit({"name": "random_forest", **options}, seed, DIGITS)(points)
        assert np.array_equal(predicted, forest.predict(points.flatten(1).numpy()))


def test_nearest_neighbours_by_another_distance():
    """Among the classes of the nearest images in the Minkowski distance of power p is the predicted one."""
    generator = torch.Generator().manual_seed(0)
    images = DIGITS.normalize(DIGITS.train.images).double()
    points = images[torch.randint(130, (100,), generator=generator)] + torch.randn(100, 1, 8, 8, generator=generator)
    predictions = []
    for p in (1, 2, 3):
        predicted = classifiers.fit({"name": "nearest_neighbours", "n_neighbors": 1, "p": p}, 0, DIGITS)(points)
        distances = (points.flatten(1)[:, None] - images.flatten(1)).norm(p=p, dim=2)
        assert np.array_equal(predicted, DIGITS.train.labels[distances.argmin(dim=1)].numpy())
        predictions.append(predicted.tolist())
    assert predictions[0] != predictions[1]
    assert predictions[1] != predictions[2]


@pytest.mark.parametrize("options", [{"kernel": "poly", "degree": 2, "coef0": 1.0}, {"kernel": "sigmoid", "coef0": -0.5}])
def test_support_vector_machines_by_the_formulas_of_their_kernels(options):
    points = torch.randn(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    train, test = (classifiers.as_points(images) for images in (DIGITS.normalize(DIGITS.train.images), points))

    def kernel(x, y):
        products = 0.01 * x.astype(np.float64) @ y.T + options["coef0"]
        return np.tanh(products) if options["kernel"] == "sigmoid" else products ** options["degree"]

    reference = SVC(kernel="precomputed").fit(kernel(train, train), DIGITS.train.labels.numpy())
    predicted = classifiers.fit({"name": "support_vector_machine", "gamma": 0.01, **options}, 0, DIGITS)(points)
    assert (predicted == reference.predict(kernel(test, train))).mean() > 0.99  # both solve it to a tolerance
    default = classifiers.fit({"name": "support_vector_machine", "gamma": 0.01, "kernel": options["kernel"]}, 0, DIGITS)
    assert (predicted != default(points)).any()


@pytest.mark.parametrize("options", [{"criterion": "entropy"}, {"splitter": "random"}])
def test_options_of_trees_are_those_of_scikit_learn(options):
    points = torch.randn(400, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    train, labels = classifiers.as_points(DIGITS.normalize(DIGITS.train.images)), DIGITS.train.labels.numpy()
    tree = DecisionTreeClassifier(max_depth=5, random_state=2, **options).fit(train, labels)
    predicted = classifiers.fit({"name": "decision_tree", "max_depth": 5, **options}, 2, DIGITS)(points)
    assert np.array_equal(predicted, tree.predict(classifiers.as_points(points)))
    default = classifiers.fit({"name": "decision_tree", "max_depth": 5}, 2, DIGITS)(points)
    assert not np.array_equal(predicted, default)


@pytest.mark.parametrize(
    ("penalty", "solver"),
    [
        ("l2", "lbfgs"),
        ("l2", "newton-cg"),
        ("l2", "sag"),
        ("l2", "saga"),
        ("l1", "saga"),
        ("none", "lbfgs"),
        ("none", "saga"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_logistic_regression_is_optimal_for_its_penalty(penalty, solver):
    """The gradient of the summed loss is the negative (sub)gradient of the penalty."""
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    points = rng.normal(size=(300, 8)) + 0.7 * np.eye(3, 8)[labels]  # the classes overlap
    weight = 20.0 if penalty != "none" else 0.0  # 1 / C
    options = {} if penalty == "none" else {"C": 1 / weight}
    model = classifiers.logistic_regression(**({"C": 1.0} | options), max_iter=5000, penalty=penalty, solver=solver)
    model.set_params(tol=1e-8, random_state=0).fit(points, labels)
    gradient = (model.predict_proba(points) - np.eye(3)[labels]).T @ points
    if penalty == "l1":
        zero = model.coef_ == 0
        assert zero.any()
        assert not zero.all()
        assert gradient[~zero] == pytest.approx(-weight * np.sign(model.coef_[~zero]), abs=1e-2)
        assert abs(gradient[zero]).max() <= weight + 1e-2
    else:
        assert gradient == pytest.approx(-weight * model.coef_, abs=1e-2)


@pytest.mark.parametrize(
    ("penalty", "old", "new"),
    [
        ("l2", {"penalty": "l2", "C": 3.0}, {"l1_ratio": 0.0, "C": 3.0}),
        ("l1", {"penalty": "l1", "C": 3.0}, {"l1_ratio": 1.0, "C": 3.0}),
        ("none", {"penalty": None, "C": 3.0}, {"l1_ratio": 0.0, "C": math.inf}),
    ],
)
def test_the_penalty_is_passed_as_the_version_of_scikit_learn_expects(monkeypatch, penalty, old, new):
    monkeypatch.setattr(sklearn.linear_model, "LogisticRegression", dict)
    for version, expected in (("1.3.2", old), ("1.7.0", old), ("1.8.0", new), ("1.10.0rc1", new), ("2.0.dev0", new)):
        monkeypatch.setattr(sklearn, "__version__", version)
        passed = classifiers.logistic_regression(C=3.0, max_iter=7, penalty=penalty, solver="saga")
        assert passed == {**expected, "max_iter": 7, "solver": "saga"}


def test_a_solver_that_does_not_converge_causes_one_warning_of_one_line():
    with pytest.warns(UserWarning, match=r"^model=logistic_regression: lbfgs failed to converge after 2 iter") as caught:
        classifiers.fit({"name": "logistic_regression", "max_iter": 2}, 0, DIGITS)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_later_options_at_their_defaults_are_left_out_of_records(name):
    later = {"decision_tree": {"criterion", "splitter"}, "random_forest": {"criterion"}, "nearest_neighbours": {"p"}}
    later |= {"support_vector_machine": {"degree", "coef0"}, "logistic_regression": {"penalty", "solver"}}
    model = configuration(f"model={name}").model
    assert {"name", *models.default_options(name)} - {*model} - {"max_depth"} == later[name]


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["model=decision_tree", "model.criterion=mse"], "model.criterion=mse: no such choice"),
        (["model=decision_tree", "model.splitter=worst"], "model.splitter=worst: no such choice"),
        (["model=random_forest", "+model.splitter=best"], "model.splitter: random_forest has no such option"),
        (["model=nearest_neighbours", "model.p=0.5"], "model.p=0.5: must be at least 1"),
        (["model=support_vector_machine", "model.degree=2"], "degree=2 needs model.kernel=poly, not rbf"),
        (["model=support_vector_machine", "model.coef0=1", "model.kernel=linear"], "coef0=1.0 needs model.kernel=poly or"),
        (["model=logistic_regression", "model.penalty=l1"], "penalty=l1 needs model.solver=saga, not lbfgs"),
        (["model=logistic_regression", "model.penalty=none", "model.C=2"], "C=2.0 has no effect with model.penalty=none"),
        (["model=logistic_regression", "model.penalty=elasticnet"], "model.penalty=elasticnet: no such choice"),
        (["model=logistic_regression", "model.solver=liblinear"], "model.solver=liblinear: no such choice"),
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
def test_invalid_options_raise_a_one_line_error_before_anything_is_written(tmp_path, overrides, reason):
    with pytest.raises(rc.InputError, match=r"^(model|seed)") as caught:
        runner.prepare(configuration(f"results={tmp_path}", *overrides))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("model", ["decision_tree", "two_layer"])
@pytest.mark.parametrize("option", ["epochs=5", "optimizer.learning_rate=0.1", "optimizer=adam", "+stop.train_loss=1"])
def test_options_of_training_in_epochs_are_refused(tmp_path, model, option):
    with pytest.raises(
        rc.InputError, match=f"{option.partition('=')[0].strip('+')}: model={model} is fitted in a single call"
    ):
        rc.train([f"model={model}", option, f"results={tmp_path}"])
    assert list(tmp_path.iterdir()) == []


def test_options_of_training_in_epochs_are_refused_in_sweeps_without_networks(tmp_path):
    with pytest.raises(rc.InputError, match="batch_size: model=decision_tree is fitted in a single call"):
        rc.sweep(["model=decision_tree", "batch_size=16,32", f"results={tmp_path}"])
    assert list(tmp_path.iterdir()) == []


def test_streamed_data_are_refused():
    streamed = StreamedSplit(["a.png", "b.png"], [1, 1], torch.tensor([0, 1]), 32, 0)
    dataset = data.Dataset("photographs", streamed, streamed, ("a", "b"), (0.5,) * 3, (0.25,) * 3)
    with pytest.raises(rc.InputError, match="photographs is streamed"):
        classifiers.check({"name": "decision_tree"}, dataset, None)


def test_classical_classifiers_have_no_checkpoints():
    with pytest.raises(rc.InputError, match="model=decision_tree has no weights"):
        parse_measuring({"checkpoint": "weights.pt", "dataset": {"name": "digits"}, "model": {"name": "decision_tree"}})


def test_the_identity_of_a_run_depends_only_on_options_seed_and_data(tmp_path):
    tree = ["model=decision_tree", f"results={tmp_path}"]
    plain = runner.prepare(configuration(*tree)).identity
    for override in ("optimizer=adam", "optimizer.learning_rate=0.5", "schedule=step", "augmentation=mixup", "batch_size=7"):
        assert runner.prepare(configuration(*tree, override)).identity == plain
    for override in ("epochs=3", "stop.train_accuracy=0.5", "snapshots.every=1", "precision=bfloat16", "regions=[line]"):
        assert runner.prepare(configuration(*tree, override)).identity == plain
    for override in ("seed=1", "model.max_depth=3", "dataset.train_size=200", "model=random_forest"):
        assert runner.prepare(configuration(*tree, override)).identity != plain


def test_a_run_stores_no_model_and_is_fitted_once_per_process(tmp_path, monkeypatch):
    expected = reference(None, 0)
    fits = []
    fit = DecisionTreeClassifier.fit
    monkeypatch.setattr(DecisionTreeClassifier, "fit", lambda tree, x, y: fits.append(len(x)) or fit(tree, x, y))
    overrides = ["model=decision_tree", *SMALL[:2], f"results={tmp_path}", "snapshots.every=1"]
    prepared = runner.prepare(configuration(*overrides, "regions=[line]", *SMALL[2:]))
    run = runner.run_or_resume(prepared)
    assert fits.count(100) == 1
    assert sorted(path.name for path in run.directory.iterdir() if path.is_file()) == [
        "measures.json",
        "regions.npz",
        "run.json",
    ]
    record = json.loads((run.directory / "run.json").read_text())
    assert (record["status"], record["summary"]["epochs_trained"]) == ("finished", 0)
    assert record["config"]["optimizer"] == {}
    row = measured_values(run, prepared.config, prepared.dataset)
    assert row["generalization_gap"] == pytest.approx(expected["train_accuracy"] - expected["test_accuracy"])
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    assert runner.run_or_resume(prepared).record == run.record
    runner.run_or_resume(runner.prepare(configuration(*overrides, "regions=[line]", "regions.seed=1", *SMALL[2:])))
    assert fits.count(100) == 1

    classifiers._fit.cache_clear()  # as in a later process, which has only the directory
    more = parse_measuring({"run": str(run.directory), "regions": {"plane": {"dimension": 2, "number": 5}}})
    again, dataset = measuring.open_for_measuring(more)
    measuring.measure_epochs(again, more, dataset, torch.device("cpu"))
    decision_planes.decision_regions(again, dataset, torch.device("cpu"))
    assert fits.count(100) == 2
    assert measured_values(again, more, dataset)["region_count_plane"] >= 1
    assert measured_values(again, prepared.config, prepared.dataset) == pytest.approx(row, nan_ok=True)


def test_measures_that_need_a_network_are_undefined_with_a_reason(tmp_path):
    config = configuration("model=logistic_regression", "measures=[all]", *SMALL[:2], f"results={tmp_path}")
    prepared = runner.prepare(config)
    run = runner.run_or_resume(prepared)
    row = measured_values(run, config, prepared.dataset)
    others = [name for name in config.measures if name not in ("accuracy", "seed_agreement")]
    assert len(others) > 30
    assert all(math.isnan(row[name]) and "needs a network" in row[f"{name}_error"] for name in others)
    assert math.isnan(row["train_loss"])
    assert "needs logits" in row["train_loss_error"]
    assert 0 < row["test_accuracy"] < 1
    text = describe.describe(run, config, prepared.dataset, [0])
    assert "sharpness: it needs a network" in text


def test_another_process_refits_the_same_classifier(tmp_path):
    """measure.py stores and loads no weights, and counts the same regions."""
    config = configuration("model=random_forest", "model.n_estimators=10", *SMALL[:2], f"results={tmp_path}")
    prepared = runner.prepare(config)
    directory = runner.run_or_resume(prepared).directory
    options = ["regions=[line,plane]", "regions.plane.number=5", "regions.seed=3", *SMALL[2:]]
    process = run_command("measure.py", f"run={directory}", *options)
    assert process.returncode == 0, process.stderr
    assert (directory / "decision_regions.png").stat().st_size > 1000
    predict = classifiers.fit(config.model, config.seed, prepared.dataset)
    images = prepared.dataset.normalize(prepared.dataset.train.images)
    lines = rc.sample_simplices(images, 1, 10, torch.Generator().manual_seed(3))
    expected = rc.count_regions(predict, lines, resolution=30)
    rows = [line.split() for line in process.stdout.splitlines()]
    assert ["region_count", "line", f"{expected.mean:.3f}", "±", f"{expected.standard_error:.3f}"] in rows
    assert any(line[:2] == ["region_count", "plane"] for line in rows)


def test_a_sweep_over_the_options_of_a_classifier(tmp_path):
    grid = ["model=decision_tree", "model.max_depth=2,4,8", "seed=0,1", "measures=[accuracy,seed_agreement,sharpness]"]
    process = run_command("sweep.py", *grid, *SMALL, f"results={tmp_path}")
    assert process.returncode == 0, process.stderr
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
