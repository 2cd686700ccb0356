"""The two-layer network of the theorem, compared with automatic differentiation and with the inequality."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regioncount import data, models
from regioncount.commands import compose, hydra_ready
from regioncount.config import parse_run
from regioncount.data import sources
from regioncount.errors import InputError
from regioncount.models import two_layer
from regioncount.runs import decision_planes, loading, runner
from regioncount.runs.measurements import measured_values

POINTS = np.random.default_rng(0).normal(size=(7, 4))
TARGETS = np.array([-1.0, 1, 1, -1, 1, -1, -1])


def loss(weight: torch.Tensor, outer: torch.Tensor) -> torch.Tensor:
    values = (torch.from_numpy(POINTS) @ weight.T).relu() @ outer
    return (values - torch.from_numpy(TARGETS)).square().mean() / 2


def fit(seed: int, **options) -> two_layer.TwoLayer:
    return two_layer.fit(POINTS, TARGETS, seed, **models.default_options("two_layer") | {"width": 6} | options)


@given(st.integers(0, 10**6))
def test_the_eigenvalue_equals_the_largest_one_of_the_hessian(seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    outer = torch.randn(6, generator=generator, dtype=torch.float64)
    hessian = torch.func.hessian(loss)(weight, outer).reshape(24, 24)
    active = POINTS @ weight.numpy().T > 0
    eigenvalue = two_layer.hessian_eigenvalue(POINTS, active, outer.numpy())
    assert np.isclose(eigenvalue, torch.linalg.eigvalsh(hessian)[-1].item(), rtol=1e-9, atol=1e-12)


def test_a_step_is_a_gradient_descent_step():
    one_step, two_steps = (fit(3, steps=steps, tolerance=1e-12, learning_rate=0.05) for steps in (1, 2))
    weight = one_step.weight.clone().requires_grad_()
    value = loss(weight, one_step.outer)
    value.backward()
    assert np.isclose(value.item(), one_step.history["losses"][-1])
    assert torch.allclose(weight.detach() - 0.05 * weight.grad, two_steps.weight, rtol=0, atol=1e-12)


def test_training_ends_at_the_tolerance():
    history = fit(0, width=40, tolerance=0.05).history
    assert history["losses"][-1] < 0.05 <= history["losses"][-2]
    assert history["steps"][0] == 0
    assert (np.diff(history["steps"]) > 0).all()


@settings(max_examples=25)  # each trains a network
@given(seed=st.integers(0, 10**6), steps=st.integers(1, 300), learning_rate=st.floats(0.01, 1))
def test_the_inequality_holds_on_every_pair(seed, steps, learning_rate):
    try:
        model = fit(seed, steps=steps, learning_rate=learning_rate)
    except InputError:
        return  # diverged
    values, arrays = two_layer.measure(model, POINTS)
    assert values["theorem_violations"] == 0
    assert len(arrays["changes"]) == 21
    assert (arrays["pieces"] <= arrays["changes"] + 1).all()
    assert (arrays["changes"] <= arrays["bounds"] * (1 + 1e-9)).all()
    assert values["theorem_activation_changes"] == arrays["changes"].mean()


def test_changes_and_regions_equal_those_on_a_dense_lattice():
    model = fit(1, width=9)
    _, arrays = two_layer.measure(model, POINTS)
    first, second = np.triu_indices(len(POINTS), 1)
    weight, share = model.weight.numpy(), np.linspace(0, 1, 20_001)[:, None]
    for pair, (i, k) in enumerate(zip(first, second, strict=True)):
        points = (1 - share) * POINTS[i] + share * POINTS[k]
        active = points @ weight.T > 0
        assert (active[1:] != active[:-1]).sum() == arrays["changes"][pair]
        above = model(torch.from_numpy(points)).argmax(dim=1).numpy()
        assert 1 + (above[1:] != above[:-1]).sum() == arrays["counts"][pair]


def test_violations_are_counted(monkeypatch):
    """The bound must fail with an eigenvalue that is far too small."""
    monkeypatch.setattr(two_layer, "hessian_eigenvalue", lambda *_: 1e-9)
    values, _ = two_layer.measure(fit(1), POINTS)
    assert values["theorem_violations"] == 21


@pytest.mark.parametrize(
    ("option", "value"), [("width", 0), ("width", 2.5), ("learning_rate", -1), ("scale", float("nan")), ("steps", True)]
)
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(InputError, match=f"model.{option}"):
        fit(0, **{option: value})


def test_divergence_raises_an_error_with_advice():
    with pytest.raises(
        InputError, match=r"model.learning_rate=1000000000.0: training diverges after 1 steps; pass a smaller"
    ):
        fit(0, learning_rate=1e9)


def test_the_suite_trains_and_measures_the_network(tmp_path):
    options = ["experiment=theory/two_layer", "model.width=20", "dataset.train_size=12", f"results={tmp_path}"]
    with hydra_ready():
        config = parse_run(compose("sweep", options))
    prepared = runner.prepare(config)
    row = measured_values(runner.run_or_resume(prepared), config, prepared.dataset)
    assert row["train_accuracy"] == 1
    assert 0.4 < row["test_accuracy"] < 1
    assert row["theorem_violations"] == 0
    assert row["theorem_width"] == 20
    assert row["region_share_proved_line"] == 1
    assert row["region_count_line"] >= 1
    dataset = loading.load_dataset(config.dataset)
    model = two_layer.restorer(config.model, config.seed, dataset, torch.device("cpu"), "")(dict)
    two_layer._train.cache_clear()
    assert model.weight.equal(two_layer.restorer(config.model, config.seed, dataset, torch.device("cpu"), "")(dict).weight)
    images = dataset.normalize(dataset.train.images)
    upper = dataset.train.labels >= 5
    assert model(images).argmax(dim=1).equal(upper.long())


def test_the_figure_has_a_line_in_every_panel_and_names_the_widths():
    from regioncount.reporting import plots

    rows = [
        {"theorem_width": width, "theorem_learning_rate": rate, "seed": seed}
        | {f"theorem_{name}": 1.0 + seed for name in ("hessian_eigenvalue", "active_neurons", "activation_changes")}
        | {"theorem_region_count_all_pairs": 1.5, "theorem_bound": 9.0}
        for width in (5, 10)
        for rate in (0.1, 0.01)
        for seed in (0, 1)
    ]
    steps = np.arange(4.0)
    figure = plots.theorem(pd.DataFrame(rows), [(rate, steps, 1 + steps) for rate in (0.01, 0.1)])
    assert [len(axes.lines) > 0 for axes in figure.axes[:6]] == [True] * 6
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"width 5", "width 10"}


@pytest.mark.parametrize("name", ["two_points", "three_points"])
def test_the_plane_of_points_is_drawn_with_the_points_where_they_are(name, tmp_path):
    """Each pixel has the label that the network gives the point at its position."""
    with hydra_ready():
        options = [
            f"dataset={name}",
            "model=two_layer",
            "model.scale=4",
            "model.width=50",
            "regions=[]",
            f"results={tmp_path}",
        ]
        prepared = runner.prepare(parse_run(compose("train", options)))
    run = runner.run_or_resume(prepared)
    dataset = loading.load_dataset(prepared.config.dataset)
    points = dataset.normalize(dataset.train.images).flatten(1)
    np.testing.assert_allclose(points[:, 2], 1)
    expected = [values[:2] for values in sources.POINTS[name]]
    np.testing.assert_allclose(points[:, :2], expected, atol=1.01 / 255)
    labels, positions = decision_planes.decision_regions(run, dataset, torch.device("cpu"), resolution=14)
    steps = np.linspace(-1.3, 1.3, 14)  # the square of the test points, and 15 % on each side
    np.testing.assert_allclose(positions, (points[:, :2].numpy() + 1.3) / 2.6 * 13, atol=1e-5)
    network = two_layer.fit(points.numpy(), two_layer.binary_targets(dataset.train.labels.numpy(), 2), 0, **model_options())
    grid = np.stack([*np.meshgrid(steps, steps), np.ones((14, 14))], axis=-1)
    values = network(torch.from_numpy(grid.reshape(-1, 3)))[:, 1].reshape(14, 14).numpy()
    clear = np.abs(values) > 1e-5
    assert clear.sum() > 190
    np.testing.assert_array_equal(labels[clear], (values > 0)[clear])


def model_options():
    return models.default_options("two_layer") | {"width": 50, "scale": 4.0}


def test_points_cannot_be_resized_and_test_points_have_the_nearest_label():
    with pytest.raises(InputError, match=r"dataset\.resize=8"):
        data.load("two_points", resize=8)
    dataset = data.load("three_points")
    train, test = (dataset.normalize(split.images).flatten(1)[:, :2] for split in (dataset.train, dataset.test))
    distances = torch.cdist(test.double(), train.double())
    clear = (distances.topk(2, largest=False).values.diff(dim=1) > 0.02).squeeze(1)
    assert len(test) == 441
    assert (dataset.train.labels[distances.argmin(dim=1)] == dataset.test.labels)[clear].all()


@pytest.mark.parametrize("augmentation", ["crop_flip", "random_resized_crop"])
def test_augmentations_of_images_are_refused_for_points(augmentation):
    with hydra_ready():
        config = compose("train", ["dataset=two_points", "model=mlp", f"augmentation={augmentation}"])
    with pytest.raises(InputError, match="points, not images"):
        parse_run(config)
