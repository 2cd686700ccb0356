"""The training loop.

Every epoch starts from a seed of its own, made from the run's seed and the epoch's number. What an epoch does thus follows
from the weights and the optimizer's state at its start alone, and a run that goes on from a checkpoint does what it would
have done unbroken, with no generator's state to keep.
"""

import functools
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import lr_scheduler
from tqdm import tqdm

from regioncount import data
from regioncount.config import RunConfig, Stop
from regioncount.cuda_graphs import recorded, side_stream
from regioncount.depthwise import fast_depthwise, replaced
from regioncount.errors import InputError
from regioncount.measures.subject import Outputs, evaluate, split_batches
from regioncount.regions.evaluation import fast_bfloat16, true_float32

OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "sam": torch.optim.SGD,  # on another gradient
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "adadelta": torch.optim.Adadelta,
}

# The running accuracy from which the whole training set is looked at: that much below the one asked for. It lags behind
# the accuracy at the end of the epoch, and looking costs a third of an epoch on a CPU, three epochs on a GPU.
NEAR_ACCURACY = 0.02
NEAR_LOSS = 2.0
# Likewise for a first look in bfloat16, which is nearer, and costs a GPU a third of an epoch.
ROUGH_ACCURACY = 0.005
ROUGH_LOSS = 1.25

# The work of a run, in multiply-adds of all forward passes, from which compilation pays on a CPU: some ten minutes of
# training there, against a minute of compiling. On a GPU it has not been measured.
COMPILED_WORK = 3e13


def choose_device(device: str) -> torch.device:
    """The device asked for; `auto` is CUDA where there is one, the CPU otherwise.

    In one of several worker processes, `auto` takes GPUs in turn, by the worker's number. Raises InputError for a device
    this machine does not have.
    """
    if device == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", _worker() % torch.cuda.device_count())
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise InputError(f"device={device}: give auto, cpu, cuda or cuda:N") from None
    if chosen.type not in ("cpu", "cuda"):
        raise InputError(f"device={device}: give auto, cpu, cuda or cuda:N")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device={device}: this machine has {torch.cuda.device_count()} CUDA devices")
    return chosen


def choose_precision(precision: str, device: torch.device) -> str:
    """The training precision: `auto` is bfloat16 autocast where the hardware multiplies in it, float32 otherwise."""
    if precision != "auto":
        return precision
    return "bfloat16" if fast_bfloat16(device) else "float32"


def choose_compilation(asked: bool | str, device: torch.device, work: float) -> bool:
    """Whether training steps are compiled: `auto` does so on a CPU, where there is a C++ compiler, for runs of much work.

    work: multiply-adds of all forward passes of the run. Raises InputError where compilation is asked for and there is no
    compiler.
    """
    if asked is False or (asked == "auto" and (device.type != "cpu" or work < COMPILED_WORK)):
        return False
    found = device.type != "cpu" or any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++")))
    if asked is True and not found:
        raise InputError("compile=true: neither $CXX nor g++ nor clang++ is there; install a C++ compiler or leave it out")
    return found


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
    optimizer = _optimizer(model, config.optimizer)
    schedule = _schedule(optimizer, config)
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


def _optimizer(model: nn.Module, options: dict) -> torch.optim.Optimizer:
    extra = {key: value for key, value in options.items() if key not in ("name", "learning_rate", "weight_decay")}
    if options["name"] == "sam":
        del extra["rho"]  # which is the loop's
    if "betas" in extra:
        extra["betas"] = tuple(extra["betas"])
    make = OPTIMIZERS[options["name"]]
    if make in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
        extra["fused"] = True  # one pass over the weights; a quarter more images per second for narrow networks on a CPU
    return make(model.parameters(), lr=options["learning_rate"], weight_decay=options["weight_decay"], **extra)


def _schedule(optimizer: torch.optim.Optimizer, config: RunConfig):
    """The learning rate's schedule, stepped once an epoch, as the paper's code does."""
    options = {key: value for key, value in config.schedule.items() if key != "name"}
    match config.schedule["name"]:
        case "constant":
            return lr_scheduler.ConstantLR(optimizer, factor=1.0)
        case "cosine":
            return lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.epochs)
        case "step":
            return lr_scheduler.StepLR(optimizer, **options)
        case "multistep":
            return lr_scheduler.MultiStepLR(optimizer, **options)
        case "exponential":
            return lr_scheduler.ExponentialLR(optimizer, **options)


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


def _worker() -> int:
    """The number of this process among joblib's workers (LokyProcess-1, ...), 0 elsewhere."""
    import multiprocessing

    _, _, number = multiprocessing.current_process().name.rpartition("LokyProcess-")
    return int(number) - 1 if number.isdigit() else 0


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
