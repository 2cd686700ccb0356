"""The progress of training: a bar on a terminal, and lines elsewhere, such as in the log of a cluster's job.

In the worker processes of a sweep, neither is shown; finished epochs are reported to the main process instead.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor
from tqdm import tqdm

from regioncount.errors import say

LINE_SECONDS = 10.0  # the least time between two lines
MAX_LINES = 100  # of a run, besides those of the first and the last epoch

_report: Callable[[int, int], None] | None = None


def report_epochs_to(report: Callable[[int, int], None]) -> None:
    """Call a function at the end of each epoch, with its number and the number of epochs; show no progress."""
    global _report
    _report = report


@contextmanager
def progress_bar(epochs: int, train_size: int, epochs_done: int) -> Iterator[Callable[[int, Tensor, Tensor], None]]:
    """Show one bar for all epochs, with the running loss, the running accuracy and the images per second.

    If standard error is not a terminal, lines are printed instead: after the first and the last epoch, and after others, but
    at most one every `LINE_SECONDS` and `MAX_LINES` in all.

    Args:
        epochs: The number of epochs.
        train_size: The number of training images.
        epochs_done: The number of epochs trained before the run was resumed; 0 for a new run.

    Yields:
        A function to call after every batch, `update(count, loss_sum, correct)`, with the number of images in the batch and,
        over the epoch so far, the sum of the losses and the number of correct predictions, both scalar tensors.
    """
    total, initial = epochs * train_size, epochs_done * train_size
    with tqdm(total=total, initial=initial, unit=" images", unit_scale=True, disable=None, leave=False) as bar:
        start = last_shown = time.monotonic()
        seen, epoch, last_line = 0, epochs_done, epochs_done
        latest: tuple[Tensor, ...] = ()  # the sum of the losses and the number of correct predictions

        def update(count: int, loss_sum: Tensor, correct: Tensor) -> None:
            nonlocal last_shown, seen, epoch, last_line, latest
            seen += count
            latest = (loss_sum, correct)
            bar.update(count)
            # Reading the loss waits for the device, so it is read at most once a second and only if it is shown.
            if not bar.disable and time.monotonic() - last_shown > 1:
                last_shown = time.monotonic()
                bar.set_postfix_str(f"loss {loss_sum.item() / seen:.3f}, accuracy {correct.item() / seen:.3f}")
            if seen < train_size:
                return
            seen = 0
            epoch += 1
            if _report is not None:
                _report(epoch, epochs)
                return
            bar.set_description(f"epoch {epoch} of {epochs}", refresh=False)
            is_due = time.monotonic() - last_shown >= LINE_SECONDS and epoch - last_line >= epochs / MAX_LINES
            if bar.disable and (is_due or epoch in (epochs_done + 1, epochs)):
                show_line()

        def show_line() -> None:
            nonlocal last_shown, last_line
            last_shown, last_line = time.monotonic(), epoch
            loss, accuracy = (value.item() / train_size for value in latest)
            seconds = last_shown - start
            say(f"epoch {epoch} of {epochs}: loss {loss:.3f}, accuracy {accuracy:.3f}, {seconds:.0f} s", sys.stderr)

        yield update
        if bar.disable and _report is None and epoch != last_line:  # a stop rule has ended the training
            show_line()
