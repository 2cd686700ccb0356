"""The model of a run, for Python."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch

from regioncount.config import parse_measuring
from regioncount.data.dataset import Dataset
from regioncount.errors import InputError
from regioncount.runs import measuring


def load_model(
    directory: str | os.PathLike, epoch: int | None = None, options: Sequence[str] = (), device: str = "cpu"
) -> tuple[Callable[..., Any], Dataset]:
    """Return the model of a run, and its data set.

    Args:
        directory: The run directory.
        epoch: 0 for the model before training, an epoch whose weights are on disk, or None for the trained model.
        options: Options of the data set that replace the recorded ones, such as ["dataset.root=DIR"].
        device: The device of the model, such as "cuda".

    Returns:
        The model, in evaluation mode, which `count_regions` accepts, and the data set. Inputs of the model are normalized:
        `dataset.normalize(images)`, with images (N, C, H, W) like `dataset.test.take(range(100))`. A classical classifier
        returns labels.

    Raises:
        InputError: The run has no trained model, its data cannot be loaded or differ, or it needs a plugin that was not
            loaded. Or the weights of the epoch are not on disk.
    """
    run, dataset = measuring.open_for_measuring(parse_measuring({"run": os.fspath(directory)}), options)
    if epoch is not None and not run.has_weights(epoch):
        stored = [number for number in (0, *run.snapshot_epochs()) if run.has_weights(number)]
        raise InputError(f"{run.directory} has no weights of epoch {epoch}; those of the epochs {stored} are on disk")
    model = measuring.restorer(run, dataset, torch.device(device))(lambda: run.weights(epoch))
    return model.eval() if isinstance(model, torch.nn.Module) else model, dataset
