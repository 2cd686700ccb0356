"""The pictures of decision regions: how many points they have."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from regioncount.data.dataset import Dataset
from regioncount.data.splits import Split
from regioncount.runs import decision_planes


@pytest.mark.parametrize(("shape", "points"), [((1, 8, 8), 150), ((3, 96, 96), 150), ((3, 97, 96), 75), ((30000,), 75)])
def test_pictures_of_large_images_have_fewer_points(monkeypatch, shape, points):
    generator = torch.Generator().manual_seed(0)
    split = Split(torch.rand(6, *shape, generator=generator), torch.arange(6) % 3)
    channels = shape[0]
    dataset = Dataset("a", split, split, ("a", "b", "c"), (0.0,) * channels, (1.0,) * channels)

    def label_planes(model, triangles, resolution):
        assert triangles.shape == (1, 3, *shape)
        return np.zeros((1, resolution, resolution)), np.zeros((1, 3, 2))

    monkeypatch.setattr(decision_planes, "label_planes", label_planes)
    monkeypatch.setattr(decision_planes, "restorer", lambda *arguments: lambda weights: None)
    run = SimpleNamespace(config={"dataset": {"name": "arrays"}})
    for resolution, expected in ((None, points), (20, 20)):
        labels, _ = decision_planes.decision_regions(run, dataset, torch.device("cpu"), resolution=resolution)
        assert labels.shape == (expected, expected)
