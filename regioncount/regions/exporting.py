"""Export of a network by `torch.export`: a graph of operations, its constants, and the node of its logits."""

import functools
import io
import logging
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from operator import getitem
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.nn.functional import leaky_relu

from regioncount.errors import InputError, one_line
from regioncount.regions.copies import plain_copy
from regioncount.regions.nodes import bound_arguments, operation_name
from regioncount.regions.outputs import as_output

# Operations at the end of a network that keep the order of the logits.
SOFTMAXES = frozenset({"softmax", "log_softmax", "_softmax", "_log_softmax"})
# Other names of supported operations, and products and joins that torch defines by them.
ALIASES = frozenset(
    """
    absolute atleast_1d atleast_2d atleast_3d broadcast_tensors clip column_stack concatenate cumulative_trapezoid divide
    dstack ger greater greater_equal inner less less_equal linalg_matmul linalg_vecdot meshgrid negative not_equal outer
    row_stack subtract sum_to_size trapezoid
    """.split()  # noqa: SIM905
)
COPIES = frozenset({"alias", "clone", "contiguous", "detach"})


class Logits(nn.Module):
    """A network that returns its logits as a tensor."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits (B, classes)."""
        return as_output(self.network(inputs))


def float64_copy(model: nn.Module) -> Logits:
    """Return a copy of a network in evaluation mode and float64.

    Args:
        model: The network.

    Returns:
        The copy, which returns logits (B, classes).

    Raises:
        InputError: If the module cannot be copied.
    """
    try:
        copy = plain_copy(model)
        on_mps = any(parameter.device.type == "mps" for parameter in copy.parameters())  # MPS has no float64
        return Logits((copy.cpu() if on_mps else copy).double())
    except Exception as error:
        raise InputError(f"an exact count cannot copy the network: {one_line(error)}") from error


def export(network: nn.Module, batch: Tensor) -> torch.export.ExportedProgram:
    """Export a network with a free batch size.

    Args:
        network: The network.
        batch: An example of its inputs.

    Returns:
        The exported network, without in-place operations.

    Raises:
        InputError: If the module cannot be traced, returns no logits, or changes a buffer.
    """
    logging.disable()  # the InputError gives the reason for a failure; torch also logs the graph
    try:
        with torch.no_grad(), warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            exported = torch.export.export(network, (batch,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
            exported = exported.run_decompositions(_decompositions())  # also replaces in-place operations
    except InputError:
        raise
    except Exception as error:  # tracing runs the model's own code, which may raise anything
        raise InputError(f"an exact count cannot trace the network; use method=auto ({one_line(error, 150)})") from error
    finally:
        logging.disable(logging.NOTSET)
    if changed := exported.graph_signature.buffers_to_mutate:
        raise InputError(f"an exact count cannot follow the network: it changes the buffer {next(iter(changed.values()))}")
    return exported


def constants_of(exported: torch.export.ExportedProgram) -> dict[Node, Any]:
    """Return the parameters, buffers and constant tensors of an exported network."""
    signature = exported.graph_signature
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    tensors: dict[str, Any] = {**exported.constants, **exported.state_dict}
    return {node: tensors[names[node.name]].detach() for node in exported.graph.nodes if node.name in names}


def logits_of(exported: torch.export.ExportedProgram) -> Node:
    """Return the node of the logits; a softmax or log-softmax over the classes at the end is left out.

    Both are increasing, so the label is the same. They are computed with rounding, so that float32 probabilities may tie
    where logits do not; the labels here are those of the logits.
    """
    (name,) = exported.graph_signature.user_outputs
    (output,) = (node for node in exported.graph.nodes if node.name == name)
    while output.op == "call_function" and output.meta["val"].dim() == 2:
        arguments = bound_arguments(output)
        is_softmax = operation_name(output) in SOFTMAXES and arguments[1] in {1, -1}
        same_type = is_softmax and output.meta["val"].dtype == arguments[0].meta["val"].dtype
        if not (same_type or operation_name(output) in COPIES):
            break
        output = arguments[0]
    return output


def live_nodes(exported: torch.export.ExportedProgram, output: Node) -> list[Node]:
    """Return the nodes that a node depends on, in order.

    The items of a tuple come directly after it, so that the tuple need not be kept.
    """
    live, stack = {output}, [output]
    while stack:
        new = [used for used in stack.pop().all_input_nodes if used not in live]
        live.update(new)
        stack += new
    nodes = [node for node in exported.graph.nodes if node.target is not getitem]
    ordered = [later for node in nodes for later in (node, *(user for user in node.users if user.target is getitem))]
    return [node for node in ordered if node in live]


@functools.cache
def _decompositions() -> dict[Any, Callable[..., Any]]:
    """Return operations that are replaced by simpler ones in the graph."""
    aten = torch.ops.aten
    of_torch = torch.export.default_decompositions()
    names = [getattr(aten, name) for name in sorted(ALIASES)]
    overloads = [getattr(operation, overload) for operation in names for overload in operation.overloads()]
    aliases = {overload: of_torch[overload] for overload in overloads if overload in of_torch}

    def clamp(values: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        values = values if low is None else torch.maximum(values, low)
        return values if high is None else torch.minimum(values, high)

    def lerp(first: Tensor, last: Tensor, weight: Any) -> Tensor:
        return first + weight * (last - first)

    def addcmul(summand: Tensor, first: Tensor, second: Tensor, value: float = 1) -> Tensor:
        return summand + value * (first * second)

    def addmm(summand: Tensor, first: Tensor, second: Tensor, beta: float = 1, alpha: float = 1) -> Tensor:
        return beta * summand + alpha * (first @ second)

    def threshold(values: Tensor, level: float, below: float) -> Tensor:
        return values.clamp_min(level) if level == below else torch.where(values > level, values, below)

    def rrelu(values: Tensor, low: float = 1 / 8, high: float = 1 / 3, training: bool = False, _: Any = None) -> Tensor:
        if training:
            raise InputError("an exact count cannot follow rrelu in training mode, which draws random numbers")
        return leaky_relu(values, (low + high) / 2)

    def aminmax(values: Tensor, dim: int | None = None, keepdim: bool = False) -> tuple[Tensor, Tensor]:
        dims: Sequence[int] = [] if dim is None else [dim]
        return values.amin(dims, keepdim), values.amax(dims, keepdim)

    def new_full(values: Tensor, size: Sequence[int], value: float, **options: Any) -> Tensor:
        return torch.full(size, value, dtype=options.get("dtype") or values.dtype, device=values.device)

    def full_like(values: Tensor, value: float, **options: Any) -> Tensor:
        """Return a tensor that needs only the shape of the other one, so that it is no function of the network's input."""
        return new_full(values, values.shape, value, **options)

    return {
        **aliases,
        aten.full_like.default: full_like,
        aten.zeros_like.default: lambda values, **options: full_like(values, 0, **options),
        aten.ones_like.default: lambda values, **options: full_like(values, 1, **options),
        aten.new_full.default: new_full,
        aten.new_zeros.default: lambda values, size, **options: new_full(values, size, 0, **options),
        aten.new_ones.default: lambda values, size, **options: new_full(values, size, 1, **options),
        aten.clamp.Tensor: clamp,
        aten.clamp_min.Tensor: clamp,
        aten.clamp_max.Tensor: lambda values, high: clamp(values, None, high),
        aten.max.other: torch.maximum,
        aten.min.other: torch.minimum,
        aten.fmax.default: torch.maximum,  # they differ for NaN alone
        aten.fmin.default: torch.minimum,
        aten.lerp.Scalar: lerp,
        aten.lerp.Tensor: lerp,
        aten.addcmul.default: addcmul,
        aten.addmm.default: addmm,
        aten.baddbmm.default: addmm,
        aten.threshold.default: threshold,
        aten.rrelu.default: rrelu,
        aten.aminmax.default: aminmax,
    }
