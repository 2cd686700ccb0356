"""Counts, measures and runs on a GPU equal those on a CPU."""

import pytest
import torch
from tiny_training import DIGITS, configuration, new_model

import regioncount as rc
from regioncount import training
from regioncount.measures.outputs import evaluate, split_batches
from regioncount.runs import runner
from regioncount.runs.measurements import measured_values
from regioncount.training.stopping import screened_accuracy

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

NETWORKS = ({"name": "mlp", "width": 32, "depth": 2}, {"name": "small_cnn", "width": 8}, {"name": "resnet18", "width": 8})
IMAGES = DIGITS.normalize(DIGITS.train.images)


def trained(network: dict) -> torch.nn.Module:
    config = configuration(model=network, epochs=5, optimizer={"name": "adam", "learning_rate": 0.01})
    model = new_model(config)
    training.fit(model, DIGITS, config, device=torch.device("cpu"), precision="float32")
    return model.eval()


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network["name"])
@pytest.mark.parametrize("dimension", [1, 2])
def test_counts_equal_those_on_a_cpu(network, dimension):
    model = trained(network).double()
    vertices = rc.sample_simplices(IMAGES, dimension, 20, torch.Generator().manual_seed(0)).double()
    expected = rc.count_regions(model, vertices, method="grid").counts
    auto = rc.count_regions(model, vertices, method="auto").counts
    model.cuda()
    for method, counts in (("grid", expected), ("auto", auto)):
        assert rc.count_regions(model, vertices, method=method).counts.tolist() == counts.tolist()
        assert rc.count_regions(model, vertices.cuda(), method=method).counts.tolist() == counts.tolist()


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network["name"])
def test_fast_counts_equal_those_of_the_grid_on_a_gpu(network):
    model = trained(network).cuda()
    vertices = rc.sample_simplices(IMAGES, 1, 50, torch.Generator().manual_seed(1))
    expected = rc.count_regions(model, vertices, method="grid")
    result = rc.count_regions(model, vertices, method="auto")
    assert (result.counts != expected.counts).sum() <= 1  # narrow regions may be missed
    assert result.evaluations < expected.evaluations


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network["name"])
def test_measures_equal_those_on_a_cpu(network):
    model = trained(network)
    names = ["accuracy", "output_margin", "parameter_norm", "log_product_spectral", "jacobian_norm", "gradient_norm"]
    expected = rc.measure(model, (IMAGES, DIGITS.train.labels), names)
    values = rc.measure(model.cuda(), (IMAGES.cuda(), DIGITS.train.labels.cuda()), names)
    assert list(values) == list(expected)
    numbers = [name for name, value in expected.items() if isinstance(value, float)]
    assert {"output_margin", "parameter_norm", "log_product_spectral", "jacobian_norm", "gradient_norm"} <= {*numbers}
    assert [values[name] for name in numbers] == pytest.approx([expected[name] for name in numbers], rel=1e-3, nan_ok=True)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network["name"])
def test_the_accuracy_estimated_for_the_stop_rule_is_that_in_float32(monkeypatch, network):
    device = torch.device("cuda")
    monkeypatch.setattr("regioncount.training.stopping.evenly_spaced", lambda number: torch.arange(0, number, 5))
    model, dataset = trained(network).to(device), DIGITS.to(device)
    outputs = evaluate(model, split_batches(dataset, dataset.train, device), bfloat16=True)
    expected = evaluate(model, split_batches(dataset, dataset.train, device)).accuracy
    assert screened_accuracy(model, dataset, outputs.margins, device) == expected


def test_a_run_is_trained_measured_and_found_again(tmp_path):
    config = configuration(
        model={"name": "small_cnn", "width": 8},
        epochs=100,
        stop={"train_accuracy": 0.9},
        measures=["accuracy"],
        regions={"line": {}},
        device="cuda",
        results=str(tmp_path),
    )
    prepared = runner.prepare(config)
    assert prepared.precision == "bfloat16"
    run = runner.run_or_resume(prepared)
    assert run.status == "finished"
    assert run.epochs_trained < 100
    values = measured_values(run, config, prepared.dataset)
    assert values["train_accuracy"] == run.history().train_accuracy.iloc[-1] >= 0.9
    assert values["region_count_line"] >= 1
    assert runner.find_complete(prepared) is not None
    assert not runner.run_or_resume(prepared).updated
