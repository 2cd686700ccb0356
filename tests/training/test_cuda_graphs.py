"""Training with CUDA graphs equals training without them. These tests need a GPU."""

import pytest
import torch
from torch import nn

from regioncount import data, training
from regioncount.config import parse_run
from regioncount.models.networks import build_for
from regioncount.training import cuda_graphs, steps

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

SGD = {"learning_rate": 0.05, "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4}
OPTIMIZERS = {
    "sgd": {"name": "sgd", **SGD},
    "sam": {"name": "sam", **SGD, "rho": 0.05},
    "adam": {"name": "adam", "learning_rate": 0.01, "betas": [0.9, 0.99], "weight_decay": 0.0},
    "adagrad": {"name": "adagrad", "learning_rate": 0.01, "weight_decay": 0.0},
}


def train(monkeypatch, capture: bool, optimizer: dict, network: dict, precision: str, augmentation: str = "none"):
    """Return the logits after training (N, C), the history, and whether each call of the step was captured."""
    config = parse_run(
        {
            "dataset": {"name": "digits", "train_size": 1000},
            "model": network,
            "optimizer": optimizer,
            "schedule": {"name": "cosine"},
            "augmentation": augmentation,
            "batch_size": 96,  # ten full batches per epoch and one of 40
            "epochs": 3,
        }
    )
    calls = []

    def recording_capture(step):
        def call(*tensors):
            calls.append(torch.cuda.is_current_stream_capturing())
            return step(*tensors)

        return cuda_graphs.capture_cuda_graph(call) if capture else call

    monkeypatch.setattr(steps, "capture_cuda_graph", recording_capture)
    dataset = data.load("digits", train_size=1000)
    model = training.initialize(lambda: build_for(config.model, dataset), 0)
    device = training.choose_device("cuda")
    dataset = dataset.to(device)
    history = training.fit(model, dataset, config, device=device, precision=precision)
    model.eval()
    with torch.no_grad():
        return model(dataset.normalize(dataset.test.images)), history, calls


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("augmentation", ["none", "crop_flip", "mixup"])
def test_training_with_cuda_graphs_equals_training_without(monkeypatch, optimizer, augmentation):
    network = {"name": "small_cnn", "width": 8}
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    logits, history, calls = train(monkeypatch, True, OPTIMIZERS[optimizer], network, "float32", augmentation)
    expected, plain, _ = train(monkeypatch, False, OPTIMIZERS[optimizer], network, "float32", augmentation)
    assert calls == [False] * cuda_graphs.WARM_UP + [True]  # later batches replay the graph
    for row, other in zip(history, plain, strict=True):
        assert row["learning_rate"] == other["learning_rate"]
        assert row["train_loss"] == pytest.approx(other["train_loss"], rel=1e-3)
    torch.testing.assert_close(logits, expected, rtol=0.02, atol=0.02 * expected.abs().max().item())


def test_bfloat16_is_captured(monkeypatch):
    network = {"name": "resnet18", "width": 8}
    _, history, calls = train(monkeypatch, True, OPTIMIZERS["sgd"], network, "bfloat16")
    _, plain, _ = train(monkeypatch, False, OPTIMIZERS["sgd"], network, "bfloat16")
    assert any(calls)
    assert [row["train_loss"] for row in history] == pytest.approx([row["train_loss"] for row in plain], rel=0.05)


def test_dropout_draws_the_same_masks_as_without_a_graph():
    """Each call draws a new mask, and the seed determines all of them."""
    dropout, inputs = nn.Dropout(0.5), torch.ones(1000, device="cuda")

    def draw_outputs(call) -> torch.Tensor:
        outputs = []
        with cuda_graphs.side_stream(torch.cuda.Stream()):
            for seed in (1, 2, 1):
                torch.manual_seed(seed)
                outputs += [call(inputs)[0].clone() for _ in range(5)]
        torch.cuda.synchronize()
        return torch.stack(outputs)

    def step(inputs):
        return (dropout(inputs),)

    replayed = draw_outputs(cuda_graphs.capture_cuda_graph(step))
    assert torch.equal(replayed, draw_outputs(step))
    assert torch.equal(replayed[:5], replayed[10:])
    assert len(replayed.unique(dim=0)) == 10
