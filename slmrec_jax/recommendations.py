"""Recommendations in raw ids, and the forms in which they leave the program."""

import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from jaxtyping import Float, Int, Shaped
from rich.console import Console
from rich.table import Table
from rich.text import Text

from slmrec_jax.errors import UserError


class Recommendations(NamedTuple):
    """The best items of each user, best first, in raw ids."""

    users: Shaped[np.ndarray, " users"]
    items: Shaped[np.ndarray, "users k"]
    scores: Float[np.ndarray, "users k"]
    """-inf where a user has no further item to be recommended; the item beside it means nothing."""


def user_rows(
    users: Sequence[Any] | None, user_ids: Shaped[np.ndarray, " all"], data: str
) -> Int[np.ndarray, " users"]:
    """The rows of users named by raw ids, or of all users.

    Args:
        users: raw ids, as they are or as strings.
        user_ids: the raw id of each row.
        data: what the data set is called.

    Raises:
        UserError: a user is not known, or none is named.
    """
    if users is None:
        return np.arange(len(user_ids))
    if len(users) == 0:
        raise UserError("no users were named: give their raw ids")
    places = {str(raw): row for row, raw in enumerate(user_ids)}
    unknown = [user for user in users if str(user) not in places]
    if unknown:
        example = str(user_ids[0])
        raise UserError(f"data set {data}: there is no user {str(unknown[0])!r}; ids look like {example!r}")
    return np.array([places[str(user)] for user in users], np.int32)


def write(found: Recommendations, format: Literal["table", "parquet", "jsonl"], out: Path | None) -> None:
    """Writes recommendations to a file, or to standard output.

    `jsonl` has a line a user, `parquet` and `table` a row a recommendation: user, rank from 1, item, score.

    Raises:
        UserError: the file cannot be written; nothing is left of it.
    """
    if out is None:
        sys.stdout.writelines(_text(found, format))
        return
    part = out.with_name(out.name + ".part")
    try:
        if format == "parquet":
            pyarrow.parquet.write_table(_arrow(found), part)
        else:
            with part.open("w") as file:
                file.writelines(_text(found, format))
        part.replace(out)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"cannot write {out}: {error.strerror}; give another --out") from None


def _text(found: Recommendations, format: str) -> Iterator[str]:
    if format == "jsonl":
        for user, items, scores in _by_user(found):
            yield json.dumps({"user": user, "items": items, "scores": scores}) + "\n"
        return
    table = Table("user", "rank", "item", "score")
    for user, items, scores in _by_user(found):
        for rank, (item, score) in enumerate(zip(items, scores, strict=True), 1):
            name = str(user) if rank == 1 else ""
            table.add_row(Text(name), str(rank), Text(str(item)), f"{score:.4f}", end_section=rank == len(items))
    console = Console(file=io.StringIO())
    with console.capture() as captured:
        console.print(table)
    yield captured.get()


def _by_user(found: Recommendations) -> Iterator[tuple[Any, list[Any], list[float]]]:
    for user, items, scores in zip(found.users, found.items, found.scores, strict=True):
        real = scores > -np.inf
        yield user.item(), items[real].tolist(), scores[real].tolist()


def _arrow(found: Recommendations) -> pa.Table:
    real = found.scores > -np.inf
    ranks = np.broadcast_to(np.arange(1, real.shape[1] + 1, dtype=np.int32), real.shape)
    users = np.broadcast_to(found.users[:, None], real.shape)
    return pa.table({"user": users[real], "rank": ranks[real], "item": found.items[real], "score": found.scores[real]})
