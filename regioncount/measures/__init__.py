"""Generalization measures of a trained model, by name.

A measure is a function of a `Subject`; it returns a number, or a mapping of columns to numbers, and raises InputError where
it is undefined, saying why.
"""

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from tqdm import tqdm

from regioncount.data import Dataset
from regioncount.errors import InputError
from regioncount.measures import flatness, function_space, margins, norms, pacbayes, performance
from regioncount.measures.subject import Subject, from_dataset, from_tensors

# Whether rescaling one layer by a and the next by 1/a, which leaves the function as it is, leaves the measure as it is.
UNCHANGED_BY_RESCALING = (
    performance.accuracy,
    performance.epochs_to_fit,
    margins.output_margin,
    margins.inverse_margin,
    margins.inverse_squared_margin,
    margins.input_margin,
    norms.parameter_count,
    norms.margin_over_spectral_product,
    norms.log_product_frobenius,
    norms.log_product_frobenius_over_margin,
    norms.sum_frobenius,
    norms.sum_frobenius_over_margin,
    norms.log_product_spectral,
    norms.log_product_spectral_over_margin,
    norms.sum_spectral,
    norms.sum_spectral_over_margin,
    norms.frobenius_over_spectral,
    norms.log_product_operator,
    norms.log_product_operator_over_margin,
    norms.log_path_norm,
    norms.log_path_norm_over_margin,
    norms.fisher_rao_norm,
    flatness.adaptive_sharpness,
    flatness.adaptive_average_sharpness,
    function_space.jacobian_norm,
    function_space.jacobian_norm_on_lines,
    function_space.activation_changes,
)
CHANGED_BY_RESCALING = (
    norms.parameter_norm,
    norms.margin_over_norm,
    norms.distance_from_initialization,
    norms.frobenius_distance,
    flatness.sharpness,
    flatness.average_sharpness,
    flatness.hessian_eigenvalue,
    flatness.hessian_trace,
    pacbayes.pacbayes_flatness,
    pacbayes.pacbayes_origin,
    pacbayes.pacbayes_initialization,
    pacbayes.pacbayes_magnitude_flatness,
    pacbayes.pacbayes_magnitude_origin,
    pacbayes.pacbayes_magnitude_initialization,
    flatness.gradient_norm,
    flatness.gradient_variance,
)

MEASURES = {function.__name__: function for function in (*UNCHANGED_BY_RESCALING, *CHANGED_BY_RESCALING)}

# All that can be asked for of a sweep's runs: how far the decision regions of one seed are those of another takes two, and
# the parts of the theorem exist for the two-layer network alone.
NAMES = (*MEASURES, "seed_agreement", "theorem")


def measure(
    model: nn.Module,
    data: tuple[Tensor, Tensor] | Dataset,
    names: Sequence[str] | None = None,
    *,
    test: tuple[Tensor, Tensor] | None = None,
    initial: nn.Module | None = None,
) -> dict[str, float | str]:
    """Generalization measures of a model of one's own.

    data: the training set, inputs (N, *input_shape) normalized as the model takes them and labels int64 (N,), and test the
    same of the test set; or a data set of `regioncount.data`, which has both. The model is evaluated where its parameters
    are, in evaluation mode, and left as it was. names: of `MEASURES`, all of them unless given. initial: the model as it
    was before training.

    Returns a value a measure; where one is undefined, not a number, and why under its name and "_error". Raises
    InputError for a name there is no measure of, and for data that are not such tensors.
    """
    unknown = [name for name in names or () if name not in MEASURES]
    if unknown:
        raise InputError(f"no measure {unknown[0]!r}; there are {', '.join(MEASURES)}")
    if isinstance(data, Dataset):
        place = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        subject = from_dataset(model, data.to(place), place, None if initial is None else lambda: initial)
    else:
        subject = from_tensors(model, data, test, initial)
    found = {}
    for name in tqdm(names or MEASURES, unit=" measures", disable=None, leave=False):
        found |= value(name, subject)
    return found


def value(name: str, subject: Subject) -> dict[str, float | str]:
    """The columns of one measure; where it fails, not a number and why."""
    try:
        with warnings.catch_warnings():
            # torch's own forward derivatives load what torch has deprecated.
            warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)
            result = MEASURES[name](subject)
    except torch.OutOfMemoryError:
        raise  # it says nothing of the model
    except (InputError, RuntimeError, ArithmeticError) as error:
        return {name: math.nan, f"{name}_error": " ".join(str(error).split())}
    result = result if isinstance(result, dict) else {name: result}
    undefined = [column for column, number in result.items() if not math.isfinite(number)]
    return result | {f"{column}_error": f"it is {result[column]}" for column in undefined}


def _register() -> None:
    from regioncount.registry import register_measure

    for function in MEASURES.values():
        register_measure(scale_invariant=function in UNCHANGED_BY_RESCALING)(function)


_register()
