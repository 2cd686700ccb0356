"""How a model is evaluated at points of subspaces: where, in which precision, in which mode, how many at once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from regioncount.errors import InputError

# Input values evaluated in one batch: what a CPU's caches hold, what keeps a GPU busy. It follows from the input's shape
# and the kind of device alone, so that it is the same every time.
BATCH_VALUES = {"cpu": 64 * 3072, "cuda": 1024 * 3072}


def evaluation_batch(device: torch.device, values: int) -> int:
    """How many inputs of so many values each are evaluated at once."""
    return max(1, BATCH_VALUES.get(device.type, BATCH_VALUES["cuda"]) // max(1, values))


def fast_layout(inputs: Tensor) -> Tensor:
    """Images (B, C, H, W) as convolutions run fastest on them, other inputs as they are.

    That is channels last in memory; on a GPU only in bfloat16: without TF32, a narrow ResNet-18 took 2.4 times as long.
    """
    if inputs.dim() != 4:
        return inputs
    last = inputs.device.type != "cuda" or inputs.dtype == torch.bfloat16
    return inputs.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def lay_out(module: nn.Module) -> nn.Module:
    """Have a module's convolution weights in memory as `fast_layout` has its inputs; returns the module."""
    for parameter in module.parameters():
        parameter.data = fast_layout(parameter.data)
    return module


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies in bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    supports = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return any(support() for support in supports if support is not None)


def interpolate(vertices: Tensor, weights: Tensor, subspace: Tensor, point: Tensor) -> Tensor:
    """The inputs (B, *input_shape) sum_k weights[point, k] * vertices[subspace, k]; both indices int64 (B,)."""
    shape = [-1, *[1] * (vertices.dim() - 2)]
    return sum(weights[point, k].view(shape) * vertices[subspace, k] for k in range(vertices.shape[1]))


def placement(model: Callable, vertices: Tensor) -> tuple[torch.device, torch.dtype]:
    """Where and in which type points are evaluated: where the module's parameters are, in float32 or float64."""
    if not vertices.is_floating_point():
        raise InputError(f"vertices must be floating point and normalized as the model takes them, not {vertices.dtype}")
    dtype = torch.promote_types(vertices.dtype, torch.float32)
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    first = next((p for p in parameters if p.is_floating_point()), None)
    if first is None:
        return vertices.device, dtype
    if first.dtype not in (torch.float32, torch.float64):
        # Labels in half precision flicker along decision boundaries and inflate the count.
        raise InputError(
            f"the model's parameters are {first.dtype}: count in float32, for example count_regions(model.float(), ...)"
        )
    return first.device, first.dtype


@contextmanager
def evaluation_mode(model: Callable) -> Iterator[None]:
    """Put a module in evaluation mode, and every part of it back as it was."""
    before = {module: module.training for module in model.modules()} if isinstance(model, nn.Module) else {}
    if before:
        model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


@contextmanager
def true_float32() -> Iterator[None]:
    """float32 as IEEE has it: no TF32, no autocast; the settings are put back afterwards."""
    matmul, convolution = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolution
