"""Check the options of a schedule against the number of epochs of a run."""

from typing import Any

from regioncount.errors import InputError


def check_schedule(schedule: dict[str, Any], epochs: int) -> None:
    """Check that training ends within the schedule, and remove `schedule.epochs` if it is the number of epochs.

    Args:
        schedule: The schedule's name and options.
        epochs: The number of epochs of the run.

    Raises:
        InputError: The schedule is shorter than the training, or its warm-up is not shorter than the schedule.
    """
    length = schedule.get("epochs", epochs)
    if length < epochs:
        raise InputError(f"schedule.epochs={length}: must be at least epochs={epochs}")
    if (warmup := schedule.get("warmup", 0)) >= max(1, length):
        raise InputError(f"schedule.warmup={warmup}: must be below the {length} epochs of the schedule")
    if length == epochs:
        schedule.pop("epochs", None)
