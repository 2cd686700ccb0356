"""The operations that exact counts follow, and where each changes from one affine piece to another.

`FORMS` says in which arguments an operation is affine, if the others do not depend on the network's input. A value that is
constant on each affine piece, such as the result of a comparison, may also be a factor, or select between values.
"""

from collections.abc import Callable
from dataclasses import dataclass
from operator import getitem
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.fx import Node

from regioncount.errors import InputError
from regioncount.regions.maxima import PAIRS, POOLINGS, REDUCTIONS, Maximum, maximum_of, returns_indices
from regioncount.regions.nodes import Values, bound_arguments, nodes_in, operation_name, option_of, value_of

Kind = Literal["affine", "step"]
"""Whether a value is affine or constant on each piece."""

# Operations that are affine in their first operand.
AFFINE = frozenset(
    """
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear div true_divide neg positive alias clone
    contiguous detach dropout feature_dropout alpha_dropout feature_alpha_dropout _native_batch_norm_legit_no_training
    batch_norm instance_norm mean sum cumsum
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    view reshape _unsafe_view view_as flatten unflatten squeeze unsqueeze transpose permute t movedim moveaxis swapaxes mT
    expand expand_as repeat tile repeat_interleave select slice narrow split split_with_sizes unsafe_split
    unsafe_split_with_sizes tensor_split chunk unbind
    getitem index index_select gather roll flip fliplr flipud rot90 diagonal diag_embed tril triu unfold
    im2col col2im constant_pad_nd pad reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
    replication_pad3d pixel_shuffle pixel_unshuffle channel_shuffle upsample_nearest1d upsample_nearest2d upsample_nearest3d
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d
    upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler to type_as _to_copy
    lift_fresh_copy
    """.split()  # noqa: SIM905
)


class Form(NamedTuple):
    """Positions of the arguments that may depend on the network's input."""

    summands: tuple[int, ...] = ()
    """The operation is affine in these arguments jointly."""
    factors: tuple[int, ...] = ()
    """The operation is linear in each of these, so only one may be affine; the others are constant on each piece."""
    selectors: tuple[int, ...] = ()
    """Any function of these, which are constant on each piece."""


FORMS: dict[str, Form] = {
    **dict.fromkeys(AFFINE, Form(summands=(0,))),
    **dict.fromkeys(("add", "sub", "rsub", "copy"), Form(summands=(0, 1))),
    **dict.fromkeys(("cat", "concat", "stack", "hstack", "vstack"), Form(summands=(0,))),
    **dict.fromkeys(("select_scatter", "slice_scatter", "diagonal_scatter"), Form(summands=(0, 1))),
    **dict.fromkeys(("scatter", "scatter_add"), Form(summands=(0, 3))),
    "index_put": Form(summands=(0, 2)),
    "diff": Form(summands=(0, 3, 4)),
    **dict.fromkeys(("mul", "multiply", "matmul", "bmm", "mm", "mv", "tensordot", "bilinear"), Form(factors=(0, 1))),
    "einsum": Form(factors=(1,)),
    "where": Form(summands=(1, 2), selectors=(0,)),
    "masked_fill": Form(summands=(0, 2), selectors=(1,)),
}

# Operations that map values that are constant on each piece to such values.
LOGICAL = frozenset(
    """
    logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor bitwise_not __and__ __or__ __xor__
    eq ne any all
    """.split()  # noqa: SIM905
)

# Comparisons of two values, or of a value with 0.
COMPARISONS = frozenset({"gt", "ge", "lt", "le", "sign", "sgn"})


def _zero_threshold(*_: Any) -> tuple[float, ...]:
    return (0.0,)


def _clamp_thresholds(low: float | None = None, high: float | None = None) -> tuple[float, ...]:
    return tuple(level for level in (low, high) if level is not None)


# Thresholds between which each activation is affine, as a function of its arguments after the first.
THRESHOLDS: dict[str, Callable[..., tuple[float, ...]]] = {
    "relu": _zero_threshold,
    "leaky_relu": _zero_threshold,
    "prelu": _zero_threshold,
    "abs": _zero_threshold,
    "relu6": lambda: (0.0, 6.0),
    "hardtanh": lambda low=-1.0, high=1.0: (low, high),
    "hardsigmoid": lambda: (-3.0, 3.0),
    "clamp": _clamp_thresholds,
    "clamp_min": _clamp_thresholds,
    "clamp_max": _clamp_thresholds,
}

KNOWN = frozenset({*FORMS, *LOGICAL, *COMPARISONS, *THRESHOLDS, *POOLINGS, *REDUCTIONS, *PAIRS})


@dataclass(frozen=True)
class Operation:
    """An operation on values that depend on the network's input."""

    node: Node
    """Its node in the traced graph."""
    operands: tuple[Node, ...]
    """The values that it uses and that depend on the input, each once."""
    kind: Kind = "affine"
    """Whether its result is affine or constant on each piece."""
    thresholds: tuple[float, ...] = ()
    """For an activation: values of its operand between which it is affine."""
    maximum: Maximum | None = None
    """For a maximum or a minimum: its candidates."""
    compared: tuple[Any, Any] | None = None
    """For a comparison: the two arguments. Its result jumps where they are equal."""
    kept: frozenset[Node] = frozenset()
    """The values that later operations use."""

    @property
    def is_affine(self) -> bool:
        """Whether the operation has one piece for all inputs."""
        return not self.thresholds and self.maximum is None and self.compared is None

    @property
    def operand(self) -> Node:
        """The operand of an activation."""
        return self.operands[0]


def operation_of(node: Node, kinds: dict[Node, Kind], device: torch.device) -> Operation:
    """Return the operation of a node.

    Args:
        node: A node that calls a function.
        kinds: The nodes before it that depend on the network's input.
        device: Device of the network.

    Returns:
        The operation.

    Raises:
        InputError: If the operation is not known to be piecewise affine in its operands.
    """
    source = node.args[0] if node.target is getitem else node
    if not (isinstance(source, Node) and returns_indices(source)):
        source = node
    name, arguments = operation_name(source), bound_arguments(source)
    refuse_other_forms(source, name)
    dependent = [used for used in nodes_in((*source.args, *source.kwargs.values())) if used in kinds]
    operands = tuple(dict.fromkeys(dependent))
    steps = {used for used in operands if kinds[used] == "step"}
    if source is not node and node.args[1] != 0:
        raise InputError(f"an exact count cannot follow the indices that {name} returns; method=auto supports any network")
    if len(steps) == len(operands) and name in KNOWN:
        return Operation(node, operands, "step")
    if name in COMPARISONS:
        return Operation(node, operands, "step", compared=(arguments[0], arguments[1] if len(arguments) > 1 else 0.0))
    others_are_numbers = not nodes_in(arguments[1:])
    if name in THRESHOLDS and dependent == [arguments[0]] and (others_are_numbers or name == "prelu"):
        return Operation(node, operands, thresholds=THRESHOLDS[name](*arguments[1:]))
    if (maximum := maximum_of(source, device)) is not None:
        return Operation(node, operands, maximum=maximum)
    if name in FORMS and _fits(FORMS[name], arguments, kinds):
        return Operation(node, operands)
    reason = "which is not supported with these operands" if name in KNOWN else "which is not known to be piecewise linear"
    raise InputError(f"an exact count cannot follow the operation {name}, {reason}; method=auto supports any network")


def _fits(form: Form, arguments: list[Any], kinds: dict[Node, Kind]) -> bool:
    """Return whether all arguments that depend on the network's input are in positions where they may."""
    affine_factors = 0
    for position, argument in enumerate(arguments):
        dependent = [kinds[used] for used in nodes_in(argument) if used in kinds]
        if position in form.factors:
            affine_factors += dependent.count("affine")
        elif position in form.selectors:
            if "affine" in dependent:
                return False
        elif dependent and position not in form.summands:
            return False
    return affine_factors <= 1


def crossed(operation: Operation, values: Values, points: int) -> list[Tensor]:
    """Return values that are zero where an activation or a comparison changes from one piece to another.

    Args:
        operation: The operation; not a maximum.
        values: The values of its operands, (P, ...), and of constants.
        points: Number of inputs P.

    Returns:
        Tensors (P, M) in float64, one for each threshold.
    """
    if operation.compared is not None:
        compared = (value_of(argument, values, points) for argument in operation.compared)
        first, second = (torch.as_tensor(value, dtype=torch.float64) for value in compared)  # of a number, not float32
        return [(first - second).reshape(points, -1)]
    return [values[operation.operand].reshape(points, -1) - threshold for threshold in operation.thresholds]


def refuse_other_forms(node: Node, name: str) -> None:
    """Refuse forms of an operation that are not affine, such as division with rounding or dropout in training mode.

    Raises:
        InputError: If the node has such a form.
    """
    for option in ("rounding_mode", "train", "training", "use_input_stats", "reduce"):
        if value := option_of(node, option):
            raise InputError(f"an exact count cannot follow {name} with {option}={value}; method=auto supports any network")
