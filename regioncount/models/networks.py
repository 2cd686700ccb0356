"""Build networks by name, check them against a data set, and restore them from weights."""

import inspect
import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import lru_cache
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from regioncount.data.dataset import Dataset
from regioncount.errors import InputError, one_line
from regioncount.models import kinds
from regioncount.models.catalogue import MAX_SIZE
from regioncount.options import options_model, validate_options
from regioncount.regions.bounds import check_relaxable
from regioncount.regions.evaluation import evaluation_mode, to_fast_layout
from regioncount.regions.model_check import check_function, refuse_probability
from regioncount.regions.outputs import as_output, in_unit_interval, output_tensor
from regioncount.regions.piecewise import trace
from regioncount.registry import models
from regioncount.suggestions import unknown_choice

MAX_WEIGHT_BYTES = 16 * 2**30  # larger sizes come from a mistyped option or an untrusted record


def names() -> tuple[str, ...]:
    """Return the names of all networks, including those of plugins."""
    return tuple(name for name in models.names() if models[name].traits.get("kind", "network") == "network")


def default_options(name: str) -> dict[str, Any]:
    """Return the default options of a model.

    Args:
        name: The name of a model of any kind.

    Returns:
        The default value of each option.

    Raises:
        InputError: The name is not registered.
    """
    return {key: field.default for key, field in options_model(models[name]).model_fields.items()}


def build(
    name: str,
    num_classes: int = 10,
    in_channels: int = 3,
    *,
    image_size: int | tuple[int, ...] = 32,
    **options: Any,
) -> nn.Module:
    """Build a network from images (B, in_channels, H, W) to logits (B, num_classes), with random weights.

    Args:
        name: The name of a network; see `names`.
        num_classes: The number of classes.
        in_channels: The number of channels of an image; for inputs that are features, their number.
        image_size: Height and width in pixels, or one number for both; () for features, which `mlp` takes. Only networks
            with a fixed input size use it.
        **options: The options of the network; see `default_options`. The `width` of a convolutional network is the number
            of channels of its first convolution; all other channel counts scale with it.

    Returns:
        The network, on the CPU and in training mode.

    Raises:
        InputError: The name or an option is unknown, or a value is invalid.
    """
    if name not in names():
        raise InputError(unknown_choice("model", name, names()))
    return build_model({"name": name, **options}, num_classes, in_channels, image_size)


def build_model(
    model: Mapping[str, Any], num_classes: int, in_channels: int, image_size: int | tuple[int, ...]
) -> nn.Module:
    """Build a network from its configuration: a name or a `_target_`, and options; see `build`."""
    entry = kinds.entry(model)
    raw_options = {key: value for key, value in model.items() if key not in ("name", "_target_")}
    options = validate_options(entry, raw_options, "model").model_dump()
    for option, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        _require_size(option, value)
    size = () if image_size == () else _height_and_width(image_size)
    if size == () and entry.plugin is None and not entry.traits.get("takes_features"):
        takers = ", ".join(name for name in names() if models[name].traits.get("takes_features"))
        raise InputError(
            f"model={entry.name}: it takes images, but the inputs are {in_channels} features; pass model={takers}, a "
            "classical classifier such as model=random_forest, or your own network (model._target_=my_module.MyNet)"
        )
    sizes = {"num_classes": num_classes, "in_channels": in_channels, "image_size": size}
    parameters = inspect.signature(entry.load()).parameters
    network = entry.build(**{key: value for key, value in sizes.items() if key in parameters}, **options)
    if not isinstance(network, nn.Module):
        raise InputError(f"model={entry.name}: {type(network).__name__} is not a torch.nn.Module")
    if entry.plugin:
        network.register_forward_hook(_return_logits)
    return network


def build_for(model: Mapping[str, Any], dataset: Dataset) -> nn.Module:
    """Build the network of a configuration for the number of classes and the image shape of a data set."""
    return build_model(model, dataset.num_classes, dataset.in_channels, dataset.image_size)


def load_state(network: nn.Module, state: Mapping[str, Tensor], source: object) -> None:
    """Load a state dictionary into a network.

    Args:
        network: The network.
        state: The state dictionary.
        source: The origin of the state dictionary, for the error message.

    Raises:
        InputError: Keys or shapes differ from those of the network.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1 if "\n" in str(error) else 0].strip()
        raise InputError(f"{source}: the weights do not fit the model: {reason}") from None


def check(model: Mapping[str, Any], dataset: Dataset, exact_method: str | None) -> int:
    """Check a network and return the multiply-adds of its convolutions and linear layers; see `ModelKind.check`."""
    shape = (dataset.num_classes, dataset.in_channels, dataset.image_size)
    multiply_adds = _check_network(json.dumps(dict(model)), *shape)
    if exact_method:
        _check_exact(json.dumps(dict(model)), *shape, exact_method)
    return multiply_adds


def restorer(
    model: Mapping[str, Any], seed: int, dataset: Dataset, device: torch.device, source: object
) -> Callable[[Callable[[], dict[str, Any]]], nn.Module]:
    """Return a function that loads weights into a network that is built once; see `ModelKind.restorer`."""
    network = to_fast_layout(build_for(model, dataset).to(device))

    def restore(read_weights: Callable[[], dict[str, Any]]) -> nn.Module:
        load_state(network, read_weights(), source)
        return network

    return restore


def adapt_for_measures(model: nn.Module, dataset: Dataset) -> tuple[nn.Module, Dataset]:
    """Return the arguments unchanged; see `ModelKind.adapt_for_measures`."""
    return model, dataset


# Cached, because each check runs a forward pass and most runs of a sweep share their model.
@lru_cache(maxsize=64)
def _check_network(model: str, num_classes: int, in_channels: int, image_size: tuple[int, ...]) -> int:
    """Check the size of a network's weights and the shape of its logits; return the multiply-adds for one image."""
    options = json.loads(model)
    name = options["name"]
    try:
        # On the meta device, no memory is allocated for the weights. Constructors of plugins may read values.
        entry = kinds.entry(options)
        on_meta_device = entry.plugin is None and not entry.traits.get("reads_values")
        with torch.device("meta") if on_meta_device else nullcontext():
            network = build_model(options, num_classes, in_channels, image_size)
        size = sum(weight.numel() * weight.element_size() for weight in network.parameters())
        if size == 0:
            raise InputError("it has no parameters to train")
        if size > MAX_WEIGHT_BYTES:
            limit = MAX_WEIGHT_BYTES / 2**30
            raise InputError(f"its weights would take {size / 2**30:.0f} GiB, more than the limit of {limit:.0f}")
        if on_meta_device:
            network = build_model(options, num_classes, in_channels, image_size)
    except (InputError, RuntimeError, MemoryError, ValueError) as error:
        reason = one_line(error)
        raise InputError(reason if reason.startswith(f"model={name}") else f"model={name}: {reason}") from None
    multiply_adds: list[int] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = module.get_parameter("weight")
        multiply_adds.append(weight[0].numel() * output[0].numel())

    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    shape = (2, in_channels, *image_size)
    try:
        with torch.no_grad(), evaluation_mode(network):
            output = network(torch.zeros(shape))
    except InputError as error:
        raise InputError(f"model={name}: {error}") from None
    except Exception as error:
        if kinds.entry(options).plugin is None and not isinstance(error, (RuntimeError, ValueError)):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        what = "images" if image_size else "features"
        raise InputError(f"model={name} does not take {what} of shape {shape[1:]}: {reason}") from None
    if not isinstance(output, Tensor) or output.shape != (2, num_classes):
        returned = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(f"model={name} returns {returned}, not logits of shape (2, {num_classes})")
    if kinds.entry(options).plugin:
        sample = torch.randn(16, *shape[1:], generator=torch.Generator().manual_seed(0))
        try:
            with torch.no_grad(), evaluation_mode(network):
                if in_unit_interval(output_tensor(network.forward(sample))):  # without the hook
                    refuse_probability(network.forward, sample)
            check_function(network, sample)
        except InputError as error:
            raise InputError(f"model={name}: {error}") from None
    return sum(multiply_adds)


def check_last_batch(
    model: Mapping[str, Any], dataset: Dataset, batch_size: int, ghost_batch_size: int | None = None
) -> None:
    """Check that a network can be trained on the last batch of an epoch and on each last ghost batch, if it is one image.

    Batch normalization cannot compute the variance of a single value per channel.

    Args:
        model: The model's name and options.
        dataset: The data set.
        batch_size: The number of images in a batch.
        ghost_batch_size: The number of images in a ghost batch; None if there are none.

    Raises:
        InputError: The network cannot be trained on a single image.
    """
    number = len(dataset.train)
    sizes = {min(batch_size, number), number % batch_size} - {0}
    ghost = ghost_batch_size or max(sizes)
    single = sorted(size for size in sizes if size % ghost == 1 or 1 in (size, ghost))
    if not single:
        return
    shape = (dataset.num_classes, dataset.in_channels, dataset.image_size)
    if (reason := _single_image_error(json.dumps(dict(model)), *shape)) is not None:
        if ghost_batch_size is None or single[0] == 1:
            where = f"batch_size={batch_size}: the last of {number} training images is a batch of its own"
        else:
            where = f"ghost_batch_size={ghost}: a batch of {single[0]} leaves a ghost batch of a single image"
        raise InputError(
            f"{where}, on which model={model['name']} cannot be trained ({reason}); choose another size or "
            "dataset.train_size"
        )


@lru_cache(maxsize=64)
def _single_image_error(model: str, num_classes: int, in_channels: int, image_size: tuple[int, ...]) -> str | None:
    """Return why a network cannot be trained on a single image; None if it can."""
    network = build_model(json.loads(model), num_classes, in_channels, image_size).train()
    try:
        with torch.no_grad():
            network(torch.zeros(1, in_channels, *image_size))
    except ValueError as error:  # torch's error about one value per channel
        return one_line(error)
    return None


@lru_cache(maxsize=64)
def _check_exact(model: str, num_classes: int, in_channels: int, image_size: tuple[int, ...], method: str) -> None:
    options = json.loads(model)
    try:
        network = build_model(options, num_classes, in_channels, image_size)
        program = trace(network, torch.Size((in_channels, *image_size)))
        if method == "bounds":
            check_relaxable(program)
    except InputError as error:
        raise InputError(f"model={options['name']}: {error}") from None


def _return_logits(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor:
    """Return the logits (B, classes) in the output of a network; registered as a forward hook."""
    return as_output(output)


def _height_and_width(image_size: Any) -> tuple[int, int]:
    sides: Any = (image_size, image_size) if isinstance(image_size, Integral) else image_size
    try:
        height, width = sides
    except (TypeError, ValueError):
        raise InputError(f"image_size={image_size!r}: give one whole number or (height, width)") from None
    _require_size("image_size", height)
    _require_size("image_size", width)
    return height, width


def _require_size(name: str, value: Any) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or not 1 <= int(value) <= MAX_SIZE:
        raise InputError(f"{name}={value!r:.40}: give a whole number from 1 to {MAX_SIZE}")
