"""The training step: the loss of one batch and its gradient, computed in the way that is fastest on the device."""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from regioncount import registry
from regioncount.config import RunConfig
from regioncount.regions.evaluation import true_float32
from regioncount.regions.narrow import safe_forwards
from regioncount.training.cuda_graphs import capture_cuda_graph, side_stream
from regioncount.training.depthwise import fast_depthwise_forwards, replace_forwards
from regioncount.training.ghost_batches import ghost_forwards

BatchStep = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""A function of a batch's inputs and targets that returns the mean loss and the logits (B, C), both detached.

It stores the gradient for the optimizer in the parameters' `grad`.
"""


@dataclass(frozen=True)
class TrainingStep:
    """A `BatchStep` for batches of any size, to be called inside `context()`."""

    batch_size: int
    full_batch_step: BatchStep
    """For batches of `batch_size` images: compiled if the run is, and on a GPU replayed as a CUDA graph."""
    partial_batch_step: BatchStep
    """For batches of other sizes, such as an epoch's last one, or after a batch size has grown."""
    context: Callable[[], AbstractContextManager[None]]
    """Returns the context manager that selects the CUDA stream, the float32 mode and the convolution algorithms."""

    def __call__(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss and the logits (B, C) of a batch, and store its gradient in the parameters."""
        step = self.full_batch_step if len(inputs) == self.batch_size else self.partial_batch_step
        return step(inputs, targets)


def build_training_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: RunConfig,
    *,
    device: torch.device,
    precision: str,
    compiled: bool,
) -> TrainingStep:
    """Return the training step of a run.

    Args:
        model: The network, on `device`.
        optimizer: The optimizer. Its gradients are reset before each backward pass.
        config: The run's configuration. Only the batch sizes and the optimizer's options are used.
        device: The device of training.
        precision: "float32" or "bfloat16".
        compiled: Whether full batches are computed with torch.compile.

    Returns:
        The step.
    """
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    forward = torch.compile(model, dynamic=False) if compiled else model
    compute_gradient = functools.partial(_compute_gradient, optimizer=optimizer, device=device, precision=precision)
    full_batch_step = functools.partial(compute_gradient, forward)
    if stream is not None:
        full_batch_step = capture_cuda_graph(full_batch_step)
    # Calls `model`, because a compiled `forward` would be recompiled for every new batch size.
    partial_batch_step = functools.partial(compute_gradient, model, zero_in_place=True)
    traits = registry.optimizers[config.optimizer["name"]].traits
    if "step" in traits:
        options = {key: config.optimizer[key] for key in traits.get("step_options", ())}
        wrap = functools.partial(registry.resolve(traits["step"]), model=model, **options)
        full_batch_step, partial_batch_step = wrap(full_batch_step), wrap(partial_batch_step)
    forwards = fast_depthwise_forwards(model, device) | safe_forwards(model, device)
    forwards |= ghost_forwards(model, config.ghost_batch_size)
    context = functools.partial(_step_context, forwards, precision, stream)
    return TrainingStep(config.batch_size, full_batch_step, partial_batch_step, context)


@contextmanager
def sam_perturbation(model: nn.Module, rho: float) -> Iterator[None]:
    """Move the weights w to w + rho g / ||g||_2 inside the block, where g is their stored gradient.

    A gradient computed inside the block is that of sharpness-aware minimization (Foret et al. 2020, equations 2 and 3).
    The weights and buffers are restored after the block, so the optimizer steps from w, and the running statistics of
    batch normalization are those at w. Dropout draws a new mask inside the block.

    Args:
        model: The network. If its gradient is zero, the weights do not move.
        rho: The radius of the perturbation.
    """
    weights: list[Tensor] = [weight for weight in model.parameters() if weight.grad is not None]
    changed = [*weights, *model.buffers()]
    with torch.no_grad():
        originals = [tensor.clone() for tensor in changed]
        gradient = [weight.grad for weight in weights if weight.grad is not None]
        norm = nn.utils.get_total_norm(gradient).clamp(min=1e-12)
        # The foreach functions launch a few kernels, whatever the number of layers.
        torch._foreach_add_(weights, torch._foreach_mul(gradient, rho / norm))  # pyright: ignore[reportPrivateImportUsage]
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(changed, originals)  # pyright: ignore[reportPrivateImportUsage]


def sam_step(batch_step: BatchStep, model: nn.Module, *, rho: float) -> BatchStep:
    """Return a step that stores SAM's gradient and returns the loss and the logits before the perturbation."""

    def step(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        loss, logits = batch_step(inputs, targets)
        loss, logits = loss.clone(), logits.clone()  # a CUDA graph overwrites its outputs in the next call
        with sam_perturbation(model, rho):
            batch_step(inputs, targets)
        return loss, logits

    return step


def _compute_gradient(
    forward: Callable[[Tensor], Tensor],
    inputs: Tensor,
    targets: Tensor,
    *,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    precision: str,
    zero_in_place: bool = False,
) -> tuple[Tensor, Tensor]:
    # zero_in_place keeps the gradients' memory, because a captured CUDA graph writes to it.
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        logits = forward(inputs)
    loss = cross_entropy(logits.float(), targets)
    optimizer.zero_grad(set_to_none=not zero_in_place)
    loss.backward()
    return loss.detach(), logits.detach()


@contextmanager
def _step_context(
    forwards: dict[nn.Module, Callable[[Tensor], Tensor]], precision: str, stream: torch.cuda.Stream | None
) -> Iterator[None]:
    float32_mode = true_float32() if precision == "float32" else nullcontext()
    with replace_forwards(forwards), float32_mode, side_stream(stream):
        yield
