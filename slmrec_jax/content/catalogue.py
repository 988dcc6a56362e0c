"""Reader for the table of items whose texts or pictures become vectors."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Shaped

from slmrec_jax.data.formats.roles import ColumnLayout, find_layout, find_roles
from slmrec_jax.data.readers.columns import cast_column
from slmrec_jax.data.readers.dataset_folders import column_kinds, is_dataset_folder, read_dataset_folder
from slmrec_jax.data.readers.headers import TABLE_SUFFIXES
from slmrec_jax.data.readers.opening import check_file
from slmrec_jax.data.readers.raw_ids import as_raw_ids, find_ids
from slmrec_jax.data.readers.refusals import listed
from slmrec_jax.data.readers.tables import Table, read_parquet, read_text
from slmrec_jax.data.readers.text_files import uncompressed
from slmrec_jax.errors import UserError, setting

IMAGE = "image"
"""The optional column that names the picture of each item."""

_BETWEEN = ". "
"""The separator between the texts of two columns."""


class Catalogue(NamedTuple):
    """The items of a table."""

    file: Path
    ids: Shaped[np.ndarray, " items"]
    """The raw ids, all distinct."""
    columns: Mapping[str, Sequence[str]]
    """The texts by column; empty where a value is missing."""


def read_catalogue(file: Path, texts: Sequence[str], item_column: str | None) -> Catalogue:
    """Read the raw ids, the given text columns, and the column `image` if there is one."""
    layout, read = _open_table(file, {"item": item_column} if item_column else {})
    if item_column and item_column.isdecimal() and layout.header and layout.separator:
        choice = f"give one of these with {setting('item_column')}, instead of a number"
        raise UserError(f"{file}: row 1 holds the names {listed(layout.names)}; {choice}")
    keys = layout.roles.get("item", [])
    if len(keys) != 1:
        wrong = f"{listed(keys)} could all be the column of items" if keys else "there is no column of items"
        raise UserError(
            f"{file}: {wrong}; it has {listed(layout.names)}: name the column of raw ids with {setting('item_column')}"
        )
    for name in texts:
        if name not in layout.names:
            raise UserError(
                f"{file}: there is no column {name!r}; it has {listed(layout.names)}: choose from these with "
                f"{setting('text')}"
            )
    images = [name for name in layout.names if name.lower() == IMAGE][:1]
    wanted = list(dict.fromkeys([*keys, *texts, *images]))
    table = read(file, wanted)
    ids = as_raw_ids(table, keys[0])
    if not len(ids):
        raise UserError(f"{file}: it has no rows; expected one for each item")
    find_ids(table, keys[0], ids)  # rejects repeated ids
    columns = {name: cast_column(table, name, table.columns[name], pa.string(), "text") for name in (*texts, *images)}
    found = {name: pc.fill_null(column, "").to_pylist() for name, column in columns.items()}
    if images:
        found[IMAGE] = found[images[0]]
    return Catalogue(file, ids, found)


def _open_table(file: Path, named: Mapping[str, str]) -> tuple[ColumnLayout, Callable[[Path, Sequence[str]], Table]]:
    """Return the layout of a file, or of a folder of `datasets`, and a function that reads some of its columns."""
    if is_dataset_folder(file):
        names = [name for name, kind in column_kinds(file).items() if not pa.types.is_nested(kind)]
        return ColumnLayout(names, find_roles(names, named), ""), read_dataset_folder
    check_file(file, "a table of items")
    suffix = uncompressed(file).suffix
    if suffix not in TABLE_SUFFIXES:
        raise UserError(f"{file}: not a table; give one that ends in {', '.join(TABLE_SUFFIXES)}")
    layout = find_layout(file, named, ("item",))
    if suffix == ".parquet":
        return layout, read_parquet
    return layout, lambda file, wanted: read_text(file, layout.separator, wanted, quotes=layout.quotes)


def joined_texts(catalogue: Catalogue, columns: Sequence[str]) -> list[str]:
    """Join the non-blank texts of each item's columns."""
    rows = zip(*(catalogue.columns[name] for name in columns), strict=True)
    return [_BETWEEN.join(" ".join(text.split()) for text in row if text.strip()) for row in rows]
