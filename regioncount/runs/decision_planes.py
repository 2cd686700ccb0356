"""The decision regions of a run's model in a plane through three images, for figures."""

import math

import numpy as np
import torch

from regioncount import registry
from regioncount.data.dataset import Dataset
from regioncount.regions import label_planes, sample_indices
from regioncount.runs.measuring import restorer
from regioncount.runs.store import Run

LARGE = 3 * 96 * 96  # values of an image


def decision_regions(
    run: Run, dataset: Dataset, device: torch.device, seed: int = 0, resolution: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Label the plane through three training images, of different classes if a hundred draws contain such images.

    If the data are points of a plane (the trait `plane` of the data set), label that plane, over the range of the test
    points and a margin.

    Args:
        run: The run.
        dataset: The data that it was trained on.
        device: The device on which to evaluate the model.
        seed: The seed of the choice of images.
        resolution: The number of points along each side of the square grid. By default 150, or 75 for images of more than
            `LARGE` values, whose evaluation is slow.

    Returns:
        Labels (n, n), and the positions in grid steps of the images (3, 2), or of the training points (k, 2).
    """
    if resolution is None:
        resolution = 75 if math.prod(dataset.train.image_shape) > LARGE else 150
    model = restorer(run, dataset, device)(lambda: run.weights(None))
    source = registry.datasets.get(str(run.config["dataset"].get("name")))
    if source is not None and source.traits.get("plane"):
        low, high = _ranges(dataset)
        corners = torch.stack([low, torch.stack([high[0], low[1], low[2]]), torch.stack([low[0], high[1], low[2]])])
        triangle = corners.view(1, 3, *dataset.test.image_shape).to(device)
        plane, [(origin, right, top)] = label_planes(model, triangle, resolution)
        points = dataset.normalize(dataset.train.take(range(len(dataset.train)))).cpu().flatten(1)
        shares = ((points - low) / (high - low))[:, :2].double().numpy()
        return plane[0], origin + shares[:, :1] * (right - origin) + shares[:, 1:] * (top - origin)
    generator = torch.Generator().manual_seed(seed)
    triples = sample_indices(len(dataset.train), 2, 100, generator)
    labels = dataset.train.labels.cpu()
    distinct = [triple for triple in triples if len(labels[triple].unique()) == 3]
    triple = (distinct or triples)[0]
    triangle = dataset.normalize(dataset.train.take(triple)).to(device)
    plane, positions = label_planes(model, triangle[None], resolution)
    return plane[0], positions[0]


def _ranges(dataset: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the smallest and the largest value of each pixel of the normalized test images, (C * H * W,) each."""
    points = dataset.normalize(dataset.test.take(range(len(dataset.test)))).cpu().flatten(1)
    return points.amin(dim=0), points.amax(dim=0)
