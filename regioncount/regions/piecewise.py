"""A network in evaluation mode as a list of operations, affine in what depends on the input, or affine in pieces.

The network is traced (`torch.export`), not hooked, so that no functional call goes unseen; an operation on what depends on
the input that is not on the lists below is refused by its name.
"""

import copy
import logging
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from operator import getitem

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.nn.functional import unfold
from torch.utils._pytree import arg_tree_leaves

from regioncount.errors import InputError, one_line
from regioncount.regions.evaluation import placement

# Affine in their first operand, where the others do not depend on the input; in several operands together; in either of two.
# None of them, where inputs lie along the first dimension of its result, makes one input depend on another.
AFFINE = """
    conv1d conv2d conv3d linear div neg alias clone contiguous detach dropout _native_batch_norm_legit_no_training batch_norm
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d mean sum view reshape
    _unsafe_view flatten unflatten squeeze unsqueeze transpose permute expand select slice narrow split split_with_sizes
    chunk unbind getitem constant_pad_nd pad pixel_shuffle channel_shuffle upsample_nearest2d upsample_bilinear2d zeros
    ones full zeros_like ones_like full_like to _to_copy
"""
JOINTLY_AFFINE = {"add", "sub", "rsub", "cat", "stack"}
PRODUCTS = {"mul", "matmul"}
# Affine between thresholds: these, from the arguments after the first.
THRESHOLDS = {
    "relu": lambda: (0.0,),
    "leaky_relu": lambda slope=None: (0.0,),
    "prelu": lambda slopes: (0.0,),
    "abs": lambda: (0.0,),
    "relu6": lambda: (0.0, 6.0),
    "hardtanh": lambda low=-1.0, high=1.0: (low, high),
    "clamp": lambda low=None, high=None: tuple(level for level in (low, high) if level is not None),
}


@dataclass(frozen=True)
class Operation:
    """One operation on values that depend on the input."""

    node: Node
    operand: Node
    thresholds: tuple[float, ...] = ()
    """between which it is affine in each value of its operand"""
    windows: Tensor | None = None
    """int64 (outputs, values), of a max pooling: which of an image's values each output is the largest of"""
    kept: frozenset[Node] = frozenset()
    """the values that operations after it take"""

    @property
    def affine(self) -> bool:
        return not self.thresholds and self.windows is None


@dataclass(frozen=True)
class Program:
    """A traced network: its operations in order, and all that they take besides the input."""

    stages: list[list[Operation]]
    """each but the first begins with an operation that is affine only in pieces; the others are affine"""
    constants: dict[Node, Tensor]
    input: Node
    output: Node
    device: torch.device
    width: int
    """the most values of one input that are kept at a time"""


def trace(model: nn.Module, shape: torch.Size) -> Program:
    """The operations of a network, copied in evaluation mode and float64, on inputs (B, *shape).

    Raises InputError where it is no torch module, cannot be traced, or has an operation that is neither affine nor affine
    in pieces in what depends on the input.
    """
    if not isinstance(model, nn.Module):
        raise InputError("an exact count looks into the network: a torch module is needed, not any callable")
    device, _ = placement(model, torch.empty(0))
    exported = _export(copy.deepcopy(model).double().eval(), torch.zeros(2, *shape, dtype=torch.float64, device=device))
    constants, nodes = _constants(exported), _in_order(exported.graph)
    (given,) = (node for node in nodes if node.op == "placeholder" and node not in constants)
    output = nodes[-1].args[0][-1]

    dependent, operations = [given], []
    for node in nodes:
        if node.op != "call_function" or _is_size(node) or operation_name(node).startswith("_assert"):
            continue
        if not any(used in dependent or _is_size(used) for used in node.all_input_nodes):
            constants[node] = call(node, constants, 0)
            continue
        operations.append(_operation(node, dependent, device))
        for value in _tensors(node.meta["val"]):
            if value.numel() and value.dtype != torch.float64:
                raise InputError(
                    f"an exact count cannot follow {operation_name(node)}: it gives {value.dtype}, and exact is in float64"
                )
            if value.numel() and (not value.dim() or value.shape[0] != given.meta["val"].shape[0]):
                raise InputError(
                    f"an exact count cannot follow {operation_name(node)}: what it gives does not keep inputs apart"
                )
        dependent.append(node)
    if output not in dependent or output.meta["val"].dim() != 2:
        raise InputError("an exact count needs a network that gives logits (batch, classes) for inputs (batch, ...)")

    kept = {output}
    for place, operation in reversed([*enumerate(operations)]):
        operations[place] = replace(operation, kept=frozenset(kept))
        kept = kept - {operation.node} | {used for used in operation.node.all_input_nodes if used in dependent}
    stages = [[]]
    for operation in operations:
        if not operation.affine:
            stages.append([])
        stages[-1].append(operation)
    width = max(sum(map(_size, {*operation.kept, operation.operand})) for operation in operations)
    return Program(stages, constants, given, output, device, width)


def apply(program: Program, operation: Operation, values: dict[Node, Tensor]) -> dict[Node, Tensor]:
    """Carry out an operation on the values of P inputs; returns those that are needed after it."""
    points = len(next(iter(values.values())))
    values = values | {operation.node: call(operation.node, program.constants | values, points)}
    return {node: value for node, value in values.items() if node in operation.kept}


def _export(model: nn.Module, batch: Tensor) -> torch.export.ExportedProgram:
    logging.disable()  # what is wrong is said here, in one line
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.export.export(model, (batch,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
            return exported.run_decompositions({})  # so that nothing is done in place
    except Exception as error:  # of any kind: the model's own code runs here
        raise InputError(f"an exact count cannot trace the network: {one_line(error)}") from error
    finally:
        logging.disable(logging.NOTSET)


def _in_order(graph: torch.fx.Graph) -> list[Node]:
    """The nodes, the parts of a tuple right after it: it is kept no longer."""
    nodes = [node for node in graph.nodes if node.target is not getitem]
    return [later for node in nodes for later in (node, *(user for user in node.users if user.target is getitem))]


def _constants(exported: torch.export.ExportedProgram) -> dict[Node, Tensor]:
    """Parameters, buffers and constant tensors."""
    of = exported.graph_signature
    names = {**of.inputs_to_parameters, **of.inputs_to_buffers, **of.inputs_to_lifted_tensor_constants}
    held = {**exported.constants, **exported.state_dict}
    return {node: held[names[node.name]].detach() for node in exported.graph.nodes if node.name in names}


def _operation(node: Node, dependent: list[Node], device: torch.device) -> Operation:
    """dependent: the values so far that depend on the input."""
    name, first = operation_name(node), node.args[0]
    taken = [used for used in arg_tree_leaves(*node.args, **node.kwargs) if isinstance(used, Node) and used in dependent]
    numbers = not any(isinstance(argument, Node) for argument in node.args[1:])
    if taken == [first] and name in THRESHOLDS and (numbers or name == "prelu"):
        return Operation(node, first, thresholds=THRESHOLDS[name](*node.args[1:]))
    if taken == [first] and name == "max_pool2d":
        return Operation(node, first, windows=_windows(node, device))
    if (
        name in JOINTLY_AFFINE
        or (name in AFFINE.split() and taken in ([], [first]))
        or (name in PRODUCTS and len(taken) == 1)
    ):
        return Operation(node, taken[0] if taken else node)
    known = name in {*AFFINE.split(), *PRODUCTS, *THRESHOLDS, "max_pool2d"}
    which = "of several values that depend on the input" if known else "which is not on its list of piecewise linear ones"
    raise InputError(f"an exact count cannot follow the operation {name}, {which}; method=auto takes any network")


def _windows(pool: Node, device: torch.device) -> Tensor:
    """Places outside the image stand for one inside: that changes no maximum."""
    kernel, stride, padding, dilation, ceil = (*pool.args[1:], *[[], 0, 1, False][len(pool.args) - 2 :])
    if ceil:
        raise InputError("an exact count cannot follow max_pool2d with ceil_mode; method=auto takes any network")
    height, width = pool.args[0].meta["val"].shape[-2:]
    places = torch.arange(1.0, height * width + 1, dtype=torch.float64, device=device).view(1, 1, height, width)
    windows = unfold(places, kernel, dilation, padding, stride or kernel)[0].T.long() - 1
    return torch.where(windows < 0, windows.amax(dim=1, keepdim=True), windows)


def call(node: Node, known: dict[Node, Tensor], points: int):
    """What an operation makes of known values, those that depend on the input being of so many points."""

    def value(argument):
        if isinstance(argument, list | tuple):
            return [value(part) for part in argument]
        if not isinstance(argument, Node):
            return argument
        return known[argument] if argument in known else _size_at(argument, points)

    return node.target(*map(value, node.args), **{name: value(argument) for name, argument in node.kwargs.items()})


def _is_size(node: Node) -> bool:
    return isinstance(node.meta.get("val"), torch.SymInt)


def _size_at(node: Node, points: int) -> int:
    """A number worked out from the batch's size."""
    if node.target is torch.ops.aten.sym_size.int:
        return points  # of what depends on the input, only the first size is not fixed
    return node.target(*(_size_at(part, points) if isinstance(part, Node) else part for part in node.args))


def operation_name(node: Node) -> str:
    schema = getattr(node.target, "_schema", None)
    return schema.name.rpartition("::")[2] if schema else node.target.__name__


def _tensors(value) -> Iterable[Tensor]:
    return value if isinstance(value, list | tuple) else [value]


def _size(node: Node) -> int:
    """Values of one input."""
    return sum(value[0].numel() for value in _tensors(node.meta["val"]) if value.numel())
