"""How a model fits its training set, how well it generalizes, and how fast it was fitted."""

from regioncount.errors import InputError
from regioncount.measures.subject import Subject

FITTED_ACCURACY = 0.99


def accuracy(subject: Subject) -> dict[str, float]:
    """Accuracy and loss on the whole training and test set, in evaluation mode and true float32.

    Returns train_accuracy and test_accuracy (fractions), train_loss and test_loss (mean cross-entropy, in nats),
    generalization_gap = train_accuracy - test_accuracy and test_error = 1 - test_accuracy (Li et al. 2025, section 3).
    Rescaling layers does not change them.
    """
    train, test = subject.train_outputs, subject.test_outputs
    return {
        "train_accuracy": train.accuracy,
        "test_accuracy": test.accuracy,
        "train_loss": train.loss,
        "test_loss": test.loss,
        "generalization_gap": train.accuracy - test.accuracy,
        "test_error": 1 - test.accuracy,
    }


def epochs_to_fit(subject: Subject) -> float:
    """The first epoch whose running training accuracy is at least 0.99.

    The running accuracy is that of the batches as they were trained on (Jiang et al. 2020, section 7, count steps to a
    loss). Rescaling layers afterwards does not change it. Raises InputError where the history is not known, or no
    epoch came so far.
    """
    if subject.history is None:
        raise InputError("the history of training is not known")
    for row in subject.history():
        if max(row["running_accuracy"], row.get("train_accuracy") or 0.0) >= FITTED_ACCURACY:
            return float(row["epoch"])
    raise InputError(f"no epoch came to a training accuracy of {FITTED_ACCURACY}")
