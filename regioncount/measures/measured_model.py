"""A trained model with its data, and cached quantities that several measures share."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regioncount.errors import InputError
from regioncount.measures.folding import network_for_measures
from regioncount.measures.outputs import Batch, DatasetLike, Model, Outputs, evaluate, split_batches
from regioncount.regions.evaluation import (
    device_and_dtype,
    evaluation_batch,
    fast_layout,
)
from regioncount.regions.narrow import is_safe_forward
from regioncount.regions.outputs import as_output
from regioncount.regions.screening import FOLDING_INPUTS

# Measures that take derivatives or perturb weights use this many training points; margins, losses and accuracies use all.
SAMPLE_POINTS = 1000

# Batch size for models that return labels. Predictions of some scikit-learn models depend on it in their last digits.
LABEL_BATCH = 1000

LABELS_ALONE = "a classical classifier gives labels alone"

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


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
            InputError: If the network has a parameter outside of them, which norms of layers would ignore, or one of them
                computes something else with its weight.
        """
        layers = {name: module for name, module in self.network.named_modules() if isinstance(module, LAYERS)}
        if other := [name for name, layer in layers.items() if not _has_forward_of_torch(layer)]:
            kind = type(layers[other[0]]).__name__
            raise InputError(
                f"the layer {other[0]} ({kind}) has a forward method of its own, so its weight may not be what it computes "
                "with; write this as a parametrization (torch.nn.utils.parametrize) of a layer of torch"
            )
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
            if inputs.dim() and labels.dim() and len(inputs) != len(labels):
                lengths = f"{len(inputs)} inputs and {len(labels)} labels"
                raise InputError(f"the data are {described}: {lengths}; pass one label for each input")
            remedy = ""
            if inputs.is_floating_point() and labels.shape[:1] == inputs.shape[:1]:
                classes = labels.dim() == 2 and labels.shape[1] > 1
                remedy = ", such as labels.argmax(1)" if classes else ", such as labels.flatten().long()"
            raise InputError(f"the data are {described}: pass float inputs (N, *input_shape) and labels int64 (N,){remedy}")
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


def _with_numbers(outputs: Outputs) -> Outputs:
    """Return the outputs if all margins are numbers: the label of a logit that is not a number has no meaning."""
    if outputs.margins is not None and outputs.margins.isnan().any():
        raise InputError("a logit is not a finite number")
    return outputs


def _has_forward_of_torch(layer: nn.Module) -> bool:
    """Return whether a layer computes what torch's layer of this kind does, with its weight and bias as they are."""
    base = next(base for base in LAYERS if isinstance(layer, base))
    own = vars(layer).get("forward")
    same = all(getattr(type(layer), name, None) is getattr(base, name, None) for name in ("forward", "_conv_forward"))
    return same and (own is None or is_safe_forward(own))


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
