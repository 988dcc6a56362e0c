"""SQL for the values of rows: flags, labels, numbers and times. Errors name the file and the row."""

from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa

from slmrec_jax.data.readers.columns import MISSING, is_text
from slmrec_jax.data.readers.engine import quoted_text
from slmrec_jax.data.readers.rows import Rows

_BLANKS = quoted_text("".join(sign for sign in map(chr, range(1, 0x3001)) if sign.isspace()))
_TIME = "a number, or a date such as 2025-05-31"
_PER_SECOND = {"us": 10**6, "ns": 10**9}
MAX_DIGITS = 38
"""The maximum digits of a decimal; DuckDB reads longer ones as float64."""
_WHOLE_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9:.]+ ?(Z|[+-][0-9:]+)?)?$"
"""The pattern of accepted dates. DuckDB would also read `epoch`, `infinity` and years before Christ."""
_DATE, _ZONE = r"^\d{4}-\d\d", r":.*(Z|[+-]\d\d(:?\d\d)?)$"


def flags(rows: Rows, role: str) -> str | None:
    """Return a condition for rows whose value is 1 or true; `None` if most values are not 0, 1, true or false."""
    kind = rows.kinds[role]
    if pa.types.is_nested(kind):
        return None
    value = _label(rows, role)
    other = f"coalesce({value} NOT IN ('0', '1', 'false', 'true'), true)"
    total, others = rows.num_rows(other)
    if others and others < total / 2:
        fix = "correct it, or rename the column if it holds something else"
        rows.check(role, other, f"0 or 1, as in most rows: {fix}")
    return None if others else f"{value} IN ('1', 'true')"


def labels(rows: Rows, role: str, numbers: Mapping[str, int]) -> str:
    """Return SQL for the number of each row's label, ignoring case."""
    expected = f"one of {', '.join(numbers)}"
    rows.check_complete(role, expected)
    if pa.types.is_nested(rows.kinds[role]):
        raise rows.wrong_type(role, expected)
    value = _label(rows, role)
    rows.check(role, f"coalesce({value} NOT IN {_texts(numbers)}, true)", expected)
    cases = " ".join(f"WHEN {quoted_text(label)} THEN {number}" for label, number in numbers.items())
    return f"CASE {value} {cases} END"


def numbers(rows: Rows, role: str) -> str:
    """Return SQL for a column of numbers as float64. No value may be missing."""
    value = f"TRY_CAST({role} AS DOUBLE)"
    if is_text(rows.kinds[role]):
        text = f"trim({role}, {_BLANKS})"
        value = f"CASE WHEN lower({text}) NOT IN {_texts(MISSING)} THEN {_float(text)} END"
    elif not is_numeric(rows.kinds[role]) and not pa.types.is_boolean(rows.kinds[role]):
        raise rows.wrong_type(role, "a number")
    if rows.num_rows(f"coalesce(isnan({value}), true)")[1]:
        rows.check_complete(role, "a number")
        rows.check(role, f"coalesce(isnan({value}), true)", "a number")
    return value


def times(rows: Rows, role: str) -> str:
    """Return SQL for a column of times as int64 or float64: numbers in any unit, or dates in some unit since 1970."""
    return timed(rows, role)[0]


def timed(rows: Rows, role: str) -> tuple[str, int | None]:
    """Return SQL for a column of times, and the units per second; `None` for numbers in an unknown unit."""
    rows.check_complete(role, "a time; fill it in, or leave the column out")
    kind = rows.kinds[role]
    if pa.types.is_timestamp(kind):
        found = rows.engine.rows(f"SELECT typeof({role}) FROM {rows.view} LIMIT 1")
        unit = "ns" if found and found[0][0].endswith("_NS") else "us"  # INT96 is ns only for Arrow
        value = role if unit == "ns" else f"{role}::TIMESTAMP"
        largest = f"CASE WHEN {role}::TIMESTAMP > TIMESTAMP '1970-01-01' THEN {2**63 - 1} ELSE {1 - 2**63} END"
        return f"coalesce(epoch_{unit}({value}), {largest})", _PER_SECOND[unit]  # DuckDB treats the largest as infinite
    if pa.types.is_date(kind):
        return f"({role} - DATE '1970-01-01') * 86400000", 1000
    if pa.types.is_decimal(kind) and kind.precision > MAX_DIGITS:
        raise rows.wrong_type(role, f"a time of at most {MAX_DIGITS} digits")
    if pa.types.is_decimal(kind):  # float64 would merge times of 19 digits
        return _cast(rows, role, f"CASE WHEN {role} = trunc({role}) THEN {role} END", "a whole number below 2⁶³"), None
    if is_text(kind):
        return _times_of_text(rows, role)
    if pa.types.is_integer(kind):
        return _cast(rows, role, role, "a time below 2⁶³"), None
    if not is_numeric(kind):
        raise rows.wrong_type(role, _TIME)
    return f"{role}::DOUBLE", None


def is_numeric(kind: Any) -> bool:
    """Return whether an Arrow type is numeric."""
    return any(check(kind) for check in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal))


def matches(value: str, pattern: str) -> str:
    """Return a condition that a text contains a pattern."""
    return f"regexp_matches({value}, {quoted_text(pattern)})"


def text_without_fraction(text: str) -> str:
    """Return SQL that removes the `.0` that some programs write after integers."""
    return f"regexp_replace({text}, '\\.0*$', '')"


def _times_of_text(rows: Rows, role: str) -> tuple[str, int | None]:
    # BigQuery writes a blank and UTC after times.
    text = f"regexp_replace({text_without_fraction(f'trim({role}, {_BLANKS})')}, '(:[0-9.]+) UTC$', '\\1Z')"
    first = rows.find("true", f"{matches(text, _DATE)}, {matches(text, _ZONE)}")
    if first is not None and first[2]:
        fine = rows.num_rows(matches(text, r"\.\d{7}"))[1]
        kind = ("TIMESTAMPTZ" if first[3] else "TIMESTAMP") + ("_NS" if fine else "")
        good = f"{matches(text, _ZONE)} = {first[3]} AND {matches(text, _WHOLE_DATE)}"
        date = f"CASE WHEN {good} THEN TRY_CAST({text} AS {kind}) END"
        rows.check(role, f"({date}) IS NULL", "a date in the same form as the first")
        unit = "ns" if fine else "us"
        return f"epoch_{unit}({date})", _PER_SECOND[unit]
    total, whole = rows.num_rows(matches(text, r"^[+-]?[0-9]+$"))
    if whole == total:
        return _cast(rows, role, text, "a time below 2⁶³"), None
    value = _float(text)
    rows.check(role, f"coalesce(isnan({value}), true)", _TIME)
    return value, None


def _cast(rows: Rows, role: str, value: str, expected: str) -> str:
    """Return SQL for integers as int64."""
    number = f"TRY_CAST({value} AS BIGINT)"
    rows.check(role, f"{number} IS NULL", expected)
    return number


def _float(text: str) -> str:
    """Return SQL for text as a number, without forms such as `1_000`, which DuckDB would accept."""
    return f"CASE WHEN NOT contains({text}, '_') THEN TRY_CAST({text} AS DOUBLE) END"


def _label(rows: Rows, role: str) -> str:
    """Return SQL for a value as lower-case text, without surrounding blanks and a final `.0`."""
    return text_without_fraction(f"lower(trim({as_text(rows, role)}, {_BLANKS}))")


def can_be_text(kind: Any) -> bool:
    """Return whether values of an Arrow type have a unique text form; a time in a zone has several."""
    if pa.types.is_timestamp(kind):
        return kind.tz in (None, "UTC")
    others = (pa.types.is_boolean, pa.types.is_duration, pa.types.is_nested, pa.types.is_time)
    return not any(check(kind) for check in others)


def as_text(rows: Rows, role: str) -> str:
    """Return SQL for a value as text; null for bytes that are not UTF-8."""
    kind = rows.kinds[role]
    if kind in (pa.binary(), pa.large_binary(), pa.binary_view()) or pa.types.is_fixed_size_binary(kind):
        return f"TRY(decode({role}))"
    if pa.types.is_timestamp(kind):  # formatted like in Arrow
        digits = {"s": "", "ms": ".%g", "us": ".%f", "ns": ".%n"}[kind.unit]
        return f"strftime({role}, '%Y-%m-%d %H:%M:%S{digits}{'Z' if kind.tz else ''}')"
    return role if is_text(kind) else f"{role}::VARCHAR"


def _texts(texts: Collection[str]) -> str:
    return f"({', '.join(map(quoted_text, texts))})"
