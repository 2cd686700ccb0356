"""From a configuration to its data and its model, checked against one another."""

import json
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import nn

from regioncount import data, models
from regioncount.config import Dataset, MeasuringConfig, RunConfig
from regioncount.errors import InputError
from regioncount.models import classical
from regioncount.regions.bounds import check_monotone
from regioncount.regions.counting import EXACT_METHODS
from regioncount.regions.evaluation import evaluation_mode
from regioncount.regions.piecewise import trace

LARGEST = 16 * 2**30  # bytes of weights: more is a slip of a digit, or a stranger's file


def load_dataset(settings: Dataset) -> data.Dataset:
    """The data set of a configuration; one that was asked for before is still in memory."""
    return _load_dataset(**{key: value for key, value in vars(settings).items() if key != "name"}, kind=settings.name)


# Two, so that a sweep over data sets that goes back and forth does not fill the memory.
@lru_cache(maxsize=2)
def _load_dataset(kind: str, **options) -> data.Dataset:
    if options["workers"] is None:
        options.pop("workers")
    return data.load(kind, **options)


def build_model(model: Mapping, dataset: data.Dataset) -> nn.Module:
    """The network of a configuration (a name and its options), for a data set's classes, channels and image size."""
    options = {key: value for key, value in model.items() if key != "name"}
    return models.build(model["name"], dataset.num_classes, dataset.in_channels, image_size=dataset.image_size, **options)


def load_state(model: nn.Module, state: dict, source) -> None:
    """Load a state dictionary; InputError, which names its source, where it is not one of this model."""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1 if "\n" in str(error) else 0].strip()
        raise InputError(f"{source}: the weights do not fit the model: {reason}") from None


def check(config: RunConfig | MeasuringConfig, dataset: data.Dataset) -> int:
    """The multiply-adds of the model for one image (0: not a network).

    Raises InputError where the data do not fit it or the subspaces asked for.
    """
    multiply_adds = 0
    exact = config.regions.method in EXACT_METHODS and config.regions.subspaces
    if classical.is_classical(config.model):
        classical.check(config.model, dataset)
        if exact and config.model["name"] != "two_layer":
            method = f"regions.method={config.regions.method}"
            raise InputError(f"model={config.model['name']}: {method} looks into networks; take method=auto")
    else:
        multiply_adds = _check_model(json.dumps(config.model), dataset.num_classes, dataset.in_channels, dataset.image_size)
        if exact:
            shape = (dataset.num_classes, dataset.in_channels, dataset.image_size)
            _check_exact(json.dumps(config.model), *shape, config.regions.method)
    for name, subspace in config.regions.subspaces.items():
        available = len(dataset.train if subspace.split == "train" else dataset.test)
        needed = subspace.dimension + 1 if subspace.kind == "simplex" else 2
        if available < needed:
            raise InputError(f"regions.{name}: {needed} images are needed, the {subspace.split} split has {available}")
    return multiply_adds


# Checking takes a forward pass; in a sweep most cells share their model.
@lru_cache(maxsize=64)
def _check_model(model: str, num_classes: int, in_channels: int, image_size: tuple[int, int]) -> int:
    """Multiply-adds of convolutions and linear layers for one image.

    Raises InputError where the model cannot be built or does not take the data's images.
    """
    options = json.loads(model)
    name = options.pop("name")
    try:
        with torch.device("meta"):  # without memory for its weights
            sketch = models.build(name, num_classes, in_channels, image_size=image_size, **options)
        size = sum(weight.numel() * weight.element_size() for weight in sketch.parameters())
        if size > LARGEST:
            raise InputError(f"its weights would take {size / 2**30:.0f} GiB, more than {LARGEST / 2**30:.0f}")
        built = models.build(name, num_classes, in_channels, image_size=image_size, **options)
    except (InputError, RuntimeError, MemoryError) as error:
        raise InputError(f"model={name}: {str(error).splitlines()[0]}") from None
    shape = (2, in_channels, *image_size)
    counted = []

    def count(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        counted.append(module.weight[0].numel() * output[0].numel())

    for module in built.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    try:
        with torch.no_grad(), evaluation_mode(built):
            output = built(torch.zeros(shape))
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"model={name} does not take images of shape {shape[1:]}: {reason}") from None
    if output.shape != (2, num_classes):
        raise InputError(f"model={name} gives {tuple(output.shape)}, not (2, {num_classes}) logits")
    return sum(counted)


@lru_cache(maxsize=64)
def _check_exact(model: str, num_classes: int, in_channels: int, image_size: tuple[int, int], method: str) -> None:
    """Raises InputError where an exact method cannot follow the model."""
    options = json.loads(model)
    name = options.pop("name")
    try:
        network = models.build(name, num_classes, in_channels, image_size=image_size, **options)
        program = trace(network, (in_channels, *image_size))
        if method == "bounds":
            check_monotone(program)
    except InputError as error:
        raise InputError(f"model={name}: {error}") from None
