"""Text from files and libraries, made short and printable for error lines."""

from collections.abc import Sequence

from slmrec_jax.errors import escaped

MAX_SHOWN = 40
"""Characters of a file's own text that an error line repeats."""
_MAX_MESSAGE = 200
_MAX_LISTED = 12


class Malformed(Exception):
    """Damage to a file, with the byte where it is if that is known; readers turn it into a `UserError`."""


def one_line(error: Exception) -> str:
    """Return a library's message as a part of an error line."""
    return escaped(" ".join(str(error).split()) or type(error).__name__)[:_MAX_MESSAGE]


def short_name(name: str) -> str:
    """Return the name of a column as an error line shows it."""
    return escaped(name)[:MAX_SHOWN]


def listed(names: Sequence[str]) -> str:
    """Return names in quotes with commas between them."""
    first = ", ".join(repr(name[:MAX_SHOWN]) for name in names[:_MAX_LISTED])
    return first + (", …" if len(names) > _MAX_LISTED else "")


def quoted(text: str) -> str:
    """Return text in quotes, in ASCII and without control characters."""
    return ascii(text[: 2 * MAX_SHOWN])


def shown_value(found: object) -> str:
    """Return a value of a table as an error line shows it."""
    return "missing" if found is None else repr(found[:MAX_SHOWN] if isinstance(found, str) else found)[:80]
