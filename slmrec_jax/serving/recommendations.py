"""Ranked items with raw ids, and their output as a table, Parquet or JSON lines."""

import io
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from jaxtyping import Bool, Float, Shaped
from rich.console import Console
from rich.table import Table
from rich.text import Text

from slmrec_jax.durable import whole_file, writing
from slmrec_jax.errors import escaped, setting

OutputFormat: TypeAlias = Literal["table", "parquet", "jsonl"]

NOTHING_LEFT = "nothing left"
"""The text in the table for a user who knows every item."""

_MAX_NAMED = 5
"""The maximum number of users with nothing left that a message names."""


class Recommendations(NamedTuple):
    """The best items of each user as raw ids, best first."""

    users: Shaped[np.ndarray, " users"]
    items: Shaped[np.ndarray, "users k"]
    scores: Float[np.ndarray, "users k"]
    """Scores; -inf if a user has no further item, in which case the item in that place is meaningless."""
    texts: Mapping[str, Shaped[np.ndarray, "users k"]] = {}
    """The texts of the items by kind, such as `title`."""


class SimilarItems(NamedTuple):
    """The items most similar to each item as raw ids, best first."""

    items: Shaped[np.ndarray, " items"]
    similar: Shaped[np.ndarray, "items k"]
    scores: Float[np.ndarray, "items k"]
    """Cosines of the trained rows."""
    texts: Mapping[str, Shaped[np.ndarray, "items k"]] = {}
    """The texts of the similar items by kind, such as `title`."""


Ranked = TypeVar("Ranked", Recommendations, SimilarItems)


def write_ranked(parts: Iterable[Ranked], format: OutputFormat, out: Path | None) -> None:
    """Write ranked items, part by part, to a file or to standard output.

    `jsonl` has one line per user; `parquet` and `table` have one row per recommendation: user, rank from 1, item, its
    texts if the data set has some, and score. A user with nothing left to recommend has an empty list in `jsonl`, a row
    of nulls in `parquet`, and a row with `NOTHING_LEFT` in `table`. For similar items, the columns are `item` and
    `similar` instead of user and item. Text is UTF-8 in every locale.

    Args:
        parts: The ranked items, at least one part. A part is freed once it is written; `table` prints one table per
            part.
        format: The output format.
        out: A file, which is replaced atomically, or a device or pipe; `None` for standard output.

    Raises:
        UserError: The file cannot be written. No part of it remains.
    """
    if out is None:
        for found in parts:
            if format == "jsonl":
                sys.stdout.writelines(_lines(found))
            else:
                Console().print(_rich_table(found))
        return
    with writing(out, f"give another {setting('out')}"), whole_file(out) as file:
        if format == "parquet":
            _write_parquet(parts, file)
            return
        for found in parts:
            if format == "jsonl":
                file.writelines(line.encode() for line in _lines(found))
            else:
                text = io.StringIO()
                Console(file=text).print(_rich_table(found))
                file.write(text.getvalue().encode())


def without_items(found: Recommendations) -> Shaped[np.ndarray, " users"]:
    """Return the users who know every item."""
    return found.users[~(found.scores > -np.inf).any(axis=1)]


def nothing_left(without: Sequence[Any], num_users: int) -> str | None:
    """Return a message about the users, out of `num_users`, who know every item; `None` if there are none."""
    if len(without) == 0:
        return None
    named = ", ".join(escaped(user) for user in without[:_MAX_NAMED])
    more = f" and {len(without) - _MAX_NAMED} more" if len(without) > _MAX_NAMED else ""
    return f"{len(without)} of {num_users} users have nothing left to recommend: {named}{more}"


def _write_parquet(parts: Iterable[Recommendations | SimilarItems], file: IO[bytes]) -> None:
    tables = map(_arrow_table, parts)
    first = next(tables)
    with pyarrow.parquet.ParquetWriter(file, first.schema) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table)


def _arrow_column(values: Shaped[np.ndarray, " rows"], empty: Bool[np.ndarray, " rows"]) -> pa.Array:
    """Convert values to Arrow with nulls. The type does not depend on how many values are null."""
    return pa.array(values, pa.string() if values.dtype.kind == "O" else None, mask=empty)


def _headings(found: Recommendations | SimilarItems) -> tuple[str, str]:
    return ("user", "item") if isinstance(found, Recommendations) else ("item", "similar")


def _lines(found: Recommendations | SimilarItems) -> Iterator[str]:
    query, result = _headings(found)
    results = "items" if result == "item" else result
    for each, items, scores, texts in _by_query(found):
        listed = {f"{kind}s": values for kind, values in texts.items()}
        yield json.dumps({query: each, results: items, **listed, "scores": scores}) + "\n"


def _rich_table(found: Recommendations | SimilarItems) -> Table:
    query, result = _headings(found)
    table = Table(query, "rank", result, *found.texts, "score")
    for column in table.columns:
        column.overflow = "fold"  # ids are never truncated
    for each, items, scores, texts in _by_query(found):
        if not items:
            table.add_row(Text(escaped(each)), "", Text(NOTHING_LEFT, "italic"), end_section=True)
        for place, (item, score) in enumerate(zip(items, scores, strict=True)):
            name = escaped(each) if place == 0 else ""
            shown = [Text(escaped(item)), *(Text(escaped(listed[place])) for listed in texts.values())]
            last = place == len(items) - 1
            table.add_row(Text(name), str(place + 1), *shown, f"{score:.4f}", end_section=last)
    return table


def _by_query(
    found: Recommendations | SimilarItems,
) -> Iterator[tuple[Any, list[Any], list[float], dict[str, list[str]]]]:
    """Yield each query with its items, their scores and their texts by kind."""
    queries, items, scores, texts = found
    for row, each in enumerate(queries):
        real = scores[row] > -np.inf
        listed = {kind: values[row][real].tolist() for kind, values in texts.items()}
        yield each.item(), items[row][real].tolist(), scores[row][real].tolist(), listed


def _arrow_table(found: Recommendations | SimilarItems) -> pa.Table:
    query, result = _headings(found)
    queries, items, scores, texts = found
    real = scores > -np.inf
    ranks = np.broadcast_to(np.arange(1, real.shape[1] + 1, dtype=np.int32), real.shape)
    shown = real | (~real.any(axis=1, keepdims=True) & (ranks == 1))  # a user with nothing left has one row
    empty = ~real[shown]
    columns = {"rank": ranks, result: items, **texts, "score": scores}
    return pa.table(
        {
            query: np.broadcast_to(queries[:, None], real.shape)[shown],
            **{name: _arrow_column(values[shown], empty) for name, values in columns.items()},
        }
    )
