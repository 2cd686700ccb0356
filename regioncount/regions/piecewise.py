"""A network in evaluation mode as a list of affine and piecewise affine operations on its input.

The network is traced with `torch.export` rather than with hooks, which would miss functional calls. An operation that
depends on the input and is not in the tables below raises an error that names it.
"""

import io
import logging
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from operator import getitem
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.nn.functional import unfold
from torch.utils._pytree import arg_tree_leaves

from regioncount.errors import InputError, one_line
from regioncount.regions.copies import plain_copy
from regioncount.regions.evaluation import Model, device_and_dtype
from regioncount.regions.nodes import (
    Values,
    bound_arguments,
    call,
    function_of,
    is_size,
    number_of_values,
    operation_name,
    option_of,
    tensors_of,
)
from regioncount.regions.outputs import as_output

# `AFFINE` operations are affine in their first operand if the others do not depend on the input, `JOINTLY_AFFINE` ones
# in all operands jointly, and `PRODUCTS` in either operand. None of them mixes the inputs of a batch.
AFFINE = frozenset(
    """
    conv1d conv2d conv3d linear div neg alias clone contiguous detach dropout _native_batch_norm_legit_no_training batch_norm
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d mean sum view reshape
    _unsafe_view flatten unflatten squeeze unsqueeze transpose permute expand select slice narrow split split_with_sizes
    chunk unbind getitem constant_pad_nd pad pixel_shuffle channel_shuffle upsample_nearest2d upsample_bilinear2d zeros
    ones full zeros_like ones_like full_like to _to_copy
    """.split()  # noqa: SIM905
)
JOINTLY_AFFINE = {"add", "sub", "rsub", "cat", "stack"}
PRODUCTS = {"mul", "matmul"}


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
    "clamp": _clamp_thresholds,
}


@dataclass(frozen=True)
class Operation:
    """An operation on values that depend on the network's input."""

    node: Node
    """Its node in the traced graph."""
    operand: Node
    """The value that determines the affine piece."""
    thresholds: tuple[float, ...] = ()
    """For an activation: operand values between which it is affine."""
    windows: Tensor | None = None
    """For max pooling: indices of the pixels of each window, int64 (outputs, pixels of a window)."""
    kept: frozenset[Node] = frozenset()
    """The values that later operations use."""

    @property
    def affine(self) -> bool:
        """Whether the operation is affine for all inputs."""
        return not self.thresholds and self.windows is None


@dataclass(frozen=True)
class Program:
    """A traced network: its operations in order, and the constants that they use."""

    stages: list[list[Operation]]
    """Operations in order. Each stage but the first begins with a piecewise affine operation; all others are affine."""
    constants: dict[Node, Any]
    """Parameters, buffers, and values that do not depend on the input."""
    input: Node
    """The network's input."""
    output: Node
    """The logits."""
    device: torch.device
    """Device of the constants."""
    values_per_input: int
    """Largest number of values in memory at a time for one input."""
    network: nn.Module
    """The copy of the network in float64 that was traced."""

    @property
    def operations(self) -> list[Operation]:
        """The operations of all stages in order."""
        return [operation for stage in self.stages for operation in stage]


def trace(model: Model, shape: Sequence[int]) -> Program:
    """Trace a copy of a network in evaluation mode and float64.

    Args:
        model: A torch module that returns logits (B, classes).
        shape: Shape of one input.

    Returns:
        The network's operations on inputs (B, *shape), for any B.

    Raises:
        InputError: If the model is not a torch module, cannot be traced, or has an operation that is not known to be
            piecewise affine.
    """
    if not isinstance(model, nn.Module):
        raise InputError("an exact count analyses the network's operations: it needs a torch module, not another callable")
    device, _ = device_and_dtype(model, torch.empty(0))
    network = _Logits(_copy(model))
    exported = _export(network, torch.zeros(2, *shape, dtype=torch.float64, device=device))
    constants, nodes = _constants(exported), _in_order(exported.graph)
    (input_node,) = (node for node in nodes if node.op == "placeholder" and node not in constants)
    (output_name,) = exported.graph_signature.user_outputs
    (output,) = (node for node in nodes if node.name == output_name)

    dependent: list[Node] = [input_node]
    operations: list[Operation] = []
    for node in nodes:
        if node.op != "call_function" or is_size(node) or operation_name(node).startswith("_assert"):
            continue
        if not any(used in dependent or is_size(used) for used in node.all_input_nodes):
            _refuse_random(node)
            constants[node] = call(node, constants, 0)
            continue
        operations.append(_operation(node, dependent, device))
        _check_result(node, input_node)
        dependent.append(node)
    if output not in dependent or output.meta["val"].dim() != 2:
        raise InputError("an exact count needs a network that returns logits (batch, classes) for inputs (batch, ...)")

    operations = _with_kept_values(operations, dependent, output)
    stages: list[list[Operation]] = [[]]
    for operation in operations:
        if not operation.affine:
            stages.append([])
        stages[-1].append(operation)
    sizes = [1, *(sum(map(number_of_values, {*operation.kept, operation.operand})) for operation in operations)]
    program = Program(stages, constants, input_node, output, device, max(sizes), network)
    _check_operations(program, torch.zeros(2, *shape, dtype=torch.float64, device=device))
    return program


def apply(program: Program, operation: Operation, values: Values) -> dict[Node, Any]:
    """Apply an operation to the values of P inputs.

    Args:
        program: The network.
        operation: One of its operations.
        values: The values that this and later operations use, (P, ...) each.

    Returns:
        The values that later operations use.
    """
    points = len(next(iter(values.values())))
    values = {**values, operation.node: call(operation.node, {**program.constants, **values}, points)}
    return {node: value for node, value in values.items() if node in operation.kept}


class _Logits(nn.Module):
    """A network that returns its logits as a tensor."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits (B, classes)."""
        return as_output(self.network(inputs))


def _check_operations(program: Program, batch: Tensor) -> None:
    """Apply all operations to a batch.

    Raises:
        InputError: If an operation fails, as with weights that are constants of the graph and remain in float32.
    """
    values: dict[Node, Any] = {program.input: batch}
    try:
        with torch.no_grad():
            for operation in program.operations:
                values = apply(program, operation, values)
    except RuntimeError as error:
        raise InputError(f"an exact count cannot evaluate the network in float64: {one_line(error)}") from error


def _copy(model: nn.Module) -> nn.Module:
    """Return a copy of a network in evaluation mode and float64.

    Raises:
        InputError: If the module cannot be copied.
    """
    try:
        return plain_copy(model).double()
    except Exception as error:
        raise InputError(f"an exact count cannot copy the network: {one_line(error)}") from error


def _export(model: nn.Module, batch: Tensor) -> torch.export.ExportedProgram:
    """Return a module exported with a free batch size.

    Raises:
        InputError: If the module cannot be traced, returns no logits, or changes a buffer.
    """
    logging.disable()  # the InputError gives the reason for a failure; torch also logs the graph
    try:
        with torch.no_grad(), warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            exported = torch.export.export(model, (batch,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
            exported = exported.run_decompositions({})  # replaces in-place operations
    except InputError:
        raise
    except Exception as error:  # tracing runs the model's own code, which may raise anything
        raise InputError(f"an exact count cannot trace the network; use method=auto ({one_line(error):.150})") from error
    finally:
        logging.disable(logging.NOTSET)
    if changed := exported.graph_signature.buffers_to_mutate:
        raise InputError(f"an exact count cannot follow the network: it changes the buffer {next(iter(changed.values()))}")
    return exported


def _in_order(graph: torch.fx.Graph) -> list[Node]:
    """Return the nodes, with the items of each tuple directly after it, so that the tuple need not be kept."""
    nodes = [node for node in graph.nodes if node.target is not getitem]
    return [later for node in nodes for later in (node, *(user for user in node.users if user.target is getitem))]


def _constants(exported: torch.export.ExportedProgram) -> dict[Node, Any]:
    """Return the parameters, buffers and constant tensors."""
    signature = exported.graph_signature
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    tensors: dict[str, Any] = {**exported.constants, **exported.state_dict}
    return {node: tensors[names[node.name]].detach() for node in exported.graph.nodes if node.name in names}


def _check_result(node: Node, input_node: Node) -> None:
    """Check the type and the shape of a node's result.

    Raises:
        InputError: If the result is not float64, or its first dimension is not the batch.
    """
    for value in tensors_of(node.meta["val"]):
        if value.numel() and value.dtype != torch.float64:
            raise InputError(
                f"an exact count cannot follow {operation_name(node)}: its result is {value.dtype}, not float64"
            )
        # Compared as symbols: a number of features that equals the batch size of the example is no batch dimension.
        if value.numel() and (not value.dim() or str(value.shape[0]) != str(input_node.meta["val"].shape[0])):
            raise InputError(f"an exact count cannot follow {operation_name(node)}: its result has no batch dimension")


def _operation(node: Node, dependent: list[Node], device: torch.device) -> Operation:
    """Return the operation of a node, given the nodes before it that depend on the input.

    Raises:
        InputError: If the operation is in no table.
    """
    name, arguments = operation_name(node), bound_arguments(node)
    _refuse_other_forms(node, name)
    first = arguments[0]
    operands = [leaf for leaf in arg_tree_leaves(*node.args, **node.kwargs) if isinstance(leaf, Node) and leaf in dependent]
    others_are_numbers = not any(isinstance(argument, Node) for argument in arguments[1:])
    if operands == [first] and name in THRESHOLDS and (others_are_numbers or name == "prelu"):
        return Operation(node, first, thresholds=THRESHOLDS[name](*arguments[1:]))
    if operands == [first] and name == "max_pool2d":
        return Operation(node, first, windows=_windows(node, device))
    if name in JOINTLY_AFFINE or (name in AFFINE and operands in ([], [first])) or (name in PRODUCTS and len(operands) == 1):
        return Operation(node, operands[0] if operands else node)
    is_known = name in {*AFFINE, *PRODUCTS, *THRESHOLDS, "max_pool2d"}
    reason = "which is not supported with these operands" if is_known else "which is not known to be piecewise linear"
    raise InputError(f"an exact count cannot follow the operation {name}, {reason}; method=auto supports any network")


def _windows(pool: Node, device: torch.device) -> Tensor:
    """Return the pixels of each pooling window; padding is replaced by a pixel of the window, which changes no maximum.

    Raises:
        InputError: If the pooling uses ceil_mode.
    """
    operand, kernel, stride, padding, dilation, ceil = bound_arguments(pool)
    if ceil:
        raise InputError("an exact count cannot follow max_pool2d with ceil_mode; method=auto supports any network")
    height, width = operand.meta["val"].shape[-2:]
    # Pixels are numbered from 1, because unfold pads with 0.
    pixels = torch.arange(1.0, height * width + 1, dtype=torch.float64, device=device).view(1, 1, height, width)
    windows = unfold(pixels, kernel, dilation, padding, stride or kernel)[0].T.long() - 1
    return torch.where(windows < 0, windows.amax(dim=1, keepdim=True), windows)


def _with_kept_values(operations: list[Operation], dependent: list[Node], output: Node) -> list[Operation]:
    """Return the operations, each with the values that later operations use."""
    kept, result = {output}, list[Operation]()
    for operation in reversed(operations):
        result.append(replace(operation, kept=frozenset(kept)))
        kept = kept - {operation.node} | {used for used in operation.node.all_input_nodes if used in dependent}
    return result[::-1]


def _refuse_other_forms(node: Node, name: str) -> None:
    """Refuse forms of an operation that are not affine, such as division with rounding or dropout in training mode.

    Raises:
        InputError: If the node has such a form.
    """
    for option in ("rounding_mode", "train", "training"):
        if value := option_of(node, option):
            raise InputError(f"an exact count cannot follow {name} with {option}={value}; method=auto supports any network")


def _refuse_random(node: Node) -> None:
    """Refuse an operation that draws random numbers: the traced network would use the same ones for ever.

    Raises:
        InputError: If the node has such an operation.
    """
    if torch.Tag.nondeterministic_seeded in getattr(function_of(node), "tags", ()):
        raise InputError(
            f"an exact count cannot follow {operation_name(node)}, which draws random numbers; "
            "remove it from the forward pass"
        )
