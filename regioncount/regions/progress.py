"""Progress of an exact count or a picture, and a warning if an exact count will take long."""

import time
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from typing import Any

# The time of a count is estimated after so many seconds, and a warning given if it is longer than so many, or if nothing
# is complete after so many.
ESTIMATED_AFTER = 10.0
LONG = 120.0
UNKNOWN_AFTER = 60.0

Advance = Callable[[float, str], None]
"""Function of what is done, in the unit of the total, and of a description of what is done while nothing is complete."""


@contextmanager
def progress(total: int, unit: str, advice: str) -> Generator[Advance]:
    """Show a progress bar, and warn once if the whole will take long.

    Args:
        total: Number of lines or triangles.
        unit: What they are, in the plural.
        advice: The faster alternatives, for the warning.

    Yields:
        A function to call whenever something is done. It estimates the time from that of the part that is done. If nothing
        is complete after `UNKNOWN_AFTER` seconds, it warns without an estimate.
    """
    start, warned = time.monotonic(), False
    with progress_bar(total, unit) as bar:

        def advance(done: float, description: str = "") -> None:
            nonlocal warned
            if bar is not None:
                bar.update(done - bar.n)
            elapsed = time.monotonic() - start
            if warned or done >= total or elapsed < ESTIMATED_AFTER:
                return
            if done > 0 and elapsed * total / done > LONG:
                needed = f"about {_duration(elapsed * total / done)} in all, at the speed of the first {elapsed:.0f} s"
            elif done == 0 and elapsed > UNKNOWN_AFTER:
                needed = f"unknown time: after {elapsed:.0f} s, {description or 'none is complete'}"
            else:
                return
            warned = True
            warnings.warn(f"the exact count of {total} {unit} needs {needed}; {advice}", stacklevel=2)

        yield advance


def progress_bar(total: int, unit: str, delay: float = 0.0) -> Any:
    """Return a progress bar for a terminal as a context, empty if tqdm is not installed, which counting does not need.

    Args:
        total: Number of units, or an upper bound.
        unit: What they are, in the plural.
        delay: Seconds before it is shown.
    """
    try:
        from tqdm import tqdm
    except ImportError:
        return nullcontext()
    return tqdm(total=total, unit=f" {unit}", unit_scale=True, disable=None, leave=False, delay=delay)


def _duration(seconds: float) -> str:
    """Return a duration in minutes, hours or days."""
    for unit, size in (("days", 86400), ("hours", 3600)):
        if seconds > 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"
