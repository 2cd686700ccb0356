"""Convolutions whose weight gradient damages memory on a CPU."""

import subprocess
import sys

import pytest
import torch
from tiny_training import configuration
from torch import nn

from regioncount.measures.folding import network_for_measures
from regioncount.regions.narrow import safe_forwards
from regioncount.training.steps import build_training_step

CPU = torch.device("cpu")
CONVOLUTIONS = [(2, 4, 2, 1), (4, 8, 3, 1), (6, 6, (2, 1), 3), (15, 8, 2, 1)]


@pytest.mark.parametrize(("inputs", "outputs", "stride", "groups"), CONVOLUTIONS)
def test_outputs_and_gradients_equal_those_of_the_convolution_in_float64(inputs, outputs, stride, groups):
    generator = torch.Generator().manual_seed(0)
    convolution = nn.Conv2d(inputs, outputs, 1, stride=stride, groups=groups)
    (forward,) = safe_forwards(nn.Sequential(convolution, nn.ReLU()), CPU).values()
    images = torch.randn(4, inputs, 9, 8, generator=generator)
    reference = nn.Conv2d(inputs, outputs, 1, stride=stride, groups=groups).double()
    reference.load_state_dict(convolution.state_dict())
    expected = reference(images.double())
    cotangent = torch.randn(expected.shape, generator=generator)
    expected.backward(cotangent.double())
    images = images.contiguous(memory_format=torch.channels_last)
    actual = forward(images)
    actual.backward(cotangent)
    torch.testing.assert_close(actual, expected.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(convolution.weight.grad, reference.weight.grad.float(), rtol=1e-4, atol=1e-4)


def test_other_convolutions_are_left_alone():
    others = [nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 3, stride=2), nn.Conv2d(16, 32, 1, stride=2)]
    others += [nn.Conv2d(4, 8, 1, stride=2, padding=1), nn.Conv1d(4, 8, 1, stride=2)]
    assert safe_forwards(nn.ModuleList(others), CPU) == {}


def test_training_and_measures_use_them():
    narrow = nn.Conv2d(4, 8, 1, stride=2)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), narrow, nn.Flatten(), nn.Linear(72, 2)).eval()
    assert set(safe_forwards(network, CPU)) == {narrow}
    assert safe_forwards(network, torch.device("cuda")) == {}
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    step = build_training_step(network, optimizer, configuration(), device=CPU, precision="float32", compiled=False)
    with step.context():
        assert "forward" in vars(narrow)
    assert "forward" not in vars(narrow)
    copy = network_for_measures(network, torch.randn(2, 3, 8, 8))
    assert [type(module) for module in copy.modules() if "forward" in vars(module)] == [nn.Conv2d]


PROGRAM = """
import torch
from torch import nn
from regioncount.regions.narrow import safe_forwards
from regioncount.training.depthwise import replace_forwards
torch.set_num_threads(1)
network = nn.Sequential(nn.Conv2d(4, 8, 1, stride=2, bias=False)).to(memory_format=torch.channels_last)
with replace_forwards(safe_forwards(network, torch.device("cpu"))):
    for _ in range(100):
        images = torch.randn(16, 4, 8, 8).contiguous(memory_format=torch.channels_last)
        network(images).square().sum().backward()
"""


@pytest.mark.slow
def test_the_memory_stays_intact():
    """Without the replacement, this process aborts on processors with AVX2 (torch 2.15)."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
