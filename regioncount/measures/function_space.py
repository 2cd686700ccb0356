"""Measures of the function alone: how it bends and how steep it is at training points and between them.

Novak et al. 2018, "Sensitivity and generalization in neural networks". What leaves the function as it is leaves these.
"""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from regioncount.errors import InputError
from regioncount.measures.subject import Subject
from regioncount.regions.evaluation import evaluation_batch, evaluation_mode, fast_layout, interpolate, true_float32
from regioncount.regions.lattice import barycentric, simplex_lattice
from regioncount.regions.subspaces import sample_simplices

SEED = 0

# A Jacobian takes a backward pass a class.
JACOBIAN_POINTS = 200
JACOBIAN_SEGMENTS = 50
JACOBIAN_POINTS_PER_SEGMENT = 10

PATTERN_SEGMENTS = 50
PATTERN_POINTS = 200  # as many as regions are counted on


def jacobian_norm(subject: Subject) -> float:
    """mean_x ||d p(x) / d x||_F over sampled training points, p the class probabilities (Novak et al. 2018, section 3.1), in
    probability a unit of normalized input. Rescaling layers does not change it.
    """
    found = [_jacobian_norms(subject, inputs) for inputs, _ in subject.sample_batches(points=JACOBIAN_POINTS)]
    return torch.cat(found).mean().item()


def jacobian_norm_on_lines(subject: Subject) -> float:
    """The same as `jacobian_norm`, averaged over points along segments between training points, ends included (Novak et al.
    2018 average along trajectories through them). Rescaling layers does not change it.

    Raises InputError where there are fewer than two training points.
    """
    segments = _segments(subject, JACOBIAN_SEGMENTS)
    weights = _lattice(segments, JACOBIAN_POINTS_PER_SEGMENT)
    places = torch.cartesian_prod(torch.arange(len(segments)), torch.arange(len(weights))).to(segments.device)
    size = evaluation_batch(segments.device, segments[0, 0].numel())
    found = [_jacobian_norms(subject, interpolate(segments, weights, *part.T)) for part in places.split(size)]
    return torch.cat(found).mean().item()


def activation_changes(subject: Subject) -> float:
    """The mean over segments between training points of how many times a unit passes a bend of its rectifier: the sum of
    Hamming distances between the activation patterns of neighbours among 200 points of a segment.

    The transitions of Novak et al. 2018; Hanin and Rolnick 2019 count the linear regions between them. Rescaling layers does
    not change it.

    Seen are ReLU, leaky ReLU, PReLU, threshold, ReLU6 (hardtanh) and clamps, as modules or functions. Raises
    InputError where the model has none, or there are fewer than two training points.
    """
    segments = _segments(subject, PATTERN_SEGMENTS)
    weights = _lattice(segments, PATTERN_POINTS)
    size = max(2, evaluation_batch(segments.device, segments[0, 0].numel()))
    seen = Rectifiers(batch=size)
    with torch.no_grad(), evaluation_mode(subject.model), true_float32():
        for number in range(len(segments)):
            # Each batch begins with the last point of the one before.
            for first in range(0, PATTERN_POINTS - 1, size - 1):
                points = torch.arange(first, min(first + size, PATTERN_POINTS), device=segments.device)
                inputs = fast_layout(interpolate(segments, weights, torch.full_like(points, number), points))
                seen.batch = len(inputs)
                with seen:
                    subject.model(inputs)
    if not seen.calls:
        raise InputError(f"{type(subject.model).__name__} has no rectifier, such as ReLU, whose activation could change")
    return int(seen.changes) / len(segments)


class Rectifiers(TorchDispatchMode):
    """Counts changes of activation between neighbours in a batch, at every rectifier that runs meanwhile.

    What is not of so many inputs, such as a weight that a layer clamps, is no activation.
    """

    def __init__(self, batch: int):
        super().__init__()
        self.batch = batch
        self.calls = 0
        self.changes = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        bends = BENDS.get(operation.overloadpacket.__name__.removesuffix("_"))
        # Before the operation runs: in place, it overwrites what is looked at.
        if bends is not None and args[0].shape[:1] == (self.batch,):
            for bend in bends(*args[1:], **kwargs):
                active = args[0] > bend
                self.changes = self.changes + (active[1:] != active[:-1]).sum()
            self.calls += 1
        return operation(*args, **kwargs)


# Where each rectifier bends, from its arguments after the input.
BENDS = {
    "relu": lambda: [0.0],
    "leaky_relu": lambda *slope, **_: [0.0],
    "rrelu_with_noise": lambda *options, **_: [0.0],
    "_prelu_kernel": lambda slope: [0.0],
    "threshold": lambda threshold, value: [threshold],
    "hardtanh": lambda min_val=-1.0, max_val=1.0: [min_val, max_val],
    "relu6": lambda: [0.0, 6.0],
    "clamp": lambda min=None, max=None: [bound for bound in (min, max) if bound is not None],
    "clamp_min": lambda min: [min],
    "clamp_max": lambda max: [max],
}


def _jacobian_norms(subject: Subject, inputs: Tensor) -> Tensor:
    """||d p / d x||_F at each input: (B,), in float64."""
    with torch.enable_grad(), evaluation_mode(subject.model), true_float32():
        inputs = fast_layout(inputs.detach()).requires_grad_()
        probabilities = subject.model(inputs).softmax(dim=1)
        squares = torch.zeros(len(inputs), dtype=torch.float64, device=inputs.device)
        for of_class in probabilities.sum(dim=0).unbind():
            (slopes,) = torch.autograd.grad(of_class, inputs, retain_graph=True)
            squares += slopes.flatten(1).double().square().sum(dim=1)
    return squares.sqrt()


def _segments(subject: Subject, number: int) -> Tensor:
    """Segments between sampled training points: (S, 2, *input_shape)."""
    return sample_simplices(subject.sample[0], 1, number, torch.Generator().manual_seed(SEED))


def _lattice(segments: Tensor, points: int) -> Tensor:
    """Weights of the ends of a segment at evenly spaced points of it: (P, 2)."""
    return torch.from_numpy(barycentric(simplex_lattice(1, points), points)).to(segments)
