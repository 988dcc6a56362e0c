"""Recommendations in raw ids, and their output as a table, Parquet or JSON lines."""

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from jaxtyping import Float, Int, Shaped
from rich.console import Console
from rich.table import Table
from rich.text import Text

from slmrec_jax.durable import whole_file, writing
from slmrec_jax.errors import UserError, escaped, setting

NOTHING_LEFT = "nothing left"
"""The text in the table for a user who knows every item."""

_MAX_NAMED = 5
"""The number of users with nothing left that a message names."""


class Recommendations(NamedTuple):
    """The best items of each user, best first, in raw ids."""

    users: Shaped[np.ndarray, " users"]
    items: Shaped[np.ndarray, "users k"]
    scores: Float[np.ndarray, "users k"]
    """-inf if a user has no further item; the item in that place is meaningless."""


def find_rows(
    named: Any, raw_ids: Shaped[np.ndarray, " all"], what: Literal["user", "item"], data: str
) -> Int[np.ndarray, " named"]:
    """Return the rows of users or items named by raw ids.

    Args:
        named: A sequence of raw ids, in their own type or as strings, or a single id: a string is one id.
        raw_ids: The raw id of each row.
        what: The kind of rows.
        data: The name of the data set.

    Raises:
        UserError: An id is unknown, or there is none.
    """
    is_array = isinstance(named, np.ndarray)
    is_single = named.ndim == 0 if is_array else isinstance(named, str | bytes) or not isinstance(named, Iterable)
    wanted = [str(each) for each in ([named] if is_single else named)]
    if not wanted:
        raise UserError(f"no {what}s were named: give their raw ids")
    places = {str(raw): row for row, raw in enumerate(raw_ids)}
    for each in wanted:
        if each not in places:
            raise UserError(f"data set {data}: there is no {what} {each!r}; ids look like {str(raw_ids[0])!r}")
    return np.array([places[each] for each in wanted], np.int32)


def user_rows(named: Any, user_ids: Shaped[np.ndarray, " all"], data: str) -> Int[np.ndarray, " users"]:
    """Return the rows of users named by raw ids, or of all users for `None`; see `find_rows`."""
    return np.arange(len(user_ids)) if named is None else find_rows(named, user_ids, "user", data)


def split_ids(text: str, flag: str) -> list[str]:
    """Return the raw ids in the value of a flag: separated by commas, with quotes around ids with commas, as in CSV.

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
    """Return the raw ids in a text file, one per line; commas, quotes and blanks are part of an id.

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


def write_recommendations(
    found: Recommendations, format: Literal["table", "parquet", "jsonl"], out: Path | None
) -> None:
    """Write recommendations to a file, or to standard output.

    `jsonl` has a line for each user, `parquet` and `table` a row for each recommendation: user, rank from 1, item,
    score. A user with nothing left to recommend has an empty list in `jsonl`, a row of nulls in `parquet`, and a row
    with `NOTHING_LEFT` in `table`. Text is UTF-8 in every locale.

    Args:
        found: The recommendations.
        format: The output format.
        out: A file, which is replaced as a whole or not at all, or a device or pipe; `None` for standard output.

    Raises:
        UserError: The file cannot be written; no part of it remains.
    """
    if out is None:
        if format == "jsonl":
            sys.stdout.writelines(_lines_by_user(found))
        else:
            Console().print(_rich_table(found))
        return
    with writing(out, f"give another {setting('out')}"), whole_file(out) as file:
        if format == "parquet":
            pyarrow.parquet.write_table(_arrow_table(found), file)
        elif format == "jsonl":
            file.writelines(line.encode() for line in _lines_by_user(found))
        else:
            text = io.StringIO()
            Console(file=text).print(_rich_table(found))
            file.write(text.getvalue().encode())


def nothing_left(found: Recommendations) -> str | None:
    """Return a message about the users who know every item, or `None` if there are none."""
    without = found.users[~(found.scores > -np.inf).any(axis=1)]
    if len(without) == 0:
        return None
    named = ", ".join(escaped(user) for user in without[:_MAX_NAMED].tolist())
    more = f" and {len(without) - _MAX_NAMED} more" if len(without) > _MAX_NAMED else ""
    return f"{len(without)} of {len(found.users)} users have nothing left to recommend: {named}{more}"


def _lines_by_user(found: Recommendations) -> Iterator[str]:
    for user, items, scores in _by_user(found):
        yield json.dumps({"user": user, "items": items, "scores": scores}) + "\n"


def _rich_table(found: Recommendations) -> Table:
    table = Table("user", "rank", "item", "score")
    for column in table.columns:
        column.overflow = "fold"  # ids are never truncated
    for user, items, scores in _by_user(found):
        if not items:
            table.add_row(Text(escaped(user)), "", Text(NOTHING_LEFT, "italic"), "", end_section=True)
        for rank, (item, score) in enumerate(zip(items, scores, strict=True), 1):
            name = escaped(user) if rank == 1 else ""
            table.add_row(Text(name), str(rank), Text(escaped(item)), f"{score:.4f}", end_section=rank == len(items))
    return table


def _by_user(found: Recommendations) -> Iterator[tuple[Any, list[Any], list[float]]]:
    for user, items, scores in zip(found.users, found.items, found.scores, strict=True):
        real = scores > -np.inf
        yield user.item(), items[real].tolist(), scores[real].tolist()


def _arrow_table(found: Recommendations) -> pa.Table:
    real = found.scores > -np.inf
    ranks = np.broadcast_to(np.arange(1, real.shape[1] + 1, dtype=np.int32), real.shape)
    shown = real | (~real.any(axis=1, keepdims=True) & (ranks == 1))  # a user with nothing left has one row
    users = np.broadcast_to(found.users[:, None], real.shape)
    empty = ~real[shown]
    columns = {"rank": ranks, "item": found.items, "score": found.scores}
    return pa.table(
        {"user": users[shown], **{name: pa.array(values[shown], mask=empty) for name, values in columns.items()}}
    )
