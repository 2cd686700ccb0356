"""Convert composed and recorded configurations to plain values, and plain values to checked dataclasses."""

import functools
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, cast, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from regioncount.errors import InputError
from regioncount.options import abbreviate, describe_error

MAX_LEVELS = 20  # of nested mappings and lists; our configurations have four

Schema = TypeVar("Schema")


def plain(composed: DictConfig | Mapping[str, Any], group: str = "") -> dict[str, Any]:
    """Return a configuration as a dictionary of dictionaries, lists and values.

    Args:
        composed: The configuration as Hydra composed it, whose interpolations are resolved, or plain data, in which
            strings that look like interpolations are rejected.
        group: Its name on the command line, for messages.

    Raises:
        InputError: A value is missing, the configuration is not a mapping, or an interpolation is rejected or fails.
    """
    if isinstance(composed, DictConfig):
        try:
            container = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            raise InputError(_first_line(error, group)) from error
    else:
        container = composed
    if not isinstance(container, Mapping):
        raise InputError(f"{group or 'the configuration'}={abbreviate(container)}: give a mapping of options")
    return cast("dict[str, Any]", _copy(container, group))


def named_part(options: object, group: str) -> dict[str, Any]:
    """Return a group's options without those that are None, with its name; that of a `_target_` is its last part.

    Raises:
        InputError: They are no mapping or have no name, or another name than the `_target_`.
    """
    if not isinstance(options, Mapping):
        raise InputError(f"{group}={abbreviate(options)}: give a mapping of options")
    named = {key: value for key, value in options.items() if value is not None}
    if isinstance(target := named.get("_target_"), str):
        attribute = target.rpartition(".")[2]
        if named.setdefault("name", attribute) != attribute:
            raise InputError(f"{group}.name={abbreviate(named['name'])}: the name is that of {group}._target_; omit it")
    if not isinstance(named.get("name"), str):
        raise InputError(f"{group}.name is missing: choose a file of configs/{group} with {group}=NAME")
    return named


def import_advice(group: str, target: object) -> str:
    """Return the message for a recorded `_target_` whose module is not among the plugins."""
    return f"{group}._target_={abbreviate(target)}: pass plugins=[{abbreviate(str(target).rpartition('.')[0])}] to import it"


def validate(schema: type[Schema], mapping: Mapping[str, Any], group: str = "") -> Schema:
    """Return options as an instance of a schema.

    Args:
        schema: A dataclass whose fields have pydantic's types.
        mapping: The options by name.
        group: The prefix of the options on the command line, for messages.

    Raises:
        InputError: An option is unknown, missing or invalid; the message names the first one.
    """
    try:
        return _adapter(schema).validate_python(mapping)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    path = [group] * bool(group) + [str(part) for part in first["loc"] if part not in ("subspaces", "[key]")]
    if isinstance(first["loc"][-1], int):  # in a list
        path.pop()
    name = abbreviate(".".join(path))
    if first["type"] == "unexpected_keyword_argument":
        names = ", ".join(option.name for option in fields(cast(Any, _schema_at(schema, first["loc"][:-1]))))
        raise InputError(f"{name}: no such option; the options are {names}")
    if first["type"] == "missing":
        raise InputError(f"{name} is missing: give a whole number")  # batch_size or epochs: no other option is required
    raise InputError(f"{name}={abbreviate(first['input'])}: {describe_error(first)}")


def parse_duration(text: str) -> float:
    """Return a duration such as 90s, 20m, 8h or 2d in seconds.

    Raises:
        InputError: The text is not a duration.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if match is None:
        raise InputError(f"sweep.time_budget={text}: give a number and a unit, such as 90s, 20m or 8h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def _copy(value: Any, name: str, level: int = 0) -> Any:
    """Copy nested values, with mappings as dictionaries and tuples as lists; raise InputError for an interpolation."""
    if isinstance(value, str) and ("${" in value or value == "???"):
        raise InputError(f"{name}={abbreviate(value)}: interpolations are allowed on the command line only")
    if not isinstance(value, (Mapping, list, tuple)):
        return value
    if level > MAX_LEVELS:
        raise InputError(f"{abbreviate(name)}: options are nested more than {MAX_LEVELS} levels deep")
    if isinstance(value, Mapping):
        return {key: _copy(item, f"{name}.{key}" if name else str(key), level + 1) for key, item in value.items()}
    return [_copy(item, name, level + 1) for item in value]


@functools.cache
def _adapter(schema: type[Schema]) -> TypeAdapter[Schema]:
    return TypeAdapter(schema)


def _schema_at(schema: type, location: tuple[str | int, ...]) -> type:
    """Return the dataclass at a location inside a schema."""
    for part in location:
        inner = get_type_hints(schema).get(str(part))
        if not (isinstance(inner, type) and is_dataclass(inner)):
            break
        schema = inner
    return schema


def _first_line(error: OmegaConfBaseException, group: str) -> str:
    """Return the first line of OmegaConf's message, after the option's name."""
    message = str(getattr(error, "msg", None) or error).strip().splitlines()[0]
    key = str(getattr(error, "full_key", "") or group)
    return f"{key}: {message}" if key and not message.startswith(key) else message
