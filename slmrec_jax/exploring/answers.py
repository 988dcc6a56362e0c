"""Answers to the page's requests: functions from the explored data and a query to JSON values."""

import json
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from slmrec_jax.errors import UserError
from slmrec_jax.exploring.explored import Explored, ExploredRun, HostTables, Names
from slmrec_jax.exploring.pictures import find_picture
from slmrec_jax.reporting.items import sample

Answer: TypeAlias = dict[str, Any]

NUM_RECOMMENDED, NUM_SIMILAR = 20, 10
"""The numbers of items in the lists."""
NUM_FOUND = 12
"""The maximum number of search results."""
MOST_HISTORY = 200
"""The maximum number of a user's items that are shown."""
LONGEST = 400
"""The maximum number of characters shown of an id or title. Requests use row numbers, so ids are never cut there."""
LONGEST_LABEL = 80
"""The maximum number of characters of a label on the map."""


def answer(explored: Explored, request: str, query: Mapping[str, str]) -> Answer | None:
    """Answer a request, such as `user` with `{"row": "3"}`; return `None` for an unknown request.

    Raises:
        UserError: The query is invalid.
    """
    found = _REQUESTS.get(request)
    return None if found is None else found(explored, query)


def about(explored: Explored, query: Mapping[str, str]) -> Answer:
    """Return the data set, its sizes and the runs."""
    return {
        "data": explored.name,
        "users": len(explored.users.ids),
        "items": len(explored.items.ids),
        "modalities": list(dict.fromkeys(name for run in explored.runs for name in run.without)),
        "runs": [{"name": run.name, "facts": dict(run.facts), "reason": run.reason} for run in explored.runs],
    }


def users(explored: Explored, query: Mapping[str, str]) -> Answer:
    """Return the users whose id contains the text `q`; without a text, those with the most training interactions."""
    rows = search(explored.users, query.get("q", ""))
    return {"found": [{"row": row, "id": _shortened(explored.users.ids[row])} for row in rows]}


def items(explored: Explored, query: Mapping[str, str]) -> Answer:
    """Return the items whose id or title contains the text `q`, likewise."""
    return {"found": [_item(explored, row) for row in search(explored.items, query.get("q", ""))]}


def user(explored: Explored, query: Mapping[str, str]) -> Answer:
    """Return the history of the user `row`, and the recommendations of each run."""
    row = _row(query, explored.users)
    by_split = {split: _entries(matrix, row) for split, matrix in explored.histories.items()}
    known = np.concatenate(list(by_split.values()))
    history = [
        {**_item(explored, item), "split": split}
        for split, rows in reversed(by_split.items())  # the most important split first, in case of a cut-off
        for item in rows.tolist()
    ]
    lists = [
        _recommended(explored, run, run.embeddings.users[row], _user_rows(run, row), known) for run in explored.runs
    ]
    name = _shortened(explored.users.ids[row])
    return {"row": row, "id": name, "known": len(history), "history": history[:MOST_HISTORY], "runs": lists}


def new_user(explored: Explored, query: Mapping[str, str]) -> Answer:
    """Return each run's recommendations to a new user with the items `rows`, whose row is the mean of theirs."""
    count = len(explored.items.ids)
    rows = np.array(sorted({_number(text, count) for text in query.get("rows", "").split(",")}))
    lists = []
    for run in explored.runs:
        of_parts = {name: _mean(tables.items, rows) for name, tables in {"": run.whole, **run.without}.items()}
        lists.append(_recommended(explored, run, _mean(run.embeddings.items, rows), of_parts, rows))
    history = [_item(explored, row) for row in rows[:MOST_HISTORY].tolist()]
    return {"known": len(rows), "history": history, "runs": lists}


def rows_of_ids(explored: Explored, query: Mapping[str, str]) -> Answer:
    """Return the rows of the items with the raw ids in `ids`, one per line, and the unknown ids."""
    named = [line for line in query.get("ids", "").replace("\r", "").split("\n") if line]
    known = [explored.items.rows[each] for each in named if each in explored.items.rows]
    return {"rows": known, "unknown": [_shortened(each) for each in named if each not in explored.items.rows]}


def similar(explored: Explored, query: Mapping[str, str]) -> Answer:
    """Return the items most similar to the item `row` by cosine, for each modality and the rows of each run."""
    row = _row(query, explored.items)
    lists = []
    for name, table in explored.tables.items():
        found: list[Answer] = []
        if table.present[row]:
            cosines = table.values @ table.values[row]
            cosines[~table.present] = -np.inf
            cosines[row] = -np.inf
            chosen = best(cosines, NUM_SIMILAR)
            found = [{**_item(explored, item), "score": float(cosines[item])} for item in chosen.tolist()]
        lists.append({"table": name, "items": found})
    return {**_item(explored, row), "tables": lists}


def points(explored: Explored, query: Mapping[str, str]) -> Answer:
    """Return the map of the run number `run`. A large catalogue is sampled."""
    place = _number(query.get("run", ""), len(explored.runs))
    rows, (places, shares) = sample(len(explored.items.ids)), explored.maps[place]
    return {
        "rows": rows.tolist(),
        "labels": [_label(explored, row) for row in rows.tolist()],
        "x": places[rows, 0].round(4).tolist(),
        "y": places[rows, 1].round(4).tolist(),
        "shares": shares,
    }


def search(names: Names, text: str) -> list[int]:
    """Return rows whose text contains `text`: an equal id first, then those that start with it, then in row order."""
    folded = text.strip().casefold()
    exact = [names.rows[each] for each in dict.fromkeys((text, text.strip())) if each in names.rows]
    held = islice((row for row, searched in enumerate(names.searched) if folded in searched), 20 * NUM_FOUND)
    ordered = sorted(held, key=lambda row: not names.searched[row].startswith(folded))
    return list(dict.fromkeys([*exact, *ordered]))[:NUM_FOUND]


def best(scores: Float[np.ndarray, " items"], k: int) -> Int[np.ndarray, " best"]:
    """Return the rows of the k largest scores above -inf, largest first, with ties in row order."""
    k = min(k, int(np.count_nonzero(scores > -np.inf)))
    if k == 0:
        return np.empty(0, np.int64)
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    above = np.flatnonzero(scores > least)
    rows = np.concatenate([above, np.flatnonzero(scores == least)[: k - len(above)]])
    ordered: np.ndarray = rows[np.argsort(-scores[rows], kind="stable")]
    return ordered


def answer_bytes(found: Answer) -> bytes:
    """Encode an answer as ASCII JSON, which can represent ids with unpaired surrogates."""
    return json.dumps(found, separators=(",", ":"), allow_nan=False).encode("ascii")


def _entries(matrix: scipy.sparse.csr_array, row: int) -> Int[np.ndarray, " entries"]:
    found: np.ndarray = matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]
    return found


def _user_rows(run: ExploredRun, row: int) -> dict[str, Float[np.ndarray, " dim"]]:
    return {name: tables.users[row] for name, tables in {"": run.whole, **run.without}.items()}


def _recommended(
    explored: Explored,
    run: ExploredRun,
    user_row: Float[np.ndarray, " dim"],
    of_parts: Mapping[str, Float[np.ndarray, " dim"]],
    known: Int[np.ndarray, " known"],
) -> list[Answer]:
    """Return the best unknown items with their scores and, by modality, the decrease of the score without it.

    `of_parts` has the user's row in `run.whole`, under "", and in each of `run.without`.
    """
    scores = _scores(run, run.embeddings, user_row)
    scores[known] = -np.inf
    rows = best(scores, NUM_RECOMMENDED)
    whole = _scores(run, run.whole, of_parts[""], rows)
    falls = {name: whole - _scores(run, tables, of_parts[name], rows) for name, tables in run.without.items()}
    return [
        {
            **_item(explored, row),
            "score": float(scores[row]),
            "parts": {name: float(fall[place]) for name, fall in falls.items()},
        }
        for place, row in enumerate(rows.tolist())
    ]


def _scores(
    run: ExploredRun,
    tables: HostTables,
    user_row: Float[np.ndarray, " dim"],
    rows: Int[np.ndarray, " rows"] | None = None,
) -> Float[np.ndarray, " rows"]:
    """Compute the scores by which `recommend` ranks: inner products, or their sigmoids, as in the protocol."""
    chosen = tables.items if rows is None else tables.items[rows]
    dots: np.ndarray = chosen @ user_row
    return dots if run.score == "dot" else (1 / (1 + np.exp(-np.clip(dots, -80, None)))).astype(np.float32)


def _mean(items: Float[np.ndarray, "items dim"], rows: Int[np.ndarray, " rows"]) -> Float[np.ndarray, " dim"]:
    """Compute the row of a new user, like `fold_in`."""
    mean: np.ndarray = items[rows].mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def _item(explored: Explored, row: int) -> Answer:
    found: Answer = {"row": row, "id": _shortened(explored.items.ids[row])}
    for kind, texts in explored.item_texts.items():
        if texts[row]:
            found[kind] = _shortened(texts[row])
    if find_picture(explored.pictures, found.get("image", "")) is not None:
        found["picture"] = True
    return found | {"at": [each.places[row].round(4).tolist() for each in explored.maps]}


def _label(explored: Explored, row: int) -> str:
    titles = explored.item_texts.get("title")
    title = titles[row] if titles is not None else ""
    return _shortened(f"{title} · {explored.items.ids[row]}" if title else explored.items.ids[row], LONGEST_LABEL)


def _shortened(text: str, longest: int = LONGEST) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"


def _row(query: Mapping[str, str], names: Names) -> int:
    return _number(query.get("row", ""), len(names.ids))


def _number(text: str, count: int) -> int:
    """Parse a row or another number below `count`."""
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(count)) and int(text) < count):
        raise UserError(f"{text[:20]!r} is not a number from 0 to {count - 1}")
    return int(text)


_REQUESTS: Mapping[str, Callable[[Explored, Mapping[str, str]], Answer]] = {
    "about": about,
    "users": users,
    "items": items,
    "user": user,
    "new": new_user,
    "rows": rows_of_ids,
    "similar": similar,
    "map": points,
}
