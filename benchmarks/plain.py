"""Counting and training as a careful researcher writes them who does not optimize: what everything here is compared with.

Counting: one line (triangle, square) after another, its interpolated images in a NumPy buffer, one forward pass in float32,
labels to the CPU, a flood fill in Python. Training: a DataLoader with two workers and per-image transforms, float32 without
TF32, one optimizer step at a time.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


def count_regions(
    model: nn.Module,
    vertices: np.ndarray,
    lattice: Sequence[tuple],
    weights: np.ndarray,
    steps: Sequence[tuple],
    device="cpu",
) -> list[int]:
    """Regions in each subspace. vertices: float32 (S, d + 1, C, H, W); lattice: integer positions of the points, as tuples;
    weights: (P, d + 1), barycentric; steps: all those that join a point to its neighbours.
    """
    model.eval()
    counts = []
    buffer = np.empty((len(lattice), *vertices.shape[2:]), np.float32)
    for corners in vertices:
        for p, point_weights in enumerate(weights):
            buffer[p] = sum(
                weight * corner for weight, corner in zip(point_weights.astype(np.float32), corners, strict=True)
            )
        with torch.no_grad():
            labels = model(torch.from_numpy(buffer).to(device)).argmax(dim=1).cpu().numpy()
        counts.append(flood_fill(dict(zip(lattice, labels.tolist(), strict=True)), steps))
    return counts


def flood_fill(labels: dict[tuple, int], steps: Sequence[tuple]) -> int:
    """Connected regions of equal label; labels by integer position."""
    seen, regions = set(), 0
    for start in labels:
        if start in seen:
            continue
        regions += 1
        seen.add(start)
        queue = deque([start])
        while queue:
            here = queue.popleft()
            for step in steps:
                there = tuple(a + b for a, b in zip(here, step, strict=True))
                if there not in seen and labels.get(there) == labels[here]:
                    seen.add(there)
                    queue.append(there)
    return regions


class Images(Dataset):
    """Images as arrays (H, W, C) and labels; each image is transformed when it is asked for."""

    def __init__(self, images: np.ndarray, labels: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> None:
        self.images, self.labels = images, labels
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def loader(images: np.ndarray, labels: Sequence[int], mean, std, batch_size: int, shuffle: bool = True) -> DataLoader:
    return DataLoader(
        Images(images, labels, mean, std), batch_size, shuffle=shuffle, num_workers=2, pin_memory=torch.cuda.is_available()
    )


def train_epoch(model: nn.Module, batches: DataLoader, optimizer: torch.optim.Optimizer, device="cpu") -> float:
    """One epoch; returns the average loss."""
    model.train()
    total = 0.0
    for images, labels in batches:
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(labels)
    return total / len(batches.dataset)


def accuracy(model: nn.Module, batches: DataLoader, device="cpu") -> float:
    model.eval()
    correct = 0
    with torch.no_grad():
        for images, labels in batches:
            correct += (model(images.to(device)).argmax(dim=1).cpu() == labels).sum().item()
    return correct / len(batches.dataset)
