"""Writing and reading of this package's own files: Parquet tables, raw ids, tensors and `meta.json`."""

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from jaxtyping import Shaped

from slmrec_jax.data.dataset import ITEM_TEXTS
from slmrec_jax.data.readers.json_lists import read_json_file
from slmrec_jax.data.readers.opening import reading
from slmrec_jax.data.readers.parquet_files import limit, type_name
from slmrec_jax.data.readers.tables import read_parquet
from slmrec_jax.errors import UserError

_MAX_META_BYTES = 2**24


def write_table(table: pa.Table, file: Path) -> None:
    """Write a table as Parquet."""
    with file.open("wb") as opened:
        # Arrow propagates the `OSError` of a Python file, but raises its own exceptions for a path.
        pyarrow.parquet.write_table(table, opened, compression="zstd")


def write_tables(tables: Iterable[pa.Table], file: Path) -> None:
    """Write tables with the same columns, at least one, as the row groups of one Parquet file."""
    rest = iter(tables)
    first = next(rest)
    with file.open("wb") as opened, pyarrow.parquet.ParquetWriter(opened, first.schema, compression="zstd") as writer:
        for table in itertools.chain([first], rest):
            writer.write_table(table)


def write_tensors(
    tensors: Mapping[str, Any],
    file: Path,
    blocks: Callable[[Any], Iterable[Any]] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write arrays as safetensors, without the copy in memory that `safetensors.numpy` would make.

    Args:
        tensors: Arrays by name, or objects with their shape and dtype.
        file: A new file.
        blocks: Yields the rows of an array on the host, block by block. By default, arrays must be on the host.
        metadata: Strings by name, written before the arrays.
    """
    kinds = {name: np.dtype(tensor.dtype) for name, tensor in tensors.items()}
    # The library's order: wide dtypes first, floats before integers.
    names = sorted(tensors, key=lambda name: (-kinds[name].itemsize, "Vfuib".index(kinds[name].kind), name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        kind, shape = kinds[name], tensors[name].shape
        start, end = end, end + math.prod(shape) * kind.itemsize
        letter = {"b": "BOOL", "V": "BF16"}.get(kind.kind)  # bfloat16 is not a native NumPy dtype
        type_name = letter or f"{kind.kind.upper()}{8 * kind.itemsize}"
        header[name] = {"dtype": type_name, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            for block in [tensors[name]] if blocks is None else blocks(tensors[name]):
                opened.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)


def id_column(ids: Shaped[np.ndarray, " rows"], name: str) -> Any:
    """Convert the raw ids of the data set `name` to a column for a file. Ids that are not Unicode text are rejected."""
    if ids.dtype.kind != "U":
        return pa.array(ids.astype(ids.dtype.newbyteorder("=")))
    return _text_column(ids, f"data set {name}: the raw id")


def item_columns(
    ids: Shaped[np.ndarray, " items"], texts: Mapping[str, Shaped[np.ndarray, " items"]], name: str
) -> dict[str, Any]:
    """Convert the raw ids and texts of the items of the data set `name` to columns for a file."""
    columns = {kind: _text_column(each, f"data set {name}: the {kind}") for kind, each in texts.items()}
    return {"id": id_column(ids, name), **columns}


def _text_column(texts: Shaped[np.ndarray, " rows"], what: str) -> Any:
    try:
        return pa.array(texts.tolist(), pa.string())
    except UnicodeEncodeError as error:
        raise UserError(f"{what} {error.object!a} is not valid Unicode text: rename it") from None


def read_ids(file: Path) -> Shaped[np.ndarray, " rows"]:
    """Read the raw ids, in row order, from the column `id` that `id_column` made."""
    table = read_parquet(file, ("id",))
    column = table.columns["id"]
    if pa.types.is_integer(column.type) and column.null_count == 0:
        return np.asarray(column.to_numpy())
    if pa.types.is_string(column.type) and column.null_count == 0:
        longest = pc.max(pc.utf8_length(column)).as_py() or 0
        if len(column) * longest * np.dtype("U1").itemsize > limit(file):  # NumPy pads all ids to the longest
            raise UserError(f"{file}: an id has {longest} characters, too many for {len(column)} ids; shorten it")
        return np.array(column.to_pylist(), np.str_)
    raise UserError(f"{file}: id is a column of {type_name(column.type)}; expected one raw id per row, numbers or text")


def read_item_texts(file: Path) -> dict[str, Shaped[np.ndarray, " items"]]:
    """Read the texts that `item_columns` added to the raw ids."""
    table = read_parquet(file, (), optional=ITEM_TEXTS)
    for kind, column in table.columns.items():
        if not pa.types.is_string(column.type) or column.null_count:
            raise UserError(f"{file}: {kind} is a column of {type_name(column.type)}; expected one text per item")
    return {kind: np.array(column.to_pylist(), np.object_) for kind, column in table.columns.items()}


def read_meta_json(file: Path, expected: str, fix: str) -> Any:
    """Read a `meta.json` that `data convert` or `export` wrote. `expected` and `fix` are for error messages."""
    with reading(file, expected):
        size = file.stat().st_size
    if size > _MAX_META_BYTES:
        raise UserError(f"{file}: {size} bytes; expected at most {_MAX_META_BYTES}: {fix}")
    return read_json_file(file, expected, fix)
