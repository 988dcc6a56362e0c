"""Shortening and escaping of text from files and libraries for error messages."""

from collections.abc import Sequence

from slmrec_jax.errors import escaped

MAX_SHOWN = 40
"""The maximum number of characters of a file's text that an error message repeats."""
_MAX_LISTED = 12


class Malformed(Exception):
    """An exception for damage to a file, with its position if known. Readers turn it into a `UserError`."""


def short_name(name: str) -> str:
    """Shorten a column name for error messages."""
    return escaped(name)[:MAX_SHOWN]


def listed(names: Sequence[str]) -> str:
    """Return quoted names, separated by commas."""
    first = ", ".join(repr(name[:MAX_SHOWN]) for name in names[:_MAX_LISTED])
    return first + (", …" if len(names) > _MAX_LISTED else "")


def quoted(text: str) -> str:
    """Quote a text, in ASCII and without control characters."""
    return ascii(text[: 2 * MAX_SHOWN])


def shown_value(found: object) -> str:
    """Format a table value for error messages."""
    return "missing" if found is None else repr(found[:MAX_SHOWN] if isinstance(found, str) else found)[:80]
