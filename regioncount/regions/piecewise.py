"""A network in evaluation mode as a list of affine and piecewise affine operations on its input.

The network is traced with `torch.export` rather than with hooks, which would miss functional calls. An operation that
depends on the input and is not in the tables of `regioncount.regions.operations` raises an error that names it. Every
operation is also tried on a few inputs, so that an error in the tables, or an argument that they overlook, is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.utils._pytree import tree_map

from regioncount.errors import InputError, one_line
from regioncount.regions.evaluation import Model, device_and_dtype, float64_device
from regioncount.regions.exporting import constants_of, export, float64_copy, live_nodes, logits_of
from regioncount.regions.maxima import returns_indices
from regioncount.regions.nodes import Values, call, function_of, is_size, number_of_values, operation_name, tensors_of
from regioncount.regions.operations import Kind, Operation, operation_of

# Results of an affine operation that should be equal may differ by this fraction of the largest value: rounding in float64.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Program:
    """A traced network: its operations in order, and the constants that they use."""

    stages: list[list[Operation]]
    """Operations in order. Each stage but the first begins with a piecewise affine operation; all others are affine."""
    constants: dict[Node, Any]
    """Parameters, buffers, and values that do not depend on the input or the batch size."""
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

    @property
    def steps(self) -> frozenset[Node]:
        """The values that depend on the input and are constant on each piece."""
        return frozenset(operation.node for operation in self.operations if operation.kind == "step")

    @property
    def comparison(self) -> str | None:
        """Name of the first comparison, whose result jumps; None if all values are continuous."""
        return next((operation_name(operation.node) for operation in self.operations if operation.compared), None)


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
    device = float64_device(device_and_dtype(model, torch.empty(0))[0])
    network = float64_copy(model)
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(2, *shape, dtype=torch.float64, generator=generator).to(device)
    exported = export(network, torch.zeros_like(batch))
    constants, output = constants_of(exported), logits_of(exported)
    (input_node,) = (node for node in exported.graph.nodes if node.op == "placeholder" and node not in constants)

    kinds: dict[Node, Kind] = {input_node: "affine"}
    operations: list[Operation] = []
    for node in live_nodes(exported, output):
        if node.op != "call_function" or is_size(node) or operation_name(node).startswith("_assert"):
            continue
        if any(used in kinds for used in node.all_input_nodes):
            kinds[node] = "affine"
            if not returns_indices(node):  # else, the operation is the item of the tuple
                operations.append(operation_of(node, kinds, device))
                kinds[node] = operations[-1].kind
                _check_result(node, input_node, kinds[node])
            continue
        _refuse_random(node)
        if node is output:  # logits that do not depend on the input
            operations.append(Operation(node, (), "step"))
            _check_result(node, input_node, "affine")
        elif all(used in constants for used in node.all_input_nodes):  # else, it depends on the batch size
            constants[node] = call(node, constants, 0)
    is_last = output in kinds or (operations and operations[-1].node is output)
    if not is_last or output.meta["val"].dim() != 2:
        raise InputError("an exact count needs a network that returns logits (batch, classes) for inputs (batch, ...)")

    operations = _with_kept_values(operations, output)
    stages: list[list[Operation]] = [[]]
    for operation in operations:
        if not operation.is_affine:
            stages.append([])
        stages[-1].append(operation)
    sizes = [1, *map(_values_in_memory, operations)]
    program = Program(stages, constants, input_node, output, device, max(sizes), network)
    _try_operations(program, batch)
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
    points = len(next(tensor for value in values.values() for tensor in tensors_of(value)))
    values = {**values, operation.node: call(operation.node, {**program.constants, **values}, points)}
    return {node: value for node, value in values.items() if node in operation.kept}


def _values_in_memory(operation: Operation) -> int:
    """Return the number of values for one input that are in memory during an operation."""
    values = sum(map(number_of_values, {*operation.kept, *operation.operands}))
    if operation.maximum is None:
        return values
    windows = operation.maximum.windows
    return values + (2 * number_of_values(operation.node) if windows is None else windows.numel())


def _with_kept_values(operations: list[Operation], output: Node) -> list[Operation]:
    """Return the operations, each with the values that later operations use."""
    kept, result = {output}, list[Operation]()
    for operation in reversed(operations):
        result.append(replace(operation, kept=frozenset(kept)))
        kept = kept - {operation.node} | {*operation.operands}
    return result[::-1]


def _check_result(node: Node, input_node: Node, kind: Kind) -> None:
    """Check the type and the shape of a node's result.

    Raises:
        InputError: If the result is not float64 (of any type, if it is constant on each piece), or its first dimension is
            not the batch.
    """
    for value in tensors_of(node.meta["val"]):
        if value.numel() and value.dtype != torch.float64 and kind == "affine":
            raise InputError(
                f"an exact count cannot follow {operation_name(node)}: its result is {value.dtype}, not float64"
            )
        # Compared as symbols: a number of features that equals the batch size of the example is no batch dimension.
        if value.numel() and (not value.dim() or str(value.shape[0]) != str(input_node.meta["val"].shape[0])):
            raise InputError(f"an exact count cannot follow {operation_name(node)}: its result has no batch dimension")


def _try_operations(program: Program, batch: Tensor) -> None:
    """Apply each operation to the values of two inputs and to their mean, and check that it is affine if it should be.

    Args:
        program: The network.
        batch: Two inputs.

    Raises:
        InputError: If an operation fails, as with weights that are constants of the graph and remain in float32; if it is
            not affine; or if its result for an input depends on the others.
    """
    steps = program.steps
    values: dict[Node, Any] = {program.input: batch}
    try:
        with torch.no_grad():
            for operation in program.operations:
                operands = {
                    operand: tree_map(_first if operand in steps else _first_second_mean_first, values[operand])
                    for operand in operation.operands
                }
                result = call(operation.node, {**program.constants, **operands}, 4)
                scale = max(map(_largest, [*operands.values(), result]))
                for rows in tensors_of(result):
                    _check_rows(operation, rows.double(), TOLERANCE * scale)
                values = apply(program, operation, values)
    except RuntimeError as error:
        raise InputError(f"an exact count cannot evaluate the network in float64: {one_line(error)}") from error


def _first(values: Tensor) -> Tensor:
    """Return the values of the first input, four times."""
    return values[:1].repeat_interleave(4, dim=0)


def _first_second_mean_first(values: Tensor) -> Tensor:
    """Return the values of the first and the second input, their mean, and those of the first input again."""
    if not values.numel():  # as in the tuple that batch normalization returns
        return values
    first, second = values
    return torch.stack([first, second, (first + second) / 2, first])


def _largest(values: Any) -> float:
    """Return the largest finite absolute value in a tensor or a list of tensors."""
    finite = [tensor[tensor.isfinite()].double().abs() for tensor in tensors_of(values)]
    return max((float(tensor.max()) for tensor in finite if tensor.numel()), default=0.0)


def _check_rows(operation: Operation, rows: Tensor, tolerance: float) -> None:
    """Check an operation's result for two inputs, their mean, and the first input again."""
    if not rows.numel():
        return
    name = operation_name(operation.node)
    first, second, middle, again = rows
    if not torch.allclose(first, again, rtol=0, atol=tolerance, equal_nan=True):
        raise InputError(f"an exact count cannot follow {name}: its result for an input depends on the other inputs")
    mean = torch.where(first == second, first, (first + second) / 2)
    if operation.is_affine and not torch.allclose(mean, middle, rtol=0, atol=tolerance, equal_nan=True):
        raise InputError(f"an exact count cannot follow {name}: it is not affine; method=auto supports any network")


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
