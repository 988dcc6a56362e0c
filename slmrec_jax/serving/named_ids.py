"""Look-up of raw ids that are given in Python, in the value of a flag, or in a file."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int, Shaped

from slmrec_jax.errors import UserError


def find_rows(
    named: Any, raw_ids: Shaped[np.ndarray, " all"], what: Literal["user", "item"], data: str
) -> Int[np.ndarray, " named"]:
    """Return the rows of users or items, given their raw ids.

    Args:
        named: A sequence of raw ids, in their own type or as strings, or a single id (a string is one id).
        raw_ids: The raw id of each row.
        what: The kind of rows.
        data: The name of the data set.

    Raises:
        UserError: An id is unknown, or no ids are given.
    """
    no_sequence = isinstance(named, str | bytes) or not isinstance(named, Iterable)
    is_single = named.ndim == 0 if hasattr(named, "ndim") else no_sequence
    wanted = [_as_text(each) for each in ([named] if is_single else named)]
    if not wanted:
        raise UserError(f"no {what}s were named: give their raw ids")
    places = {str(raw): row for row, raw in enumerate(raw_ids)}
    for each in wanted:
        if each not in places:
            raise UserError(f"data set {data}: there is no {what} {each!r}; ids look like {str(raw_ids[0])!r}")
    return np.array([places[each] for each in wanted], np.int32)


def _as_text(raw_id: Any) -> str:
    """Convert a raw id to text. Floats without a fraction become integers, as when data sets are made."""
    is_whole = isinstance(raw_id, float | np.floating) and float(raw_id).is_integer()
    return str(int(raw_id)) if is_whole else str(raw_id)


def split_ids(text: str, flag: str) -> list[str]:
    """Split the value of a flag into raw ids, separated by commas; ids with commas are quoted, as in CSV.

    Raises:
        UserError: A quote is not closed, or text follows a closing quote.
    """
    try:
        return [each for row in csv.reader([text], strict=True) for each in row if each]
    except csv.Error:
        raise UserError(
            f"{flag} is {text!r}: quotes must enclose an id, as in '\"Doe, Jane\",u2'; double those within an id"
        ) from None


def read_id_file(path: Path, flag: str) -> list[str]:
    """Read raw ids from a text file with one id per line. Commas, quotes and blanks are part of an id.

    Raises:
        UserError: The file cannot be read, is not UTF-8, or has no ids.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(
            f"{flag} {path} cannot be read ({error.strerror}): check the path and its permissions"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{flag} {path} is not UTF-8 (byte {error.start + 1}): save it as UTF-8") from None
    named = [each for each in text.replace("\r\n", "\n").split("\n") if each]
    if not named:
        raise UserError(f"{flag} {path} is empty: write one raw id per line")
    return named
