"""Questions to the arrays of a data set; each refusal is one line that says where, what, and what to do.

`where` names the array for the person: the file it came from, or what the caller called it.
"""

from typing import TypeAlias

import numpy as np
from jaxtyping import Int, Shaped

from slmrec_jax.errors import UserError

MAX_COUNT = 2**31 - 1
"""Ids are int32 on the device."""

Given: TypeAlias = Shaped[np.ndarray, "..."]
"""What a caller passed for an array of ids or numbers: of any type and shape, until it is checked."""

_SHOWN = 5
_CHUNK = 2**24
"""Values that are looked at together."""


def check_count(what: str, count: int, where: str) -> None:
    """Refuses a number of users, items or words that ids cannot be in the range of."""
    if count < 1:
        raise UserError(f"{where}: there are {count} {what}; a data set needs at least one")
    if count > MAX_COUNT:
        raise UserError(f"{where}: {count} {what} are more than int32 ids can tell apart ({MAX_COUNT}); split the data")


def check_pairs(where: str, names: tuple[str, str], first: Given, second: Given) -> None:
    """Refuses two columns of ids that are not integers or not equally long."""
    for name, ids in zip(names, (first, second), strict=True):
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise UserError(
                f"{where}: {name} is an array of {ids.dtype} of shape {ids.shape}; expected one column of integer ids"
            )
    if len(first) != len(second):
        raise UserError(
            f"{where}: {len(first)} entries in {names[0]} but {len(second)} in {names[1]}; "
            f"expected one of each for every pair"
        )


def check_range(where: str, name: str, ids: Given, count: int, fix: str) -> None:
    """Refuses ids outside 0..count-1, naming the first one and its place."""
    outside = np.flatnonzero((ids < 0) | (ids >= count))
    if len(outside):
        raise UserError(
            f"{where}: entry {outside[0]} of {name} is {ids[outside[0]]}, and {len(outside)} are outside "
            f"0..{count - 1}; {fix}"
        )


def check_feature(where: str, values: Given, present: Given, num_items: int, *, from_file: bool = False) -> None:
    """Reject a feature table that has not one finite row per item.

    Args:
        where: What the line calls the table.
        values: The table.
        present: Which items have the feature.
        num_items: How many items there are.
        from_file: Whether advice is for a file, where a row of NaN stands for an item without the feature; else it is
            for a caller, who passes `present`.
    """
    if values.ndim != 2 or values.dtype.kind not in "fiub":
        raise UserError(
            f"{where}: found an array of {values.dtype} of shape {values.shape}; expected a table of numbers, "
            f"one row an item"
        )
    if len(values) != num_items:
        check_padding(where, values, num_items)
        if len(values) > num_items:
            fix = "remove the rows that belong to no item"
        elif from_file:
            fix = "give every item a row, one of NaN alone where it lacks the feature"
        else:
            fix = "give every item a row, and mark in `present` which have the feature"
        raise UserError(f"{where}: {len(values)} rows for {num_items} items; expected row i to be item i: {fix}")
    if values.shape[1] == 0:
        raise UserError(f"{where}: the table has no columns; leave this feature out")
    if present.shape != (num_items,) or present.dtype != np.bool_:
        raise UserError(
            f"{where}: `present` is {present.dtype} of shape {present.shape}; expected bool of shape ({num_items},)"
        )
    check_finite(where, values, from_file=from_file)


def check_padding(where: str, values: Given, num_items: int) -> None:
    """Reject a table with one row too many whose first row is zeros: RecBole numbers items from 1 and pads row 0."""
    if len(values) == num_items + 1 and not values[0].any():
        raise UserError(
            f"{where}: {len(values)} rows for {num_items} items, and the first one is zeros, as RecBole pads its "
            f"tables; remove that row, as by values[1:] in NumPy, so that row i is item i"
        )


def check_finite(
    where: str, values: Given, rows: Given | None = None, *, first: int = 0, from_file: bool = True
) -> None:
    """Reject values that are NaN or infinite.

    Args:
        where: What the line calls the table.
        values: The table, or a part of it.
        rows: The number of each row; by default its place, from 0.
        first: The number of a table's first row.
        from_file: Whom the advice is for, as in `check_feature`.
    """
    count, found = _not_finite(values)
    if count:
        named = found if rows is None else rows[found]
        fix = "make a row NaN as a whole" if from_file else "set `present` to False"
        raise UserError(
            f"{where}: {count} values in {len(found)} rows are NaN or infinite as float32 (rows {_first(named)}, from "
            f"{first} on); fix them, or {fix} where an item lacks the feature"
        )


def _not_finite(values: Given) -> tuple[int, Int[np.ndarray, " rows"]]:
    """How many values are NaN or infinite, and the rows that have some."""
    # In chunks, so that the mask of a large table is never held whole.
    chunk = max(1, _CHUNK // values.shape[1])
    count, rows = 0, [np.zeros(0, np.int64)]
    for start in range(0, len(values), chunk):
        bad = ~np.isfinite(values[start : start + chunk])
        if bad.any():
            count += int(np.count_nonzero(bad))
            rows.append(start + np.flatnonzero(bad.any(axis=1)))
    return count, np.concatenate(rows)


def check_raw_ids(where: str, ids: Given, count: int) -> None:
    """Refuses raw ids that are not one distinct string or integer per row."""
    if ids.ndim != 1 or ids.dtype.kind not in "iuU":
        raise UserError(
            f"{where}: raw ids are {ids.dtype} of shape {ids.shape}; expected one column of integers or strings"
        )
    if len(ids) != count:
        raise UserError(f"{where}: {len(ids)} raw ids for {count} rows; expected one for each")
    ordered = np.sort(ids)
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        repeated = ordered[twice[0]].item()
        rows = np.flatnonzero(ids == repeated)
        raise UserError(
            f"{where}: the raw id {repeated!r} stands in {len(rows)} rows ({_first(rows)}); give every row its own"
        )


def _first(rows: Int[np.ndarray, " rows"]) -> str:
    return ", ".join(str(row) for row in rows[:_SHOWN]) + (", …" if len(rows) > _SHOWN else "")
