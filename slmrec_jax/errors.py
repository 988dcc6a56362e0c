"""The exception for user mistakes, checks that raise it, and escaping of untrusted text."""

import reprlib
import shlex
import signal
import unicodedata
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_MAX_MESSAGE = 200
_in_flags = False  # whether the caller is the command line


class UserError(Exception):
    """An error for a mistake of the user, or for a fault in a file that the user supplied.

    The message is one line: what was found, where, and how to fix it. The command line prints that line and exits with
    status 1. Any other exception is a bug of this package and keeps its traceback.
    """


class Diverged(UserError):
    """An error for NaN or infinity in training. A hyperparameter search skips the trial; a single run stops."""


class RefusedElsewhere(UserError):
    """An error raised because another process of the same run failed; that process reports the reason."""


class TooLarge(UserError):
    """An error for tables that fit neither in the memory limit nor in the temporary folder."""


class Interrupted(Exception):
    """An exception for a run that was asked to stop and has saved its state."""

    def __init__(self, signal_number: int, folder: Path) -> None:
        """Store the signal and the run's folder."""
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number
        self.folder = folder


def escaped(text: object) -> str:
    r"""Escape text from a file or an argument so that it is safe to print on a terminal.

    Control and invisible characters become Python escapes, such as `\n` and `\u202e`. Letters of all scripts and spaces
    are kept.
    """
    return "".join(
        sign if sign.isprintable() or unicodedata.category(sign) == "Zs" else sign.encode("unicode_escape").decode()
        for sign in str(text)
    )


def one_line(error: Exception) -> str:
    """Convert a library's exception to a part of a one-line message."""
    return escaped(" ".join(str(error).split()) or type(error).__name__)[:_MAX_MESSAGE]


@contextmanager
def naming_flags() -> Iterator[None]:
    """Make `setting` return flags within the block. The command line runs everything in such a block."""
    global _in_flags
    before, _in_flags = _in_flags, True
    try:
        yield
    finally:
        _in_flags = before


def setting(name: str, value: object = None, *, flag: str | None = None) -> str:
    """Format a setting as the caller would write it, for messages shared by Python and the command line.

    `setting("slmrec.fd_mode", "layer")` is `slmrec.fd_mode='layer'` for a Python caller, and `--slmrec.fd-mode layer`
    for the command line. Without a value, only the name is returned; for `True`, only the flag. The name is a field of
    `Config` with its section, or an argument of a public function. `flag` is its flag, if that has a different name.
    """
    if not _in_flags:
        return name if value is None else f"{name}={value!r}"
    flag = f"--{(flag or name).replace('_', '-')}"
    if value is None or value is True:
        return flag
    values = value if isinstance(value, tuple) else (value,)
    return " ".join([flag, *(shlex.quote(str(each)) for each in values)])


def check_type(name: str, value: object, kind: Any, expected: str) -> None:
    """Reject an argument of the wrong type. `expected` describes the right type. A bool does not count as a number."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{name} is {shown(value)}: give {expected}")


def check_choice(name: str, value: object, choices: Collection[object]) -> None:
    """Reject an argument that is not one of the choices."""
    if value not in choices:
        raise UserError(f"{name} is {shown(value)}: give one of {', '.join(map(str, choices))}")


def shown(value: object) -> str:
    """Describe an unexpected value, shortened, with its type."""
    return f"{' '.join(reprlib.repr(value).split())}, of type {type(value).__name__}"
