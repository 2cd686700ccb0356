"""Checks of a model and its data before any measure is computed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regioncount.errors import InputError
from regioncount.measures.measured_model import MeasuredModel
from regioncount.regions.checks import native
from regioncount.regions.evaluation import evaluation_batch, evaluation_mode, fast_layout, true_float32
from regioncount.regions.model_check import check_function
from regioncount.regions.outputs import as_output, to_labels

CHECKED_INPUTS = 32  # training inputs at which the model is evaluated several times


def as_pair(data: Any, name: str) -> tuple[Tensor, Tensor]:
    """Return inputs and labels as tensors.

    Args:
        data: A pair of tensors, arrays or lists.
        name: What the data are, for the message.

    Raises:
        InputError: If the data are no such pair.
    """
    try:
        inputs, labels = data
        if isinstance(inputs, np.ma.MaskedArray) or isinstance(labels, np.ma.MaskedArray):
            raise InputError(f"the {name} data are masked arrays: pass values without a mask")
        inputs, labels = (
            torch.as_tensor(native(part) if isinstance(part, np.ndarray) else part) for part in (inputs, labels)
        )
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the {name} data are {type(data).__name__}: pass a pair of inputs and labels") from error
    if inputs.is_meta or labels.is_meta:
        raise InputError(f"the {name} data have no values: they are on the device meta")
    return inputs, labels


def check_model(measured: MeasuredModel, labels: Mapping[str, Tensor], initial: object = None) -> None:
    """Check a model, its labels and its initial weights.

    Args:
        measured: The model and its data.
        labels: The labels of the "training" and the "test" set, int64 (N,).
        initial: The model before training, if it is known.

    Raises:
        InputError: If the weights and the inputs have different types, the model gives two answers for one input or returns
            neither logits nor labels, a label is not one of its classes, or the initial model is no module or has another
            architecture.
    """
    inputs, model = measured.sample[0][:CHECKED_INPUTS], measured.model
    weights = model.parameters() if isinstance(model, nn.Module) else ()
    types = {weight.dtype for weight in weights if weight.is_floating_point()}
    if len(types) == 1 and inputs.dtype not in types:
        (dtype,) = types
        raise InputError(f"the inputs are {inputs.dtype}, but the model's weights {dtype}: convert one of them")
    if initial is not None and not isinstance(initial, nn.Module):
        raise InputError(f"the initial model is {type(initial).__name__}: pass the module before training")
    check_function(model, inputs, min(measured.train_size, evaluation_batch(inputs.device, inputs[0].numel())))
    with torch.no_grad(), evaluation_mode(model), true_float32():
        output = as_output(model(fast_layout(inputs).clone()))
        to_labels(output, len(inputs))
    for name, values in labels.items():
        wrong = values[(values < 0) | (values >= output.shape[1])] if output.dim() == 2 else values[:0]
        if len(wrong):
            raise InputError(
                f"the {name} label {wrong[0]} is not a class of the model, which returns {output.shape[1]} logits"
            )
    if isinstance(model, nn.Module) and initial is not None:
        shapes, initial_shapes = _shapes(model), _shapes(initial)
        if different := [name for name in {**shapes, **initial_shapes} if shapes.get(name) != initial_shapes.get(name)]:
            raise InputError(f"the initial model has another architecture: its parameter {different[0]} differs in shape")


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
