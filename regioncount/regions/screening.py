"""Faster copies of a module: batch normalization folded into convolutions, and bfloat16 where it decides the label.

Points are first evaluated in bfloat16. Those whose margin there is below a bound are evaluated in float32 too. The bound is
calibrated on points at which both copies are compared with the model.
"""

from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from regioncount.regions.adaptive import margins
from regioncount.regions.copies import plain_copy
from regioncount.regions.evaluation import Layout, Model, fast_bfloat16, fast_layout, to_fast_layout
from regioncount.regions.outputs import as_output, logit_scale

# Bound on the bfloat16 margin, in units of the largest error observed in a difference of two logits. In the benchmarks,
# labels differed only at margins below half that error.
BOUND_ERRORS = 2.0

# Largest change of a logit by folding, relative to the scale of the logits: far above rounding, far below what a wrong fold
# causes. A wrong fold shows at any input, so a few inputs suffice.
FOLDING_TOLERANCE = 1e-3
FOLDING_INPUTS = 16


@dataclass(frozen=True)
class Prepared:
    """A model and its faster copies."""

    float32: Model
    """Returns the model's logits up to rounding, in the dtype of its parameters."""
    bfloat16: nn.Module | None = None
    """Returns the logits in bfloat16; None if bfloat16 is not used."""
    bound: float | None = None
    """Margin (highest logit minus the second highest) in bfloat16 below which a point is evaluated in float32."""
    evaluations: int = 0
    """Inputs evaluated to compare the copies with the model."""


def prepare(model: nn.Module, inputs: Tensor, logits: Tensor, batch_size: int, layout: Layout = fast_layout) -> Prepared:
    """Return faster copies of a module that agree with it on calibration inputs.

    Args:
        model: Module in evaluation mode.
        inputs: Calibration inputs (B, *input_shape).
        logits: The model's logits at these inputs, (B, classes).
        batch_size: Inputs evaluated at once.
        layout: Converts inputs to the memory layout in which the model is evaluated.

    Returns:
        The copies. A copy that cannot be made, disagrees with the model or is not faster overall is left out.
    """
    float32: nn.Module = model
    evaluations = 0
    folded_model = folded(model)
    if folded_model is not None:
        sample = slice(None, None, -(-len(inputs) // FOLDING_INPUTS))
        with suppress(Exception):  # the traced copy may return something else
            change = (_in_batches(folded_model, inputs[sample], batch_size, layout) - logits[sample]).abs().max()
            if change <= FOLDING_TOLERANCE * logit_scale(logits):
                float32 = folded_model
        evaluations += len(inputs[sample])
    if not fast_bfloat16(inputs.device):
        return Prepared(float32, evaluations=evaluations)
    evaluations += len(inputs)
    try:
        bfloat16 = to_fast_layout(plain_copy(float32).to(torch.bfloat16))
        error = _in_batches(bfloat16, inputs.bfloat16(), batch_size, layout).to(logits) - logits
    except Exception:  # the model cannot be copied, or an operation does not support bfloat16
        return Prepared(float32, evaluations=evaluations)
    bound = BOUND_ERRORS * (error.amax(dim=1) - error.amin(dim=1)).max()
    share_below = (margins(logits) < bound).double().mean()
    # A bound that is not a positive number, as with logits of minus infinity, screens nothing. With a large one, most points
    # would be evaluated twice.
    if not (0 < bound < torch.inf and share_below < 0.5):
        return Prepared(float32, evaluations=evaluations)
    return Prepared(float32, bfloat16, bound.item(), evaluations)


def folded(model: nn.Module) -> nn.Module | None:
    """Return a copy with batch normalization folded into the preceding convolutions.

    Args:
        model: Module in evaluation mode.

    Returns:
        The copy, or None if torch.fx cannot trace the module.
    """
    try:
        return to_fast_layout(fuse(plain_copy(model)))
    except Exception:  # tracing runs the model's own code, which may raise anything
        return None


def _in_batches(model: nn.Module, inputs: Tensor, size: int, layout: Layout) -> Tensor:
    return torch.cat([as_output(model(layout(batch))) for batch in inputs.split(size)])
