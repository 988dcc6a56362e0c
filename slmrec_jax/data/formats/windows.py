"""The time window of the rows that count."""

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from slmrec_jax.config.source import Source
from slmrec_jax.data.readers.row_values import timed
from slmrec_jax.data.readers.rows import Rows
from slmrec_jax.errors import UserError, setting

_ENDS = {"since": ("from", ">=", "before {}"), "until": ("until", "<", "from {} on")}
"""For each end: the flag, the condition for rows within, and the description of the other rows."""
_DATE = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.(?P<fraction>\d{1,9}))?)?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII)
_WHOLE = re.compile("[+-]?[0-9]+")


def time_text(time: object) -> str | None:
    """Convert a time given in Python (a number, a date or a datetime) to text."""
    return None if time is None else str(time)


def has_window(source: Source) -> str | None:
    """Return the first end of the window that a source sets, as the caller writes it, or `None`."""
    given = (setting(name, flag=flag) for name, (flag, *_) in _ENDS.items() if getattr(source, name) is not None)
    return next(given, None)


def within_window(rows: Rows, source: Source) -> Iterator[tuple[str, str]]:
    """Yield a condition for each end of the window, and a description of the rows that do not fulfil it."""
    for name, (flag, sign, others) in _ENDS.items():
        if (text := getattr(source, name)) is not None:
            value, ticks = timed(rows, "timestamp")
            end = _number(text) if ticks is None else _moment(text, ticks)
            if end is None:
                raise _other_form(rows, setting(name, flag=flag), text, "number" if ticks is None else "date")
            yield f"{value} {sign} {end}", f"a time {others.format(text)}"


def _number(text: str) -> str | None:
    if _WHOLE.fullmatch(text):
        return str(int(text))
    try:
        number = float(text)
    except ValueError:
        return None
    return f"{number!r}::DOUBLE" if math.isfinite(number) and "_" not in text else None


def _moment(text: str, ticks: int) -> str | None:
    """Convert a date to integer ticks since 1970, rounded up. Without a zone, it is UTC."""
    if (form := _DATE.fullmatch(text)) is None:
        return None
    fraction = form["fraction"] or ""  # up to nanoseconds, which `datetime` does not have
    try:
        found = datetime.fromisoformat(text.replace(f".{fraction}", "") if fraction else text)
    except ValueError:  # the day does not exist
        return None
    zoned = found if found.tzinfo else found.replace(tzinfo=UTC)
    seconds = (zoned - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    nanos = seconds * 10**9 + int(fraction.ljust(9, "0"))
    return str(-(-nanos * ticks // 10**9))


def _other_form(rows: Rows, end: str, text: str, form: str) -> UserError:
    found = rows.find("true", '"timestamp"::VARCHAR')
    example = f", such as {found[2]!r}" if found else ""
    return UserError(f"{rows.file}: {end} is {text[:40]!r}, but the times are {form}s{example}: give such a {form}")
