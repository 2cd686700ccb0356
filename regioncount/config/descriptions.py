"""Describe the options of the commands: their meaning, type, choices and limits, from the schemas and the registries.

Importing this module imports no torch.
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache, partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, cast, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from pydantic import PlainValidator
from pydantic.fields import FieldInfo

from regioncount import registry
from regioncount.config.schemas import MeasuringConfig, RunConfig, SweepOptions
from regioncount.options import options_model

SCHEMAS = {"train": RunConfig, "measure": MeasuringConfig, "sweep": RunConfig}
TABLES = {
    "dataset": registry.datasets,
    "model": registry.models,
    "optimizer": registry.optimizers,
    "schedule": registry.schedules,
    "regions": registry.subspaces,
}
NOT_OPTIONS = ("plugin_sources", "regions.subspaces", "name", "kind", "tracker.mode")  # set by files, or by other options
LIMITS = ((Ge, "ge", "at least"), (Gt, "gt", "above"), (Le, "le", "at most"), (Lt, "lt", "below"))
TYPES = {int: "integer", float: "number", list: "list", dict: "mapping"}
LARGEST_LIMIT = 2**53  # larger limits are those of the number's type


@dataclass(frozen=True)
class Description:
    """The description of an option."""

    meaning: str
    choices: tuple[str, ...] = ()
    limits: str = ""
    """The type and the limits of the value, such as "integer, at least 1"."""


def describe_options(config_name: str) -> dict[str, Description]:
    """Return the descriptions of a command's options, except those of parts, by their names on the command line.

    Args:
        config_name: "train", "measure" or "sweep".
    """
    described = dict(_describe(SCHEMAS[config_name]))
    if config_name == "sweep":
        described |= {f"sweep.{name}": option for name, option in _describe(SweepOptions)}
    if config_name == "measure":
        del described["batch_size"]  # that of the run
    for name, choices in (("augmentation", registry.augmentations.names()), ("measures", (*measure_names(), "all"))):
        if name in described:
            described[name] = Description(described[name].meaning, choices)
    return {name: option for name, option in described.items() if name not in NOT_OPTIONS}


def describe_parts(group: str) -> dict[str, dict[str, Description]]:
    """Return the descriptions of the options of each part of a group, such as those of each optimizer.

    Args:
        group: A key of `TABLES`.

    Returns:
        For each part, the descriptions by option, without the group's name.
    """
    table = TABLES[group]
    described = {name: dict(_describe(options_model(table[name]))) for name in table if table[name].plugin is None}
    return {part: {k: v for k, v in options.items() if k not in NOT_OPTIONS} for part, options in described.items()}


def choices_of(option: str) -> tuple[str, ...]:
    """Return the choices of an option of train or sweep; () if there is no such option, or if it has none."""
    group, _, name = option.rpartition(".")
    described = describe_options("sweep").get(option)
    parts = describe_parts(group.partition(".")[0]).values() if group.partition(".")[0] in TABLES else ()
    in_parts = next((options[name] for options in parts if name in options and options[name].choices), None)
    return (described or in_parts or Description("")).choices


@cache
def measure_names() -> tuple[str, ...]:
    """Return the names of the built-in measures, read from their sources: importing these would import torch."""
    names = []
    for module in ("regioncount.measures", "regioncount.runs.suite_measures"):
        origin = Path(cast(Any, find_spec(module)).origin)
        files = sorted(origin.parent.glob("*.py")) if origin.name == "__init__.py" else [origin]
        nodes = [node for file in files for node in ast.parse(file.read_text(encoding="utf-8")).body]
        for function in (node for node in nodes if isinstance(node, ast.FunctionDef)):
            for call in function.decorator_list:
                if isinstance(call, ast.Call) and getattr(call.func, "id", None) == "register_measure":
                    given = [word.value for word in call.keywords if word.arg == "name"]
                    names.append(given[0].value if given and isinstance(given[0], ast.Constant) else function.name)
    return tuple(cast("list[str]", sorted(names, key=lambda name: name != "accuracy")))


def _describe(schema: type) -> Iterator[tuple[str, Description]]:
    """Yield the name and the description of each field of a schema and of the dataclasses in it."""
    hints, docstrings = get_type_hints(schema, include_extras=True), _docstrings(schema)
    names = [f.name for f in fields(cast(Any, schema))] if is_dataclass(schema) else list(cast(Any, schema).model_fields)
    for name in names:
        inner = hints[name]
        if isinstance(inner, type) and is_dataclass(inner):
            yield from ((f"{name}.{option}", description) for option, description in _describe(inner))
        elif name not in ("dataset", "model", "optimizer", "schedule"):
            types, marks = _flatten(inner)
            given = next((mark.description for mark in marks if isinstance(mark, FieldInfo) and mark.description), "")
            yield name, Description(docstrings.get(name) or given, _choices(types, marks), _limits(types, marks))


def _docstrings(schema: type) -> dict[str, str]:
    """Return the docstring below each field of a class, also of inherited ones, as one line."""
    docstrings: dict[str, str] = {}
    for parent in reversed(schema.__mro__):
        if parent.__module__.startswith("regioncount."):
            docstrings |= _docstrings_in_module(parent.__module__).get(parent.__name__, {})
    return docstrings


@cache
def _docstrings_in_module(module: str) -> dict[str, dict[str, str]]:
    """Return the docstrings below the fields of each class of a module."""
    by_class: dict[str, dict[str, str]] = {}
    for node in ast.parse(Path(cast(Any, find_spec(module)).origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            docstrings = by_class.setdefault(node.name, {})
            for statement, following in pairwise(node.body):
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                    text = following.value if isinstance(following, ast.Expr) else None
                    words = str(text.value).split() if isinstance(text, ast.Constant) else []
                    docstrings[statement.target.id] = " ".join(words)
    return by_class


def _flatten(annotation: Any) -> tuple[list[Any], list[Any]]:
    """Return the plain types in an annotation, without None, and all metadata in it."""
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        types, inner_marks = _flatten(inner)
        return types, [*inner_marks, *marks]
    if get_origin(annotation) in (Literal, list, dict) or not get_args(annotation):
        return [annotation] * (annotation is not NoneType), []
    pairs = [_flatten(argument) for argument in get_args(annotation)]  # a union
    return [kind for types, _ in pairs for kind in types], [mark for _, marks in pairs for mark in marks]


def _choices(types: Sequence[Any], marks: Sequence[Any]) -> tuple[str, ...]:
    for mark in marks:
        if isinstance(mark, PlainValidator) and isinstance(mark.func, partial):
            return mark.func.keywords["choices"]
    literals = [str(choice) for kind in types if get_origin(kind) is Literal for choice in get_args(kind)]
    return tuple(literals) or (("true", "false") if bool in types else ())


def _limits(types: Sequence[Any], marks: Sequence[Any]) -> str:
    words = [TYPES[kind] for kind in (get_origin(kind) or kind for kind in types) if kind in TYPES]
    inner = [part for mark in marks for part in (mark.metadata if isinstance(mark, FieldInfo) else [mark])]
    for kind, attribute, word in LIMITS:
        limits = [getattr(part, attribute) for part in inner if isinstance(part, kind)]
        words += [f"{word} {limit:,}" for limit in limits if abs(limit) < LARGEST_LIMIT]
    return ", ".join(words)
