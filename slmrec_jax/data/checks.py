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


def check_range(where: str, name: str, ids: Given, count: int, mend: str) -> None:
    """Refuses ids outside 0..count-1, naming the first one and its place."""
    outside = np.flatnonzero((ids < 0) | (ids >= count))
    if len(outside):
        raise UserError(
            f"{where}: entry {outside[0]} of {name} is {ids[outside[0]]}, and {len(outside)} are outside "
            f"0..{count - 1}; {mend}"
        )


def check_feature(where: str, values: Given, present: Given, num_items: int) -> None:
    """Refuses a feature table that has not one finite row per item."""
    if values.ndim != 2 or values.dtype.kind not in "fiub":
        raise UserError(
            f"{where}: found an array of {values.dtype} of shape {values.shape}; expected a table of numbers, "
            f"one row an item"
        )
    if len(values) != num_items:
        raise UserError(
            f"{where}: {len(values)} rows for {num_items} items; expected row i to be item i: "
            f"give every item a row, and mark in `present` which have the feature"
        )
    if values.shape[1] == 0:
        raise UserError(f"{where}: the table has no columns; leave this feature out")
    if present.shape != (num_items,) or present.dtype != np.bool_:
        raise UserError(
            f"{where}: `present` is {present.dtype} of shape {present.shape}; expected bool of shape ({num_items},)"
        )
    _check_finite(where, values)


def _check_finite(where: str, values: Given) -> None:
    # In chunks, so that the mask of a large table is never held whole.
    chunk = max(1, _CHUNK // values.shape[1])
    count, rows = 0, []
    for start in range(0, len(values), chunk):
        bad = ~np.isfinite(values[start : start + chunk])
        if bad.any():
            count += int(np.count_nonzero(bad))
            rows.append(start + np.flatnonzero(bad.any(axis=1)))
    if count:
        found = np.concatenate(rows)
        raise UserError(
            f"{where}: {count} values in {len(found)} rows are NaN or infinite as float32 (rows {_first(found)}); "
            f"mend them, or mark these items as lacking the feature (`present` false)"
        )


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
