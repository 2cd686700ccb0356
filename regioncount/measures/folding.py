"""Networks with batch normalization folded in, so that norms of weights and rescalings of layers are well defined."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.utils._python_dispatch import TorchDispatchMode

from regioncount.errors import InputError
from regioncount.regions.copies import plain_copy
from regioncount.regions.evaluation import evaluation_mode, true_float32
from regioncount.regions.narrow import safe_forwards
from regioncount.regions.outputs import as_output, logit_scale
from regioncount.regions.screening import FOLDING_TOLERANCE, folded


def without_normalization(model: nn.Module) -> nn.Module:
    """Return a copy of a network in evaluation mode, with batch normalization folded in.

    Batch normalization is folded into the preceding convolution. Without one, it becomes a convolution itself.

    Raises:
        InputError: If the model cannot be traced.
    """
    with evaluation_mode(model):
        network = plain_copy(model)
        if any(isinstance(module, BatchNorm) for module in network.modules()):
            network = folded(network)
    if network is None:
        raise InputError("batch normalization cannot be folded: torch.fx cannot trace this model")
    network.eval()
    for name, module in list(network.named_modules()):
        if isinstance(module, BatchNorm):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, _as_convolution(module))
    return network


def network_for_measures(model: nn.Module, inputs: Tensor) -> nn.Module:
    """Return `without_normalization(model)`, after comparing it with the model.

    The copy returns logits as a tensor, and does not write to its input.

    Args:
        model: The network.
        inputs: Inputs (B, *input_shape) at which to compare both.

    Returns:
        The copy, in evaluation mode.

    Raises:
        InputError: If the copy computes another function or still has batch normalization, a weight or a logit is not a
            finite number, or the logits are in half precision.
    """
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise InputError("a weight is not a finite number")
    network = without_normalization(model)
    for module, forward in safe_forwards(network, inputs.device).items():
        module.forward = forward
    if not list(network.children()):
        network = nn.Sequential(network)  # so that a single layer does not have the hooks below
    network.register_forward_pre_hook(lambda module, args: (args[0].clone(), *args[1:]))
    network.register_forward_hook(lambda module, args, output: as_output(output))
    with torch.no_grad(), evaluation_mode(model), true_float32():
        expected = as_output(model(inputs.clone()))
        with _RefuseBatchNorm():
            actual = network(inputs)
    if expected.dtype not in (torch.float32, torch.float64):
        raise InputError(f"the logits are {expected.dtype}: derivatives and norms need float32")
    if not expected.isfinite().all():
        raise InputError("a logit is not a finite number")
    if not (actual - expected).abs().max() <= FOLDING_TOLERANCE * logit_scale(expected):
        raise InputError(
            "batch normalization cannot be folded: the folded network computes another function, as when a convolution "
            "is shared or a subclass of batch normalization does more"
        )
    return network


class _RefuseBatchNorm(TorchDispatchMode):
    """Raises an InputError if batch normalization with running statistics is computed. It is a map that can be folded."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "batch_norm" in func.overloadpacket.__name__:
            names = [argument.name for argument in func._schema.arguments]
            values = dict(zip(names, args, strict=False)) | (kwargs or {})
            if not values.get("training"):  # as it is in instance normalization and weight standardization
                raise InputError(
                    "the model calls batch normalization as a function, as in an exported module, which cannot be folded: "
                    "build it with nn.BatchNorm2d, or pass the module before its export"
                )
        return func(*args, **(kwargs or {}))


def _as_convolution(module: nn.Module) -> nn.Module:
    """Return batch normalization of images, in evaluation mode, as a depthwise convolution."""
    if type(module) is not nn.BatchNorm2d or module.running_var is None or module.running_mean is None:
        raise InputError(f"{type(module).__name__} without a preceding convolution cannot be folded")
    scale = (module.running_var + module.eps).rsqrt()
    weight, bias = cast(Tensor | None, module.weight), cast(Tensor | None, module.bias)
    scale = scale if weight is None else scale * weight
    shift = -module.running_mean * scale + (0 if bias is None else bias)
    channels = len(scale)
    options = {"groups": channels, "device": scale.device, "dtype": scale.dtype}
    convolution = cast(nn.Conv2d, nn.utils.skip_init(nn.Conv2d, channels, channels, 1, **options))  # draws no random numbers
    assert convolution.bias is not None
    with torch.no_grad():
        convolution.weight.copy_(scale.view(-1, 1, 1, 1))
        convolution.bias.copy_(shift)
    return convolution.eval()
