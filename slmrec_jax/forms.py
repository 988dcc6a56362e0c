"""Checks of values against type annotations and their ranges, which name the first value that does not fit."""

import dataclasses
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints, is_typeddict

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "nothing"}


class Limit(NamedTuple):
    """A condition on the values of a type, as in `Annotated[int, at_least(1)]`."""

    allows: Callable[[Any], bool]
    words: str
    """The allowed values in words, as in "give at least 1"."""


def at_least(low: int | float) -> Limit:
    """Allow numbers of at least `low`."""
    return Limit(lambda value: value >= low, f"at least {low}")


def more_than(low: int | float) -> Limit:
    """Allow numbers above `low`."""
    return Limit(lambda value: value > low, f"more than {low}")


def less_than(high: int | float) -> Limit:
    """Allow numbers below `high`."""
    return Limit(lambda value: value < high, f"less than {high}")


def share() -> Limit:
    """Allow numbers from 0 up to, but excluding, 1."""
    return Limit(lambda value: 0 <= value < 1, "a share of at least 0 and less than 1")


def not_empty(kind: str) -> Limit:
    """Allow tuples that are not empty. `kind` names an entry in the singular."""
    return Limit(lambda values: len(values) > 0, f"at least one {kind}")


def outside(value: object, hint: Any) -> Iterator[tuple[object, Limit]]:
    """Yield each part of a value that a limit of its annotation excludes, with that limit. Types must fit already."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = (each for each in hint.__metadata__ if isinstance(each, Limit))
        yield from ((value, limit) for limit in limits if not limit.allows(value))
        yield from outside(value, arguments[0])
    elif origin in (Union, types.UnionType):
        yield from (found for each in arguments if fault(value, each) is None for found in outside(value, each))
    elif origin is tuple and isinstance(value, tuple):
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        yield from (found for part, kind in zip(value, kinds, strict=True) for found in outside(part, kind))


def fault(value: object, hint: Any, name: str = "") -> str | None:
    """Describe where a value does not fit a type, or return `None` if it fits. Limits are checked by `outside`.

    Args:
        value: Plain data: numbers, strings, mappings, lists, tuples and records of these.
        hint: A type, `Literal`, union, `tuple[...]`, `list[...]`, `Mapping[str, ...]`, `Annotated`, TypedDict, or a
            dataclass or NamedTuple, for which a mapping of its fields is also accepted. An integer counts as a number;
            a bool counts as neither.
        name: The name of the value in the result. Names of its parts follow after a dot.

    Returns:
        A text such as `losses.main is 'x'; expected a number`.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return fault(value, arguments[0], name)
    if origin is Literal:
        fits = any(value == each and type(value) is type(each) for each in arguments)
    elif origin in (Union, types.UnionType):
        fits = any(fault(value, each) is None for each in arguments)
    elif (is_typeddict(hint) or field_names(hint)) and isinstance(value, Mapping):
        missing = min(getattr(hint, "__required_keys__", frozenset()) - value.keys(), default=None)
        if missing is not None:
            return f"{_joined(name, missing)} is missing"
        hints = get_type_hints(hint)
        return _first(fault(value[field], hints[field], _joined(name, field)) for field in hints if field in value)
    elif field_names(hint) and isinstance(value, hint):
        return fault({field: getattr(value, field) for field in field_names(hint)}, hint, name)
    elif isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return _first(fault(each, arguments[1], _joined(name, key)) for key, each in value.items())
    elif (origin is list or (origin is tuple and arguments[-1] is Ellipsis)) and isinstance(value, origin):
        return _first(fault(each, arguments[0], name) for each in value)
    elif origin is tuple and arguments[-1] is not Ellipsis:
        fits = (
            isinstance(value, tuple)
            and len(value) == len(arguments)
            and all(fault(each, of) is None for each, of in zip(value, arguments, strict=True))
        )
    elif hint is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    elif hint is int:
        fits = isinstance(value, int) and not isinstance(value, bool)
    else:
        fits = hint is Any or (origin is None and not is_typeddict(hint) and isinstance(value, hint))
    return None if fits else f"{name} is {_short(value)}; expected {words(hint)}"


def words(hint: Any) -> str:
    """Describe the values that a type allows."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return words(arguments[0])
    if origin is Literal:
        return repr(arguments[0]) if len(arguments) == 1 else f"one of {', '.join(map(repr, arguments))}"
    if origin in (Union, types.UnionType):
        return " or ".join(words(each) for each in arguments)
    if origin in (list, tuple):
        kinds = list(dict.fromkeys(words(each) for each in arguments if each is not Ellipsis))
        count = f" of {len(arguments)}" if origin is tuple and Ellipsis not in arguments else ""
        return f"a {origin.__name__}{count}, each {' or '.join(kinds)}"
    if (isinstance(origin, type) and issubclass(origin, Mapping)) or is_typeddict(hint):
        return "named values"
    return _WORDS.get(hint) or f"a {hint.__name__}"


def field_names(hint: Any) -> tuple[str, ...]:
    """Return the field names of a dataclass or NamedTuple; for other types, an empty tuple."""
    if dataclasses.is_dataclass(hint):
        return tuple(field.name for field in dataclasses.fields(hint))
    return getattr(hint, "_fields", ())


def _first(faults: Iterable[str | None]) -> str | None:
    return next((each for each in faults if each is not None), None)


def _joined(name: str, field: object) -> str:
    field = str(field)
    field = field if field.isprintable() else ascii(field)
    return f"{name}.{field[:60]}" if name else field[:60]


def _short(value: object) -> str:
    """Format a value for an error message, without terminal control characters."""
    if isinstance(value, str | int | float | type(None)):
        return ascii(value)[:60]
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, list | tuple) else "")
