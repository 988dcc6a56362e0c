"""Recommendations in raw ids, and the forms in which they leave the program."""

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
"""What the table says of a user who knows every item."""

_SHOWN = 5
"""How many of the users with nothing left are named."""


class Recommendations(NamedTuple):
    """The best items of each user, best first, in raw ids."""

    users: Shaped[np.ndarray, " users"]
    items: Shaped[np.ndarray, "users k"]
    scores: Float[np.ndarray, "users k"]
    """-inf where a user has no further item to be recommended; the item beside it means nothing."""


def rows_of(
    named: Any, raw_ids: Shaped[np.ndarray, " all"], what: Literal["user", "item"], data: str
) -> Int[np.ndarray, " named"]:
    """Return the rows of users or items named by raw ids.

    Args:
        named: a sequence of raw ids, as they are or as strings, or a single one: a string is one id.
        raw_ids: the raw id of each row.
        what: which of the two they are.
        data: what the data set is called.

    Raises:
        UserError: one is not known, or none is named.
    """
    is_array = isinstance(named, np.ndarray)
    alone = named.ndim == 0 if is_array else isinstance(named, str | bytes) or not isinstance(named, Iterable)
    wanted = [str(each) for each in ([named] if alone else named)]
    if not wanted:
        raise UserError(f"no {what}s were named: give their raw ids")
    places = {str(raw): row for row, raw in enumerate(raw_ids)}
    for each in wanted:
        if each not in places:
            raise UserError(f"data set {data}: there is no {what} {each!r}; ids look like {str(raw_ids[0])!r}")
    return np.array([places[each] for each in wanted], np.int32)


def user_rows(named: Any, user_ids: Shaped[np.ndarray, " all"], data: str) -> Int[np.ndarray, " users"]:
    """Return the rows of users named by raw ids, or of all users for `None`; see `rows_of`."""
    return np.arange(len(user_ids)) if named is None else rows_of(named, user_ids, "user", data)


def split_ids(text: str, flag: str) -> list[str]:
    """Return the raw ids of a flag's value, separated by commas; quotes keep a comma in an id, as in CSV.

    Raises:
        UserError: a quote is not closed, or something follows one.
    """
    try:
        return [each for row in csv.reader([text], strict=True) for each in row if each]
    except csv.Error:
        raise UserError(
            f"{flag} is {text!r}: quotes must enclose an id, as in '\"Doe, Jane\",u2'; double those within an id"
        ) from None


def read_id_file(path: Path, flag: str) -> list[str]:
    """Return the raw ids in a text file, one a line, as they stand there: commas, quotes and blanks belong to an id.

    Raises:
        UserError: the file cannot be read, is not UTF-8, or has no id.
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
        raise UserError(f"{flag} {path} is empty: write one raw id a line")
    return named


def write(found: Recommendations, format: Literal["table", "parquet", "jsonl"], out: Path | None) -> None:
    """Write recommendations to a file, or to standard output.

    `jsonl` has a line a user, `parquet` and `table` a row a recommendation: user, rank from 1, item, score. A user with
    nothing left to recommend has an empty list, a row without rank, item and score, or a row that says so. Text is
    UTF-8 whatever the locale.

    Args:
        found: what to write.
        format: its form.
        out: a file, which is replaced whole or not at all, or a device or a pipe.

    Raises:
        UserError: the file cannot be written; nothing is left of it.
    """
    if out is None:
        if format == "jsonl":
            sys.stdout.writelines(_lines(found))
        else:
            Console().print(_table(found))
        return
    with writing(out, f"give another {setting('out')}"), whole_file(out) as file:
        if format == "parquet":
            pyarrow.parquet.write_table(_arrow(found), file)
        elif format == "jsonl":
            file.writelines(line.encode() for line in _lines(found))
        else:
            text = io.StringIO()
            Console(file=text).print(_table(found))
            file.write(text.getvalue().encode())


def nothing_left(found: Recommendations) -> str | None:
    """Return a line on the users who know every item already, or `None` where there is none."""
    without = found.users[~(found.scores > -np.inf).any(axis=1)]
    if len(without) == 0:
        return None
    named = ", ".join(escaped(user) for user in without[:_SHOWN].tolist())
    more = f" and {len(without) - _SHOWN} more" if len(without) > _SHOWN else ""
    return f"{len(without)} of {len(found.users)} users have nothing left to recommend: {named}{more}"


def _lines(found: Recommendations) -> Iterator[str]:
    for user, items, scores in _by_user(found):
        yield json.dumps({"user": user, "items": items, "scores": scores}) + "\n"


def _table(found: Recommendations) -> Table:
    table = Table("user", "rank", "item", "score")
    for column in table.columns:
        column.overflow = "fold"  # an id is never cut short
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


def _arrow(found: Recommendations) -> pa.Table:
    real = found.scores > -np.inf
    left = np.asarray(real.any(axis=1))
    ranks = np.broadcast_to(np.arange(1, real.shape[1] + 1, dtype=np.int32), real.shape)
    shown = real | (~left[:, None] & (ranks == 1))  # a row for a user with nothing left
    users = np.broadcast_to(found.users[:, None], real.shape)
    empty = ~real[shown]
    columns = {"rank": ranks, "item": found.items, "score": found.scores}
    return pa.table(
        {"user": users[shown], **{name: pa.array(values[shown], mask=empty) for name, values in columns.items()}}
    )
