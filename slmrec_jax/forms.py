"""Checks plain data against type annotations, and names the first value that does not fit."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "nothing"}


def fault(value: object, hint: Any, name: str = "") -> str | None:
    """Say where a value does not fit an annotation, or return `None` where it fits.

    Args:
        value: Plain data: numbers, text, mappings, lists, tuples and records of these.
        hint: A type, `Literal`, union, `tuple[...]`, `list[...]`, `Mapping[str, ...]`, TypedDict, or a dataclass or
            NamedTuple, for which a mapping of its fields will do too. A whole number is a number, and `true` is
            neither.
        name: What the value is called in the answer; parts of it follow after a dot.

    Returns:
        For example `losses.main is 'x'; expected a number`.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        fits = any(value == each and type(value) is type(each) for each in arguments)
    elif origin in (Union, types.UnionType):
        fits = any(fault(value, each) is None for each in arguments)
    elif is_typeddict(hint):
        return _fault_of_record(value, hint, name)
    elif _fields(hint) and isinstance(value, Mapping | hint):
        given = value if isinstance(value, Mapping) else {field: getattr(value, field) for field in _fields(hint)}
        hints = get_type_hints(hint)
        return _first(
            fault(given[field], hints[field], _joined(name, field)) for field in _fields(hint) if field in given
        )
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        if isinstance(value, Mapping):
            return _first(fault(each, arguments[1], _joined(name, key)) for key, each in value.items())
        fits = False
    elif origin is list or (origin is tuple and arguments[-1] is Ellipsis):
        if isinstance(value, origin):
            return _first(fault(each, arguments[0], name) for each in value)
        fits = False
    elif origin is tuple:
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
        fits = hint is Any or isinstance(value, hint)
    return None if fits else f"{name} is {_short(value)}; expected {words(hint)}"


def words(hint: Any) -> str:
    """Describe the values that an annotation allows."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin in (Union, types.UnionType):
        return " or ".join(words(each) for each in arguments)
    if origin in (list, tuple):
        kinds = list(dict.fromkeys(words(each) for each in arguments if each is not Ellipsis))
        return f"a {origin.__name__}, each {' or '.join(kinds)}"
    if (isinstance(origin, type) and issubclass(origin, Mapping)) or is_typeddict(hint):
        return "named values"
    return _WORDS.get(hint) or f"a {hint.__name__}"


def _fields(hint: Any) -> tuple[str, ...]:
    """Name the fields of a dataclass or NamedTuple."""
    if dataclasses.is_dataclass(hint):
        return tuple(field.name for field in dataclasses.fields(hint))
    return getattr(hint, "_fields", ())


def _fault_of_record(value: object, hint: Any, name: str) -> str | None:
    if not isinstance(value, Mapping):
        return f"{name} is {_short(value)}; expected named values"
    for field in sorted(hint.__required_keys__):
        if field not in value:
            return f"{_joined(name, field)} is missing"
    hints = get_type_hints(hint)
    return _first(fault(value[field], hints[field], _joined(name, field)) for field in hints if field in value)


def _first(faults: Any) -> str | None:
    return next((each for each in faults if each is not None), None)


def _joined(name: str, field: object) -> str:
    field = str(field)
    field = field if field.isprintable() else ascii(field)
    return f"{name}.{field[:60]}" if name else field[:60]


def _short(value: object) -> str:
    """A value in an error line, with nothing in it that a terminal would obey."""
    return ascii(value)[:60] if isinstance(value, str | int | float | type(None)) else f"a {type(value).__name__}"
