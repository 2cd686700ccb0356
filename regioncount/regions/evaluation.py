"""Evaluation of a model at points of subspaces: device, precision, mode, memory layout and batch size."""

from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantizeBase
from torch.nn.parameter import is_lazy

from regioncount.errors import InputError

Model = Callable[[Tensor], Any]
"""Any callable from inputs (B, *input_shape) to logits (B, classes) or integer labels (B,)."""

Layout = Callable[[Tensor], Tensor]
"""A function that converts inputs to a memory layout, such as `fast_layout`."""

# Labels in half precision change with rounding along decision boundaries, which inflates counts.
HALF = (torch.float16, torch.bfloat16)

# Number of input values per batch: a CPU's caches hold this many, and a GPU is kept busy by this many. The batch size
# depends only on the input's shape and the type of device, so that it is the same in every run.
BATCH_VALUES = {"cpu": 64 * 3072, "cuda": 1024 * 3072}


def float64_device(device: torch.device) -> torch.device:
    """Return the device on which to compute in float64: the device itself, or the CPU for MPS, which has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def as_float64(tensor: Tensor) -> Tensor:
    """Return a tensor in float64, on the device of `float64_device`."""
    return tensor.to(float64_device(tensor.device)).double()


def evaluation_batch(device: torch.device, values: int) -> int:
    """Return the number of inputs to evaluate in one batch.

    Args:
        device: Device of the evaluation.
        values: Number of values in one input.

    Returns:
        The batch size, at least 1.
    """
    return max(1, BATCH_VALUES.get(device.type, BATCH_VALUES["cuda"]) // max(1, values))


def training_layout(device: torch.device) -> torch.memory_format:
    """Return the memory layout of networks and images in training: channels-last, which batch normalization on MPS lacks."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def fast_layout(inputs: Tensor) -> Tensor:
    """Return images in the memory layout in which convolutions run fastest.

    This is channels-last on a CPU. On CUDA it is channels-last in bfloat16 only: in float32 without TF32,
    channels-last makes a narrow ResNet-18 2.4 times slower.

    Args:
        inputs: Images (B, C, H, W), or a tensor of another shape.

    Returns:
        The same values; a tensor that does not have four dimensions is returned unchanged.
    """
    if inputs.dim() != 4:
        return inputs
    channels_last = inputs.device.type == "cpu" or (inputs.device.type == "cuda" and inputs.dtype == torch.bfloat16)
    return inputs.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def to_fast_layout(module: nn.Module) -> nn.Module:
    """Convert a module's convolution weights to the layout of `fast_layout`, in place.

    Args:
        module: Any module.

    Returns:
        The same module.
    """
    for parameter in module.parameters():
        parameter.data = fast_layout(parameter.data)
    return module


def fast_bfloat16(device: torch.device) -> bool:
    """Return whether the hardware supports multiplication in bfloat16.

    Args:
        device: Device of the evaluation.

    Returns:
        False if bfloat16 is only emulated.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "mps":
        return False
    checks = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return any(check() for check in checks if check is not None)


def interpolate(vertices: Tensor, weights: Tensor, subspace: Tensor, point: Tensor) -> Tensor:
    """Return points of simplices, sum_k weights[point, k] * vertices[subspace, k].

    Args:
        vertices: (S, d + 1, *input_shape).
        weights: Barycentric coordinates (P, d + 1).
        subspace: Index of the simplex of each point, int64 (B,).
        point: Index into `weights`, int64 (B,).

    Returns:
        Inputs (B, *input_shape).
    """
    shape = [-1, *[1] * (vertices.dim() - 2)]
    inputs = weights[point, 0].view(shape) * vertices[subspace, 0]
    for k in range(1, vertices.shape[1]):
        inputs = inputs + weights[point, k].view(shape) * vertices[subspace, k]
    return inputs


def require_values(model: Model) -> None:
    """Check that the parameters and buffers of a module have values: those of lazy modules do not before the first call.

    Raises:
        InputError: If one has no values.
    """
    tensors = (*model.parameters(), *model.buffers()) if isinstance(model, nn.Module) else ()
    if any(is_lazy(tensor) or tensor.is_meta for tensor in tensors):
        raise InputError(
            "the model has parameters or buffers without values: call it on a batch of inputs first, or load its weights"
        )


def device_and_dtype(model: Model, vertices: Tensor) -> tuple[torch.device, torch.dtype]:
    """Return the device and the dtype in which a model is evaluated.

    Args:
        model: The model. A module is evaluated on the device and in the dtype of its first floating point parameter.
        vertices: Vertices of the subspaces, floating point. Their device and dtype are used if there are no parameters.

    Returns:
        The device, and float32 or float64.

    Raises:
        InputError: If a parameter is neither float32 nor float64, or has no values.
    """
    require_values(model)
    parameters = [p for p in model.parameters() if p.is_floating_point()] if isinstance(model, nn.Module) else []
    if not parameters:
        return vertices.device, torch.promote_types(vertices.dtype, torch.float32)
    if others := [p.dtype for p in parameters if p.dtype not in (torch.float32, torch.float64)]:
        # Labels in half precision flicker along decision boundaries and inflate the count.
        raise InputError(
            f"the model has parameters in {others[0]}: count in float32, for example count_regions(model.float(), ...)"
        )
    return parameters[0].device, parameters[0].dtype


def is_quantized(model: nn.Module) -> bool:
    """Return whether a module contains quantized modules, or quantization that is simulated: its logits are staircases."""
    packages = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.ao.nn.qat", "torch.ao.nn.intrinsic.qat")
    return any(
        isinstance(module, FakeQuantizeBase) or type(module).__module__.startswith(packages) for module in model.modules()
    )


@contextmanager
def evaluation_mode(model: Model) -> Generator[None]:
    """Put a module in evaluation mode, and restore the mode of each of its submodules on exit.

    Args:
        model: A module, or another callable, which is not changed.

    Yields:
        Nothing.
    """
    # Frozen modules of TorchScript have no mode, and that of exported modules cannot be changed.
    modules = [*model.modules()] if isinstance(model, nn.Module) else []
    modes = {module: module.training for module in modules if hasattr(module, "training")}
    switched = any(modes.values()) or not modes
    own_train = [module for module in modes if switched and _overrides_train(module)]
    # Such a module may change its weights with its mode, as LoRA merges its update; undone, they would differ by rounding.
    weights = {parameter: parameter.detach().clone() for module in own_train for parameter in module.parameters()}
    try:
        if isinstance(model, nn.Module) and switched:
            with suppress(NotImplementedError):
                model.eval()
        yield
    finally:
        for module in own_train:  # parents first: their methods set the modes of their children
            module.train(modes[module])
        for module, training in modes.items():
            module.training = training
        for parameter, before in weights.items():
            if not torch.equal(parameter.detach(), before):
                parameter.data.copy_(before)  # not a change in place that autograd counts


def _overrides_train(module: nn.Module) -> bool:
    """Return whether a module has a method `train` of its own, which may do more than set its mode."""
    return type(module).train is not nn.Module.train and not isinstance(module, torch.jit.ScriptModule)


@contextmanager
def true_float32() -> Generator[None]:
    """Compute in IEEE float32, without TF32 and autocast, and restore the settings on exit.

    Yields:
        Nothing.
    """
    matmul, convolution = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolution
