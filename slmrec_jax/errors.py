"""The exception for the user's mistakes, the checks that raise it, and text from files made safe to show."""

import reprlib
import shlex
import signal
import unicodedata
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_in_flags = False  # whether the caller is the command


class UserError(Exception):
    """A mistake of the user, or a fault in a file that the user gave.

    Its text is one line: what was found, where, and how to fix it. The command prints that line and exits with
    status 1. Any other exception is a bug of this package and keeps its traceback.
    """


class Diverged(UserError):
    """Training reached NaN or infinity. A search of settings skips the trial; a single run stops."""


class RefusedElsewhere(UserError):
    """Another process of the same run was refused, and says so itself."""


class Interrupted(Exception):
    """The run was asked to stop, and has saved."""

    def __init__(self, signal_number: int, folder: Path) -> None:
        """Keep which signal asked, and the folder of the run."""
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number
        self.folder = folder


def escaped(text: object) -> str:
    r"""Return text from a file or an argument in a form that is safe to print on a terminal.

    Control and invisible characters become Python escapes, such as `\n` and `\u202e`; letters of all scripts, and
    spaces, are kept.
    """
    return "".join(
        sign if sign.isprintable() or unicodedata.category(sign) == "Zs" else sign.encode("unicode_escape").decode()
        for sign in str(text)
    )


@contextmanager
def naming_flags() -> Iterator[None]:
    """Make `setting` return flags within the block; the command runs everything in such a block."""
    global _in_flags
    before, _in_flags = _in_flags, True
    try:
        yield
    finally:
        _in_flags = before


def setting(name: str, value: object = None, *, flag: str | None = None) -> str:
    """Return a setting as the caller writes it, for messages that Python and the command share.

    `setting("slmrec.fd_mode", "layer")` is `slmrec.fd_mode='layer'` for a caller in Python, and `--slmrec.fd-mode
    layer` for the command. Without a value it is the name alone; for `True` it is the flag alone. The name is that of a
    field of `Config` with its section, or of an argument of a public function; `flag` is its flag, if that differs.
    """
    if not _in_flags:
        return name if value is None else f"{name}={value!r}"
    flag = f"--{(flag or name).replace('_', '-')}"
    return flag if value is None or value is True else f"{flag} {shlex.quote(str(value))}"


def check_type(name: str, value: object, kind: Any, expected: str) -> None:
    """Reject an argument of a wrong type; `expected` says what to give instead. A bool does not count as a number."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{name} is {shown(value)}: give {expected}")


def check_choice(name: str, value: object, choices: Collection[object]) -> None:
    """Reject an argument that is not one of the choices."""
    if value not in choices:
        raise UserError(f"{name} is {shown(value)}: give one of {', '.join(map(str, choices))}")


def shown(value: object) -> str:
    """Return an unexpected value, shortened, with its type."""
    return f"{reprlib.repr(value)}, of type {type(value).__name__}"
