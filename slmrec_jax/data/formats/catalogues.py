"""Lists of all users or items of a data set, which define their order and include those without interactions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from slmrec_jax.data.readers.headers import first_row
from slmrec_jax.data.readers.raw_ids import as_raw_ids, as_rows, find_ids, raw_ids_by_row
from slmrec_jax.data.readers.row_ids import NumberedIds, place_of_id, renumber
from slmrec_jax.data.readers.rows import Rows
from slmrec_jax.data.readers.tables import Table, read_text
from slmrec_jax.errors import UserError


def in_catalogue(ids: NumberedIds, tables: Sequence[Rows], listed: Table, role: str = "item") -> NumberedIds:
    """Number users or items in the order of a list, which has their raw ids as a column `role`."""
    places = find_ids(listed, role, ids.ids)
    rows = np.full(len(ids.ids), -1)
    rows[places[places >= 0]] = np.flatnonzero(places >= 0)
    if len(unknown := np.flatnonzero(rows < 0)):
        place, value = place_of_id(tables, ids, role, unknown)
        raise UserError(f"{place}: {role} is {value}, which {listed.file.name} does not have; add it there")
    return renumber(tables[0].engine, ids, as_raw_ids(listed, role), rows)


def numbers_rows(file: Path, separator: str, raw: str, row: str) -> bool:
    """Return whether a text file has a column of raw ids and one of row numbers."""
    wanted = {raw, row}
    return wanted <= set(first_row(file, separator, wanted.issubset, quotes=separator == ","))


def read_numbered(file: Path, separator: str, raw: str, row: str, *, role: str) -> Table:
    """Read raw ids, in the order of their row numbers, as a column `role`."""
    table = read_text(file, separator, (raw, row), quotes=separator == ",")
    ids = raw_ids_by_row(table, raw, row)
    return Table(file, {role: pa.chunked_array([ids])}, table.first, np.argsort(as_rows(table, row), kind="stable"))
