"""A trained model with its data, and cached quantities that several measures share."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from regioncount.errors import InputError
from regioncount.measures.folding import network_for_measures
from regioncount.regions.evaluation import (
    as_float64,
    device_and_dtype,
    evaluation_batch,
    evaluation_mode,
    fast_layout,
    true_float32,
)
from regioncount.regions.outputs import as_output
from regioncount.regions.screening import FOLDING_INPUTS

Batch = tuple[Tensor, Tensor]
"""Inputs (B, *input_shape) and labels int64 (B,)."""
Model = Callable[[Tensor], Any]
"""A function from inputs (B, *input_shape) to logits (B, classes) or labels (B,): a torch module or any other callable."""

# Measures that take derivatives or perturb weights use this many training points; margins, losses and accuracies use all.
SAMPLE_POINTS = 1000

# Devices on which networks are evaluated on batches of at most four sizes: cuDNN prepares its kernels anew for each size.
PADDED_DEVICES = ("cuda",)

# Batch size for models that return labels. Predictions of some scikit-learn models depend on it in their last digits.
LABEL_BATCH = 1000

LABELS_ALONE = "a classical classifier gives labels alone"

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


class SplitLike(Protocol):
    """The images and labels of a training or test set."""

    @property
    def labels(self) -> Tensor:
        """Labels, int64 (N,)."""
        ...

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of an image, (C, H, W)."""
        ...

    def __len__(self) -> int: ...

    def take(self, indices: Tensor) -> Tensor:
        """Return the images at k indices, (k, C, H, W), not normalized."""
        ...

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Iterate over images, not normalized, and labels."""
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
        """Return images normalized as the model expects."""
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


@dataclass(eq=False)
class MeasuredModel:
    """A model and its data on one device. Inputs are normalized as the model expects."""

    model: Model
    train: Callable[[], Iterator[Batch]]
    """Starts a pass over the training set."""
    sample: Batch
    """Up to 1000 training points, evenly spaced in the training set."""
    train_size: int
    test: Callable[[], Iterator[Batch]] | None = None
    """Starts a pass over the test set."""
    initial: Callable[[], nn.Module] | None = None
    """Builds the model with its weights before training."""
    history: Callable[[], Sequence[Mapping[str, Any]]] | None = None
    """Reads the training history: one row per epoch, with epoch, running_accuracy and perhaps train_accuracy."""

    def require_network(self) -> nn.Module:
        """Return the model as a torch module, for measures of its weights, layers, derivatives or training.

        Raises:
            InputError: If the model is another callable.
        """
        if isinstance(self.model, nn.Module):
            return self.model
        other = LABELS_ALONE if self.gives_labels else "the weights of a function are not known"
        raise InputError(f"it needs a network: {other}")

    @functools.cached_property
    def gives_labels(self) -> bool:
        """Whether the model is not a torch module and returns labels (B,), not logits."""
        return _gives_labels(self.model, self.sample[0])

    @functools.cached_property
    def train_outputs(self) -> Outputs:
        """Loss, accuracy and margins on the training set."""
        return _with_numbers(evaluate(self.model, self.train()))

    @functools.cached_property
    def test_outputs(self) -> Outputs:
        """Loss, accuracy and margins on the test set.

        Raises:
            InputError: If there are no test data.
        """
        if self.test is None:
            raise InputError("there are no test data")
        return _with_numbers(evaluate(self.model, self.test()))

    @property
    def train_margins(self) -> Tensor:
        """The label's logit minus the highest other logit of each training point, (N,).

        Raises:
            InputError: If the model returns labels.
        """
        if self.train_outputs.margins is None:
            raise InputError(f"it needs a network: {LABELS_ALONE}")
        return self.train_outputs.margins

    @functools.cached_property
    def network(self) -> nn.Module:
        """A copy of the network with batch normalization folded into its convolutions, for norms and flatness.

        Its parameters are the weights and biases of convolutions and linear layers (Dziugaite et al. 2020, appendix).
        """
        return network_for_measures(self.require_network(), self.sample[0][:FOLDING_INPUTS])

    @functools.cached_property
    def initial_network(self) -> nn.Module:
        """The network before training, with batch normalization folded.

        Raises:
            InputError: If the model is not a network, or the weights before training are not known.
        """
        self.require_network()
        if self.initial is None:
            raise InputError("the weights before training are not known")
        return network_for_measures(self.initial(), self.sample[0][:FOLDING_INPUTS])

    @functools.cached_property
    def layers(self) -> dict[str, Layer]:
        """The convolutions and linear layers of `network` by name, in the order of its modules.

        Raises:
            InputError: If the network has a parameter outside of them, which norms of layers would ignore.
        """
        layers = {name: module for name, module in self.network.named_modules() if isinstance(module, LAYERS)}
        inside = {f"{name}.{parameter}" for name in layers for parameter in ("weight", "bias")}
        if outside := [name for name, _ in self.network.named_parameters() if name not in inside]:
            raise InputError(f"the parameter {outside[0]} is not the weight or bias of a convolution or a linear layer")
        return layers

    def sample_batches(self, points: int = SAMPLE_POINTS) -> Iterator[Batch]:
        """Iterate over `points` of the sampled training points, evenly spaced, in batches sized for the device.

        Yields:
            Inputs (B, *input_shape) and labels (B,).
        """
        inputs, labels = self.sample
        if points < len(inputs):
            indices = evenly_spaced(len(inputs), points).to(inputs.device)
            inputs, labels = inputs[indices], labels[indices]
        size = evaluation_batch(inputs.device, inputs[0].numel())
        for batch, targets in zip(inputs.split(size), labels.split(size), strict=True):
            yield fast_layout(batch).clone(), targets


def from_dataset(
    model: Model,
    dataset: DatasetLike,
    device: torch.device,
    initial: Callable[[], nn.Module] | None = None,
    history: Callable[[], Sequence[Mapping[str, Any]]] | None = None,
) -> MeasuredModel:
    """Return a `MeasuredModel` for a model and a data set.

    Args:
        model: The trained model.
        dataset: The data set, on the device.
        device: The device of the model and the data.
        initial: Builds the model with its weights before training.
        history: Reads the training history; see `MeasuredModel.history`.
    """
    indices = evenly_spaced(len(dataset.train))
    labels = dataset.train.labels
    sample = dataset.normalize(dataset.train.take(indices)), labels[indices.to(labels.device)]
    size = LABEL_BATCH if _gives_labels(model, sample[0]) else None
    train = functools.partial(split_batches, dataset, dataset.train, device, size)
    test = functools.partial(split_batches, dataset, dataset.test, device, size)
    return MeasuredModel(model, train, sample, len(dataset.train), test, initial, history)


def from_tensors(model: Model, train: Batch, test: Batch | None = None, initial: nn.Module | None = None) -> MeasuredModel:
    """Return a `MeasuredModel` for a model and tensors.

    Args:
        model: The trained model.
        train: The training set: inputs (N, *input_shape), normalized as the model expects, and labels int64 (N,). Inputs are
            converted to the type of a network's weights.
        test: The test set, in the same form.
        initial: The model before training.

    Raises:
        InputError: If the tensors have the wrong shape or type.
    """
    for inputs, labels in (train, test or train):
        if (
            inputs.dim() < 2
            or not inputs.is_floating_point()
            or labels.dtype != torch.int64
            or labels.shape != inputs.shape[:1]
        ):
            described = f"{inputs.dtype} {tuple(inputs.shape)} and {labels.dtype} {tuple(labels.shape)}"
            raise InputError(f"the data are {described}: pass float inputs (N, *input_shape) and labels int64 (N,)")
        if not len(inputs):
            raise InputError("the data have no examples")
    device = device_of(model, train[0].device)
    if isinstance(model, nn.Module):
        dtype = device_and_dtype(model, train[0])[1]
        train, test = (train[0].to(dtype), train[1]), (test[0].to(dtype), test[1]) if test else None
    indices = evenly_spaced(len(train[0]))
    sample = train[0][indices].to(device), train[1][indices].to(device)
    train_batches = functools.partial(_tensor_batches, *train, device)
    test_batches = functools.partial(_tensor_batches, *test, device) if test else None
    return MeasuredModel(model, train_batches, sample, len(train[0]), test_batches, (lambda: initial) if initial else None)


def device_of(model: Model, default: torch.device) -> torch.device:
    """Return the device of a module's parameters, or the default if there are none."""
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    return next((parameter.device for parameter in parameters), default)


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


def _with_numbers(outputs: Outputs) -> Outputs:
    """Return the outputs if all margins are numbers: the label of a logit that is not a number has no meaning."""
    if outputs.margins is not None and outputs.margins.isnan().any():
        raise InputError("a logit is not a finite number")
    return outputs


def _gives_labels(model: Model, inputs: Tensor) -> bool:
    if isinstance(model, nn.Module):
        return False
    with torch.no_grad():
        return as_output(model(inputs[:1].clone())).dim() == 1


def evenly_spaced(number: int, points: int = SAMPLE_POINTS) -> Tensor:
    """Return indices of up to `points` of N training points, int64 (min(N, points),), the same for every model."""
    return torch.linspace(0, number - 1, min(number, points), dtype=torch.float64).round().long()


def _tensor_batches(inputs: Tensor, labels: Tensor, device: torch.device) -> Iterator[Batch]:
    size = evaluation_batch(device, inputs[0].numel())
    for batch, targets in zip(inputs.split(size), labels.split(size), strict=True):
        yield fast_layout(batch.to(device)).clone(), targets.to(device)  # the model may write to its input
