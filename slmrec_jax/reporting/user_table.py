"""Metrics of every user as a Parquet table, for analysis elsewhere."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from slmrec_jax.durable import whole_file
from slmrec_jax.studies.measurements import Measured


def write_users(systems: Mapping[str, Sequence[Measured]], path: Path) -> None:
    """Write one row per system, seed and evaluated user, with the metrics that all rankings have.

    The columns are `system`; `seed`, null for a ranking without training; `user`, the raw id, an integer if all ids are
    integers below 2⁶³, otherwise text; and float64 metrics by name, such as `recall@20`.

    Raises:
        OSError: The file cannot be written. An old file is unchanged.
        UserError: The path is a symbolic link.
    """
    rankings = [each for found in systems.values() for each in found]
    shared = [key for key in _of_all_users(rankings[0]) if all(key in _of_all_users(each) for each in rankings)]
    are_integers = all(each.user_ids.dtype.kind in "iu" and each.user_ids.max() < 2**63 for each in rankings)
    tables = _tables(systems, shared, pa.int64() if are_integers else pa.string())
    first = next(tables)
    # Arrow propagates the `OSError` of a Python file.
    with whole_file(path) as file, pyarrow.parquet.ParquetWriter(file, first.schema, compression="zstd") as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table)


def _tables(systems: Mapping[str, Sequence[Measured]], metrics: Sequence[str], ids: pa.DataType) -> Iterator[pa.Table]:
    """Yield one ranking's rows at a time."""
    for system, found in systems.items():
        for each in found:
            count, raw = len(each.test.users), each.user_ids[each.test.users].tolist()
            per_user = _of_all_users(each)
            yield pa.table(
                {
                    "system": pa.array([_encodable(system)] * count, pa.string()),
                    "seed": pa.array([each.seed] * count, pa.int64()),
                    "user": pa.array(raw if pa.types.is_integer(ids) else [_encodable(str(user)) for user in raw], ids),
                    **{metric: pa.array(per_user[metric], pa.float64()) for metric in metrics},
                }
            )


def _of_all_users(measured: Measured) -> Mapping[str, np.ndarray]:
    """Return the metrics that every evaluated user has."""
    return {**measured.test.per_user, **measured.recommended}


def _encodable(text: str) -> str:
    """Escape unpaired surrogates, which Parquet cannot hold."""
    return text.encode("utf-8", errors="backslashreplace").decode()
