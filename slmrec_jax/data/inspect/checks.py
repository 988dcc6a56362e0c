"""Checks of the arrays of a data set. Each error is one line with the place, the problem and the fix.

`where` names the array for the user: the file it came from, or the caller's name for it.
"""

from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int, Shaped

from slmrec_jax.data.vectors import is_real, row_blocks
from slmrec_jax.errors import UserError

MAX_COUNT = 2**31 - 1
"""The maximum number of users, items or words, since ids are int32 on the device."""

AnyArray: TypeAlias = Shaped[np.ndarray, "..."]
"""An array as passed by the caller, of any dtype and shape until it is checked."""

_ROWS_SHOWN = 5


def check_count(what: str, count: int, where: str) -> None:
    """Reject a number of users, items or words that is not positive or too large for int32 ids."""
    if count < 1:
        raise UserError(f"{where}: there are {count} {what}; a data set needs at least one")
    if count > MAX_COUNT:
        raise UserError(f"{where}: {count} {what} are more than int32 ids can tell apart ({MAX_COUNT}); split the data")


def check_pairs(where: str, names: tuple[str, str], first: AnyArray, second: AnyArray) -> None:
    """Reject two id columns that are not integers or have different lengths."""
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


def check_range(where: str, name: str, ids: AnyArray, count: int, fix: str) -> None:
    """Reject ids outside 0..count-1. The error names the first one and its position."""
    if len(ids) == 0 or (ids.min() >= 0 and ids.max() < count):
        return
    outside = np.flatnonzero((ids < 0) | (ids >= count))
    if len(outside):
        raise UserError(
            f"{where}: entry {outside[0]} of {name} is {ids[outside[0]]}, and {len(outside)} are outside "
            f"0..{count - 1}; {fix}"
        )


def check_feature(where: str, values: AnyArray, present: AnyArray, num_items: int, *, from_file: bool = False) -> None:
    """Reject a feature table that does not have one finite row per item.

    With `from_file`, the advice is for a file, where a row of NaN marks an item without the feature; otherwise for a
    Python caller, who passes `present`.
    """
    if values.ndim != 2 or not is_real(values.dtype):
        raise UserError(
            f"{where}: found an array of {values.dtype} of shape {values.shape}; expected a table of numbers, "
            f"one row per item"
        )
    if len(values) != num_items:
        check_padding(where, values, num_items)
        if len(values) > num_items:
            fix = "remove the rows that belong to no item"
        elif from_file:
            fix = "give every item a row, all NaN where it lacks the feature"
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


def check_padding(where: str, values: AnyArray, num_items: int) -> None:
    """Reject a table with an extra first row of zeros, as in RecBole, which numbers items from 1 and pads row 0."""
    if len(values) == num_items + 1 and not values[0].any():
        raise UserError(
            f"{where}: {len(values)} rows for {num_items} items, and the first one is all zeros, as RecBole pads its "
            f"tables; remove that row, for example with values[1:] in NumPy, so that row i is item i"
        )


def check_finite(
    where: str,
    values: AnyArray,
    rows: AnyArray | None = None,
    *,
    among: AnyArray | None = None,
    first: int = 0,
    from_file: bool = True,
) -> None:
    """Reject values that are NaN or infinite.

    `rows` are the row numbers, by default the indices counted from `first`. With the mask `among`, other rows may hold
    anything.
    """
    wrong, count = [], 0
    for block in row_blocks(values):  # so that the mask of a large table is never in memory as a whole
        infinite = ~np.isfinite(values[block])
        if among is not None:
            infinite &= among[block][:, None]
        if infinite.any():
            wrong.append(block.start + np.flatnonzero(infinite.any(axis=1)))
            count += int(np.count_nonzero(infinite))
    if wrong:
        found = np.concatenate(wrong)
        named = found if rows is None else np.sort(rows[found])
        fix = "make a whole row NaN" if from_file else "set `present` to False"
        raise UserError(
            f"{where}: {count} values in {len(found)} rows are NaN or infinite as float32 (rows {_shown_rows(named)}, "
            f"counted from {first}); fix them, or {fix} where an item lacks the feature"
        )


def check_raw_ids(where: str, ids: AnyArray, count: int) -> None:
    """Reject raw ids that are not one distinct string or integer per row."""
    if ids.ndim != 1 or ids.dtype.kind not in "iuU":
        raise UserError(
            f"{where}: raw ids are {ids.dtype} of shape {ids.shape}; expected one column of integers or strings"
        )
    if len(ids) != count:
        raise UserError(f"{where}: {len(ids)} raw ids for {count} rows; expected one for each")
    if _are_distinct(ids):
        return
    ordered = np.sort(ids)
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        repeated = ordered[twice[0]].item()
        rows = np.flatnonzero(ids == repeated)
        raise UserError(
            f"{where}: the raw id {repeated!r} occurs in {len(rows)} rows ({_shown_rows(rows)}); give every row its own"
        )


def _are_distinct(ids: AnyArray) -> bool:
    """Return whether raw ids are distinct."""
    if np.all(ids[1:] > ids[:-1]):  # as they are after reading a table
        return True
    try:  # hashing is faster than sorting text
        return bool(pc.count_distinct(pa.array(ids)).as_py() == len(ids))
    except (pa.ArrowException, UnicodeError):  # text is not Unicode
        return False


def _shown_rows(rows: Int[np.ndarray, " rows"]) -> str:
    return ", ".join(str(row) for row in rows[:_ROWS_SHOWN]) + (", …" if len(rows) > _ROWS_SHOWN else "")
