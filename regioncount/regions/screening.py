"""A module prepared for counting: batch normalization folded, and a bfloat16 copy that says where float32 is needed."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from regioncount.regions.adaptive import margins
from regioncount.regions.evaluation import fast_bfloat16, fast_layout, lay_out

# The bound on the margin below which a point is evaluated in float32, in units of the largest error that was seen in a
# difference of two logits; labels differed only at margins below half that error.
BOUND_ERRORS = 2.0

# How far folding may move a logit, in units of the logits' spread: far above rounding, far below a mistake. A mistake shows
# on any input, so that a few are enough.
FOLDING_TOLERANCE = 1e-3
FOLDING_INPUTS = 16


@dataclass(frozen=True)
class Prepared:
    """A module's copies for counting."""

    exact: nn.Module
    """gives the module's logits up to rounding"""
    rough: nn.Module | None
    """gives them in bfloat16; None where that does not pay"""
    bound: float | None
    """the margin (highest logit less the second) in bfloat16 from which the label is taken to be that in float32"""
    evaluations: int = 0
    """inputs evaluated to compare the copies with the model"""


def prepare(model: nn.Module, inputs: Tensor, logits: Tensor, batch_size: int) -> Prepared:
    """Copies that agree with the model, in evaluation mode, on these inputs (B, *input_shape); logits: its own there."""
    exact, evaluations = model, 0
    fused = folded(model)
    if fused is not None:
        few = slice(None, None, -(-len(inputs) // FOLDING_INPUTS))
        moved = (_in_batches(fused, inputs[few], batch_size) - logits[few]).abs().max()
        if moved <= FOLDING_TOLERANCE * (logits.max() - logits.min()):
            exact = fused
        evaluations += len(inputs[few])
    if not fast_bfloat16(inputs.device):
        return Prepared(exact, None, None, evaluations)
    evaluations += len(inputs)
    try:
        rough = lay_out(copy.deepcopy(exact).to(torch.bfloat16))
        error = _in_batches(rough, inputs.bfloat16(), batch_size).to(logits) - logits
    except (RuntimeError, TypeError):
        return Prepared(exact, None, None, evaluations)  # some operation of this model is not made for bfloat16
    bound = BOUND_ERRORS * (error.amax(dim=1) - error.amin(dim=1)).max()
    if not (margins(logits) < bound).double().mean() < 0.5:  # most points would be evaluated twice
        return Prepared(exact, None, None, evaluations)
    return Prepared(exact, rough, bound.item(), evaluations)


def _in_batches(model: nn.Module, inputs: Tensor, size: int) -> Tensor:
    return torch.cat([model(fast_layout(batch)) for batch in inputs.split(size)])


def folded(model: nn.Module) -> nn.Module | None:
    """A copy with batch normalization folded into the convolutions before it; None where the model cannot be traced."""
    try:
        return lay_out(fuse(model))
    except Exception:  # whatever a model's own code makes of a tracer's placeholders
        return None
