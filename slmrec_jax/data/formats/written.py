"""Helpers shared by the writers of several formats: text tables, and vectors as `.npy` or text."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Shaped

from slmrec_jax.data import pairs
from slmrec_jax.data.dataset import Dataset, Feature
from slmrec_jax.data.vectors import mean_row, row_blocks
from slmrec_jax.types import Interactions

Columns: TypeAlias = Sequence[Shaped[np.ndarray, " _"]]
FILE_NAMES = {"visual": "image", "acoustic": "audio", "textual": "text"}
"""The file names that most tools use for the field's modalities."""


def write_text(
    file: Path, separator: str, names: Sequence[str], tables: Iterable[Columns], *, quotes: bool = False
) -> None:
    """Write columns below their names, table after table. Without quotes, no cell may contain the separator."""
    style: dict[str, Any] = {} if quotes else {"quoting": csv.QUOTE_NONE, "quotechar": None}
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened, delimiter=separator, lineterminator="\n", **style)
        writer.writerow(names)
        for columns in tables:
            for block in pairs.pair_blocks(len(columns[0])):
                writer.writerows(zip(*(column[block].tolist() for column in columns), strict=True))


def vectors_of(dataset: Dataset) -> dict[str, Feature]:
    """Return the modalities that have vectors."""
    return {name: each for name, each in dataset.features.items() if isinstance(each, Feature)}


def raw_pairs(dataset: Dataset, interactions: Interactions) -> Iterator[Columns]:
    """Yield the raw user and item ids of interactions, block by block."""
    for block in pairs.pair_blocks(len(interactions.users)):
        yield dataset.user_ids[interactions.users[block]], dataset.item_ids[interactions.items[block]]


def with_rows(ids: Shaped[np.ndarray, " rows"]) -> Columns:
    """Return raw ids with their row numbers."""
    return ids, np.arange(len(ids))


def write_npy(feature: Feature, file: Path, *, fill: bool = False) -> None:
    """Write one row per item. An item without the feature gets a row of NaN or, with `fill`, the mean of the others."""
    kind = feature.values.dtype if feature.values.dtype.kind == "f" else np.dtype(np.float32)  # NumPy has no bfloat16
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": feature.values.shape}
    filler = mean_row(feature.values, feature.present) if fill and feature.present.any() else np.nan
    with file.open("wb") as opened:
        np.lib.format.write_array_header_1_0(opened, header)
        for rows in row_blocks(feature.values):
            block: Shaped[np.ndarray, "rows columns"] = np.array(feature.values[rows], kind)
            block[~feature.present[rows]] = filler
            opened.write(block.tobytes())


def vectors_as_text(feature: Feature, rows: slice) -> Shaped[np.ndarray, " rows"]:
    """Format vectors as the shortest numbers that are the same float32, separated by blanks; missing ones are empty."""
    values = np.asarray(feature.values[rows], np.float32)
    numbers = pa.array(values.ravel()).cast(pa.string())
    lists = pa.FixedSizeListArray.from_arrays(numbers, values.shape[1]).cast(pa.list_(pa.string()))
    texts = pc.binary_join(lists, " ").to_numpy(zero_copy_only=False)
    return np.where(feature.present[rows], texts, "")
