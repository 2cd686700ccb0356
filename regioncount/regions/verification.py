"""Comparison of exact regions with the network itself, at points inside regions and on their boundaries."""

import numpy as np
import torch
from torch import Tensor

from regioncount.errors import InputError
from regioncount.regions.evaluation import evaluation_batch, interpolate
from regioncount.regions.outputs import refuse_nan
from regioncount.regions.piecewise import Program

# A label is confirmed if its logit is within this fraction of the range of the logits of the highest one: far above
# rounding in float64, far below a difference of two logits inside a region that is not extremely short.
TOLERANCE = 1e-7


def verify(program: Program, vertices: Tensor, subspace: np.ndarray, weights: np.ndarray, label: np.ndarray) -> int:
    """Check that the network predicts labels at points of subspaces.

    The network is evaluated in float64 as it is, and not as the list of operations from which the labels were computed.

    Args:
        program: The traced network.
        vertices: Vertices of the subspaces, float64 (S, d + 1, *input_shape).
        subspace: The subspace of each of N points, int64 (N,).
        weights: The barycentric coordinates of each point, float64 (N, d + 1).
        label: The label of each point, int64 (N,).

    Returns:
        The number of evaluations.

    Raises:
        InputError: If the network predicts another label at a point: its operations are not what they seem. If an output is
            not a number, as that of a softmax of infinite logits.
    """
    if not len(label):  # a budget may prove nothing, and a network may not support an empty batch
        return 0
    size = evaluation_batch(program.device, vertices[0, 0].numel())
    columns = (torch.from_numpy(np.ascontiguousarray(column)).to(program.device) for column in (subspace, weights, label))
    lines, coordinates, labels = columns
    wrong = 0
    for points in torch.arange(len(label), device=program.device).split(size):
        logits = program.network(interpolate(vertices, coordinates, lines[points], points))
        refuse_nan(logits.isnan().any())
        finite = logits[logits.isfinite()]
        tolerance = TOLERANCE * (finite.max() - finite.min()) if len(finite) else 0.0
        lead = logits.amax(dim=1) - logits.gather(1, labels[points].unsqueeze(1)).squeeze(1)
        wrong += int((lead > tolerance).sum())
    if wrong:
        reason = "the network does not compute what its traced operations do"
        if program.comparison is not None:
            reason = f"{program.comparison} compares values that are equal up to rounding, or {reason}"
        raise InputError(
            f"the exact count disagrees with the network at {wrong} of {len(label)} points: {reason}; use method=grid"
        )
    return len(label)
