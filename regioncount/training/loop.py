"""The training loop.

Every epoch starts from a seed of its own, made from the run's seed and the epoch's number. What an epoch does thus follows
from the weights and the optimizer's state at its start alone, and a run that goes on from a checkpoint does what it would
have done unbroken, with no generator's state to keep.
"""

import functools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from regioncount import data
from regioncount.config import RunConfig, Stop
from regioncount.measures.measured_model import Outputs, evaluate, split_batches
from regioncount.regions.evaluation import true_float32
from regioncount.training.cuda_graphs import recorded, side_stream
from regioncount.training.depthwise import fast_depthwise, replaced
from regioncount.training.optimizers import build_optimizer, build_schedule

# The running accuracy from which the whole training set is looked at: that much below the one asked for. It lags behind
# the accuracy at the end of the epoch, and looking costs a third of an epoch on a CPU, three epochs on a GPU.
NEAR_ACCURACY = 0.02
NEAR_LOSS = 2.0
# Likewise for a first look in bfloat16, which is nearer, and costs a GPU a third of an epoch.
ROUGH_ACCURACY = 0.005
ROUGH_LOSS = 1.25


def initialize(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A model whose initial weights follow from the seed alone; the caller's random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_epoch_seed(seed, 0))
        return build()


def fit(
    model: nn.Module,
    dataset: data.Dataset,
    config: RunConfig,
    *,
    device: torch.device,
    precision: str,
    compiled: bool = False,
    checkpoint: dict | None = None,
    on_epoch: Callable[[dict, Callable[[], dict]], None] = lambda row, state: None,
) -> list[dict]:
    """Train a model in place with cross-entropy, and return its history.

    dataset: on `device` already. precision: "float32" (IEEE: no TF32) or "bfloat16" (autocast). compiled: whole batches go
    through torch.compile, whose cache on disk later runs of the same network and batch size find. checkpoint: what an
    earlier call's `on_epoch` was offered; training goes on from there. on_epoch(row, state) is called after every epoch;
    state() is that checkpoint: tensors and plain values, whose tensors are the live ones.

    The history has a row an epoch: epoch, learning_rate, train_loss and running_accuracy (averages over the epoch, in
    training mode), train_accuracy (whole training set in evaluation mode, where a stop rule looked at it in float32),
    seconds. A loss that is not finite ends training; that row is the last.
    """
    model.to(device, memory_format=torch.channels_last)
    optimizer = build_optimizer(model, config.optimizer)
    schedule = build_schedule(optimizer, config)
    forward = torch.compile(model, dynamic=False) if compiled else model
    depthwise = fast_depthwise(model, device)
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    whole = functools.partial(_backward, forward, optimizer, device, precision)
    whole = whole if stream is None else recorded(whole)
    # Through `forward` another size would be compiled anew.
    smaller = functools.partial(_backward, model, optimizer, device, precision, into_last=True)
    history = []
    if checkpoint:
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        schedule.load_state_dict(checkpoint["schedule"])
        history = list(checkpoint["history"])

    def state() -> dict:
        return {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "history": history,
        }

    with progress_bar(config.epochs, len(dataset.train), done=len(history)) as report:
        while len(history) < config.epochs and not _finished(history, config):
            epoch = len(history) + 1
            started = time.perf_counter()
            rate = optimizer.param_groups[0]["lr"]
            exact = true_float32() if precision == "float32" else nullcontext()
            with replaced(depthwise), exact, side_stream(stream):
                loss, accuracy = _train_epoch(model, whole, smaller, dataset, config, optimizer, epoch, device, report)
            row = {"epoch": epoch, "learning_rate": rate, "train_loss": loss, "running_accuracy": accuracy}
            row["train_accuracy"] = math.nan
            if math.isfinite(loss) and _near_stop(row, config):
                outputs = _look(model, dataset, device, precision, config)
                if outputs is not None:
                    row["stop_loss"], row["train_accuracy"] = outputs.loss, outputs.accuracy
            row["seconds"] = time.perf_counter() - started
            schedule.step()
            history.append(row)
            on_epoch(row, state)
    return history


def diverged(history: list[dict]) -> bool:
    """Whether training ended at a loss that is not finite."""
    return bool(history) and not math.isfinite(history[-1]["train_loss"])


def _train_epoch(model, whole, smaller, dataset, config, optimizer, epoch, device, report) -> tuple[float, float]:
    """One pass over the training set; returns the running loss and accuracy. Nothing in it waits for the device.

    whole, smaller: `_backward` of inputs and targets, for batches of config.batch_size images and for others.
    """
    model.train()
    seed = _epoch_seed(config.seed, epoch)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(dataset.train), generator=generator)
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    with torch.random.fork_rng(devices=[device.index or 0] if device.type == "cuda" else []):
        torch.manual_seed(seed)  # for dropout and the like
        for images, labels in dataset.train.batches(config.batch_size, order):
            inputs, targets = _augmented(dataset, config.augmentation, images, labels, generator)
            inputs = inputs.contiguous(memory_format=torch.channels_last)  # as the weights are
            backward = whole if len(labels) == config.batch_size else smaller
            loss, logits = backward(inputs, targets)
            loss_sum += loss.double() * len(labels)
            correct += (logits.argmax(dim=1) == labels).sum()
            if config.optimizer["name"] == "sam":
                with _uphill(model, config.optimizer["rho"]):
                    backward(inputs, targets)
            optimizer.step()
            report(len(labels), loss_sum, correct)
    return loss_sum.item() / len(dataset.train), correct.item() / len(dataset.train)


def _backward(
    forward, optimizer, device, precision, inputs: Tensor, targets: Tensor, *, into_last: bool = False
) -> tuple[Tensor, Tensor]:
    """The mean loss of a batch, whose gradient the weights hold afterwards, and its logits (B, C).

    into_last: the gradient is written where the last one is, and what was recorded can go on using that place.
    """
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        logits = forward(inputs)
    loss = cross_entropy(logits.float(), targets)
    optimizer.zero_grad(set_to_none=not into_last)
    loss.backward()
    return loss.detach(), logits.detach()


@contextmanager
def _uphill(model: nn.Module, rho: float) -> Iterator[None]:
    """Have the weights at w + rho g / ||g||_2, g the gradient they hold; afterwards they are at w again.

    Stepping from w along the gradient found meanwhile is sharpness-aware minimization (Foret et al. 2020, equations 2 and
    3). Buffers are put back too: batch normalization's running statistics are those at w. Dropout draws anew.
    """
    weights = [weight for weight in model.parameters() if weight.grad is not None]
    changed = [*weights, *model.buffers()]
    with torch.no_grad():
        before = [tensor.clone() for tensor in changed]
        gradient = [weight.grad for weight in weights]
        length = nn.utils.get_total_norm(gradient).clamp(min=1e-12)  # where it is zero, the weights stay
        torch._foreach_add_(weights, torch._foreach_mul(gradient, rho / length))  # few launches, however many layers
    yield
    with torch.no_grad():
        torch._foreach_copy_(changed, before)


def _augmented(dataset, augmentation: str, images: Tensor, labels: Tensor, generator) -> tuple[Tensor, Tensor]:
    if augmentation == "crop_flip":
        images = data.crop_flip(images, generator)
    inputs = dataset.normalize(images)
    if augmentation == "mixup":
        return data.mixup(inputs, labels, dataset.num_classes, generator)
    return inputs, labels


def _meets(stop: Stop, accuracy: float, loss: float, below: float = 0.0, times: float = 1.0) -> bool:
    """Whether an accuracy or a loss is what the stop rule asks for, or so much below, or so many times it."""
    fits = stop.train_accuracy is not None and accuracy >= stop.train_accuracy - below
    return fits or (stop.train_loss is not None and loss <= stop.train_loss * times)


def _near_stop(row: dict, config: RunConfig) -> bool:
    """Whether the stop rule's own quantity, over the whole training set, is worth a look."""
    if config.augmentation == "mixup":  # the running figures are of mixed images, and say nothing of the plain ones
        return config.stop.train_accuracy is not None or config.stop.train_loss is not None
    return _meets(config.stop, row["running_accuracy"], row["train_loss"], NEAR_ACCURACY, NEAR_LOSS)


def _look(model: nn.Module, dataset, device: torch.device, precision: str, config: RunConfig) -> Outputs | None:
    """What the stop rule is about, in float32; None where a look in the training's own bfloat16 is far from it."""
    if precision == "bfloat16":
        rough = evaluate(model, split_batches(dataset, dataset.train, device), bfloat16=True)
        if not _meets(config.stop, rough.accuracy, rough.loss, ROUGH_ACCURACY, ROUGH_LOSS):
            return None
    return evaluate(model, split_batches(dataset, dataset.train, device))


def _finished(history: list[dict], config: RunConfig) -> bool:
    """Whether the last epoch diverged or met the stop rule."""
    if not history:
        return False
    last = history[-1]
    return diverged(history) or _meets(config.stop, last["train_accuracy"], last.get("stop_loss", math.inf))


def _epoch_seed(seed: int, epoch: int) -> int:
    """A seed for each epoch of each run's seed; epoch 0 is the initialization."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def progress_bar(epochs: int, images: int, done: int) -> Iterator[Callable[[int, Tensor, Tensor], None]]:
    """A bar over all epochs with running loss, accuracy and images per second; quiet when output is not a terminal."""
    with tqdm(
        total=epochs * images, initial=done * images, unit=" images", unit_scale=True, disable=None, leave=False
    ) as bar:
        last = time.monotonic()
        seen = 0

        def report(count: int, loss_sum: Tensor, correct: Tensor) -> None:
            nonlocal last, seen
            seen += count
            bar.update(count)
            # Reading the loss waits for the device: once a second, and only where somebody looks.
            if not bar.disable and time.monotonic() - last > 1:
                last = time.monotonic()
                bar.set_postfix_str(f"loss {loss_sum.item() / seen:.3f}, accuracy {correct.item() / seen:.3f}")
            if seen >= images:
                bar.set_description(f"epoch {bar.n // images} of {epochs}", refresh=False)
                seen = 0

        yield report
