"""The paper's experiments, and its published statistics."""

import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from scipy import stats

from regioncount import models, registry
from regioncount.analysis import correlations
from regioncount.composition import compose, hydra_ready
from regioncount.config import parse_run, parse_sweep
from regioncount.config_files import CONFIGS
from regioncount.errors import InputError
from regioncount.models.kinds import title
from regioncount.reporting import published
from regioncount.training.optimizers import build_schedule

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "paper" / "correlations.csv"
CLASSICAL = REFERENCE.with_name("classical_classifiers.csv")
EXPERIMENTS = sorted(
    str(file.relative_to(CONFIGS / "experiment").with_suffix(""))
    for file in (CONFIGS / "experiment").rglob("*.yaml")
    if not file.name.startswith("_")
)


def published_keys() -> list[tuple[str, str]]:
    return list(published.table())


def overrides(name: str, scale: str) -> list[str]:
    return [f"experiment={name}", *(["scale=small"] if scale == "small" else [])]


@pytest.fixture(scope="module")
def composed():
    """The composed configuration of every experiment in a subfolder, at full and at small scale."""
    with hydra_ready():
        return {
            (name, scale): compose("sweep", overrides(name, scale), with_hydra=True)
            for name in EXPERIMENTS
            if "/" in name
            for scale in ("full", "small")
        }


def first_cell(config):
    """Return the overrides of the first cell of a grid."""
    params = [f"{key}={value}" for key, value in config.hydra.sweeper.params.items()]
    cell = []
    for override in OverridesParser.create().parse_overrides(params):
        sweeps = override.is_sweep_override()
        value = next(override.sweep_string_iterator()) if sweeps else override.get_value_element_as_str()
        cell.append(f"{override.get_key_element()}={value}")
    return cell


@pytest.mark.parametrize("scale", ["full", "small"])
@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if "/" in name])
def test_every_experiment_is_a_valid_sweep(name, scale, composed):
    config = composed[name, scale]
    with hydra_ready():
        cell = parse_run(compose("sweep", [*overrides(name, scale), *first_cell(config)]))
    sweep = parse_sweep(config.sweep, cell)
    assert cell.dataset.name in registry.datasets
    assert cell.regions.subspaces
    known = {experiment for experiment, _ in published_keys()}
    assert set(sweep.published.values()) <= known
    for subspace, experiment in sweep.published.items():
        assert subspace in (*cell.regions.subspaces, *cell.measures), (name, subspace, experiment)


# What the authors' repository says of each experiment: docs/experiments.md.
AUTHORS = {
    "adam": {"optimizer.name": "adam", "schedule.name": "constant", "regions.line.split": "test"},
    "adagrad": {
        "optimizer.name": "adagrad",
        "schedule.name": "step",
        "schedule.step_size": 50,
        "regions.line.split": "test",
    },
    "cifar10": {"schedule.name": "cosine", "regions.line.split": "test", "augmentation": "none", "epochs": 200},
    "train_pairs": {"regions.line.split": "train"},
    "mixup": {"augmentation": "mixup", "regions.line.split": "test"},
    "crop_flip": {"augmentation": "crop_flip", "regions.line.split": "test"},
    "vary_learning_rate": {"regions.line.split": "test"},
    "vary_batch_size": {"regions.line.split": "test"},
    "random_direction": {"regions.random_direction.scale": 0.5, "regions.random_direction.split": "test"},
    "plane": {"regions.parallelogram.kind": "parallelogram"},
    "svhn": {
        "augmentation": "crop_flip",
        "dataset.mean": [0.5] * 3,
        "dataset.std": [0.5] * 3,
        "epochs": 21,
        "schedule.epochs": 200,
    },
    "vision_transformer": {
        "model.variant": "vit_cifar",
        "dataset.mean": [0.4914, 0.4822, 0.4465],
        "dataset.std": [0.2470, 0.2435, 0.2616],
        "optimizer.name": "adam",
        "augmentation": "crop_flip",
        "epochs": 200,
        "schedule.epochs": 205,
        "schedule.warmup": 5,
        "schedule.final": 1e-5,
    },
    "wider_scope": {"regions.wider_scope.start": -1, "regions.wider_scope_5.start": -5, "regions.wider_scope_5.stop": 6},
    "imagenet": {
        "dataset.squash": True,
        "dataset.resize": None,
        "dataset.mean": None,
        "augmentation": "none",
        "epochs": 31,
        "schedule.epochs": 200,
        "grid.learning_rate": "0.01,0.001",
        "regions.line.split": "train",
    },
    "decision_tree": {"dataset.train_size": None, "model.min_samples_leaf": 1},
    "random_forest": {"dataset.train_size": None, "model.n_estimators": 100},
    "logistic_regression": {"dataset.train_size": None, "model.max_iter": 100, "model.penalty": "l2"},
}


@pytest.mark.parametrize("name", AUTHORS)
def test_experiments_have_the_settings_of_the_authors(name, composed):
    config = composed[f"paper/{name}", "full"]
    for option, value in AUTHORS[name].items():
        assert OmegaConf.select(config, option) == value, option


# The grids of the authors' classical classifiers, and their numbers of published rows, without repeated ones.
CLASSICAL_GRIDS = {
    "decision_tree": ({"max_depth": range(3, 18), "criterion": 2, "splitter": 2}, 58),
    "random_forest": ({"max_depth": range(3, 18), "criterion": 2}, 30),
    "nearest_neighbours": ({"n_neighbors": range(3, 19), "weights": 2, "p": 2}, 64),
    "support_vector_machine": ({"kernel": 4, "C": 4}, 13),
    "logistic_regression": ({"C": 8}, 8),
}


@pytest.mark.parametrize("name", CLASSICAL_GRIDS)
def test_grids_of_classical_classifiers_cover_the_published_runs(name, composed):
    grid, published_rows = CLASSICAL_GRIDS[name]
    params = composed[f"paper/{name}", "full"].hydra.sweeper.params
    values = {key.removeprefix("model."): str(value).split(",") for key, value in params.items() if key != "seed"}
    assert values.keys() == grid.keys()
    for option, expected in grid.items():
        if isinstance(expected, int):
            assert len(values[option]) == expected
        else:
            assert values[option] == [str(value) for value in expected]
    assert math.prod(map(len, values.values())) >= published_rows
    if CLASSICAL.is_file():
        rows = pd.read_csv(CLASSICAL)
        own = rows[rows["classifier"] == {"support_vector_machine": "svm"}.get(name, name)]
        assert len(own.drop_duplicates()) == published_rows


def test_imagenet_has_the_nine_networks_of_the_authors(composed):
    params = composed["paper/imagenet", "full"].hydra.sweeper.params
    with hydra_ready():
        names = [title(compose("train", [f"model={name}"]).model) for name in params["model"].split(",")]
    assert names == [
        "resnet18 imagenet",
        "resnet34 imagenet",
        "torchvision vgg19",
        "torchvision mobilenet_v2",
        "senet18",
        "torchvision shufflenet_v2_x1_0",
        "torchvision efficientnet_b0",
        "torchvision regnet_x_400mf",
        "simple_dla",
    ]


def test_the_vision_transformer_has_the_parameters_of_the_authors(composed):
    options = dict(composed["paper/vision_transformer", "full"].model)
    network = models.build(options.pop("name"), 10, 3, image_size=32, **options)
    assert sum(parameter.numel() for parameter in network.parameters()) == 6_268_810


def test_the_vision_transformer_has_the_learning_rates_of_the_authors(composed):
    """Their first epoch is at a rate of 0; ours are the others."""

    def theirs(epoch: int) -> float:
        if epoch <= 5:
            return 1e-3 * epoch / 5
        return 1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * (epoch - 6) / 200)) / 2

    config = composed["paper/vision_transformer", "full"]
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=1e-3)
    schedule = build_schedule(optimizer, dict(config.schedule), config.epochs)
    for epoch in range(config.epochs):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(theirs(epoch + 1), rel=1e-6), epoch
        optimizer.step()
        schedule.step()


def test_small_experiments_use_and_name_an_image_folder_of_cifar10(composed):
    for (name, scale), config in composed.items():
        if scale == "small":
            assert (config.dataset.name, config.dataset.title) == ("image_folder", "CIFAR-10 (JPEG)"), name
            assert config.dataset.train_size == 1000


def test_the_main_grid_has_27_configurations_three_seeds_and_nine_networks(composed):
    params = composed["paper/cifar10", "full"].hydra.sweeper.params
    sizes = {key: len(str(value).split(",")) for key, value in params.items()}
    assert sizes == {
        "model": 9,
        "optimizer.learning_rate": 3,
        "batch_size": 3,
        "optimizer.weight_decay": 3,
        "seed": 3,
    }
    assert set(params["model"].split(",")) <= set(models.names())


def test_experiments_that_differ_only_in_measurements_share_their_runs():
    trained = set()
    with hydra_ready():
        for name in ("cifar10", "train_pairs", "simplices", "plane", "random_direction", "short_segment", "wider_scope"):
            cell = parse_run(compose("sweep", [f"experiment=paper/{name}", "model=vgg19", "batch_size=256", "seed=1"]))
            parts = (cell.dataset, cell.model, cell.optimizer, cell.schedule, cell.epochs, cell.batch_size, cell.stop)
            trained.add(repr(parts))
    assert len(trained) == 1


@pytest.mark.parametrize("bad", ["20", "20 minutes", "m", "-5m", "0s"])
def test_a_time_budget_needs_a_number_and_a_unit(bad):
    with hydra_ready():
        config = compose("sweep", ["batch_size=8"])
    config.sweep.time_budget = bad
    with pytest.raises(InputError, match="time_budget"):
        parse_sweep(config.sweep, parse_run(config))


def test_published_figures_match_the_reference():
    if not REFERENCE.is_file():
        pytest.skip("the reference file of the paper's figures is not available")
    reference = pd.read_csv(REFERENCE)
    names = {
        "configurations": "configurations",
        "fitted": "fitted",
        "pearson": "pearson",
        "pearson_fitted": "pearson_fitted_only",
        "spearman": "spearman",
        "kendall": "kendall",
        "test_accuracy_low": "min_test_accuracy",
        "test_accuracy_high": "max_test_accuracy",
    }
    for _, row in reference.iterrows():
        statistics = published.statistics(row["experiment"], row["network"])
        for ours, theirs in names.items():
            assert statistics[ours] == row[theirs] or (math.isnan(statistics[ours]) and pd.isna(row[theirs]))
    assert set(zip(reference["experiment"], reference["network"], strict=True)) <= set(published_keys())


def test_published_standard_errors_follow_from_the_published_runs():
    if not (REFERENCE.parent / "runs.csv").is_file():
        pytest.skip("the reference file of the paper's runs is not available")
    runs = pd.read_csv(REFERENCE.parent / "runs.csv")
    groups = runs[runs["experiment"].isin(["cifar10", "adam"])].groupby(["experiment", "network"])
    for (experiment, network), rows in groups:
        result = correlations(rows, ["regions_200"], ["generalization_gap"]).iloc[0]
        statistics = published.statistics(experiment, network)
        for name in ("pearson", "kendall"):
            assert statistics[f"{name}_error"] == pytest.approx(result[f"{name}_error"], abs=6e-5)


def test_the_comparison_has_the_published_figures_beside_ours():
    correlation = {
        "dataset": "CIFAR-10",
        "model": "resnet18",
        "measure": "region_count_line",
        "target": "generalization_gap",
        "configurations": 12,
    }
    for name in ("pearson", "kendall"):
        correlation |= {name: 0.9, f"{name}_low": 0.8, f"{name}_high": 0.95, f"{name}_error": 0.3}
    others = [
        {"target": "test_error"},  # another target
        {"measure": "parameter_norm"},  # not requested
        {"measure": "region_count_plane", "pearson": 0.5},  # no published experiment is requested
        {"model": "mlp"},  # nothing was published
    ]
    ours = pd.DataFrame([correlation, *(correlation | other for other in others)])
    runs = pd.DataFrame(
        {
            "dataset": "CIFAR-10",
            "model": "resnet18",
            "learning_rate": [0.1, 0.1, 0.01, 0.001, 0.002],
            "batch_size": 32,
            "weight_decay": 0.0,
            "train_accuracy": [1, 0.985, 1, 0.99, 0.98],
            "test_accuracy": [0.5, 0.7, 0.4, 0.45, 0.5],
            "region_count_line": [3.0, 4, 5, 6, 2],
            "region_count_plane": [3.0, 4, 5, 6, 2],
        }
    )
    runs = pd.concat([runs, runs.assign(model="mlp")])
    compared = published.compare(ours, runs, {"line": "cifar10"}, ["line", "plane"])
    assert list(compared["model"]) == ["resnet18", "resnet18", "mlp"]
    first = compared.iloc[0]
    assert (first["pearson"], first["published_pearson"], first["published_configurations"]) == (0.9, 0.9844, 27)
    assert (first["test_accuracy_low"], first["test_accuracy_high"]) == (0.4, pytest.approx(0.6))
    # The first configuration fits on average, although one of its runs does not.
    assert first["configurations_fitted"] == 3
    gaps = [(0.5 + 0.285) / 2, 0.6, 0.54]
    assert first["pearson_fitted"] == pytest.approx(stats.pearsonr([3.5, 5, 6], gaps).statistic)
    for name, published_value, published_error in (("pearson", 0.9844, 0.2089), ("kendall", 0.8519, 0.22)):
        error = math.hypot(0.3, published_error)
        degrees = error**4 / (0.3**4 / 10 + published_error**4 / 25)
        expected = 2 * stats.t.sf(abs(math.atanh(0.9) - math.atanh(published_value)) / error, degrees)
        assert first[f"{name}_p_value"] == pytest.approx(expected)
    assert compared["pearson_p_value"].isna().tolist() == [False, True, True]
    assert compared["published_pearson"].isna().tolist() == [False, True, True]
