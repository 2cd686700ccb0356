"""Check that a model is a function: one answer for each input, whatever else is in its batch, and no side effects.

Dropout that is left on, batch normalization that uses the statistics of the batch, and noise in a forward pass all give one
input several labels. A count of such labels measures the noise. A sample of points is therefore evaluated before anything is
counted: as one batch, as part of a batch as large as those of the count (up to 256 inputs), and eight of its points, most of
them vertices, each in a batch that contains only this point, twice, and in a batch of its own (unless the model raises an
exception: one input is too few for some operations). Noise or a branch that is too rare to change an output of the sample
is not detected, nor is a branch for batches of more than 256 inputs.

An exception that the model itself raises is not caught.
"""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from regioncount.errors import InputError
from regioncount.regions.evaluation import (
    HALF,
    Layout,
    Model,
    as_float64,
    evaluation_mode,
    fast_layout,
    require_values,
    true_float32,
)
from regioncount.regions.outputs import in_unit_interval, logit_scale, output_tensor, to_labels
from regioncount.regions.side_effects import ADVICE, watch_modules

SAMPLE_POINTS = 32
PAIRS = (6, 2)  # vertices and other points that are also evaluated in a batch of their own
MAX_BATCH = 256  # inputs in the largest batch of the check
FAR = 1000.0  # factor of inputs at which logits are large
SEED = 0  # of the points' positions in the subspaces


def check_function(model: Model, inputs: Tensor, batch_size: int | None = None) -> tuple[Layout, int]:
    """Check that a model returns one answer for each input.

    Two evaluations of an input may differ by rounding: in each logit, by the square root of the machine epsilon (of the type
    of the inputs or the logits, whichever is larger) times the scale of the logits (`logit_scale`; a factor of 3e-4 in
    float32, 1.5e-8 in float64), plus 64 machine epsilons of the largest logit of the same class. Labels must be equal.

    Args:
        model: The model. A module is evaluated in evaluation mode, which is restored afterwards.
        inputs: A sample of inputs (B, *input_shape), on the model's device and of its type; see `sample_points`.
        batch_size: The number of inputs that will be evaluated at once; None for that of the sample.

    Logits in half precision give a warning.

    Returns:
        The memory layout in which to evaluate the model, and the number of evaluations, in inputs. The layout is
        `fast_layout`, unless the model raises an exception in it: `view` and exported modules require a layout.

    Raises:
        InputError: If a parameter or buffer has no values, a module is in training mode, the answers differ, or the model
            changes a parameter or a buffer.
    """
    require_values(model)
    batch_size = min(batch_size or len(inputs), MAX_BATCH)
    size = min(len(inputs), batch_size)
    with torch.no_grad(), evaluation_mode(model), true_float32(), watch_modules(model) as model:
        layout, first = _choose_layout(model, inputs.split(size))
        if first.shape[1:] == (1,) and in_unit_interval(first):  # of several, the highest is the same class
            refuse_probability(model, inputs[:size], layout)
        if first.dtype in HALF:
            warnings.warn(
                f"the model returns logits in {first.dtype}, whose rounding adds regions along decision boundaries: "
                "compute them in float32",
                stacklevel=4,
            )
        kind, tolerance = "logits" if first.is_floating_point() else "labels", _tolerance(first, inputs.dtype)
        repeated = torch.arange(max(len(inputs), batch_size), device=inputs.device) % len(inputs)
        every = torch.arange(len(inputs), device=inputs.device)
        pairs = torch.cat([every[::2][: PAIRS[0]], every[1::2][: PAIRS[1]]]).repeat_interleave(2)
        for indices, batch in ((repeated, batch_size), (pairs, min(2, size))):
            outputs = _evaluate(model, inputs[indices].split(batch), layout)
            if not _agree(first[indices.to(first.device)], outputs, tolerance):
                if not _agree(first, _evaluate(model, inputs.split(size), layout), tolerance):
                    raise InputError(f"the model returns different {kind} for the same input; {ADVICE}")
                raise InputError(
                    f"the model's {kind} for an input depend on the other inputs of its batch, as with batch normalization "
                    f"in training mode or without running statistics; {ADVICE}"
                )
        alone = _evaluate_alone(model, inputs[pairs[::2]], layout)
        if alone is not None and not _agree(first[pairs[::2].to(first.device)], alone, tolerance):
            raise InputError(f"the model's {kind} for an input differ if it is in a batch of its own; {ADVICE}")
    return layout, len(inputs) + len(repeated) + len(pairs) + len(pairs) // 2


def refuse_probability(model: Model, inputs: Tensor, layout: Layout = Tensor.contiguous) -> None:
    """Refuse a model that returns probabilities: losses are defined for logits, and one logit has the threshold 0.

    A probability remains between 0 and 1 at inputs that are multiplied by `FAR`. A logit does not, unless the model bounds
    it.

    Args:
        model: A model that returned values between 0 and 1; see `in_unit_interval`.
        inputs: Inputs (B, *input_shape).
        layout: Converts inputs to the memory layout in which the model is evaluated.

    Raises:
        InputError: The output at the multiplied inputs is between 0 and 1, too, or the model does not support them.
    """
    try:
        far = _evaluate(model, [inputs * FAR], layout)
        is_bounded, classes = not ((far < 0) | (far > 1)).any(), far.shape[1]
    except Exception:
        is_bounded, classes = True, output_tensor(model(layout(inputs).clone())).shape[1]
    if is_bounded and classes > 1:
        raise InputError(
            "the model returns values between 0 and 1, as probabilities: return logits (without the softmax or the sigmoid)"
        )
    if is_bounded:
        raise InputError(
            "the model returned one value between 0 and 1 for each input, as a probability: return its logit (without the "
            "sigmoid), or two logits, for example lambda x: torch.cat([1 - model(x), model(x)], 1).log()"
        )


def sample_points(vertices: Tensor) -> Tensor:
    """Return points of subspaces (S, d + 1, *input_shape), always the same.

    Half of them are vertices, which are the most different. The others are random convex combinations of the vertices.
    """
    generator = torch.Generator().manual_seed(SEED)
    number, corners = min(SAMPLE_POINTS, 8 * len(vertices)), vertices.shape[1]
    subspaces = torch.randint(len(vertices), (number,), generator=generator)
    weights = torch.rand(number, corners, generator=generator, dtype=torch.float64)
    # Every second point is a vertex; each vertex once before any is repeated.
    order = torch.randperm(len(vertices) * corners, generator=generator)
    order = order[torch.arange(len(weights[::2])) % len(order)]
    subspaces[::2], weights[::2] = order // corners, torch.eye(corners, dtype=torch.float64)[order % corners]
    weights = (weights / weights.sum(dim=1, keepdim=True)).to(vertices)
    chosen = vertices[subspaces.to(vertices.device)].detach()
    return (weights.view(*weights.shape, *[1] * (vertices.dim() - 2)) * chosen).sum(dim=1)


def _choose_layout(model: Model, batches: Sequence[Tensor]) -> tuple[Layout, Tensor]:
    """Return the memory layout in which a model can be evaluated, and its outputs."""
    try:
        return fast_layout, _evaluate(model, batches, fast_layout)
    except InputError:
        raise
    except Exception:
        if fast_layout(batches[0]).is_contiguous():
            raise
        return Tensor.contiguous, _evaluate(model, batches, Tensor.contiguous)


def _evaluate(model: Model, batches: Sequence[Tensor], layout: Layout) -> Tensor:
    """Return the logits (N, classes), the logits (N, 1) of a binary classifier, or the labels (N,) of batches of inputs."""
    outputs: list[Tensor] = []
    for batch in batches:
        output = output_tensor(model(layout(batch).clone()))
        to_labels(output, len(batch))
        if outputs and output.shape[1:] != outputs[0].shape[1:]:
            raise InputError("the model returns different numbers of classes for different batches")
        outputs.append(output.clone())  # a model may return the same memory each time
    return torch.cat(outputs)


def _evaluate_alone(model: Model, inputs: Tensor, layout: Layout) -> Tensor | None:
    """Return the outputs of inputs in batches of one; None if the model does not support such batches.

    If the count needs such a batch, it is refused when it is evaluated.
    """
    try:
        return _evaluate(model, inputs.split(1), layout)
    except Exception:
        return None


def _agree(logits: Tensor, others: Tensor, tolerance: Tensor) -> bool:
    """Return whether outputs agree up to rounding; labels, infinities and NaN must be equal."""
    if logits.shape != others.shape or not logits.is_floating_point():
        return torch.equal(logits, others)
    finite = logits.isfinite()
    if not torch.equal(finite, others.isfinite()):
        return False
    if not torch.equal(logits[~finite].nan_to_num(nan=0.0), others[~finite].nan_to_num(nan=0.0)):
        return False
    differences = (as_float64(logits) - as_float64(others)).abs()
    return bool((differences <= tolerance)[finite.to(differences.device)].all())


def _tolerance(logits: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the largest difference between two evaluations of a logit that counts as rounding, for each class."""
    if not logits.is_floating_point():
        return torch.zeros((), dtype=torch.float64)
    eps = max(torch.finfo(logits.dtype).eps, torch.finfo(dtype).eps)
    values = as_float64(logits)
    largest = values.abs().masked_fill(~values.isfinite(), 0).amax(dim=0)
    return eps**0.5 * logit_scale(logits) + 64 * eps * largest
