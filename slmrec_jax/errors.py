"""The one exception that speaks to the person at the command, and text from strangers made safe to show."""

import reprlib
import shlex
import unicodedata
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

_in_flags = False  # whether the caller is the command


class UserError(Exception):
    """A mistake of the user's, or of a file they were given.

    Its text is one line: what was found, where, and how to fix it. The command prints that line and exits with
    status 1; everything else that is raised is a fault of this package and keeps its traceback.
    """


class Diverged(UserError):
    """Training led to NaN or infinity: a search of settings passes over it, a single run stops."""


def escaped(text: object) -> str:
    r"""Return text from a file or an argument as a terminal may show it.

    What a terminal would obey, or the eye would not see, stands as Python writes it: `\x1b` for an escape, `\n` for
    the end of a line, `\u202e` for what turns the writing direction. Letters of all scripts, and spaces, stay.
    """
    return "".join(
        sign if sign.isprintable() or unicodedata.category(sign) == "Zs" else sign.encode("unicode_escape").decode()
        for sign in str(text)
    )


@contextmanager
def naming_flags() -> Iterator[None]:
    """Let `setting` name flags within the block, as the command does around all it runs."""
    global _in_flags
    before, _in_flags = _in_flags, True
    try:
        yield
    finally:
        _in_flags = before


def setting(name: str, value: object = None, *, flag: str | None = None) -> str:
    """Return a setting in the words of the caller, for messages that Python and the command share.

    `setting("slmrec.fd_mode", "layer")` is `slmrec.fd_mode='layer'` for a caller in Python, and `--slmrec.fd-mode
    layer` for the command. Without a value it is the name alone; `True` is a flag by itself.

    Args:
        name: a field of `Config` with its section, or an argument of a public function.
        value: what to give it.
        flag: the name of its flag, where that is another.
    """
    if not _in_flags:
        return name if value is None else f"{name}={value!r}"
    flag = f"--{(flag or name).replace('_', '-')}"
    return flag if value is None or value is True else f"{flag} {shlex.quote(str(value))}"


def check_type(name: str, value: object, kind: Any, expected: str) -> None:
    """Reject an argument of a wrong type; `expected` says what to give instead. A truth value is no number."""
    truth = isinstance(value, bool) and kind is not bool
    if truth or not isinstance(value, kind):
        raise UserError(f"{name} is {shown(value)}: give {expected}")


def check_choice(name: str, value: object, choices: Collection[object]) -> None:
    """Reject an argument that is none of the choices."""
    if value not in choices:
        raise UserError(f"{name} is {shown(value)}: give one of {', '.join(map(str, choices))}")


def shown(value: object) -> str:
    """Return a value that was not expected, shortened, with its type where that is what is wrong."""
    return f"{reprlib.repr(value)}, of type {type(value).__name__}"
