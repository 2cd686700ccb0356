"""What the model says: labels of lattice points, interpolated on the device and evaluated in true float32."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
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
    """Images (B, C, H, W) with channels last in memory, which convolutions run faster on; other inputs as they are."""
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.dim() == 4 else inputs


def label_points(model: Callable, vertices: Tensor, weights: np.ndarray, batch_size: int | None = None) -> np.ndarray:
    """Labels of the points sum_k weights[p, k] * vertices[s, k]: int32 (S, P).

    model: from inputs (B, *input_shape) to logits (B, classes) or integer labels (B,). vertices: (S, d + 1,
    *input_shape), floating point. weights: (P, d + 1). The highest logit wins, a tie goes to the lowest index. Raises
    InputError where the output has another shape, or a logit is not a number.
    """
    device, dtype = _placement(model, vertices)
    vertices = vertices.to(device, dtype)
    weights = torch.as_tensor(weights, dtype=dtype, device=device)
    number, points = len(vertices), len(weights)
    if batch_size is None:
        batch_size = evaluation_batch(device, vertices[0, 0].numel())
    labels = torch.empty(number * points, dtype=torch.int32, device=device)
    undefined = torch.zeros((), dtype=torch.bool, device=device)
    with torch.no_grad(), evaluation_mode(model), true_float32():
        for start in range(0, number * points, batch_size):
            flat = torch.arange(start, min(start + batch_size, number * points), device=device)
            simplex, point = flat // points, flat % points
            inputs = sum(
                weights[point, k].view(-1, *[1] * (vertices.dim() - 2)) * vertices[simplex, k]
                for k in range(vertices.shape[1])
            )
            batch_labels, batch_undefined = to_labels(model(fast_layout(inputs)), len(flat))
            labels[start : start + len(flat)] = batch_labels
            undefined |= batch_undefined.to(device)  # looked at once, at the end: no synchronization a batch
    if undefined:
        raise InputError("the model gives logits that are not a number: its regions cannot be counted")
    return labels.view(number, points).cpu().numpy()


def to_labels(output, batch: int) -> tuple[Tensor, Tensor]:
    """Labels int32 (B,) from a model's output, and whether any logit was not a number (a tensor of one bool)."""
    output = torch.as_tensor(output)
    if output.dim() == 2 and output.shape[0] == batch and output.shape[1] >= 2:
        undefined = output.isnan().any() if output.is_floating_point() else torch.zeros((), dtype=torch.bool)
        return output.argmax(dim=1).int(), undefined  # argmax returns the first of equal maxima
    if output.shape == (batch,) and not output.is_floating_point() and not output.is_complex():
        return output.int(), torch.zeros((), dtype=torch.bool)
    raise InputError(
        f"the model returned {output.dtype} of shape {tuple(output.shape)} for a batch of {batch}: "
        "logits (batch, classes) with two classes or more, or integer labels (batch,), are needed"
    )


def _placement(model: Callable, vertices: Tensor) -> tuple[torch.device, torch.dtype]:
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
