"""The progress of runs that are trained side by side: a bar on a terminal, and lines elsewhere."""

import sys
import time
from collections.abc import Collection

from tqdm import tqdm

from regioncount.errors import say

LINE_SECONDS = 30.0  # the least time between two lines


class SweepProgress:
    """Shows how many runs are done, how many are running, and the time left.

    Args:
        total: The number of runs.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._fractions: dict[int, float] = {}
        self._start = self._last_line = time.monotonic()
        self._bar = tqdm(
            total=total, disable=None, leave=False, bar_format="{percentage:3.0f}%|{bar}| {desc}{elapsed}{postfix}"
        )

    def advance(self, number: int, fraction: float) -> None:
        """Record which fraction of a run's training is done."""
        self._fractions[number] = fraction

    def say(self, text: str, is_error: bool = False) -> None:
        """Print a line, above the bar if there is one."""
        stream = sys.stderr if is_error else sys.stdout
        with tqdm.external_write_mode(stream):
            say(text, stream)
        self._last_line = time.monotonic()

    def show(self, done: int, running: Collection[int]) -> None:
        """Show the bar, or print a line if none has been printed for some time.

        Args:
            done: The number of runs that are done.
            running: The numbers of those that are running.
        """
        share = done + sum(self._fractions.get(number, 0.0) for number in running)
        elapsed = time.monotonic() - self._start
        text = f"{done} of {self._total} runs done, {len(running)} running"
        left = f", {tqdm.format_interval(elapsed * (self._total - share) / share)} left" if share > 0 else ""
        if not self._bar.disable:
            self._bar.n = share
            self._bar.set_postfix_str(left.removeprefix(", "), refresh=False)
            self._bar.set_description(text)
        elif time.monotonic() - self._last_line >= LINE_SECONDS:
            self.say(f"{text}{left}")

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()
