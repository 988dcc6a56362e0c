"""Reads one modality's vectors from `.npy`, `.safetensors` or Parquet: in the order of the items, or under raw ids."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import safetensors
import safetensors.numpy
from jaxtyping import Bool, Shaped

from slmrec_jax.data.columns import as_vectors
from slmrec_jax.data.npy_files import read_numbers
from slmrec_jax.data.tables import Table, column_names, listed, printable, read_parquet
from slmrec_jax.errors import UserError

SUFFIXES = (".npy", ".safetensors", ".parquet")
_EXPECTED = "a table of numbers, one row an item"


class Vectors(NamedTuple):
    """A table of vectors as it stands in a file."""

    values: Shaped[np.ndarray, "entries columns"]
    """Numbers of any type."""
    present: Bool[np.ndarray, " entries"]
    """False where there is no vector, or one of NaN alone."""
    keys: Table | None
    """The raw ids as a column `item`; `None` where rows are in an order of their own."""
    stored: str
    """The type of the numbers in the file."""


def read_vectors(file: Path, key: str | None) -> Vectors:
    """Reads a table of numbers with a row for each item.

    In `.safetensors`, a tensor of one dimension holds raw ids, and the one of two the vectors. In Parquet, the vectors
    are the column of lists, or all columns of numbers, beside that of raw ids, which is called `key`.

    Raises:
        UserError: The file cannot be read as such.
    """
    if file.suffix == ".parquet":
        return _from_parquet(file, key)
    keys, values = _from_safetensors(file) if file.suffix == ".safetensors" else (None, read_numbers(file, _EXPECTED))
    if values.ndim != 2 or values.dtype.kind not in "fiub":
        raise UserError(f"{file}: an array of {values.dtype} of shape {values.shape}; expected {_EXPECTED}")
    return _vectors(values, None if keys is None else Table(file, {"item": pa.chunked_array([keys])}, header=False))


def _vectors(values: Shaped[np.ndarray, "entries columns"], keys: Table | None) -> Vectors:
    present = np.ones(len(values), np.bool_)
    if values.shape[1]:
        candidates = np.flatnonzero(np.isnan(values[:, 0]))
        present[candidates[np.isnan(values[candidates]).all(axis=1)]] = False
    return Vectors(values, present, keys, values.dtype.name)


def _from_safetensors(file: Path) -> tuple[Shaped[np.ndarray, " entries"] | None, Shaped[np.ndarray, "..."]]:
    if not file.is_file():  # a pipe would wait for ever
        raise UserError(f"{file}: not a regular file; expected {_EXPECTED}")
    try:
        tensors = safetensors.numpy.load_file(file)
    except safetensors.SafetensorError as error:
        raise UserError(f"{file}: not a readable .safetensors file ({printable(error)}); write it again") from error
    arrays = {name: _widened(tensor) for name, tensor in tensors.items()}
    values = [array for array in arrays.values() if array.ndim == 2]
    keys = [array for array in arrays.values() if array.ndim == 1 and array.dtype.kind in "iu"]
    if len(values) != 1 or len(values) + len(keys) != len(arrays) or len(keys) > 1:
        raise UserError(
            f"{file}: there are {listed([f'{name} {array.shape}' for name, array in arrays.items()])}; expected one "
            f"tensor of two dimensions, and maybe one of raw item ids"
        )
    if keys and len(keys[0]) != len(values[0]):
        raise UserError(f"{file}: {len(keys[0])} ids for {len(values[0])} rows; expected one for each")
    return (keys[0] if keys else None), values[0]


def _widened(tensor: Any) -> Shaped[np.ndarray, "..."]:
    """What NumPy has no type for, as bfloat16, becomes float32."""
    return np.asarray(tensor, np.float32) if tensor.dtype.kind == "V" else np.asarray(tensor)


def _from_parquet(file: Path, key: str | None) -> Vectors:
    names = column_names(file)
    others = [name for name in names if name != key]
    table = read_parquet(file, names)
    keys = None if key is None else Table(file, {"item": table.columns[key]}, header=False)
    kinds = {name: table.columns[name].type for name in others}
    lists = [name for name, kind in kinds.items() if pa.types.is_nested(kind)]
    numbers = [name for name, kind in kinds.items() if pa.types.is_integer(kind) or pa.types.is_floating(kind)]
    if len(lists) == 1:
        values, present = as_vectors(table, lists[0])
        vectors = _vectors(values, keys)
        return vectors._replace(present=vectors.present & present, stored=_stored(kinds[lists[0]].value_type))
    if lists or len(numbers) != len(others) or not numbers:
        raise UserError(
            f"{file}: it has the columns {listed(names)}; expected one of lists of numbers, or numbers only, beside "
            f"the items' raw ids"
        )
    columns = [table.columns[name].cast(pa.float32(), safe=False).to_numpy() for name in numbers]
    return _vectors(np.column_stack(columns), keys)._replace(stored=_stored(kinds[numbers[0]]))


def _stored(kind: Any) -> str:
    """NumPy's name of a type of Arrow."""
    return {"double": "float64", "float": "float32", "halffloat": "float16"}.get(str(kind), str(kind))
