"""Measure random classifiers and compare with slow references, computed layer by layer from dense matrices."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from fuzz_checks import Case, Outcome, attempt, float64_model, logits_of
from fuzz_reference import one_at_a_time
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.utils import parametrize

import regioncount as rc

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = ("log_product_frobenius", "log_product_spectral", "log_product_operator", "sum_frobenius", "frobenius_over_spectral")
OTHERS = ("parameter_count", "parameter_norm", "log_path_norm", "fisher_rao_norm", "margin_over_spectral_product")
NAMES = ["accuracy", "output_margin", "inverse_margin", "input_margin", "jacobian_norm", *NORMS, *OTHERS]
COLUMNS = ["train_accuracy", "train_loss", *NAMES[1:]]

# Kinds that compute the weights of plain layers from other tensors.
PARAMETRIZED = ("weight norm", "spectral norm", "orthogonal", "weight norm as a hook", "spectral norm as a hook", "pruned")

TOLERANCE = 2e-3  # of float32 models; singular values of maps are computed to 1e-6


@dataclass
class Use:
    """One use of a layer in a forward pass."""

    layer: nn.Module
    inputs: Tensor
    weight: Tensor
    output: Tensor
    version: int
    """Of the output, which an operation in place changes."""


def uses_of_layers(model: nn.Module, inputs: Tensor) -> list[Use] | None:
    """Return each use of a layer, with batch normalization folded into the layer whose output it normalizes.

    Returns:
        None if a normalization is not that of a layer's output.
    """
    uses: list[Use] = []
    unknown = False

    def record(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal unknown
        if isinstance(module, LAYERS):
            uses.append(Use(module, arguments[0].clone(), module.weight.detach().clone(), output, output._version))
        elif uses and module.running_var is not None and follows(uses[-1], arguments[0]):
            scale = (module.running_var + module.eps).rsqrt() * (1 if module.weight is None else module.weight.detach())
            uses[-1].weight *= scale.view(-1, *[1] * (uses[-1].weight.dim() - 1))
            uses[-1].output, uses[-1].version = output, output._version
        else:
            unknown = True

    modules = [module for module in model.modules() if isinstance(module, (*LAYERS, BatchNorm))]
    handles = [module.register_forward_hook(record) for module in modules]
    with torch.no_grad():
        model(inputs)
    for handle in handles:
        handle.remove()
    return None if unknown else uses


def follows(use: Use, value: Tensor) -> bool:
    """Return whether a value is the output of a layer, without an operation in place between."""
    return value is use.output and value._version == use.version


def dense_matrix(use: Use) -> Tensor:
    """Return the matrix of a layer as a map of its whole input, from the images of all unit vectors."""
    if isinstance(use.layer, nn.Linear):
        return use.weight
    units = torch.eye(use.inputs[0].numel(), dtype=use.weight.dtype).view(-1, *use.inputs.shape[1:])
    state = {"weight": use.weight} | ({} if use.layer.bias is None else {"bias": torch.zeros_like(use.layer.bias)})
    return torch.func.functional_call(use.layer, state, (units,)).flatten(1).detach()


def block_norm(use: Use) -> float:
    """Return the spectral norm of a layer's weight as a block-diagonal matrix."""
    blocks = use.weight.flatten(1).chunk(getattr(use.layer, "groups", 1))
    return torch.linalg.matrix_norm(torch.block_diag(*blocks), 2).item()


def layer_norms(uses: list[Use]) -> dict[str, float]:
    """Return the measures of `NORMS` for the layers of a plainly written network."""
    squares = [use.weight.square().sum().item() for use in uses]
    spectral = [block_norm(use) ** 2 for use in uses]
    operator = [torch.linalg.svdvals(dense_matrix(use))[0].item() ** 2 for use in uses]
    if not min([*squares, *spectral, *operator, 1.0]) > 0:
        return {}
    depth = len(uses)
    return {
        "log_product_frobenius": sum(map(math.log, squares)),
        "log_product_spectral": sum(map(math.log, spectral)),
        "log_product_operator": sum(map(math.log, operator)),
        "sum_frobenius": depth * math.prod(squares) ** (1 / depth),
        "frobenius_over_spectral": sum(a / b for a, b in zip(squares, spectral, strict=True)),
    }


def plain_twin(model: nn.Module) -> nn.Module:
    """Return a perceptron of plain layers with the weights that a parametrized one computes."""
    layers: list[nn.Module] = []
    for module in model:
        if isinstance(module, nn.Linear):
            plain = nn.Linear(module.in_features, module.out_features)
            with torch.no_grad():
                plain.weight.copy_(module.weight)
                plain.bias.copy_(module.bias)
            module = plain
        layers.append(module)
    return nn.Sequential(*layers).eval()


def references(case: Case, inputs: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the measures of a function that this module can compute itself."""
    model = float64_model(case)
    native = one_at_a_time(logits_of(case.build()), inputs.to(case.dtype)).values
    if not native.isfinite().all():
        return {}  # beyond float32
    outputs = one_at_a_time(logits_of(model), inputs.double())
    logits = outputs.values
    expected: dict[str, float] = {}
    leads = logits.topk(2, dim=1).values.diff(dim=1).abs() if logits.dim() == 2 else torch.tensor(torch.inf)
    rounding = (native - logits).abs().max() + 1e-6 * logits.abs().max()
    if leads.min() > 8 * rounding:  # else rounding decides a label
        expected["train_accuracy"] = (torch.tensor(outputs.labels) == labels).double().mean().item()
    has_logits = logits.dim() == 2 and logits.is_floating_point() and bool(logits.isfinite().all())
    if has_logits:
        others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
        expected["output_margin"] = (logits.gather(1, labels[:, None])[:, 0] - others).quantile(0.1).item()
        expected["train_loss"] = F.cross_entropy(logits, labels).item()
    if not isinstance(model, nn.Module):
        return expected
    uses = uses_of_layers(model, inputs[:1].double())
    if uses:
        expected |= layer_norms(uses)
    normalized = any(isinstance(module, BatchNorm) for module in model.modules())
    hooked = any(parametrize.is_parametrized(module) or module._forward_pre_hooks for module in model.modules())
    if not normalized and not hooked:
        parameters = [*model.parameters()]
        expected["parameter_norm"] = math.sqrt(sum(parameter.detach().square().sum().item() for parameter in parameters))
        expected["parameter_count"] = sum(parameter.numel() for parameter in parameters)
        if has_logits:
            expected["fisher_rao_norm"] = fisher_rao(model, inputs.double(), labels)
    return expected


def fisher_rao(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Return sqrt(mean_i <w, grad_w loss_i>^2), one gradient at a time."""
    parameters, total = [*model.parameters()], 0.0
    for point, label in zip(inputs.split(1), labels.split(1), strict=True):
        loss = F.cross_entropy(logits_of(model)(point.clone()), label)
        if not loss.requires_grad:
            return 0.0
        try:
            gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
        except RuntimeError:  # torch has no derivative of an operation
            return math.nan
        total += sum((w.detach() * g).sum().item() for w, g in zip(parameters, gradients, strict=True)) ** 2
    return math.sqrt(total / len(inputs))


def check_measures(case: Case, seed: int) -> list[Outcome]:
    """Measure a case and compare each measure with its reference."""
    generator = torch.Generator().manual_seed(seed)
    inputs = case.scale * torch.randn(24, *case.shape, generator=generator)
    labels = torch.zeros(24, dtype=torch.int64)
    if case.function:
        predicted = torch.tensor(one_at_a_time(logits_of(float64_model(case)), inputs.double()).labels)
        labels = torch.where(torch.rand(24, generator=generator) < 0.1, labels, predicted)
    data = inputs.to(case.dtype)
    values = attempt(case, "measure", lambda m, v: rc.measure(m, (v, labels), NAMES, test=(v, labels)), data)
    if isinstance(values, Outcome):
        return [values]
    if not case.function:
        return [Outcome("measure", "failure", "is measured, although it is not a function")]
    expected = references(case, inputs, labels)
    if case.kind in PARAMETRIZED:
        plain = plain_twin(case.build()).to(case.dtype)
        twin = rc.measure(plain, (data, labels), NAMES, test=(data, labels))
        expected = {name: value for name, value in twin.items() if name in COLUMNS} | expected
        expected |= {"parameter_count": values["parameter_count"]}
    return [compare(f"measure {name}", name, values, expected) for name in COLUMNS]


def compare(call: str, name: str, values: dict[str, Any], expected: dict[str, float]) -> Outcome:
    """Compare one measure with its reference."""
    value = values.get(name, math.nan)
    if not math.isfinite(value):
        reason = values.get(f"{name}_error", values.get("accuracy_error", ""))
        return Outcome(call, "refused" if reason else "failure", str(reason) or "undefined without a reason")
    if name not in expected or not math.isfinite(expected[name]):
        return Outcome(call, "no reference")
    error = abs(value - expected[name])
    if error <= TOLERANCE * max(1, abs(expected[name])):
        return Outcome(call, "equal")
    return Outcome(call, "failure", f"{value:.8g} instead of {expected[name]:.8g}")
