"""Check the options of a schedule against the number of epochs of a run."""

from typing import Any

from regioncount.errors import InputError


def check_schedule(schedule: dict[str, Any], epochs: int, learning_rate: float) -> None:
    """Check that training ends within a cosine schedule, and remove `schedule.epochs` if it is the number of epochs.

    Args:
        schedule: The schedule's name and options.
        epochs: The number of epochs of the run.
        learning_rate: The learning rate of the optimizer.

    Raises:
        InputError: The schedule is shorter than the training, its warm-up is not shorter than the schedule, or it would end
            above the learning rate.
    """
    if schedule.get("name") != "cosine":
        return
    length = schedule.get("epochs", epochs)
    if length < epochs:
        raise InputError(f"schedule.epochs={length}: must be at least epochs={epochs}")
    if (warmup := schedule.get("warmup", 0)) >= max(1, length):
        raise InputError(f"schedule.warmup={warmup}: must be below the {length} epochs of the schedule")
    if (final := schedule.get("final", 0.0)) > learning_rate:
        raise InputError(f"schedule.final={final}: must be at most optimizer.learning_rate={learning_rate}")
    if length == epochs:
        schedule.pop("epochs", None)
