"""The fast depthwise convolutions compute the same functions as torch's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_training import CPU
from torch import nn

from regioncount import models
from regioncount.training.depthwise import fast_depthwise_forwards, replace_forwards


@pytest.mark.parametrize("name", ["mobilenet", "shufflenetv2", "efficientnet_b0", "mobilenetv2"])
def test_networks_have_the_same_outputs_and_gradients(name):
    torch.manual_seed(0)
    model = models.build(name, width=8).double().eval()  # no dropout
    inputs = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    results = []
    for device in (torch.device("meta"), CPU):
        model.zero_grad()
        with replace_forwards(fast_depthwise_forwards(model, device)):
            changed = sum("forward" in vars(module) for module in model.modules())
            outputs = model(inputs)
            outputs.square().sum().backward()
        results.append([outputs.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert changed > 0
    assert not any("forward" in vars(module) for module in model.modules())
    assert all(torch.allclose(plain, fast, rtol=1e-6) for plain, fast in zip(*results, strict=True))


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.sampled_from([1, 3, 5, 7]), st.sampled_from([1, 3, 5, 7])),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    bias=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_depthwise_convolution_has_the_same_outputs(size, kernel, stride, dilation, bias):
    padding = tuple(dilation * (extent // 2) for extent in kernel)
    module = nn.Conv2d(3, 3, kernel, stride, padding, dilation, groups=3, bias=bias).double()
    inputs = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = module(inputs)
    with replace_forwards(fast_depthwise_forwards(nn.Sequential(module), CPU)):
        assert torch.allclose(module(inputs), expected, rtol=1e-9, atol=1e-12)
