"""CUDA graphs of training steps: the kernels of one step are captured once and then launched together.

A GPU runs the kernels of a small network's step faster than a CPU can launch them one by one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

Results = TypeVar("Results", bound=tuple[Tensor, ...])

# Calls before the capture, in which libraries choose their kernels and allocate workspaces.
WARM_UP = 3


def capture_cuda_graph(step: Callable[..., Results]) -> Callable[..., Results]:
    """Replay a function of tensors as one CUDA graph from its fourth call on.

    Args:
        step: The function. The shapes of its arguments must not change. It must not wait for the GPU, or the capture
            raises a RuntimeError.

    Returns:
        A function with the same arguments and results, to be called inside `side_stream`. Each replay overwrites the
        results and the gradients of the previous one.
    """
    calls = 0
    graph: torch.cuda.CUDAGraph | None = None
    static_inputs: list[Tensor] = []
    results: Results

    def call(*inputs: Tensor) -> Results:
        nonlocal calls, graph, static_inputs, results
        calls += 1
        if calls <= WARM_UP:
            return step(*inputs)
        if graph is None:
            static_inputs, graph = [tensor.clone() for tensor in inputs], torch.cuda.CUDAGraph()
            # "thread_local": other threads, which decode and pin images, may call CUDA during the capture.
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
                results = step(*static_inputs)
        for static_input, tensor in zip(static_inputs, inputs, strict=True):
            static_input.copy_(tensor)
        graph.replay()
        return results

    return call


@contextmanager
def side_stream(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Run the block on a CUDA stream, ordered after earlier and before later work on the current stream.

    A training step can be captured only on a stream other than the default one. The calls before the capture must use it
    too, because autograd accumulates the gradient of a weight on the stream that first used the weight.

    Args:
        stream: The stream. None, for training on a CPU, has no effect.
    """
    if stream is None:
        yield
        return
    current = torch.cuda.current_stream(stream.device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        yield
    current.wait_stream(stream)
