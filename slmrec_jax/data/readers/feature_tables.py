"""Reader for one modality's vectors, in item order or keyed by raw ids."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from jaxtyping import Bool, Float, Shaped

from slmrec_jax.data.readers.columns import as_numbers_or_nan, as_vectors
from slmrec_jax.data.readers.dataset_folders import is_dataset_folder, read_dataset_folder, vector_columns
from slmrec_jax.data.readers.feature_files import has_numbers
from slmrec_jax.data.readers.headers import SEPARATORS, column_names, first_row, is_parquet
from slmrec_jax.data.readers.item_folders import is_item_folder, read_item_folder
from slmrec_jax.data.readers.npy_files import read_numbers
from slmrec_jax.data.readers.refusals import listed, short_name
from slmrec_jax.data.readers.safetensors_files import read_metadata, read_tensors
from slmrec_jax.data.readers.tables import Table, read_parquet, read_text
from slmrec_jax.data.readers.text_files import uncompressed
from slmrec_jax.data.readers.text_ids import BYTES, OFFSETS, decode_text_ids
from slmrec_jax.data.vectors import as_held, is_real
from slmrec_jax.errors import UserError

FEATURE_SUFFIXES = (".npy", ".safetensors", ".parquet", *SEPARATORS)

ORIGIN = ("source", "model", "model_sha256")
"""The metadata of a `.safetensors` file of vectors that name their source and the model that made them."""

_PANDAS_INDEX = re.compile(r"__index_level_\d+__")
"""The name pattern of the column in which pandas stores an unnamed index."""
_ROW_PER_ITEM = "a table of numbers, one row per item"


class VectorTable(NamedTuple):
    """A table of vectors, as stored in a file."""

    values: Shaped[np.ndarray, "entries columns"]
    """The vectors, of any numeric dtype."""
    present: Bool[np.ndarray, " entries"]
    """Whether each entry has a vector that is not entirely NaN."""
    keys: Table | None
    """The raw ids as a column `item`; `None` if rows are in item order."""
    stored: str
    """The dtype of the numbers in the file."""


def read_vectors(file: Path, key: str | None, modality: str = "") -> VectorTable:
    """Read a table of numbers with one row per item.

    In `.safetensors`, the two-dimensional tensor holds the vectors, and a one-dimensional one the raw ids; text ids are
    the two tensors of `text_ids`. In Parquet, `.csv` and `.tsv`, the vectors are the single column of lists or all
    columns of numbers, apart from the raw id column `key`. Text needs no header if all columns are numbers; an empty
    cell is NaN. A folder of Ducho has one `.npy` file per item, named by raw id (`item_folders`). A folder of Hugging
    Face `datasets` has one column of lists per modality, in addition to `key` (`dataset_folders`).
    """
    if key is not None and is_dataset_folder(file):
        return _from_lists(read_dataset_folder(file, (key, column := vector_columns(file)[modality])), key, column)
    if is_item_folder(file):
        items = read_item_folder(file)
        return _vector_table(file, items.values, pa.chunked_array([pa.array(items.ids)]), items.stored)
    suffix = uncompressed(file).suffix
    if suffix in SEPARATORS:
        return _from_text(file, key)
    if suffix == ".parquet":
        return _from_parquet(file, key)
    keys, values = _from_safetensors(file) if suffix == ".safetensors" else (None, read_numbers(file, _ROW_PER_ITEM))
    stored = values.dtype.name
    if values.dtype.isbuiltin != 1:  # NumPy's functions do not support, for example, float8
        values = as_held(values)
    if values.ndim != 2 or not is_real(values.dtype):
        raise UserError(f"{file}: an array of {stored} of shape {values.shape}; expected {_ROW_PER_ITEM}")
    return _vector_table(file, values, keys, stored)


def may_hold_vectors(file: Path, keys: Collection[str]) -> bool:
    """Return whether a Parquet file has a column of lists, or only numbers beside the raw ids `keys`.

    Numbers without raw ids may be anything. A damaged file may hold vectors.
    """
    if not is_parquet(file):
        return True
    with file.open("rb") as raw:  # opened by Python, since Arrow accepts only UTF-8 paths
        kinds = [field.type for field in pyarrow.parquet.read_schema(raw) if field.name not in keys]
    of_numbers = all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds)
    return any(map(pa.types.is_nested, kinds)) or (bool(keys) and of_numbers)


def note_origin(file: Path) -> list[str]:
    """Return a note about the model that made a file's vectors, if its metadata name one."""
    if file.suffix != ".safetensors":
        return []
    made = read_metadata(file)
    if not made.keys() >= set(ORIGIN):
        return []
    source, model, digest = (short_name(made[name]) for name in ORIGIN)
    return [f"{file.name}: made from {source} by {model} (SHA-256 {digest[:12]}…)"]


def _vector_table(
    file: Path,
    values: Shaped[np.ndarray, "entries columns"],
    keys: Any,
    stored: str,
    present: Bool[np.ndarray, " entries"] | bool = True,
) -> VectorTable:
    if values.size == 0:
        raise UserError(f"{file}: a table of shape {values.shape}; fill it, or remove it")
    table = None if keys is None else Table(file, {"item": keys}, first=1 + (uncompressed(file).suffix in SEPARATORS))
    return VectorTable(values, has_numbers(values) & present, table, stored)


def _from_safetensors(file: Path) -> tuple[Any, Shaped[np.ndarray, "entries columns"]]:
    """Return the raw ids as an Arrow array, if there are any, and the vectors."""
    arrays = read_tensors(file, _ROW_PER_ITEM, mapped=True)
    in_text = {name: arrays.pop(name) for name in (BYTES, OFFSETS)} if arrays.keys() >= {BYTES, OFFSETS} else None
    values = [array for array in arrays.values() if array.ndim == 2]
    keys: list[Any] = [array for array in arrays.values() if array.ndim == 1 and array.dtype.kind in "iu"]
    if in_text is not None:
        keys.append(decode_text_ids(file, in_text))
        arrays["ids of text"] = in_text[BYTES]
    if len(values) != 1 or len(values) + len(keys) != len(arrays) or len(keys) > 1:
        raise UserError(
            f"{file}: it has {listed([f'{name} {array.shape}' for name, array in arrays.items()])}; expected one "
            f"two-dimensional tensor, and optionally one of raw item ids"
        )
    if keys and len(keys[0]) != len(values[0]):
        raise UserError(f"{file}: {len(keys[0])} ids for {len(values[0])} rows; expected one for each")
    return (pa.chunked_array(keys) if keys else None), values[0]


def _from_text(file: Path, key: str | None) -> VectorTable:
    separator = SEPARATORS[uncompressed(file).suffix]
    cells = first_row(file, separator, lambda found: len(found) > 1, quotes=True)
    header = not all(_is_of_numbers(cell) for cell in cells)
    _check_header(file, cells, header)
    names = column_names(file) if header else [f"column {place + 1}" for place in range(len(cells))]
    table = read_text(file, separator, names, names=None if header else names, quotes=True, blank_lines=True)
    keys, others = _without_keys(table, names, key)
    if len(others) == 1 and pc.any(pc.match_substring_regex(table.columns[others[0]], r"\S\s+\S")).as_py():
        values, present = as_vectors(table, others[0])
        return _vector_table(file, values, keys, "text", present)
    return _vector_table(file, _stacked(table, others, ordered=keys is None, named=header), keys, "text")


def _check_header(file: Path, cells: list[str], header: bool) -> None:
    """Reject a first row that could be names or numbers, instead of guessing."""
    named = [cell for cell in cells if cell]
    counts = [[str(first + place) for place in range(len(named))] for first in (0, 1)]
    if (len(named) > 1 and named == counts[0]) or (len(named) > 2 and named == counts[1]):
        raise UserError(
            f"{file}: row 1 counts the columns, as pandas heads a table without names; write it with header=False and "
            f"index=False, or name the columns"
        )
    if header and "" in cells:
        raise UserError(
            f"{file}: column {cells.index('') + 1} has no name; leave it out if it counts the rows, as pandas does "
            f"without index=False, or name it item if it holds raw ids"
        )
    if header and any(_is_of_numbers(cell) and not cell.isdigit() for cell in cells):
        raise UserError(
            f"{file}: row 1 has numbers and other text; write names above the columns, and item for the raw ids"
        )


def _is_of_numbers(cell: str) -> bool:
    """Return whether a cell is empty or holds one or more numbers separated by blanks."""
    try:
        list(map(float, cell.split()))
    except ValueError:
        return False
    return True


def _from_parquet(file: Path, key: str | None) -> VectorTable:
    names = column_names(file)
    if index := [name for name in names if _PANDAS_INDEX.fullmatch(name)]:
        raise UserError(
            f"{file}: {listed(index)} is the index of pandas; write it after reset_index(drop=True), or name the index "
            f"item if it holds raw ids"
        )
    table = read_parquet(file, names)
    keys, others = _without_keys(table, names, key)
    kinds = {name: table.columns[name].type for name in others}
    lists = [name for name, kind in kinds.items() if pa.types.is_nested(kind)]
    numbers = [name for name, kind in kinds.items() if pa.types.is_integer(kind) or pa.types.is_floating(kind)]
    if len(lists) == 1 and key is None and len(others) > 1:  # without ids, row i would be item i
        beside = listed([name for name in others if name != lists[0]])
        raise UserError(
            f"{file}: found {beside} beside the vectors in {short_name(lists[0])!r}, and no known column of raw item "
            f"ids; name the column of raw ids item, or leave other columns out"
        )
    if len(lists) == 1:
        return _from_lists(table, key, lists[0])
    if lists or len(numbers) != len(others) or not numbers:
        raise UserError(
            f"{file}: it has the columns {listed(names)}; expected one with lists of numbers, or only numbers, beside "
            f"the items' raw ids"
        )
    values = _stacked(table, numbers, ordered=keys is None)
    return _vector_table(file, values, keys, np.dtype(kinds[numbers[0]].to_pandas_dtype()).name)


def _from_lists(table: Table, key: str | None, column: str) -> VectorTable:
    values, present = as_vectors(table, column)
    stored = np.dtype(table.columns[column].type.value_type.to_pandas_dtype()).name
    return _vector_table(table.file, values, None if key is None else table.columns[key], stored, present)


def _without_keys(table: Table, names: list[str], key: str | None) -> tuple[Any, list[str]]:
    """Return the raw id column, if there is one, and the names of the other columns."""
    if key is not None and key not in names:
        raise UserError(f"{table.file}: there is no column {short_name(key)!r}; it has {listed(names)}")
    others = [name for name in names if name != key]
    if not others:
        raise UserError(f"{table.file}: it has only the column {listed(names)}; expected numbers beside the raw ids")
    return (None if key is None else table.columns[key]), others


def _stacked(
    table: Table, names: list[str], *, ordered: bool, named: bool = True
) -> Float[np.ndarray, "entries columns"]:
    """Stack columns of numbers into one table. If rows have no ids, the first column must not look like ids."""
    first = as_numbers_or_nan(table, names[0])
    values = np.empty((len(first), len(names)), np.float32)
    with np.errstate(over="ignore"):  # infinite values are rejected later, with their rows
        for place, name in enumerate(names):
            values[:, place] = first if place == 0 else as_numbers_or_nan(table, name)
    whole = len(first) > 1 and (first == np.round(first)).all() and len(np.unique(first)) == len(first)
    features = values[:, 1:]
    integers = not named and pc.all(pc.match_substring_regex(table.columns[names[0]], r"^\s*[0-9]+\s*$")).as_py()
    if ordered and whole and ((features != np.round(features)).any() or (integers and features.size)):
        raise UserError(
            f"{table.file}: the first column ({short_name(names[0])}) looks like raw ids; name it item if so, "
            f"leave it out if it counts the rows, or else name all columns"
        )
    return values
