"""Columns of tables in memory, of any library, as Arrow arrays."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.interchange

from slmrec_jax.data.readers.refusals import listed
from slmrec_jax.errors import UserError, one_line, shown


def is_table(given: Any) -> bool:
    """Return whether this is a table of any kind, and not a column."""
    return isinstance(given, Mapping | pa.Table | pa.RecordBatch | pa.RecordBatchReader) or hasattr(given, "columns")


def held_table(argument: str, given: Any, expected: str) -> Any:
    """Return a table whose columns can be taken by name, and more than once, which a stream does not allow."""
    is_frame = hasattr(given, "columns") and hasattr(given, "to_numpy")  # of pandas or Polars
    if is_frame or (isinstance(given, Mapping) and given):
        return given
    with refusing(argument, expected):
        if hasattr(given, "__arrow_c_stream__"):
            return pa.table(given)
        if isinstance(given, pa.RecordBatch):
            return pa.Table.from_batches([given])
        if hasattr(given, "__dataframe__"):
            return pa.interchange.from_dataframe(given)
        raise UserError(f"{argument} is {shown(given)}: give {expected}")


def _labels(held: Any) -> list[Any]:
    """Return the names of the columns as they are; a frame's may be of any type."""
    if isinstance(held, pa.Table):
        return list(held.column_names)
    return list(held if isinstance(held, Mapping) else held.columns)


def names_of(argument: str, held: Any) -> list[str]:
    """Return the names of the columns as text. Two alike are rejected."""
    names = list(map(str, _labels(held)))
    if len(set(names)) < len(names):
        raise UserError(f"{argument}: two columns have the same name; rename one")
    return names


def columns_of(argument: str, held: Any, names: Sequence[str], expected: str) -> dict[str, Any]:
    """Return some columns as Arrow arrays of values. Other columns may hold anything."""
    labels = {str(label): label for label in _labels(held)}
    with refusing(argument, expected):
        columns = {name: _arrow(f"{argument}: column {name!r}", held[labels[name]]) for name in names}
    if len(set(map(len, columns.values()))) > 1:
        raise UserError(f"{argument}: columns of {listed(names)} have different lengths; make them equal")
    return {name: _decoded(column) for name, column in columns.items()}


def _arrow(what: str, values: Any) -> Any:
    """Convert any array or sequence to a column."""
    try:
        if hasattr(values, "__arrow_c_stream__"):
            return pa.chunked_array(values)
        is_known = isinstance(values, list | tuple | np.ma.MaskedArray) or hasattr(values, "__arrow_c_array__")
        is_known = is_known or hasattr(values, "iloc")  # a pandas Series holds nulls, which a NumPy array does not
        return pa.chunked_array([pa.array(values if is_known else np.asarray(values))])
    except pa.ArrowException as error:
        raise UserError(f"{what} cannot be read ({one_line(error)}); use one type, such as text") from error


def _decoded(column: Any) -> Any:
    """Decode a dictionary-encoded column, such as a categorical, into its values."""
    if pa.types.is_dictionary(column.type):
        kind = pa.string() if pa.types.is_string_view(column.type.value_type) else column.type.value_type
        return pa.chunked_array([chunk.dictionary.cast(kind).take(chunk.indices) for chunk in column.chunks], kind)
    return column.cast(pa.string()) if pa.types.is_string_view(column.type) else column


@contextmanager
def refusing(argument: str, expected: str) -> Iterator[None]:
    """Turn errors of NumPy or Arrow into a one-line `UserError` that names the argument."""
    try:
        yield
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{argument}: not readable ({one_line(error)}): give {expected}") from error
