"""The outputs of a model on a data set: loss, accuracy and margins."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from regioncount.regions.evaluation import as_float64, evaluation_batch, evaluation_mode, fast_layout, true_float32
from regioncount.regions.outputs import as_output

Batch = tuple[Tensor, Tensor]
"""Inputs (B, *input_shape) and labels int64 (B,)."""
Model = Callable[[Tensor], Any]
"""A function from inputs (B, *input_shape) to logits (B, classes) or labels (B,): a torch module or any other callable."""

# Devices on which networks are evaluated on batches of at most four sizes: cuDNN prepares its kernels anew for each size.
PADDED_DEVICES = ("cuda",)


class SplitLike(Protocol):
    """The images and labels of a training or test set."""

    @property
    def labels(self) -> Tensor:
        """Labels, int64 (N,)."""
        ...

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of an input: (C, H, W), or (F,) for features."""
        ...

    def __len__(self) -> int: ...

    def take(self, indices: Tensor) -> Tensor:
        """Return the inputs at k indices, (k, *image_shape), not normalized."""
        ...

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Iterate over inputs, not normalized, and labels."""
        ...


@runtime_checkable
class DatasetLike(Protocol):
    """A data set with a training and a test set, such as `regioncount.data.load` returns."""

    @property
    def train(self) -> SplitLike:
        """The training set."""
        ...

    @property
    def test(self) -> SplitLike:
        """The test set."""
        ...

    def normalize(self, images: Tensor) -> Tensor:
        """Return inputs normalized as the model expects."""
        ...

    def to(self, device: torch.device) -> "DatasetLike":
        """Return the data set on a device."""
        ...


@dataclass(frozen=True)
class Outputs:
    """Statistics of a model's outputs on a data set."""

    loss: float
    """Mean cross-entropy in nats; NaN if the model returns labels."""
    accuracy: float
    """A fraction."""
    margins: Tensor | None
    """The label's logit minus the highest other logit, (N,); None if the model returns labels."""


def split_batches(
    dataset: DatasetLike, split: SplitLike, device: torch.device, batch_size: int | None = None
) -> Iterator[Batch]:
    """Iterate over a split of a data set.

    Args:
        dataset: The data set, which normalizes the images.
        split: Its training or test set.
        device: The device on which the model is evaluated.
        batch_size: Images per batch; by default chosen for the device.

    Yields:
        Normalized images (B, C, H, W) and labels (B,).
    """
    for images, labels in split.batches(batch_size or evaluation_batch(device, math.prod(split.image_shape))):
        yield fast_layout(dataset.normalize(images)), labels


def evaluate(model: Model, batches: Iterator[Batch], bfloat16: bool = False) -> Outputs:
    """Return loss, accuracy and margins over one pass, in evaluation mode.

    Args:
        model: The model, which returns logits (B, classes) or labels (B,).
        batches: Inputs and labels.
        bfloat16: Whether to evaluate in bfloat16 by autocast instead of IEEE float32.
    """
    losses: list[Tensor] = []
    correct: list[Tensor] = []
    margins: list[Tensor] = []
    total = 0
    with torch.no_grad(), evaluation_mode(model), true_float32():
        for inputs, labels in batches:
            padded = _padded(inputs) if isinstance(model, nn.Module) else inputs
            with torch.autocast(inputs.device.type, torch.bfloat16, enabled=bfloat16):
                logits = as_output(model(padded))[: len(labels)].to(labels.device)
            total += len(labels)
            if logits.dim() == 1:
                correct.append((logits == labels).sum())
                continue
            if logits.is_floating_point():  # a sum of losses in half precision has two digits
                logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            losses.append(as_float64(cross_entropy(logits, labels, reduction="sum")))
            correct.append((logits.argmax(dim=1) == labels).sum())
            margins.append(output_margins(logits, labels))
    accuracy = torch.stack(correct).sum().item() / total
    if not margins:
        return Outputs(math.nan, accuracy, None)
    return Outputs(torch.stack(losses).sum().item() / total, accuracy, torch.cat(margins).cpu())


def with_standard_error(name: str, samples: Sequence[float]) -> dict[str, float]:
    """Return the columns of a measure that is a mean over independent samples: the mean, and its standard error."""
    return {name: statistics.fmean(samples), f"{name}_standard_error": statistics.stdev(samples) / math.sqrt(len(samples))}


def output_margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the label's logit minus the highest other logit: (B,) from (B, classes) and (B,)."""
    label_logits = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    others = logits.scatter(1, labels.unsqueeze(1), -torch.inf)
    return label_logits - others.amax(dim=1)


def _padded(inputs: Tensor) -> Tensor:
    """Repeat the last input up to a multiple of a quarter batch, on devices where each batch size has a cost of its own."""
    if inputs.device.type not in PADDED_DEVICES:
        return inputs
    missing = -len(inputs) % max(1, evaluation_batch(inputs.device, inputs[0].numel()) // 4)
    return fast_layout(torch.cat([inputs, inputs[-1:].expand(missing, *inputs.shape[1:])])) if missing else inputs
