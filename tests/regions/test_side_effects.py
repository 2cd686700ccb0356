"""A count leaves the caller's model as it was: its own parameters, values and modes, also in unusual modules."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state

import regioncount as rc

SEGMENTS = 2 * torch.randn(20, 2, 6, generator=torch.Generator().manual_seed(0))


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)).eval()


def own_tensors(model):
    return {name: (tensor, tensor.detach().clone()) for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def require_unchanged(model, before):
    after = dict((*model.named_parameters(), *model.named_buffers()))
    assert list(after) == list(before)
    assert all(after[name] is tensor and torch.equal(tensor, value) for name, (tensor, value) in before.items())


@pytest.mark.parametrize("method", ["auto", "grid"])
@pytest.mark.parametrize("as_parameters", [False, True])
def test_functional_call_counts_the_other_weights_and_leaves_the_module(method, as_parameters):
    model, other = network(1), network(2)
    weights = dict(other.named_parameters()) | dict(other.named_buffers()) if as_parameters else other.state_dict()
    before = own_tensors(model)
    counts = rc.count_regions(lambda inputs: functional_call(model, weights, (inputs,)), SEGMENTS, method=method).counts
    assert counts.tolist() == rc.count_regions(other, SEGMENTS, method="grid").counts.tolist()
    require_unchanged(model, before)


@pytest.mark.parametrize("fails_at", [1, 2, 5])
def test_an_exception_inside_functional_call_leaves_the_module(fails_at):
    model, weights, calls = network(1), network(2).state_dict(), []

    def failing(inputs):
        calls.append(functional_call(model, weights, (inputs,)))
        if len(calls) == fails_at:
            raise ValueError("stopped")
        return calls[-1]

    before = own_tensors(model)
    with pytest.raises(ValueError, match="stopped"):
        rc.count_regions(failing, SEGMENTS)
    require_unchanged(model, before)


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_an_ensemble_by_vmap_is_counted(device):
    models = [network(seed) for seed in range(3)]
    stacked = stack_module_state(models)
    base = copy.deepcopy(models[0]).to(device)
    before = {name: id(parameter) for name, parameter in base.named_parameters()}

    def ensemble(inputs):
        call = torch.vmap(lambda *state: functional_call(base, state, (inputs,)))
        return call(*stacked).mean(0)

    counts = rc.count_regions(ensemble, SEGMENTS).counts
    expected = rc.count_regions(lambda inputs: sum(model(inputs) for model in models), SEGMENTS, method="grid").counts
    assert counts.tolist() == expected.tolist()
    assert before == {name: id(parameter) for name, parameter in base.named_parameters()}


class Lora(nn.Linear):
    """A layer that merges its update into its weight in evaluation mode."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.update, self.merged = nn.Parameter(torch.randn(outputs, inputs)), False

    def train(self, mode=True):
        super().train(mode)
        if mode == self.merged:
            self.weight.data += -self.update if mode else self.update
            self.merged = not mode
        return self

    def forward(self, inputs):
        return super().forward(inputs) + (0 if self.merged else inputs @ self.update.T)


@pytest.mark.parametrize("frozen", [False, True])
def test_layers_that_merge_weights_in_evaluation_mode_are_restored(frozen):
    torch.manual_seed(0)
    model = nn.Sequential(Lora(6, 16), nn.ReLU(), nn.Dropout(), nn.Sequential(nn.BatchNorm1d(16), Lora(16, 4))).train()
    if frozen:
        model[3].eval()
    expected = rc.count_regions(copy.deepcopy(model).eval(), SEGMENTS).counts.tolist()
    before, modes = own_tensors(model), [(module.training, getattr(module, "merged", None)) for module in model.modules()]
    assert rc.count_regions(model, SEGMENTS).counts.tolist() == expected
    assert modes == [(module.training, getattr(module, "merged", None)) for module in model.modules()]
    require_unchanged(model, before)


@pytest.mark.parametrize("method", ["auto", "grid", "adaptive"])
def test_a_model_that_reuses_its_output_is_counted(method):
    class Reusing(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network()
            vars(self)["memory"] = torch.empty(20_000, 4)

        def forward(self, inputs):
            self.memory[: len(inputs)] = self.network(inputs)
            return self.memory[: len(inputs)]

    counts = rc.count_regions(Reusing(), SEGMENTS, method=method, batch_size=50).counts
    assert counts.tolist() == rc.count_regions(network(), SEGMENTS, method="grid").counts.tolist()


def test_a_model_with_simulated_quantization_is_counted_on_the_grid():
    fake = torch.ao.quantization.FixedQParamsFakeQuantize(
        torch.ao.quantization.FixedQParamsObserver.with_args(scale=0.2, zero_point=10, quant_min=0, quant_max=20)
    )
    model = nn.Sequential(network(), fake).eval()
    result = rc.count_regions(model, SEGMENTS)
    assert result.method == "grid"
    assert result.counts.tolist() == rc.count_regions(lambda inputs: model(inputs), SEGMENTS).counts.tolist()


def test_an_exported_program_is_refused_in_one_line():
    program = torch.export.export(network(), (SEGMENTS[:4, 0],))
    with pytest.raises(rc.InputError, match=r"ExportedProgram: pass program\.module\(\)$"):
        rc.count_regions(program, SEGMENTS)
