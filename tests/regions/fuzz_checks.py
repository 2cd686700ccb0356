"""Count a random classifier by every method and compare with the references."""

import copy
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from fuzz_planes import wrong_plane
from fuzz_reference import (
    allowed_labels,
    inputs_at,
    lattice,
    narrowest_region,
    one_at_a_time,
    possible_counts,
    together,
)
from torch import Tensor, nn

import regioncount as rc
from regioncount.regions import methods

SECONDS = 20  # a call that takes longer hangs
DENSE = 1001
COARSE_CELLS = 16  # of method=auto on lines


@dataclass
class Case:
    """A random classifier."""

    kind: str
    build: Callable[[], Callable[[Tensor], Any]]
    """Builds the model; the same one each time."""
    shape: tuple[int, ...]
    function: bool = True
    """Whether it returns one answer for each input."""
    reference: Callable[[], Callable[[Tensor], Any]] | None = None
    """Builds the function in float64, if it is not `build().double()`."""
    plain: Callable[[], nn.Module] | None = None
    """Builds the same function written plainly, for the measures."""
    dtype: torch.dtype = torch.float32
    scale: float = 2.0


@dataclass(frozen=True)
class Outcome:
    """What came of one call."""

    call: str
    result: str
    """equal, rounding, documented, refused or failure"""
    reason: str = ""


@dataclass
class References:
    """The labels that each simplex of a case may have."""

    points: list[tuple[int, ...]]
    allowed: list[list[set[int]]] = field(default_factory=list)


@contextmanager
def time_limit(seconds: int) -> Generator[None]:
    """Raise TimeoutError in code that takes longer."""

    def interrupt(*_: Any) -> None:
        raise TimeoutError(f"over {seconds} s")

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def vertices_of(case: Case, dimension: int, number: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return case.scale * torch.randn(number, dimension + 1, *case.shape, generator=generator)


def float64_model(case: Case) -> Callable[[Tensor], Any]:
    if case.reference:
        return case.reference()
    model = case.build()
    assert isinstance(model, nn.Module)
    return model.double().eval()


def logits_of(model: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
    def evaluate(inputs: Tensor) -> Tensor:
        output = model(inputs)
        return getattr(output, "logits", output)

    return evaluate


def references(case: Case, vertices: Tensor, resolution: int) -> References:
    """Evaluate the float64 copy at each lattice point alone."""
    exact_model, native = logits_of(float64_model(case)), logits_of(case.build())
    points = lattice(vertices.shape[1] - 1, resolution)
    result = References(points)
    for simplex in vertices:
        inputs = inputs_at(simplex, points, resolution)
        shift = 1e-6 * case.scale * torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0), dtype=inputs.dtype)
        exact = one_at_a_time(exact_model, inputs)
        moved = [together(exact_model, inputs + sign * shift) for sign in (-1, 1)]
        result.allowed.append(allowed_labels(exact, one_at_a_time(native, inputs.to(case.dtype)), moved))
    return result


def snapshot(model: Callable[[Tensor], Any], vertices: Tensor) -> list[Any]:
    """Return all that a count must leave as it was."""
    modules = [*model.modules()] if isinstance(model, nn.Module) else []
    state = copy.deepcopy(model.state_dict()) if modules else {}
    flags = [(getattr(module, "training", None), len(module._forward_pre_hooks), type(module)) for module in modules]
    switches = [torch.is_grad_enabled(), torch.get_float32_matmul_precision(), torch.get_default_dtype()]
    return [
        {name: (value.numpy().tobytes(), value.dtype) for name, value in state.items() if isinstance(value, Tensor)},
        [parameter.requires_grad for module in modules for parameter in module.parameters(recurse=False)],
        flags,
        vertices.clone().numpy().tobytes(),
        switches,
        torch.get_rng_state().numpy().tobytes(),
    ]


CHANGED = (
    "the state",
    "requires_grad",
    "training flags, hooks or classes",
    "the vertices",
    "a setting of torch",
    "the seed",
)


def attempt(case: Case, call: str, run: Callable[[Any, Tensor], Any], vertices: Tensor) -> Any:
    """Run a call on a fresh model: its result, or the Outcome of a refusal or a failure."""
    model = case.build()
    before = snapshot(model, vertices)
    result: Any
    try:
        with time_limit(SECONDS):
            result = run(model, vertices)
    except rc.InputError as error:
        result = Outcome(call, "failure" if "\n" in str(error) else "refused", str(error))
    except Exception as error:
        result = Outcome(call, "failure", f"{type(error).__name__}: {str(error)[:200]}")
    after = snapshot(model, vertices)
    changed = [what for what, one, other in zip(CHANGED, before, after, strict=True) if one != other]
    if changed and (case.function or changed != ["the seed"]):
        return Outcome(call, "failure", f"changes {', '.join(changed)}")
    undefined = isinstance(result, dict) and not any(map(np.isfinite, numbers_of(result)))
    if not case.function and not undefined and not isinstance(result, Outcome):
        return Outcome(call, "failure", "is counted, although it is not a function")
    return Outcome(call, "refused", "every measure is undefined") if undefined else result


def numbers_of(values: dict[str, Any]) -> list[float]:
    """Return the measures that are a property of the function: not those of its parameters alone."""
    return [value for name, value in values.items() if not (isinstance(value, str) or name.startswith("parameter_"))]


def check_lattice(case: Case, method: str, vertices: Tensor, resolution: int, expected: References | None) -> Outcome:
    """Compare the count of a lattice with the flood fill."""
    dimension = vertices.shape[1] - 1
    call = f"{method}, {dimension}-d"
    result = attempt(case, call, lambda m, v: rc.count_regions(m, v, resolution=resolution, method=method), vertices)
    if isinstance(result, Outcome):
        return result
    assert expected is not None
    outcome = Outcome(call, "equal")
    for counted, allowed in zip(result.counts, expected.allowed, strict=True):
        possible = possible_counts(allowed, expected.points)
        if possible is None or possible[0] < possible[1]:
            outcome = Outcome(call, "rounding")
        if possible is None or possible[0] <= counted <= possible[1]:
            continue
        missed = f"{counted} regions instead of {possible[0]} to {possible[1]}"
        labels = [min(labels) for labels in allowed]
        thin = dimension == 1 and narrowest_region(labels) <= -(-resolution // COARSE_CELLS)
        if result.method == "adaptive" and counted < possible[0] and (thin or dimension > 1):
            return Outcome(call, "documented", missed)
        return Outcome(call, "failure", missed)
    return outcome


def check_lines(case: Case, vertices: Tensor) -> list[Outcome]:
    """Compare exact intervals with the float64 model at their middles and on a dense lattice."""
    counts: dict[str, list[int]] = {}
    outcomes: list[Outcome] = []
    for method in methods.EXACT_METHODS:
        result = attempt(case, method, lambda m, v, method=method: rc.count_regions(m, v, method=method), vertices)
        if isinstance(result, Outcome):
            outcomes.append(result)
            continue
        counts[method] = result.counts.tolist()
        model = logits_of(float64_model(case))
        reasons = [_check_line(model, vertices[line], result, line) for line in range(len(vertices))]
        reason = next((reason for reason in reasons if reason), "")
        outcomes.append(Outcome(method, "failure" if reason else "equal", reason))
    if len(counts) == 2 and counts["exact"] != counts["bounds"]:
        outcomes.append(Outcome("bounds", "failure", f"{counts['bounds']} regions, exact {counts['exact']}"))
    return outcomes


def _check_line(model: Callable[[Tensor], Tensor], line: Tensor, result: Any, index: int) -> str:
    """Return what is wrong with the exact intervals of one line, or nothing."""
    intervals = result.exact
    on_line = intervals.line == index
    start, stop, label = intervals.start[on_line], intervals.stop[on_line], intervals.label[on_line]
    if start[0] != 0 or stop[-1] != 1 or (start[1:] != stop[:-1]).any() or (label[1:] == label[:-1]).any():
        return "the intervals do not cover the line"
    if len(label) != result.counts[index]:
        return "the count is not the number of intervals"
    entropy = -((stop - start) * np.log(stop - start)).sum()
    if abs(entropy - result.entropies[index]) > 1e-9:
        return "the entropy is not that of the intervals"
    middles = (start + stop) / 2
    for positions, needed in ((middles, label), (np.linspace(0, 1, DENSE), None)):
        weights = torch.from_numpy(positions).view(-1, *[1] * (line.dim() - 1))
        inputs = (1 - weights) * line[0].double() + weights * line[1].double()
        outputs = one_at_a_time(model, inputs) if needed is not None else together(model, inputs)
        claimed = needed if needed is not None else label[np.searchsorted(stop, positions).clip(max=len(label) - 1)]
        finite = outputs.values[outputs.values.isfinite()]
        tolerance = 1e-9 * float(finite.abs().max())
        lead = outputs.values.amax(1) - outputs.values[range(len(claimed)), claimed.tolist()]
        if (lead > tolerance).any():
            worst = int(lead.argmax())
            return f"the label at {positions[worst]} is {outputs.labels[worst]}, not {claimed[worst]}"
    return ""


def check_triangle(case: Case, triangle: Tensor) -> list[Outcome]:
    """Compare exact polygons with the float64 model at their centroids, at random points, and by their connections."""
    result = attempt(case, "exact, 2-d", lambda m, v: rc.count_regions(m, v, method="exact"), triangle)
    if isinstance(result, Outcome):
        return [result]
    reason = wrong_plane(logits_of(float64_model(case)), triangle[0], result.exact[0])
    return [Outcome("exact, 2-d", "failure" if reason else "equal", reason)]


def check(
    case: Case, seed: int, traced: bool = True, resolution: int | None = None, triangle_resolution: int = 8, number: int = 2
) -> list[Outcome]:
    """Count a case by every method, on lines and in triangles.

    Args:
        case: The classifier.
        seed: Seed of the vertices.
        traced: Whether to use the exact methods, whose traces take most of the time.
        resolution: Points of a line; by default it depends on the seed.
        triangle_resolution: Points along an edge of a triangle.
        number: Lines, and triangles.
    """
    outcomes: list[Outcome] = []
    for dimension in (1, 2):
        vertices = vertices_of(case, dimension, number, seed)
        points = (resolution or [200, 100, 40][seed % 3]) if dimension == 1 else triangle_resolution
        expected = references(case, vertices, points) if case.function else None
        outcomes += [check_lattice(case, method, vertices, points, expected) for method in methods.LATTICE_METHODS]
        if traced:
            outcomes += check_lines(case, vertices) if dimension == 1 else check_triangle(case, vertices[:1])
    return outcomes
