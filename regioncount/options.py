"""Options of parts: the types their values may have, and the one line that names a wrong one.

A part's options are a pydantic model derived from `Options`. Values from the command line arrive as numbers, texts or
booleans, depending on how they were written, so each type accepts what can only mean one value and refuses the rest: a whole
number may be written "7", but not 7.0 or true.
"""

import inspect
import math
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from numbers import Integral
from numbers import Real as RealNumber
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, create_model
from pydantic_core import ErrorDetails, PydanticCustomError

from regioncount.errors import InputError
from regioncount.registry import Entry, resolve, unknown_choice

# Arguments of factories that are no options: the data's properties, and what an optimizer or schedule works on.
PASSED_BY_THE_SUITE = frozenset(
    {"num_classes", "in_channels", "image_size", "params", "lr", "weight_decay", "optimizer", "epochs", "options"}
)

_WORDS = {"true": True, "yes": True, "y": True, "on": True, "false": False, "no": False, "n": False, "off": False}


def _whole(value: object) -> int:
    if type(value) is int:
        return value
    try:
        return int(value if isinstance(value, str) else "no")  # neither 3.5 nor true
    except ValueError:
        raise wrong_value("give a whole number") from None


def _real(value: object) -> float:
    try:
        number = float(value if isinstance(value, (float, int, str)) and not isinstance(value, bool) else "no")
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise wrong_value("give a number")
    return number


def _text(value: object) -> str:
    if isinstance(value, (str, int, float, os.PathLike)):
        return str(value)  # dataset.root=2024 arrives as a number
    raise wrong_value("give a text")


def _flag(value: object) -> bool:
    word = _WORDS.get(value.lower(), value) if isinstance(value, str) else value
    try:
        return word if isinstance(word, bool) else bool(_whole(word))
    except PydanticCustomError:
        raise wrong_value("give true or false") from None


def _number(value: object) -> float:
    """Return a number that is written as one: in a group of options that depend on a name, a text is no number."""
    if isinstance(value, bool) or not isinstance(value, RealNumber):
        raise wrong_value("give a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise wrong_value("give a number")
    return number


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise wrong_value("give a whole number")
    return int(value)


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise wrong_value("give a name")
    return value


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise wrong_value("give true or false")
    return value


def wrong_value(what_to_give: str) -> PydanticCustomError:
    """Return the error that a validator raises; the message says what to give instead."""
    return PydanticCustomError("option", what_to_give)  # type: ignore[arg-type]  # the stub asks for a literal


Whole = Annotated[int, PlainValidator(_whole)]
Real = Annotated[float, PlainValidator(_real)]
Text = Annotated[str, PlainValidator(_text)]
Flag = Annotated[bool, PlainValidator(_flag)]
Count = Annotated[int, PlainValidator(_whole), Field(ge=1)]
Index = Annotated[int, PlainValidator(_whole), Field(ge=0)]

# Options of models, optimizers and schedules are recorded as they were given, so that they must have their type already.
Number = Annotated[float, PlainValidator(_number)]
Integer = Annotated[int, PlainValidator(_integer)]
Name = Annotated[str, PlainValidator(_name)]
Switch = Annotated[bool, PlainValidator(_switch)]


def one_of(*choices: str) -> PlainValidator:
    """Return the validator of a text that is one of the choices."""

    def validate(value: object) -> str:
        if value not in choices:
            raise wrong_value(unknown_choice("", value, choices).removeprefix(f"={value}: "))
        return str(value)

    return PlainValidator(validate)


class Options(BaseModel):
    """The options of a part. Unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def options_model(entry: Entry) -> type[BaseModel]:
    """Return the pydantic model of an entry's options; without one, a model of its factory's keyword arguments."""
    if entry.options is not None:
        return resolve(entry.options)
    return model_of_signature(entry.name, entry.load(), resolve(entry.base_options))


@lru_cache(maxsize=256)
def model_of_signature(name: str, factory: Callable[..., Any], base: type[BaseModel] | None = None) -> type[BaseModel]:
    """Return a pydantic model of a factory's keyword arguments; what the suite passes itself is left out."""
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(factory).parameters.values():
        by_keyword = parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        given = parameter.default is not parameter.empty
        if by_keyword and parameter.name not in PASSED_BY_THE_SUITE and (given or parameter.kind is parameter.KEYWORD_ONLY):
            fields[parameter.name] = (_type_of(parameter), parameter.default if given else ...)
    return create_model(name, __base__=base or Options, **fields)


def _type_of(parameter: inspect.Parameter) -> Any:
    types: dict[Any, Any] = {bool: Switch, int: Integer, float: Number, str: Name}
    default = parameter.default
    return types.get(parameter.annotation if default is parameter.empty else type(default), Any)


def validate_options(entry: Entry, given: Mapping[str, Any], group: str) -> BaseModel:
    """Return the options of an entry as an instance of their model.

    Args:
        entry: The part.
        given: The options by name, without the part's own name.
        group: What the options are called on the command line, such as "optimizer".

    Raises:
        InputError: An option is unknown or has a wrong value; the message names it.
    """
    model = options_model(entry)
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"]]
    if not location:  # a rule about several options
        raise InputError(f"{group}.{describe_error(first)}")
    option = f"{group}.{location[0]}"
    match first["type"]:
        case "extra_forbidden":
            raise InputError(f"{option}: {entry.name} takes no such option; {_listed(location[0], [*model.model_fields])}")
        case "missing":
            raise InputError(f"{option} is missing: {entry.name} needs it")
        case _:
            raise InputError(f"{option}={shown(given[location[0]])}: {describe_error(first)}")


def describe_error(error: ErrorDetails) -> str:
    """Return what is wrong with a value and what to give instead, from one of pydantic's errors."""
    limits: Mapping[str, Any] = error.get("ctx", {})
    match error["type"]:
        case "greater_than_equal":
            return f"must be at least {limits['ge']:g}"
        case "greater_than":
            return f"must be above {limits['gt']:g}"
        case "less_than_equal":
            return f"must be at most {limits['le']:g}"
        case "less_than":
            return f"must be below {limits['lt']:g}"
        case "list_type":
            return "give a list, such as [a,b]"
        case "too_short" | "too_long":
            return "give a list of the right length"
        case "literal_error":
            return f"no such choice; one of {limits['expected']}".replace("'", "").replace(" or ", ", ")
        case "model_type" | "dataclass_type" | "dict_type":
            return "give options by name"
        case "value_error":
            return str(limits.get("error", error["msg"]))
        case _:
            return error["msg"][:1].lower() + error["msg"][1:]


def shown(value: object) -> str:
    """Return a value as a message shows it: on one line and not longer than 100 characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= 100 else f"{text[:100]}..."


def _listed(name: str, choices: list[str]) -> str:
    if not choices:
        return "it takes none"
    return unknown_choice("", name, choices).partition("no such choice; ")[2].replace("one of", "there are", 1)
