"""Log runs to TensorBoard, in directory/tensorboard: scalars by epoch, hyperparameters with final values, and figures."""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regioncount.reporting.groups import file_name_part
from regioncount.runs.trackers import Tracker, hyperparameters


class TensorBoardTracker(Tracker):
    """One run in TensorBoard.

    Args:
        directory: The directory of the run's event files.
        config: The configuration.
        log_directory: The directory of all runs.
    """

    draws_charts = False  # TensorBoard shows pictures

    def __init__(self, directory: Path, config: Mapping[str, Any], log_directory: Path) -> None:
        self.address = f"tensorboard --logdir {shlex.quote(str(log_directory))}"
        self._directory, self._config = directory, config
        self._writer: Any = None
        self._logged: dict[str, int] = {}
        """The last step of each scalar."""

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Log the metrics of an epoch."""
        self._scalars(metrics, step)

    def log_snapshot(self, values: Mapping[str, Any], epoch: int) -> None:
        """Log what was measured at an epoch."""
        self._scalars(values, epoch)

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Log the final numbers at the last epoch, beside the hyperparameters; log texts as texts."""
        from torch.utils.tensorboard.summary import hparams

        last = max([*self._logged.values(), int(values.get("epochs_trained", 0))])
        numbers = {name: float(value) for name, value in values.items() if _is_number(value)}
        self._scalars({name: value for name, value in numbers.items() if self._logged.get(name) != last}, last)
        for name, value in values.items():
            if isinstance(value, str):
                self._open(last).add_text(name, value, last)
        for summary in hparams(dict(hyperparameters(self._config)), dict.fromkeys(numbers, 0.0)):
            self._open(last).file_writer.add_summary(summary)
        self._open(last).flush()

    def figure(self, name: str, path: Path | str, caption: str = "") -> None:
        """Log a PNG file as an image."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as picture:
            self._open(0).add_image(name, np.asarray(picture.convert("RGB")), dataformats="HWC")

    def close(self) -> None:
        """Write everything to disk."""
        if self._writer is not None:
            self._writer.close()

    def _scalars(self, values: Mapping[str, Any], step: int) -> None:
        writer = self._open(step)
        for name, value in values.items():
            if _is_number(value):
                writer.add_scalar(name, float(value), step)
                self._logged[name] = step
        writer.flush()  # a process that is killed loses nothing that a resumed run does not log again

    def _open(self, step: int) -> Any:
        """Return the writer. What an earlier process logged from this step on is no longer shown."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # From step 1, also without the values of epoch 0 that an earlier process measured after training.
            self._writer = SummaryWriter(str(self._directory), purge_step=step if step > 1 else 0)
        return self._writer


@contextmanager
def run(
    *,
    identity: str,
    name: str,
    config: Mapping[str, Any],
    directory: Path | str,
    group: str | None = None,
    **_: Any,
) -> Iterator[Tracker]:
    """Track a run in files that TensorBoard shows. A resumed run adds a file to its directory.

    Args:
        identity: The run's identity, the end of the directory's name.
        name: The run's name.
        config: The configuration.
        directory: The results directory.
        group: The sweep that the run belongs to.

    Yields:
        The tracker.
    """
    log_directory = Path(directory).absolute() / "tensorboard"
    folder = log_directory / file_name_part(group) if group else log_directory
    # Other than in `file_name_part`, "=" and "_" are kept: TensorBoard shows the directory as the run's name.
    shown = "".join(letter if letter.isalnum() or letter in "=_.-" else "-" for letter in name)[:100]
    tracker = TensorBoardTracker(folder / f"{shown}-{identity[:16]}", config, log_directory)
    try:
        yield tracker
    finally:
        tracker.close()


def _is_number(value: Any) -> bool:
    if isinstance(value, str) or value is None:
        return False
    return float(value) == float(value)
