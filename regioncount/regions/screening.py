"""Faster copies of a module: batch normalization folded into convolutions, and bfloat16 where it decides the label.

Points are first evaluated in bfloat16. Those whose margin there is below a bound are evaluated in float32 too. The bound is
calibrated on points at which both copies are compared with the model. Several counts of one model share the copies, and
compare them at points of their own.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from regioncount.errors import InputError
from regioncount.regions.adaptive import margins
from regioncount.regions.callables import unwrapped
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


class Preparation:
    """The check and the copies of a network that several counts share, such as counts in subspaces of several kinds.

    Pass one object to each `count_regions` of the network. Its weights must not change in between.

    Args:
        model: The network, as it is passed to `count_regions`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = unwrapped(model)
        self.layout: Layout | None = None
        """The memory layout in which to evaluate the network; None before it is checked."""
        self._state: list[tuple[str, int, int]] | None = None
        self._copies: dict[str, nn.Module | None] = {}

    def require(self, model: Model) -> None:
        """Check that a count may use this preparation.

        Raises:
            InputError: If it is of another model, or the weights have changed.
        """
        if model is not self.model:
            raise InputError("preparation: it was made for another model; make a new one, Preparation(model)")
        state = self._weights()
        if self._state not in (None, state):
            raise InputError("preparation: the model's weights have changed since; make a new one, Preparation(model)")
        self._state = state

    def copy(self, name: str, build: Callable[[], nn.Module | None]) -> nn.Module | None:
        """Return the copy of this name, which the first call builds."""
        if name not in self._copies:
            self._copies[name] = build()
        return self._copies[name]

    def _weights(self) -> list[tuple[str, int, int]]:
        """Return the names of parameters and buffers, their places in memory, and how often they were changed in place."""
        tensors = (*self.model.named_parameters(), *self.model.named_buffers())
        return [(name, tensor.data_ptr(), tensor._version) for name, tensor in tensors]


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


def prepare(
    preparation: Preparation, inputs: Tensor, logits: Tensor, batch_size: int, layout: Layout = fast_layout
) -> Prepared:
    """Return faster copies of a module that agree with it on calibration inputs.

    Args:
        preparation: The module, in evaluation mode, with its copies, which are made if they are missing.
        inputs: Calibration inputs (B, *input_shape).
        logits: The model's logits at these inputs, (B, classes).
        batch_size: Inputs evaluated at once.
        layout: Converts inputs to the memory layout in which the model is evaluated.

    Returns:
        The copies. A copy that cannot be made, disagrees with the model or is not faster overall is left out.
    """
    float32: nn.Module = preparation.model
    evaluations = 0
    folded_model = preparation.copy("folded", lambda: folded(preparation.model))
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
    name = "bfloat16" if float32 is preparation.model else "folded bfloat16"
    bfloat16 = preparation.copy(name, lambda: _in_bfloat16(float32))
    if bfloat16 is None:
        return Prepared(float32, evaluations=evaluations)
    try:
        error = _in_batches(bfloat16, inputs.bfloat16(), batch_size, layout).to(logits) - logits
    except Exception:  # an operation does not support bfloat16
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
        return to_fast_layout(fuse(plain_copy(model), inplace=True))
    except Exception:  # tracing runs the model's own code, which may raise anything
        return None


def _in_bfloat16(model: nn.Module) -> nn.Module | None:
    """Return a copy in bfloat16; None if the module cannot be copied."""
    try:
        return to_fast_layout(plain_copy(model).to(torch.bfloat16))
    except Exception:  # copying runs the model's own code, which may raise anything
        return None


def _in_batches(model: nn.Module, inputs: Tensor, size: int, layout: Layout) -> Tensor:
    return torch.cat([as_output(model(layout(batch))).clone() for batch in inputs.split(size)])
