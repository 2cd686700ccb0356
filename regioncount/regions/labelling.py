"""What the model says at every lattice point of subspaces: by evaluating each of them, or only those that are needed."""

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from regioncount.errors import InputError
from regioncount.regions.adaptive import adaptive_labels, margins
from regioncount.regions.evaluation import (
    evaluation_batch,
    evaluation_mode,
    fast_layout,
    interpolate,
    placement,
    true_float32,
)
from regioncount.regions.screening import Prepared, prepare

LATTICE_METHODS = ("auto", "grid", "adaptive")

# Labels, or logits, that are held at a time; bounds memory however many subspaces are asked for.
BLOCK_VALUES = 2**21

# Points, spread over all subspaces, at which a model's copies are compared with it.
CALIBRATION_POINTS = 128


class Labeller:
    """Labels of all lattice points of subspaces, block after block, with an account of what that took.

    method: "grid" or "adaptive", as resolved. screening_bound: the margin in bfloat16 below which points are evaluated in
    float32 too; None where all are. evaluations: of the model so far, in inputs. block: how many subspaces to give at once.
    """

    def __init__(
        self,
        model: Callable,
        vertices: Tensor,
        weights: np.ndarray,
        positions: np.ndarray,
        method: str,
        batch_size: int | None = None,
    ) -> None:
        """vertices: all subspaces (S, d + 1, *input_shape). weights: (P, d + 1). positions: as in `adaptive_labels`."""
        if method not in LATTICE_METHODS:
            raise InputError(f"method={method}: one of {', '.join(LATTICE_METHODS)} is needed")
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size={batch_size}: at least 1 input a batch is needed")
        self.device, self.dtype = placement(model, vertices)
        self.model, self.positions = model, positions
        self.weights = torch.as_tensor(weights, dtype=self.dtype, device=self.device)
        self.batch_size = batch_size or evaluation_batch(self.device, vertices[0, 0].numel())
        self.evaluations = 0
        self.prepared = Prepared(model, None, None)
        self.method, self.classes = "grid", 1
        if method == "adaptive" or (method == "auto" and isinstance(model, nn.Module)):
            self._choose(method, vertices)
        self.block = max(1, BLOCK_VALUES // (len(self.weights) * self.classes))

    @property
    def screening_bound(self) -> float | None:
        return self.prepared.bound

    def __call__(self, vertices: Tensor) -> np.ndarray:
        """Labels, integers (S, P), of some of the subspaces."""
        vertices = vertices.to(self.device, self.dtype)
        with torch.no_grad(), evaluation_mode(self.model), true_float32():
            if self.method == "grid":
                return self._all_labels(vertices).cpu().numpy()
            evaluate = functools.partial(self._screened, vertices)
            return adaptive_labels(evaluate, len(vertices), self.positions, self.device).cpu().numpy()

    def _choose(self, method: str, vertices: Tensor) -> None:
        """Take the adaptive method if the model gives logits; for `auto`, with copies of it that are faster."""
        points = len(self.weights)
        total = len(vertices) * points
        spread = torch.linspace(0, total - 1, min(total, CALIBRATION_POINTS), dtype=torch.float64).long()
        subspaces, places = (spread // points).unique(return_inverse=True)
        corners = vertices[subspaces.to(vertices.device)].to(self.device, self.dtype)
        inputs = interpolate(corners, self.weights, places.to(self.device), (spread % points).to(self.device))
        with torch.no_grad(), evaluation_mode(self.model), true_float32():
            outputs = [torch.as_tensor(self.model(fast_layout(batch))) for batch in inputs.split(self.batch_size)]
            for output, batch in zip(outputs, inputs.split(self.batch_size), strict=True):
                _refuse_undefined(to_labels(output, len(batch))[1])
            output = torch.cat(outputs)
            self.evaluations += len(inputs)
            if not output.is_floating_point():
                if method == "adaptive":
                    raise InputError("method=adaptive needs logits (batch, classes), not labels: take grid")
                return
            self.method, self.classes = "adaptive", output.shape[1]
            if method == "auto":
                self.prepared = prepare(self.model, inputs, output, self.batch_size)
                self.evaluations += self.prepared.evaluations

    def _all_labels(self, vertices: Tensor) -> Tensor:
        """Every point evaluated: int32 (S, P)."""
        number, points = len(vertices), len(self.weights)
        labels = torch.empty(number * points, dtype=torch.int32, device=self.device)
        undefined = torch.zeros((), dtype=torch.bool, device=self.device)
        for flat in torch.arange(number * points, device=self.device).split(self.batch_size):
            inputs = interpolate(vertices, self.weights, flat // points, flat % points)
            batch_labels, batch_undefined = to_labels(self.model(fast_layout(inputs)), len(flat))
            labels[flat] = batch_labels.to(self.device)
            undefined |= batch_undefined.to(self.device)  # looked at once, at the end: no synchronization a batch
        self.evaluations += len(labels)
        _refuse_undefined(undefined)
        return labels.view(number, points)

    def _screened(self, vertices: Tensor, subspace: Tensor, point: Tensor, expected: Tensor) -> Tensor:
        """Logits (N, C) of points; in bfloat16, where that is enough to tell the label.

        Where the expected margin is below the bound already, bfloat16 is not tried.
        """
        exact, rough, bound = self.prepared.exact, self.prepared.rough, self.prepared.bound
        if rough is None:
            return self._logits(exact, vertices, subspace, point)
        close = expected < bound
        screened = (~close).nonzero().squeeze(1)
        if len(screened):
            found = self._logits(rough, vertices, subspace[screened], point[screened])
            close[screened] = margins(found) < bound
        close = close.nonzero().squeeze(1)
        logits = torch.empty(len(point), self.classes, dtype=self.dtype, device=self.device)
        if len(screened):
            logits[screened] = found
        if len(close):
            logits[close] = self._logits(exact, vertices, subspace[close], point[close])
        return logits

    def _logits(self, model: Callable, vertices: Tensor, subspace: Tensor, point: Tensor) -> Tensor:
        """Logits (N, C) of points. The last batch is filled up to quarters of a whole one: few shapes, few kernels."""
        dtype = torch.bfloat16 if model is self.prepared.rough else self.dtype
        quarter = max(1, self.batch_size // 4)
        found = []
        for chosen in torch.arange(len(point), device=self.device).split(self.batch_size):
            filled = torch.cat([chosen, chosen[-1:].expand(-len(chosen) % quarter)])
            inputs = interpolate(vertices, self.weights, subspace[filled], point[filled]).to(dtype)
            output = torch.as_tensor(model(fast_layout(inputs)))
            found.append(output[: len(chosen)].to(self.device, self.dtype))
        self.evaluations += len(point)
        logits = torch.cat(found)
        _refuse_undefined(logits.isnan().any())
        return logits


def to_labels(output, batch: int) -> tuple[Tensor, Tensor]:
    """Labels int32 (B,) from a model's output, and whether any logit was not a number (a tensor of one bool).

    The highest logit wins, a tie goes to the lowest index. Raises InputError where the output has another shape.
    """
    output = torch.as_tensor(output)
    if output.dim() == 2 and output.shape[0] == batch and output.shape[1] >= 2:
        undefined = output.isnan().any() if output.is_floating_point() else torch.zeros((), dtype=torch.bool)
        return output.argmax(dim=1).int(), undefined  # argmax returns the first of equal maxima
    if output.shape == (batch,) and not output.is_floating_point() and not output.is_complex():
        return output.int(), torch.zeros((), dtype=torch.bool)
    raise InputError(
        f"the model returned {output.dtype} of shape {tuple(output.shape)} for a batch of {batch}: "
        "logits (batch, classes) with two classes or more, or integer labels (batch,), are needed"
    )


def _refuse_undefined(undefined: Tensor) -> None:
    if undefined:
        raise InputError("the model gives logits that are not a number: its regions cannot be counted")
