"""What is measured: a trained model and the data it was trained on, with what several measures need made once."""

import copy
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from regioncount.errors import InputError
from regioncount.regions.evaluation import evaluation_batch, evaluation_mode, fast_layout, true_float32
from regioncount.regions.screening import folded

Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]

# Training points at which derivatives are taken and weights are perturbed; margins, losses and accuracies take all.
POINTS = 1000


@dataclass(frozen=True)
class Outputs:
    """What a model says of a data set."""

    loss: float
    """mean cross-entropy, in nats"""
    accuracy: float
    """a fraction"""
    margins: Tensor
    """(N,): the label's logit less the highest other one"""


@dataclass(eq=False)
class Subject:
    """A model in evaluation mode, on the device where it is measured, and its data, normalized, on that device."""

    model: nn.Module
    train: Batches
    """a pass over the training set, batch by batch: inputs (B, *input_shape) and labels (B,)"""
    sample: tuple[Tensor, Tensor]
    """some of the training points"""
    train_size: int
    test: Batches | None = None
    initial: Callable[[], nn.Module] | None = None
    """makes the model as it was before training"""
    history: Callable[[], Sequence[dict]] | None = None
    """reads the history of training: a row an epoch, as of `training.fit`"""

    @functools.cached_property
    def train_outputs(self) -> Outputs:
        return evaluate(self.model, self.train())

    @functools.cached_property
    def test_outputs(self) -> Outputs:
        if self.test is None:
            raise InputError("there are no test data")
        return evaluate(self.model, self.test())

    @functools.cached_property
    def network(self) -> nn.Module:
        """The same function with batch normalization folded into the convolutions: what norms and flatness are of.

        Its parameters are the weights and biases of convolutions and linear layers alone (Dziugaite et al. 2020, appendix).
        """
        return _without_normalization(self.model)

    @functools.cached_property
    def initial_network(self) -> nn.Module:
        """The model before training, batch normalization folded."""
        if self.initial is None:
            raise InputError("the weights before training are not known")
        return _without_normalization(self.initial())

    @functools.cached_property
    def layers(self) -> dict[str, nn.Module]:
        """The convolutions and linear layers of `network` by name, in the order in which they stand there."""
        return {name: module for name, module in self.network.named_modules() if isinstance(module, LAYERS)}

    def sample_batches(self, points: int = POINTS) -> Iterator[tuple[Tensor, Tensor]]:
        """The sampled training points, or so many of them, in batches that suit the device."""
        inputs, labels = self.sample
        if points < len(inputs):
            indices = _spread(len(inputs), points).to(inputs.device)
            inputs, labels = inputs[indices], labels[indices]
        size = evaluation_batch(inputs.device, inputs[0].numel())
        for batch, targets in zip(inputs.split(size), labels.split(size), strict=True):
            yield fast_layout(batch), targets


LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def from_dataset(
    model: nn.Module,
    dataset,
    device: torch.device,
    initial: Callable[[], nn.Module] | None = None,
    history: Callable[[], Sequence[dict]] | None = None,
) -> Subject:
    """A model and a `data.Dataset`, both on the device."""
    indices = _spread(len(dataset.train))
    sample = dataset.normalize(dataset.train.take(indices)), dataset.train.labels[indices.to(dataset.train.labels.device)]
    train = functools.partial(split_batches, dataset, dataset.train, device)
    test = functools.partial(split_batches, dataset, dataset.test, device)
    return Subject(model, train, sample, len(dataset.train), test, initial, history)


def from_tensors(
    model: nn.Module,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor] | None = None,
    initial: nn.Module | None = None,
) -> Subject:
    """A model and its data as tensors: inputs (N, *input_shape), normalized as the model takes them, and labels (N,).

    Raises InputError where they are not such.
    """
    for inputs, labels in (train, test or train):
        if (
            inputs.dim() < 2
            or not inputs.is_floating_point()
            or labels.dtype != torch.int64
            or labels.shape != inputs.shape[:1]
        ):
            found = f"{inputs.dtype} {tuple(inputs.shape)} and {labels.dtype} {tuple(labels.shape)}"
            raise InputError(f"inputs (N, *input_shape), floating point, and labels int64 (N,) are needed, not {found}")
    place = next((parameter.device for parameter in model.parameters()), train[0].device)
    indices = _spread(len(train[0]))
    sample = train[0][indices].to(place), train[1][indices].to(place)
    batches = [functools.partial(_tensor_batches, *split, place) if split else None for split in (train, test)]
    return Subject(model, batches[0], sample, len(train[0]), batches[1], None if initial is None else lambda: initial)


def split_batches(dataset, split, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """A pass over a split of a data set."""
    for images, labels in split.batches(evaluation_batch(device, math.prod(split.image_shape))):
        yield fast_layout(dataset.normalize(images)), labels


def evaluate(model: nn.Module, batches: Iterator[tuple[Tensor, Tensor]], bfloat16: bool = False) -> Outputs:
    """Loss, accuracy and margins over a pass of data, in evaluation mode and true float32, or in bfloat16 by autocast."""
    losses, correct, margins = [], [], []
    with torch.no_grad(), evaluation_mode(model), true_float32():
        for inputs, labels in batches:
            with torch.autocast(inputs.device.type, torch.bfloat16, enabled=bfloat16):
                logits = model(inputs)
            logits = logits.float() if bfloat16 else logits
            losses.append(cross_entropy(logits, labels, reduction="sum").double())
            correct.append((logits.argmax(dim=1) == labels).sum())
            margins.append(output_margins(logits, labels))
    margins = torch.cat(margins).cpu()
    total = len(margins)
    return Outputs(torch.stack(losses).sum().item() / total, torch.stack(correct).sum().item() / total, margins)


def output_margins(logits: Tensor, labels: Tensor) -> Tensor:
    """The logit of the label less the highest other one: (B,) from (B, C) and (B,)."""
    of_label = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    others = logits.scatter(1, labels.unsqueeze(1), -torch.inf)
    return of_label - others.amax(dim=1)


def _spread(number: int, points: int = POINTS) -> Tensor:
    """Indices of the sampled training points: evenly spread, the same for every model."""
    return torch.linspace(0, number - 1, min(number, points), dtype=torch.float64).round().long()


def _tensor_batches(inputs: Tensor, labels: Tensor, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    size = evaluation_batch(device, inputs[0].numel())
    for batch, targets in zip(inputs.split(size), labels.split(size), strict=True):
        yield fast_layout(batch.to(device)), targets.to(device)


def _without_normalization(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode with batch normalization folded into the convolution before it, or made one of its own.

    Raises InputError where the model cannot be traced.
    """
    with evaluation_mode(model):
        network = folded(model) if _has_normalization(model) else copy.deepcopy(model)
    if network is None:
        raise InputError("batch normalization cannot be folded: torch.fx cannot trace this model")
    network.eval()
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, _as_convolution(module))
    return network


def _has_normalization(model: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def _as_convolution(module: nn.Module) -> nn.Module:
    """Batch normalization in evaluation mode as a convolution of each channel by itself; inputs are images."""
    if not isinstance(module, nn.BatchNorm2d) or module.running_var is None:
        raise InputError(f"{type(module).__name__} after no convolution cannot be folded")
    scale = (module.running_var + module.eps).rsqrt()
    scale = scale if module.weight is None else scale * module.weight
    shift = -module.running_mean * scale + (0 if module.bias is None else module.bias)
    channels = len(scale)
    convolution = nn.Conv2d(channels, channels, 1, groups=channels, device=scale.device, dtype=scale.dtype)
    with torch.no_grad():
        convolution.weight.copy_(scale.view(-1, 1, 1, 1))
        convolution.bias.copy_(shift)
    return convolution.eval()
