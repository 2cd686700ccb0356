"""A caller's model as a function of a batch of inputs: wrapped modules, half precision, estimators, names of classes."""

import copy
import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from regioncount.errors import InputError, one_line
from regioncount.regions.evaluation import HALF, Model

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def as_model(model: Any, class_numbers: dict[str, int] | None = None) -> Model:
    """Return a model as a function that the library can evaluate, analyse and copy.

    - Wrapped modules are unwrapped: `DataParallel`, `DistributedDataParallel`, `AveragedModel`, the modules of
      `torch.compile` and of Lightning's Fabric. The module inside computes the same function.
    - A module in half precision is replaced by a float32 copy, with a warning: labels in half precision change with
      rounding along decision boundaries, which inflates counts.
    - Of an estimator of scikit-learn, or another object with `predict` that cannot be called, `predict` is evaluated on
      inputs flattened to (B, features).
    - Labels that are text are numbered.

    Args:
        model: The caller's model.
        class_numbers: The number of each class that has a name; see `class_numbers_of`. Other names that the model returns
            are added.

    Returns:
        A torch module that is not wrapped, or another callable.

    Raises:
        InputError: The model cannot be called, or cannot be copied in float32.
    """
    if isinstance(model, torch.export.ExportedProgram):
        raise InputError("the model is an ExportedProgram: pass program.module()")
    numbers = class_numbers_of(model) if class_numbers is None else class_numbers
    if isinstance(model, nn.Module):
        return _in_float32(unwrapped(model))
    if callable(getattr(model, "predict", None)) and not callable(model):
        return _named(functools.partial(_predict, model), numbers)
    if not callable(model) or isinstance(model, type):
        described = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise InputError(
            f"the model is {described}: pass a torch module, a function of a batch of inputs, or a scikit-learn estimator"
        )
    return _named(model, numbers)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside wrappers that compute the same function, such as `DataParallel` and `torch.compile`."""
    while True:
        if isinstance(model, WRAPPERS):
            inner = model.module
        else:
            children = dict(model.named_children())
            key = {"OptimizedModule": "_orig_mod", "_FabricModule": "_original_module"}.get(type(model).__name__)
            inner = children.get(key or "")
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def class_numbers_of(model: Any) -> dict[str, int]:
    """Return the number of each class of an estimator of scikit-learn whose classes have names; {} for other models."""
    classes = () if isinstance(model, nn.Module) else getattr(model, "classes_", ())  # of several outputs: a list of arrays
    return {str(name): number for number, name in enumerate(classes)} if is_text(classes) else {}


def is_text(values: Any) -> bool:
    """Return whether values are one or several names of classes: an array or a list of text."""
    if isinstance(values, list | tuple):
        return len(values) > 0 and all(isinstance(value, str) for value in values)
    if not isinstance(values, np.ndarray):
        return False
    return values.dtype.kind in "UT" or (values.dtype == object and values.size > 0 and is_text(values.ravel().tolist()))


def returns_names(model: Model, inputs: Tensor) -> bool:
    """Return whether a model that `as_model` returned was given as one that returns names of classes."""
    return not isinstance(model, nn.Module) and is_text(getattr(model, "__wrapped__", model)(inputs.clone()))


def _named(function: Callable[[Tensor], Any], numbers: dict[str, int]) -> Model:
    """Return a function that replaces names of classes in its output by their numbers."""

    @functools.wraps(function, updated=())
    def numbered(inputs: Tensor) -> Any:
        output = function(inputs)
        if not is_text(output):
            return output
        if (names := np.asarray(output)).ndim != 1:
            raise InputError(f"the model returned text of shape {names.shape}; it must return one label for each input")
        return torch.tensor([numbers.setdefault(str(name), len(numbers)) for name in names])

    return numbered


def _predict(estimator: Any, inputs: Tensor) -> np.ndarray:
    """Return an estimator's labels (B,) of inputs (B, *input_shape), which are flattened."""
    points = inputs.detach().flatten(1).cpu().numpy()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        labels = np.asarray(estimator.predict(points))
    if labels.shape != (len(points),):
        raise InputError(
            f"the estimator {type(estimator).__name__} predicts {labels.shape} for {len(points)} inputs: evaluate one "
            "output, for example lambda inputs: estimator.predict(inputs.flatten(1))[:, 0]"
        )
    is_classifier = hasattr(estimator, "classes_")
    if is_classifier and labels.dtype.kind == "f" and (labels == np.rint(labels)).all():  # trained on whole numbers
        return labels.astype(np.int64)
    return labels


def _in_float32(model: nn.Module) -> nn.Module:
    """Return a module without parameters in half precision: a float32 copy if it has any, as with a head in float32."""
    dtype = next((parameter.dtype for parameter in model.parameters() if parameter.dtype in HALF), None)
    if dtype is None:
        return model
    try:
        converted = copy.deepcopy(model).float()
    except Exception as error:
        advice = "convert it yourself, model.float()"
        raise InputError(
            f"the model has parameters in {dtype} and cannot be copied in float32 ({one_line(error)}): {advice}"
        ) from error
    # stacklevel: the caller of the function that calls `as_model`
    warnings.warn(f"the model has parameters in {dtype}: a copy in float32 is evaluated", stacklevel=4)
    return converted
