"""Checks and conversions of the arguments of the library's functions."""

import math
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regioncount.errors import InputError, one_line

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def as_vertices(vertices: Any, dimension: int | None = None) -> Tensor:
    """Return the vertices of S simplices as a tensor, after checking them.

    Args:
        vertices: A tensor, or an array or nested list of numbers, (S, d + 1, *input_shape).
        dimension: The dimension d that is needed; None for any.

    Returns:
        Floating point (S, d + 1, *input_shape).

    Raises:
        InputError: If the shape or the type is wrong, or a value is not finite.
    """
    tensor = as_tensor("vertices", vertices)
    require_floats("vertices", tensor)
    if tensor.dim() < 3 or len(tensor) < 1 or tensor.shape[1] < 2 or (dimension and tensor.shape[1] != dimension + 1):
        needed = "d + 1" if dimension is None else dimension + 1
        raise InputError(f"vertices of shape (S, {needed}, *input_shape) are needed, not {tuple(tensor.shape)}")
    if not tensor.isfinite().all():
        raise InputError("vertices must be finite: some are infinite or not a number")
    return tensor


def as_tensor(name: str, values: Any) -> Tensor:
    """Return an argument as a tensor: a tensor unchanged, an array or a nested list converted.

    Raises:
        InputError: If it is a masked array, or no array of numbers of one shape.
    """
    if isinstance(values, Tensor):
        return values
    try:
        return torch.as_tensor(as_array(name, values))
    except (TypeError, RuntimeError) as error:
        raise InputError(f"{name} must be a tensor or an array of numbers: {one_line(error)}") from None


def as_array(name: str, values: Any) -> np.ndarray:
    """Return an array or nested list as an array that torch can use: contiguous, writable, in the machine's byte order.

    Args:
        name: Name of the argument, for the message.
        values: Its value.

    Raises:
        InputError: If it is a masked array, or no array of one shape.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise InputError(f"{name} is a masked array: pass values without a mask, for example array.filled(value)")
    try:
        array = native(np.ascontiguousarray(values) if np.ndim(values) else np.asarray(values))
        return array if array.flags.writeable else array.copy()
    except ValueError as error:  # rows of different lengths
        raise InputError(f"{name} is not an array of one shape: {one_line(error)}") from None


def native(array: np.ndarray) -> np.ndarray:
    """Return an array in the machine's byte order, which torch needs. Files of other machines may have another one."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def require_type(name: str, value: Any, kind: type) -> None:
    """Check the type of an argument.

    Raises:
        InputError: If it has another type.
    """
    if not isinstance(value, kind):
        raise InputError(f"{name}: a {kind.__module__}.{kind.__name__} is needed, not {type(value).__name__}")


def require_floats(name: str, tensor: Any) -> None:
    """Check that an argument is a dense tensor of floating point numbers.

    Raises:
        InputError: If it is not.
    """
    require_type(name, tensor, Tensor)
    if tensor.is_nested or tensor.is_meta:
        raise InputError(f"{name} must be one tensor with values, not a nested tensor or one on the device meta")
    if tensor.dtype not in FLOATS or tensor.layout != torch.strided:
        kind = tensor.dtype if tensor.layout == torch.strided else tensor.layout
        raise InputError(f"{name} must be floating point and normalized as the model expects, not {kind}")


def require_count(name: str, value: Any, least: int) -> None:
    """Check an argument that is a number of points, inputs or evaluations.

    Args:
        name: Name of the argument, for the message.
        value: Its value.
        least: The smallest valid value.

    Raises:
        InputError: If the value is not a whole number or too small.
    """
    if type(value) is bool or not isinstance(value, Integral) or int(value) < least:
        raise InputError(f"{name}={value!r}: give a whole number of at least {least}")


def require_number(name: str, value: Any) -> None:
    """Check an argument that is a finite number.

    Raises:
        InputError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise InputError(f"{name}={value!r:.40}: give a finite number")


def device_of_generator(generator: Any) -> torch.device:
    """Return the device of a source of randomness; the CPU for None, torch's global one.

    Raises:
        InputError: If it is no generator.
    """
    if generator is None:
        return torch.device("cpu")
    if not isinstance(generator, torch.Generator):
        seed = generator if type(generator) is int else 0
        raise InputError(f"generator={generator!r:.40}: pass a generator, such as torch.Generator().manual_seed({seed})")
    return generator.device
