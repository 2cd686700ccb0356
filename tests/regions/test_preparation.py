"""Several counts of one network share its check and its faster copies."""

import pytest
import torch
from torch import nn

import regioncount as rc
from regioncount.errors import InputError
from regioncount.regions import Preparation, labelling, screening


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5))
    model(torch.randn(64, 1, 6, 6))  # in training mode, which updates the running statistics
    return model


def simplices(dimension: int) -> torch.Tensor:
    images = 3 * torch.randn(50, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    return rc.sample_simplices(images, dimension, 30, torch.Generator().manual_seed(2))


@pytest.mark.parametrize("fast_bfloat16", [False, True])
def test_counts_with_a_shared_preparation_equal_others(monkeypatch, fast_bfloat16):
    monkeypatch.setattr(screening, "fast_bfloat16", lambda device: fast_bfloat16)
    calls = []
    for module, name in ((labelling, "check_function"), (screening, "folded"), (screening, "_in_bfloat16")):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, n=name, f=function: (calls.append(n), f(*args))[1])
    model = network()
    expected = [rc.count_regions(model, simplices(dimension)) for dimension in (1, 2, 3)]
    once = ["check_function", "folded", *["_in_bfloat16"] * fast_bfloat16]
    assert calls == 3 * once
    calls.clear()
    preparation = Preparation(model)
    results = [rc.count_regions(model, simplices(dimension), preparation=preparation) for dimension in (1, 2, 3)]
    assert calls == once
    for result, other in zip(results, expected, strict=True):
        assert (result.counts == other.counts).all()
        assert result.mean > 1
        assert result.screening_bound == other.screening_bound


@pytest.mark.parametrize("change", ["in place", "loaded", "replaced", "buffer"])
def test_changed_weights_are_refused(change):
    model = network()
    preparation = Preparation(model)
    rc.count_regions(model, simplices(1), preparation=preparation)
    with torch.no_grad():
        if change == "in place":
            model[4].weight[0, 0] += 1
        elif change == "loaded":
            model.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()})
        elif change == "replaced":
            model[0].weight = nn.Parameter(model[0].weight.clone())
        else:
            model[1].running_mean += 1
    with pytest.raises(InputError, match="weights have changed since; make a new one"):
        rc.count_regions(model, simplices(2), preparation=preparation)


def test_the_preparation_of_another_model_is_refused():
    with pytest.raises(InputError, match="made for another model"):
        rc.count_regions(network(), simplices(1), preparation=Preparation(network()))


def test_a_wrapped_model_is_prepared_as_it_is_counted():
    wrapped = nn.DataParallel(network())
    preparation = Preparation(wrapped)
    for _ in range(2):
        result = rc.count_regions(wrapped, simplices(1), preparation=preparation)
        assert (result.counts == rc.count_regions(wrapped.module, simplices(1)).counts).all()
