"""Measures of the function alone: its Jacobian and its activation changes, at training points and between them.

Novak et al. 2018, "Sensitivity and generalization in neural networks". They depend on the function, not on its weights, so
rescaling layers does not change them.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from regioncount.errors import InputError
from regioncount.measures.measured_model import MeasuredModel
from regioncount.measures.outputs import with_standard_error
from regioncount.regions.evaluation import evaluation_batch, evaluation_mode, fast_layout, interpolate, true_float32
from regioncount.regions.lattice import barycentric, simplex_lattice
from regioncount.regions.outputs import as_output
from regioncount.regions.subspaces import sample_simplices
from regioncount.registry import register_measure

SEED = 0

# A Jacobian takes one backward pass per class.
JACOBIAN_POINTS = 200
JACOBIAN_SEGMENTS = 50
JACOBIAN_POINTS_PER_SEGMENT = 10

PATTERN_SEGMENTS = 50
PATTERN_POINTS = 200  # per segment, as in the paper's region counts


@register_measure(scale_invariant=True)
def jacobian_norm(measured: MeasuredModel) -> float:
    """Return mean_x ||d p(x) / d x||_F over sampled training points, where p are the class probabilities.

    Novak et al. 2018, section 3.1, in probability per unit of normalized input. Rescaling layers does not change it.
    """
    norms = [_jacobian_norms(measured, inputs) for inputs, _ in measured.sample_batches(points=JACOBIAN_POINTS)]
    return torch.cat(norms).mean().item()


@register_measure(scale_invariant=True)
def jacobian_norm_on_lines(measured: MeasuredModel) -> dict[str, float]:
    """Return the mean of ||d p(x) / d x||_F, as in `jacobian_norm`, over points x of segments between training points.

    The ends of the segments are included. Novak et al. 2018 average over trajectories through training points. The standard
    error of the mean over the segments is returned too. Rescaling layers does not change it.

    Raises:
        InputError: If there are fewer than two training points.
    """
    segments = _segments(measured, JACOBIAN_SEGMENTS)
    weights = _lattice(segments, JACOBIAN_POINTS_PER_SEGMENT)
    indices = torch.cartesian_prod(torch.arange(len(segments)), torch.arange(len(weights))).to(segments.device)
    size = evaluation_batch(segments.device, segments[0, 0].numel())
    norms = [_jacobian_norms(measured, interpolate(segments, weights, *part.unbind(1))) for part in indices.split(size)]
    means = torch.cat(norms).view(len(segments), -1).mean(dim=1)
    return with_standard_error("jacobian_norm_on_lines", means.tolist())


@register_measure(scale_invariant=True)
def activation_changes(measured: MeasuredModel) -> dict[str, float]:
    """Return the mean number of activation changes of rectifiers along a segment between training points.

    This is the sum of Hamming distances between the activation patterns at consecutive points, 200 per segment: the
    transitions of Novak et al. 2018. Hanin and Rolnick 2019 count the linear regions between them. The standard error of
    the mean over the segments is returned too. Rescaling layers does not change it.

    It counts ReLU, leaky ReLU, PReLU, threshold, ReLU6 (hardtanh) and clamps, as modules or functions. A rectifier that is
    written as a maximum, a minimum or a selection (`torch.maximum`, `torch.where`) is not counted, which a warning says.

    Raises:
        InputError: If the model has no such operation, or there are fewer than two training points.
    """
    model = measured.require_network()
    segments = _segments(measured, PATTERN_SEGMENTS)
    weights = _lattice(segments, PATTERN_POINTS)
    size = max(2, evaluation_batch(segments.device, segments[0, 0].numel()))
    counter = ActivationChangeCounter(batch=size)
    changes: list[int] = []
    with torch.no_grad(), evaluation_mode(model), true_float32():
        for segment in range(len(segments)):
            # Each batch begins with the last point of the previous one.
            for first in range(0, PATTERN_POINTS - 1, size - 1):
                points = torch.arange(first, min(first + size, PATTERN_POINTS), device=segments.device)
                inputs = fast_layout(interpolate(segments, weights, torch.full_like(points, segment), points))
                counter.batch = len(inputs)
                with counter:
                    model(inputs)
            changes.append(int(counter.changes) - sum(changes))
    if not counter.calls:
        raise InputError(
            f"{type(model).__name__} has no rectifier, such as ReLU, whose activation could change; maxima and selections, "
            "such as torch.maximum and torch.where, are not counted"
        )
    if counter.not_counted:
        names = ", ".join(f"torch.{name}" for name in sorted(counter.not_counted))
        advice = "write rectifiers as torch.relu or torch.clamp"
        warnings.warn(f"activation_changes does not count {names}; {advice}", stacklevel=2)
    return with_standard_error("activation_changes", changes)


class ActivationChangeCounter(TorchDispatchMode):
    """Count activation changes between neighbours in a batch, at every rectifier that is called in this context.

    A tensor whose first dimension is not `batch`, such as a weight that a layer clamps, is not counted.

    Args:
        batch: The number of inputs in a batch.
    """

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch
        self.calls = 0
        self.changes: Tensor | int = 0
        self.not_counted: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        name = func.overloadpacket.__name__.removesuffix("_")
        thresholds = ACTIVATION_THRESHOLDS.get(name)
        if name in SELECTIONS and any(isinstance(part, Tensor) and part.shape[:1] == (self.batch,) for part in args):
            self.not_counted.add(name)
        # Compare before the operation runs: an in-place operation overwrites its input.
        if thresholds is not None and args[0].shape[:1] == (self.batch,):
            for threshold in thresholds(*args[1:], **options):
                active = args[0] > threshold
                self.changes = self.changes + (active[1:] != active[:-1]).sum()
            self.calls += 1
        return func(*args, **options)


def _zero(*args: Any, **options: Any) -> list[float]:
    return [0.0]


def _clamp_bounds(min: Any = None, max: Any = None) -> list[Any]:
    return [bound for bound in (min, max) if bound is not None]


# Operations as which a rectifier may be written, but that have other uses.
SELECTIONS = frozenset({"maximum", "minimum", "fmax", "fmin", "where"})

# Inputs at which each rectifier changes its slope, as a function of its arguments after the input.
ACTIVATION_THRESHOLDS: dict[str, Callable[..., list[Any]]] = {
    "relu": _zero,
    "leaky_relu": _zero,
    "rrelu_with_noise": _zero,
    "_prelu_kernel": _zero,
    "threshold": lambda threshold, value: [threshold],
    "hardtanh": lambda min_val=-1.0, max_val=1.0: [min_val, max_val],
    "relu6": lambda: [0.0, 6.0],
    "clamp": _clamp_bounds,
    "clamp_min": lambda min: [min],
    "clamp_max": lambda max: [max],
}


def _jacobian_norms(measured: MeasuredModel, inputs: Tensor) -> Tensor:
    """Return ||d p / d x||_F at each input, (B,), in float64."""
    model = measured.require_network()
    with torch.enable_grad(), evaluation_mode(model), true_float32():
        inputs = fast_layout(inputs.detach()).requires_grad_()
        probabilities = as_output(model(inputs.clone())).softmax(dim=1)  # the model may write to its input
        squares = torch.zeros(len(inputs), dtype=torch.float64, device=inputs.device)
        for class_sum in probabilities.sum(dim=0).unbind():
            (gradients,) = torch.autograd.grad(class_sum, inputs, retain_graph=True)
            squares += gradients.flatten(1).double().square().sum(dim=1)
    return squares.sqrt()


def _segments(measured: MeasuredModel, number: int) -> Tensor:
    """Return segments between sampled training points, (S, 2, *input_shape)."""
    measured.require_network()
    return sample_simplices(measured.sample[0], 1, number, torch.Generator().manual_seed(SEED))


def _lattice(segments: Tensor, points: int) -> Tensor:
    """Return the weights of a segment's ends at P evenly spaced points on it, (P, 2)."""
    return torch.from_numpy(barycentric(simplex_lattice(1, points), points)).to(segments)
