"""The output of a model as logits or labels; outputs that are neither are refused."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regioncount.errors import InputError
from regioncount.regions.evaluation import as_float64

EXPECTED = "it must return logits (batch, classes), or (batch, 1) for two classes, or integer labels (batch,)"


def as_output(output: Any) -> Tensor:
    """Return what a model returned as logits of two classes or more, or as labels.

    Args:
        output: See `output_tensor`. The logit z of a binary classifier, (B, 1), stands for the logits (0, z): class 1 is
            predicted where z > 0.

    Returns:
        A dense, real tensor.

    Raises:
        InputError: The output has another type.
    """
    tensor = output_tensor(output)
    if tensor.dim() == 2 and tensor.shape[1] == 1 and tensor.is_floating_point():
        return torch.cat([torch.zeros_like(tensor), tensor], dim=1)
    return tensor


def output_tensor(output: Any) -> Tensor:
    """Return what a model returned as a tensor, unchanged.

    Args:
        output: A tensor; an object with a tensor as its attribute `logits`, or a mapping with the key "logits" (as in
            Hugging Face's models); a tuple or list whose first part is a tensor (B, classes) or (B, 1); or numbers that
            `torch.as_tensor` accepts, such as an array of labels.

    Returns:
        A dense, real tensor.

    Raises:
        InputError: The output has another type.
    """
    output = getattr(output, "logits", output)
    if isinstance(output, Mapping) and "logits" in output:
        output = output["logits"]
    if isinstance(output, tuple | list) and len(output) and isinstance(output[0], Tensor) and output[0].dim() == 2:
        output = _first_part(output)
    if isinstance(output, list | tuple) and any(isinstance(value, str) for value in output):
        raise InputError("the model returned text: number the classes, and return integer labels (batch,)")
    if isinstance(output, Mapping) and "last_hidden_state" in output:
        raise InputError(
            f"the model returned a {type(output).__name__}, features without logits: load the network with its classifier, "
            "for example with transformers.AutoModelForImageClassification"
        )
    if isinstance(output, tuple | list | Mapping) and not _are_numbers(output):
        part = "key" if isinstance(output, Mapping) else "0"
        raise InputError(
            f"the model returned a {type(output).__name__} without logits (batch, classes): return one output, for example "
            f"lambda inputs: model(inputs)[{part}]"
        )
    if isinstance(output, np.ma.MaskedArray):
        raise InputError("the model returned a masked array: return values without a mask")
    if not isinstance(output, Tensor | np.ndarray) and hasattr(output, "__array__"):
        output = np.asarray(output)  # such as an array of JAX
    try:
        tensor = torch.as_tensor(output)
    except (TypeError, ValueError, RuntimeError):
        kind = getattr(output, "dtype", type(output).__name__)
        raise InputError(f"the model returned {kind}; {EXPECTED}") from None
    if tensor.is_meta:
        raise InputError("the model returned a tensor without values, on the device meta: load its weights")
    if tensor.is_floating_point() and tensor.itemsize == 1:  # torch does not compute with them
        raise InputError(f"the model returned {tensor.dtype}: convert its output, for example lambda x: model(x).float()")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        described = "complex numbers" if tensor.is_complex() else "a sparse or quantized tensor"
        raise InputError(f"the model returned {described}; {EXPECTED}")
    return tensor


def to_labels(output: Any, batch: int) -> tuple[Tensor, Tensor]:
    """Return the predicted labels in a model's output.

    Args:
        output: Logits (B, classes) or integer labels (B,); see `as_output`.
        batch: Number of inputs B.

    Returns:
        Labels, int64 (B,): the index of the highest logit, or the lowest such index if logits tie. And a boolean tensor
        (): whether any logit is not a number.

    Raises:
        InputError: If the output is neither logits nor labels.
    """
    output = as_output(output)
    if output.dim() == 2 and output.shape[0] == batch and output.shape[1] >= 2 and output.dtype != torch.bool:
        has_nan = output.isnan().any() if output.is_floating_point() else torch.zeros((), dtype=torch.bool)
        return output.argmax(dim=1), has_nan  # argmax returns the first of equal maxima
    if output.shape == (batch,) and not output.is_floating_point():
        if output.dtype == torch.uint64 and (output.view(torch.int64) < 0).any():
            raise InputError("the model returned labels of 2^63 or more; number the classes from 0")
        return output.long(), torch.zeros((), dtype=torch.bool)
    remedy = ""
    if output.shape == (batch,) and output.is_floating_point():
        remedy = "; of a binary classifier, return the logit as (batch, 1), for example lambda x: model(x)[:, None]"
    elif output.shape == (batch, 1):
        remedy = "; return labels as (batch,), for example lambda x: model(x).squeeze(1)"
    raise InputError(
        f"the model returned {output.dtype} of shape {tuple(output.shape)} for a batch of {batch}; {EXPECTED}{remedy}"
    )


def logit_scale(logits: Tensor) -> float:
    """Return the scale of logits (N, classes) for tolerances, which the logit of a masked class, such as -1e9, does not set.

    Returns:
        The largest range of a class over the inputs, or the largest margin of an input (its highest logit minus the second
        highest) if that is larger. Infinite logits and NaN are left out; 0 if none is left.
    """
    values = as_float64(logits)
    absent = ~values.isfinite()
    highest, lowest = values.masked_fill(absent, -torch.inf), values.masked_fill(absent, torch.inf)
    top = highest.topk(min(2, values.shape[1]), dim=1).values
    spreads = torch.cat([highest.amax(dim=0) - lowest.amin(dim=0), top[:, 0] - top[:, -1]])
    return max(spreads[spreads.isfinite()].tolist(), default=0.0)


def refuse_nan(has_nan: Tensor) -> None:
    """Raise if any logit of the model is not a number.

    Args:
        has_nan: Boolean tensor ().

    Raises:
        InputError: If `has_nan` is true.
    """
    if has_nan:
        raise InputError("the model returns logits that are not a number: its regions cannot be counted")


def in_unit_interval(output: Tensor) -> bool:
    """Return whether an output is floating point (B, C), all values are between 0 and 1, and not all are 0."""
    is_logits = output.dim() == 2 and output.is_floating_point()
    return is_logits and bool(((output >= 0) & (output <= 1)).all() and output.any())


def _first_part(parts: tuple[Any, ...] | list[Any]) -> Tensor:
    """Return the first part of an output of several; warn if another one may be the logits."""
    first, *others = parts
    if any(isinstance(part, Tensor) and part.dim() == 2 for part in others):
        warnings.warn(
            f"the model returned a {type(parts).__name__}: its first part, with {first.shape[1]} values for each input, is "
            "evaluated as its logits",
            stacklevel=2,
        )
    return first


def _are_numbers(values: Any) -> bool:
    """Return whether a list contains numbers, such as labels in a Python list, and not tensors or mappings."""
    if isinstance(values, Mapping):
        return False
    return all(isinstance(value, int | float) or (isinstance(value, list) and _are_numbers(value)) for value in values)
