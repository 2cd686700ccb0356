"""The progress bar."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor
from tqdm import tqdm


@contextmanager
def progress_bar(epochs: int, train_size: int, epochs_done: int) -> Iterator[Callable[[int, Tensor, Tensor], None]]:
    """Show one bar for all epochs, with the running loss, the running accuracy and the images per second.

    Nothing is shown if the output is not a terminal.

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
        last_shown = time.monotonic()
        seen = 0

        def update(count: int, loss_sum: Tensor, correct: Tensor) -> None:
            nonlocal last_shown, seen
            seen += count
            bar.update(count)
            # Reading the loss waits for the device, so it is read at most once a second and only if the bar is visible.
            if not bar.disable and time.monotonic() - last_shown > 1:
                last_shown = time.monotonic()
                bar.set_postfix_str(f"loss {loss_sum.item() / seen:.3f}, accuracy {correct.item() / seen:.3f}")
            if seen >= train_size:
                bar.set_description(f"epoch {bar.n // train_size} of {epochs}", refresh=False)
                seen = 0

        yield update
