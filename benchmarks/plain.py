"""Count and train in straightforward code without optimizations: the plain version, with which benchmarks compare.

Counting processes one line (triangle, square) at a time: it interpolates the images in a NumPy buffer, runs one forward pass
in float32, copies the labels to the CPU, and applies a flood fill in Python. Training uses a DataLoader with two workers and
per-image transforms, float32 without TF32, and one optimizer step at a time.
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
    """Return the number of regions in each subspace.

    Args:
        model: A network that maps images to logits.
        vertices: The vertices of the subspaces, float32 of shape (S, d + 1, C, H, W).
        lattice: The integer positions of the P lattice points.
        weights: The barycentric weights of the lattice points, of shape (P, d + 1).
        steps: The offsets from a lattice point to all its neighbours.
        device: The device of the model.
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
    """Return the number of connected regions of equal label. `labels` maps integer positions to labels."""
    seen, regions = set(), 0
    for start in labels:
        if start in seen:
            continue
        regions += 1
        seen.add(start)
        queue = deque([start])
        while queue:
            position = queue.popleft()
            for step in steps:
                neighbour = tuple(a + b for a, b in zip(position, step, strict=True))
                if neighbour not in seen and labels.get(neighbour) == labels[position]:
                    seen.add(neighbour)
                    queue.append(neighbour)
    return regions


class Images(Dataset):
    """Images (arrays of shape (H, W, C)) and labels; each image is transformed on access."""

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
    """Train for one epoch and return the mean loss."""
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
