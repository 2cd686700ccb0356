"""Training steps on a GPU as a CUDA graph: the kernels of one step are recorded and then launched together.

The kernels of a small network's step take a GPU less time than a CPU needs to launch them one by one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# Calls before the one that is recorded: libraries choose kernels and take workspaces in the first ones.
WARM_UP = 3


def recorded(step: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    """What `step` does to tensors of always the same shapes, within `side_stream`, launched as one from the fourth call on.

    What it returns, and the gradients that the weights then hold, lie where the next call writes its own. A step that waits
    for the GPU cannot be recorded: RuntimeError.
    """
    calls, graph, given, results = 0, None, (), ()

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        nonlocal calls, graph, given, results
        calls += 1
        if calls <= WARM_UP:
            return step(*tensors)
        if graph is None:
            given, graph = [tensor.clone() for tensor in tensors], torch.cuda.CUDAGraph()
            # Other threads, which decode images and pin them, go on meanwhile.
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
                results = step(*given)
        for place, tensor in zip(given, tensors, strict=True):
            place.copy_(tensor)
        graph.replay()
        return results

    return call


@contextmanager
def side_stream(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Give work to this stream, after what the current one was given so far; None, on a CPU, changes nothing.

    Steps can be recorded here alone: autograd remembers the stream on which it first met a weight.
    """
    if stream is None:
        yield
        return
    before = torch.cuda.current_stream(stream.device)
    stream.wait_stream(before)
    with torch.cuda.stream(stream):
        yield
    before.wait_stream(stream)
