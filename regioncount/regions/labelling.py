"""Predicted labels at all lattice points of subspaces, from evaluations at all points or only where labels change."""

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from regioncount.errors import InputError
from regioncount.regions.adaptive import adaptive_labels, margins
from regioncount.regions.evaluation import (
    Model,
    device_and_dtype,
    evaluation_batch,
    evaluation_mode,
    interpolate,
    is_quantized,
    true_float32,
)
from regioncount.regions.methods import LATTICE_METHODS, require_method
from regioncount.regions.model_check import check_function, sample_points
from regioncount.regions.outputs import as_output, refuse_nan, to_labels
from regioncount.regions.screening import Preparation, Prepared, prepare

# Largest number of labels or logits in memory at a time.
BLOCK_VALUES = 2**21

# Number of points, spread evenly over all subspaces, at which faster copies of the model are compared with the model.
CALIBRATION_POINTS = 128


class Labeller:
    """Labels of all lattice points of subspaces, one block of subspaces per call.

    Args:
        model: Any model.
        vertices: All subspaces, (S, d + 1, *input_shape). They determine the batch size and calibrate the faster copies.
        weights: Weights of the vertices at each lattice point, (P, d + 1).
        index_grid: Index of the lattice point at each integer coordinate; see `adaptive_labels`.
        method: A name in `LATTICE_METHODS`.
        batch_size: Inputs evaluated at once; None chooses it from the input's shape and the device.
        preparation: The check and the copies of a model that several counts share.

    Attributes:
        method: "grid" or "adaptive"; what "auto" was resolved to.
        evaluations: Model evaluations so far, in inputs.
        block_size: Number of subspaces to pass in one call.
        advance: Called with the number of points after each batch, for a progress bar.

    Raises:
        InputError: If the method is unknown, the batch size is below 1, the model or the vertices have an unsupported dtype,
            the model is not a function of its input (see `check_function`), or the adaptive method is used with a model that
            returns labels.
    """

    def __init__(
        self,
        model: Model,
        vertices: Tensor,
        weights: np.ndarray,
        index_grid: np.ndarray,
        method: str,
        batch_size: int | None = None,
        preparation: Preparation | None = None,
    ) -> None:
        require_method(method, LATTICE_METHODS)
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size={batch_size}: must be at least 1")
        self.device, self.dtype = device_and_dtype(model, vertices)
        self.model, self.index_grid = model, index_grid
        self.weights = torch.as_tensor(weights, dtype=self.dtype, device=self.device)
        total = len(vertices) * len(weights)
        self.batch_size = min(total, int(batch_size or 0) or evaluation_batch(self.device, vertices[0, 0].numel()))
        sample = sample_points(vertices).to(self.device, self.dtype)
        if preparation is None and isinstance(model, nn.Module):
            preparation = Preparation(model)
        self.evaluations = 0
        self.advance: Callable[[int], object] = lambda points: None
        if preparation is not None and preparation.layout is not None:
            self.layout = preparation.layout
        else:
            self.layout, self.evaluations = check_function(model, sample, self.batch_size)
        if preparation is not None:
            preparation.layout = self.layout
        self.preparation, self.prepared = preparation, Prepared(model)
        self.method, self.classes, self.logit_dtype = "grid", 1, self.dtype
        if method == "adaptive" or (method == "auto" and isinstance(model, nn.Module) and not is_quantized(model)):
            self._choose_method(method, vertices)
        self.block_size = max(1, BLOCK_VALUES // (len(self.weights) * self.classes))

    @property
    def screening_bound(self) -> float | None:
        """Margin in bfloat16 below which a point is also evaluated in float32; None if bfloat16 is not used."""
        return self.prepared.bound

    def evaluate_all(self, vertices: Tensor) -> np.ndarray:
        """Return the labels of some of the subspaces as __call__ does, from an evaluation of every lattice point."""
        vertices = vertices.to(self.device, self.dtype)
        with torch.no_grad(), evaluation_mode(self.model), true_float32():
            return self._evaluate_all(vertices).cpu().numpy()

    def __call__(self, vertices: Tensor) -> np.ndarray:
        """Return the labels of some of the subspaces.

        Args:
            vertices: A block of the subspaces, (B, d + 1, *input_shape).

        Returns:
            Integers (B, P).
        """
        if self.method == "grid":
            return self.evaluate_all(vertices)
        vertices = vertices.to(self.device, self.dtype)
        with torch.no_grad(), evaluation_mode(self.model), true_float32():
            evaluate = functools.partial(self._evaluate_screened, vertices)
            return adaptive_labels(evaluate, len(vertices), self.index_grid, self.device).cpu().numpy()

    def _choose_method(self, method: str, vertices: Tensor) -> None:
        """Switch to the adaptive method if the model returns logits and, for "auto", to faster copies of the model.

        Raises:
            InputError: If the adaptive method was requested and the model returns labels.
        """
        points = len(self.weights)
        total = len(vertices) * points
        sample = torch.linspace(0, total - 1, min(total, CALIBRATION_POINTS), dtype=torch.float64).long()
        subspaces, row = (sample // points).unique(return_inverse=True)
        sampled_vertices = vertices[subspaces.to(vertices.device)].to(self.device, self.dtype)
        inputs = interpolate(sampled_vertices, self.weights, row.to(self.device), (sample % points).to(self.device))
        with torch.no_grad(), evaluation_mode(self.model), true_float32():
            outputs = [as_output(self.model(self.layout(batch))).clone() for batch in inputs.split(self.batch_size)]
            for output, batch in zip(outputs, inputs.split(self.batch_size), strict=True):
                refuse_nan(to_labels(output, len(batch))[1])
            output = torch.cat(outputs)
            self.evaluations += len(inputs)
            if not output.is_floating_point():
                if method == "adaptive":
                    raise InputError("method=adaptive needs logits (batch, classes), not labels; use method=grid")
                return
            self.method, self.classes = "adaptive", output.shape[1]
            self.logit_dtype = torch.promote_types(output.dtype, self.dtype)
            if method == "auto" and self.preparation is not None:
                self.prepared = prepare(self.preparation, inputs, output, self.batch_size, self.layout)
                self.evaluations += self.prepared.evaluations

    def _evaluate_all(self, vertices: Tensor) -> Tensor:
        """Evaluate every lattice point and return the labels, int64 (S, P)."""
        number, points = len(vertices), len(self.weights)
        labels = torch.empty(number * points, dtype=torch.int64, device=self.device)
        has_nan = torch.zeros((), dtype=torch.bool, device=self.device)
        for flat in torch.arange(number * points, device=self.device).split(self.batch_size):
            inputs = interpolate(vertices, self.weights, flat // points, flat % points)
            batch_labels, batch_has_nan = to_labels(self.model(self.layout(inputs)), len(flat))
            labels[flat] = batch_labels.to(self.device)
            self.advance(len(flat))
            has_nan |= batch_has_nan.to(self.device)  # checked after the loop, because each check waits for the GPU
        self.evaluations += len(labels)
        refuse_nan(has_nan)
        return labels.view(number, points)

    def _evaluate_screened(self, vertices: Tensor, subspace: Tensor, point: Tensor, expected_margin: Tensor) -> Tensor:
        """Return logits (N, C), in bfloat16 if it decides the label, else in float32."""
        float32, bfloat16, bound = self.prepared.float32, self.prepared.bfloat16, self.prepared.bound
        if bfloat16 is None or bound is None:
            return self._evaluate(float32, vertices, subspace, point)
        logits = torch.empty(len(point), self.classes, dtype=self.logit_dtype, device=self.device)
        close = expected_margin < bound  # bfloat16 would not decide these labels: evaluate only in float32
        screened = (~close).nonzero().squeeze(1)
        if len(screened):
            logits[screened] = self._evaluate(bfloat16, vertices, subspace[screened], point[screened])
            close[screened] = margins(logits[screened]) < bound
        close = close.nonzero().squeeze(1)
        if len(close):
            logits[close] = self._evaluate(float32, vertices, subspace[close], point[close])
        return logits

    def _evaluate(self, model: Model, vertices: Tensor, subspace: Tensor, point: Tensor) -> Tensor:
        """Return logits (N, C), padding the last batch to a multiple of a quarter batch to limit the number of shapes."""
        dtype = torch.bfloat16 if model is self.prepared.bfloat16 else self.dtype
        quarter = max(1, self.batch_size // 4)
        outputs: list[Tensor] = []
        for batch in torch.arange(len(point), device=self.device).split(self.batch_size):
            padded = torch.cat([batch, batch[-1:].expand(-len(batch) % quarter)])
            inputs = interpolate(vertices, self.weights, subspace[padded], point[padded]).to(dtype)
            output = as_output(model(self.layout(inputs)))
            outputs.append(output[: len(batch)].to(self.device, self.logit_dtype, copy=True))  # a model may reuse memory
            self.advance(len(batch))
        self.evaluations += len(point)
        logits = torch.cat(outputs)
        refuse_nan(logits.isnan().any())
        return logits
