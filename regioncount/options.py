"""Options of registered parts: their types, and one-line messages for invalid values.

A part's options are a pydantic model derived from `Options`. Values from the command line arrive as numbers, strings or
booleans, depending on how they were written. Each type therefore accepts every unambiguous spelling of a value and
rejects the rest: an integer may be given as "7", but not as 7.0 or true.
"""

import inspect
import math
import os
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from numbers import Integral, Real
from typing import Annotated, Any, ClassVar, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    SerializerFunctionWrapHandler,
    ValidationError,
    create_model,
    model_serializer,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from regioncount.errors import InputError, shorten
from regioncount.registry import Entry, resolve
from regioncount.suggestions import suggest

_WORDS = {"true": True, "yes": True, "y": True, "on": True, "false": False, "no": False, "n": False, "off": False}


def _parse_integer(value: object) -> int:
    if type(value) is int:
        return value
    try:
        return int(value if isinstance(value, str) else "no")  # 3.5 and true are rejected
    except ValueError:
        raise wrong_value("give a whole number") from None


def _parse_float(value: object) -> float:
    try:
        number = float(value if isinstance(value, (float, int, str)) and not isinstance(value, bool) else "no")
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise wrong_value("give a number")
    return number


def _parse_string(value: object) -> str:
    if isinstance(value, (str, int, float, os.PathLike)):
        text = str(value)  # dataset.root=2024 arrives as a number
        if not text.isprintable():
            raise wrong_value("give text without line breaks, tabs and other control characters")
        return text
    raise wrong_value("give a string")


def _parse_boolean(value: object) -> bool:
    word = _WORDS.get(value.lower(), value) if isinstance(value, str) else value
    try:
        return word if isinstance(word, bool) else bool(_parse_integer(word))
    except PydanticCustomError:
        raise wrong_value("give true or false") from None


def _require_float(value: object) -> float:
    """Return a finite number as a float; reject strings, since these options are recorded as they were given."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise wrong_value("give a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise wrong_value("give a number")
    return number


def _require_integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise wrong_value("give a whole number")
    return int(value)


def _require_string(value: object) -> str:
    if not isinstance(value, str):
        raise wrong_value("give a name")
    return value


def _require_boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise wrong_value("give true or false")
    return value


def wrong_value(advice: str) -> PydanticCustomError:
    """Return the error that a validator raises for an invalid value; the message is advice on what to give."""
    return PydanticCustomError("option", advice)  # type: ignore[arg-type]  # the stub requires a literal


Int = Annotated[int, PlainValidator(_parse_integer)]
Float = Annotated[float, PlainValidator(_parse_float)]
Str = Annotated[str, PlainValidator(_parse_string)]
Bool = Annotated[bool, PlainValidator(_parse_boolean)]
PositiveInt = Annotated[int, PlainValidator(_parse_integer), Field(ge=1)]
NonNegativeInt = Annotated[int, PlainValidator(_parse_integer), Field(ge=0)]
Seed = Annotated[int, PlainValidator(_parse_integer), Field(ge=0, le=2**63 - 1)]

# Options of models, optimizers and schedules are recorded as they were given, so they are checked but not converted.
StrictFloat = Annotated[float, PlainValidator(_require_float)]
StrictInt = Annotated[int, PlainValidator(_require_integer)]
StrictStr = Annotated[str, PlainValidator(_require_string)]
StrictBool = Annotated[bool, PlainValidator(_require_boolean)]


def one_of(*choices: str) -> PlainValidator:
    """Return a validator that accepts only these strings. --help reads them from its function's `keywords`."""
    return PlainValidator(partial(_parse_choice, choices=choices))


def _parse_choice(value: object, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise wrong_value(f"no such choice; choose one of {', '.join(choices)}{suggest(value, choices)}")
    return str(value)


class Options(BaseModel):
    """The options of a part. Unknown options are rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    later: ClassVar[frozenset[str]] = frozenset()
    """The options that were added after runs had been published. At their defaults, they are left out of records, and thus
    of identities and measurement keys."""

    @model_serializer(mode="wrap")
    def _omit_later_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if not self.is_later_default(name)}

    def is_later_default(self, name: str) -> bool:
        """Return whether an option is one of `later` and has its default."""
        later = frozenset().union(*(vars(parent).get("later", ()) for parent in type(self).__mro__))
        return name in later and getattr(self, name) == type(self).model_fields[name].get_default()


def options_model(entry: Entry) -> type[Options]:
    """Return the pydantic model of an entry's options, by default a model of its factory's keyword arguments."""
    base = resolve(entry.base_options)
    if entry.options is not None:
        model = resolve(entry.options)
        if not (isinstance(model, type) and issubclass(model, base)):
            raise InputError(f"{entry.kind}={entry.name}: its options must be a class derived from {base.__name__}")
        return model
    return model_of_signature(entry.name, entry.load(), base, entry.passed, entry.kind == "model")


@lru_cache(maxsize=256)
def model_of_signature(
    name: str,
    factory: Callable[..., Any],
    base: type[Options] = Options,
    passed: frozenset[str] = frozenset(),
    positional: bool = False,
) -> type[Options]:
    """Return a pydantic model of a factory's keyword arguments.

    Args:
        name: The name of the model.
        factory: The factory. If it takes any keyword arguments (**kwargs), the model accepts any options.
        base: The base class of the model.
        passed: Arguments that are not options.
        positional: Whether positional arguments without a default are options; otherwise, they are passed by position.

    Raises:
        InputError: The factory has no signature, like some functions written in C.
    """
    fields: dict[str, Any] = {}
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError as error:
        raise InputError(f"{name}: its arguments cannot be read; wrap it in a Python function") from error
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            base = cast("type[Options]", type("AnyOptions", (base,), {"model_config": ConfigDict(extra="allow")}))
        by_keyword = parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        optional = parameter.default is not parameter.empty
        is_option = optional or positional or parameter.kind is parameter.KEYWORD_ONLY
        if by_keyword and is_option and parameter.name not in passed:
            fields[parameter.name] = (_type_of(parameter), parameter.default if optional else ...)
    return create_model(name, __base__=base, **fields)


def _type_of(parameter: inspect.Parameter) -> Any:
    types: dict[Any, Any] = {bool: StrictBool, int: StrictInt, float: StrictFloat, str: StrictStr}
    default = parameter.default
    return types.get(parameter.annotation if default is parameter.empty else type(default), Any)


def validate_options(entry: Entry, options: Mapping[str, Any], group: str) -> Options:
    """Return the options of an entry as an instance of their model.

    Args:
        entry: The registered part.
        options: The options by name, without the name of the part.
        group: The prefix of the options on the command line, such as "optimizer".

    Raises:
        InputError: An option is unknown, missing or invalid; the message names the first one.
    """
    model = options_model(entry)
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"]]
    if not location:  # a rule about several options
        raise InputError(f"{group}.{describe_error(first)}")
    option = f"{group}.{location[0]}"
    match first["type"]:
        case "extra_forbidden":
            known = _list_options(location[0], [field.alias or name for name, field in model.model_fields.items()])
            raise InputError(f"{option}: {entry.name} has no such option; {known}")
        case "missing":
            raise InputError(f"{option} is missing: {entry.name} requires it")
        case _:
            raise InputError(f"{option}={abbreviate(options[location[0]])}: {describe_error(first)}")


def describe_error(error: ErrorDetails) -> str:
    """Describe one of pydantic's errors: what is wrong with the value, or what to give instead."""
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
            return "the list has the wrong length"
        case "literal_error":
            return f"no such choice; choose one of {limits['expected']}".replace("'", "").replace(" or ", ", ")
        case "model_type" | "dataclass_type" | "dict_type":
            return "give a mapping of options"
        case "value_error":
            return str(limits.get("error", error["msg"]))
        case _:
            return error["msg"][:1].lower() + error["msg"][1:]


def abbreviate(value: object) -> str:
    """Return a value as text for a message: on one line, cut after 100 characters."""
    return shorten(" ".join(str(value).split()), 100)


def _list_options(name: str, options: list[str]) -> str:
    """Return the known options for a message, with the closest to an unknown name."""
    return f"its options are {', '.join(options)}{suggest(name, options)}" if options else "it has no options"
