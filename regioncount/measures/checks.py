"""Checks of a model and its data before any measure is computed."""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from regioncount.errors import InputError
from regioncount.measures.measured_model import MeasuredModel
from regioncount.regions.callables import returns_names
from regioncount.regions.evaluation import evaluation_batch, evaluation_mode, fast_layout, true_float32
from regioncount.regions.model_check import check_function, refuse_probability
from regioncount.regions.outputs import as_output, in_unit_interval, to_labels

CHECKED_INPUTS = 32  # training inputs at which the model is evaluated several times


def check_model(
    measured: MeasuredModel,
    labels: Mapping[str, Tensor],
    initial: object = None,
    labels_are_names: bool = False,
) -> None:
    """Check a model, its labels and its initial weights.

    Args:
        measured: The model and its data.
        labels: The labels of the "training" and the "test" set, int64 (N,).
        initial: The model before training, if it is known.
        labels_are_names: Whether the caller's labels were names of classes.

    Raises:
        InputError: If the model gives two answers for one input, or returns probabilities, or neither logits nor labels; the
            labels are names of classes and its outputs are not, or the reverse; a label is not one of its classes; or the
            initial model is no module or has another architecture.
    """
    inputs, model = measured.sample[0][:CHECKED_INPUTS], measured.model
    if initial is not None and not isinstance(initial, nn.Module):
        raise InputError(f"the initial model is {type(initial).__name__}: pass the module before training")
    check_function(model, inputs, min(measured.train_size, evaluation_batch(inputs.device, inputs[0].numel())))
    with torch.no_grad(), evaluation_mode(model), true_float32():
        output = as_output(model(fast_layout(inputs).clone()))
        to_labels(output, len(inputs))
        names = returns_names(model, inputs)
    if labels_are_names and not names:
        returned = (
            "logits: number the classes in their order" if output.dim() == 2 else "numbers: pass labels that are numbers"
        )
        raise InputError(f"the labels are names of classes, but the model returns {returned}")
    if names and not labels_are_names:
        raise InputError("the labels are numbers, but the model returns names of classes: pass labels that are names")
    if output.dim() == 2 and not output.is_floating_point():
        raise InputError(f"the model returns logits in {output.dtype}: losses need floats; return logits.float()")
    if in_unit_interval(output):
        with torch.no_grad(), evaluation_mode(model), true_float32():
            refuse_probability(model, inputs, fast_layout)
    for name, values in labels.items():
        wrong = values[(values < 0) | (values >= output.shape[1])] if output.dim() == 2 else values[:0]
        if len(wrong):
            raise InputError(
                f"the {name} label {wrong[0]} is not a class of the model, which returns {output.shape[1]} logits"
            )
    if output.dim() == 2 and not names:
        _warn_about_features(output, torch.cat([values.cpu() for values in labels.values()]).unique())
    if isinstance(model, nn.Module) and initial is not None:
        shapes, initial_shapes = _shapes(model), _shapes(initial)
        if different := [name for name in {**shapes, **initial_shapes} if shapes.get(name) != initial_shapes.get(name)]:
            raise InputError(f"the initial model has another architecture: its parameter {different[0]} differs in shape")


def _warn_about_features(output: Tensor, classes: Tensor) -> None:
    """Warn if a model may return features instead of logits (B, C): most predictions are classes that no label has.

    It is no error: a network for ImageNet may be measured on a few of its classes, and may be untrained.
    """
    others = (~torch.isin(output.argmax(dim=1).cpu(), classes)).sum().item()
    if 2 * others > len(output):
        warnings.warn(
            f"the model returns {output.shape[1]} values for an input, and {others} of {len(output)} predictions are "
            f"none of the {len(classes)} classes of the labels: accuracy and loss have no meaning for a network without "
            "its last layer, or if its classes are numbered otherwise",
            stacklevel=4,
        )


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
