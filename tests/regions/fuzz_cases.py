"""Random classifiers by seed."""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from awkward_models import FUNCTIONS, IMAGES, REFUSED, Builder, base
from fuzz_checks import Case
from random_graphs import Shape, Source, random_graph
from torch import Tensor, nn

GRAPH_SHARE = 0.5
SHAPES: list[Shape] = [(6,), (5,), (1, 6, 6), (2, 5, 4), (3, 4, 4)]

# Callables that are no modules: what they make of a network in evaluation mode, and whether it is a function.
WRAPPED: dict[str, tuple[Callable[[nn.Module, Tensor], Any], bool]] = {
    "a lambda": (lambda model, inputs: model(inputs), True),
    "labels by a lambda": (lambda model, inputs: model(inputs).argmax(1), True),
    "large labels by a lambda": (lambda model, inputs: model(inputs).argmax(1).cpu().numpy().astype("uint64") + 2**31, True),
    "negative labels by a lambda": (lambda model, inputs: -model(inputs).argmax(1) * 2**61, True),
    "a list of labels by a lambda": (lambda model, inputs: model(inputs).argmax(1).tolist(), True),
    "random labels by a lambda": (lambda model, inputs: torch.randint(3, (len(inputs),)), False),
    "labels of a batch by a lambda": (lambda model, inputs: (model(inputs) - model(inputs).mean(0)).argmax(1), False),
    "a lambda in training mode": (lambda model, inputs: model.train()(inputs), False),
}


def seeded(build: Callable[[random.Random], Any], seed: int) -> Any:
    """Build the same model each time, without a change of the global seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(Source(seed))


def graph(shape: Shape, others: bool, r: random.Random) -> nn.Module:
    assert isinstance(r, Source)
    r.others = others
    return random_graph(r, shape)


def module(builder: Builder, shape: Shape, r: random.Random) -> nn.Module:
    return builder(r, shape).eval()


def wrapped(kind: str, shape: Shape, double: bool, r: random.Random) -> Callable[[Tensor], Any]:
    model = base(r, shape, nn.BatchNorm1d(8)).eval()
    return partial(WRAPPED[kind][0], model.double() if double else model)


def make_case(seed: int) -> Case:
    """Return the random classifier of a seed."""
    r = random.Random(f"case {seed}")
    shape = r.choice(SHAPES)
    dtype = torch.float64 if r.random() < 0.1 else torch.float32
    if r.random() < GRAPH_SHARE:
        others = r.random() < 0.3
        kind = "graph with other operations" if others else "graph"
        case = Case(kind, partial(seeded, partial(graph, shape, others), seed), shape)
    else:
        kind = r.choice([*FUNCTIONS, *IMAGES, *REFUSED, *WRAPPED])
        if kind in IMAGES:
            shape = r.choice([shape for shape in SHAPES if len(shape) == 3])
        if kind in WRAPPED:
            build, reference = (partial(seeded, partial(wrapped, kind, shape, double), seed) for double in (False, True))
            return Case(kind, build, shape, WRAPPED[kind][1], reference)
        builder = {**FUNCTIONS, **IMAGES, **REFUSED}[kind]
        case = Case(kind, partial(seeded, partial(module, builder, shape), seed), shape, function=kind not in REFUSED)
    case.scale = r.choice([1.0, 2.0, 5.0])
    if dtype == torch.float64:
        single = case.build
        case.build = lambda: single().double()
        case.dtype = dtype
    return case
