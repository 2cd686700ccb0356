"""How well a model fits its training set and generalizes, and how fast training fitted it."""

import math

from regioncount.errors import InputError
from regioncount.measures.measured_model import LABELS_ALONE, MeasuredModel
from regioncount.measures.outputs import Outputs
from regioncount.registry import register_measure

FITTED_ACCURACY = 0.99


@register_measure(scale_invariant=True)
def accuracy(measured: MeasuredModel) -> dict[str, float | str]:
    """Return accuracy and loss on the whole training and test set, in evaluation mode and true float32.

    A model that returns labels has accuracies but no losses. Rescaling layers changes none of them.

    Returns:
        train_accuracy and test_accuracy (fractions), train_loss and test_loss (mean cross-entropy in nats),
        generalization_gap = train_accuracy - test_accuracy and test_error = 1 - test_accuracy (Li et al. 2025, section 3).
    """
    train = _outputs_of_stop_rule(measured) or measured.train_outputs
    test = measured.test_outputs if measured.test is not None else Outputs(math.nan, math.nan, None)
    values: dict[str, float | str] = {
        "train_accuracy": train.accuracy,
        "test_accuracy": test.accuracy,
        "train_loss": train.loss,
        "test_loss": test.loss,
        "generalization_gap": train.accuracy - test.accuracy,
        "test_error": 1 - test.accuracy,
    }
    if measured.test is None:
        of_test = ("test_accuracy", "test_loss", "generalization_gap", "test_error")
        values |= {f"{name}_error": "there are no test data; pass test=" for name in of_test}
    if math.isnan(train.loss):
        values |= {f"{name}_error": f"it needs logits: {LABELS_ALONE}" for name in ("train_loss", "test_loss")}
    return values


def _outputs_of_stop_rule(measured: MeasuredModel) -> Outputs | None:
    """Return loss and accuracy on the training set if the stop rule evaluated these weights; see `training.stopping`."""
    history = measured.history() if measured.history else []
    if not history:
        return None
    loss, accuracy = (history[-1].get(name, math.nan) for name in ("stop_loss", "train_accuracy"))
    return Outputs(loss, accuracy, None) if math.isfinite(loss) and math.isfinite(accuracy) else None


@register_measure(scale_invariant=True)
def epochs_to_fit(measured: MeasuredModel) -> float:
    """Return the first epoch whose running training accuracy, or train accuracy if it was evaluated, is at least 0.99.

    The running accuracy is computed on the training batches during the epoch. Jiang et al. 2020, section 7, count the steps
    to a given loss instead. Rescaling layers afterwards does not change it.

    Raises:
        InputError: If the training history is not known, or no epoch reached this accuracy.
    """
    measured.require_network()
    if measured.history is None:
        raise InputError("the history of training is not known")
    for row in measured.history():
        if max(row["running_accuracy"], row.get("train_accuracy") or 0.0) >= FITTED_ACCURACY:
            return float(row["epoch"])
    raise InputError(f"no epoch reached a training accuracy of {FITTED_ACCURACY}")
