"""A run's embeddings as a folder that any program reads, and that recommends without what trained it.

meta.json                sizes, score, protocol, fingerprint, test metrics, versions
users.parquet            id: the raw id of each row; embedding: its float32 vector; items.parquet likewise
embeddings.safetensors   users, items: the same vectors as matrices
known.parquet            user_row, item_row: all interactions, which are not to be recommended again
items.faiss              where asked for: an exact inner-product index; its ids are rows of items.parquet
"""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from jaxtyping import Float, Shaped

from slmrec_jax.config.protocols import Score
from slmrec_jax.data.dataset import SPLITS, Dataset, unique_pairs
from slmrec_jax.data.inspect.checks import check_range, check_raw_ids
from slmrec_jax.data.own_files import id_column, read_ids, read_meta_json, write_table, write_tensors
from slmrec_jax.data.readers.columns import as_rows
from slmrec_jax.data.readers.safetensors_files import read_tensors
from slmrec_jax.data.readers.tables import read_parquet
from slmrec_jax.durable import whole_folder, writing
from slmrec_jax.errors import UserError, setting
from slmrec_jax.evaluation.ranking import prepare, rank
from slmrec_jax.serving.recommendations import Recommendations, user_rows
from slmrec_jax.types import Embeddings, Interactions

_FORMAT, _VERSION = "slmrec-jax export", 1
_META, _VECTORS, _KNOWN, _INDEX = "meta.json", "embeddings.safetensors", "known.parquet", "items.faiss"
_TABLES = {"users": "users.parquet", "items": "items.parquet"}
_SIZES = ("users", "items", "dim", "known")
_FIX = "make the folder again with slmrec-jax export"


class Export(NamedTuple):
    """What recommends: embeddings, raw ids, and what users know already."""

    name: str
    """Of the data set."""
    embeddings: Embeddings
    user_ids: Shaped[np.ndarray, " users"]
    item_ids: Shaped[np.ndarray, " items"]
    known: Interactions
    score: Score
    about: Mapping[str, Any]
    """What else `meta.json` says: protocol, fingerprint, versions and whatever the writer knows."""


def make_export(dataset: Dataset, embeddings: Embeddings, score: Score, about: Mapping[str, Any]) -> Export:
    """What a run exports: its embeddings, and the interactions of all splits."""
    pairs = [getattr(dataset, split) for split in SPLITS]
    together = Interactions(
        np.concatenate([each.users for each in pairs]), np.concatenate([each.items for each in pairs])
    )
    tables = Embeddings(*(jnp.asarray(table, jnp.float32) for table in embeddings))
    known = unique_pairs(together, dataset.num_items)
    return Export(dataset.name, tables, dataset.user_ids, dataset.item_ids, known, score, about)


def write_export(export: Export, folder: Path, *, faiss: bool = False) -> None:
    """Writes the folder, whole or not at all.

    Args:
        export: what to write.
        folder: a new one.
        faiss: adds an index of the items for the library of that name.

    Raises:
        UserError: The folder is there already or cannot be written, or faiss is asked for and not installed.
    """
    if faiss and importlib.util.find_spec("faiss") is None:
        raise UserError(f"{setting('faiss', True)} needs the package faiss-cpu: pip install 'slmrec-jax[faiss]'")
    with writing(folder, "give another folder"), whole_folder(folder) as part:
        _write(export, part)
        if faiss:
            _write_index(np.asarray(export.embeddings.items), part / _INDEX)


def read_export(folder: Path) -> Export:
    """Reads what `write_export` wrote.

    Raises:
        UserError: A file is missing, malformed, or does not fit the others.
    """
    meta = _read_meta(folder / _META)
    embeddings = _read_vectors(folder / _VECTORS, meta)
    ids = {}
    for side, file in _TABLES.items():
        ids[side] = read_ids(folder / file)
        check_raw_ids(str(folder / file), ids[side], meta[side])
    table = read_parquet(folder / _KNOWN, ("user_row", "item_row"))
    known = Interactions(as_rows(table, "user_row"), as_rows(table, "item_row"))
    if len(known.users) != meta["known"]:
        raise UserError(f"{folder / _KNOWN}: {len(known.users)} rows, but {_META} says {meta['known']}; {_FIX}")
    for side, rows in zip(_TABLES, known, strict=True):
        check_range(str(folder / _KNOWN), side, rows, meta[side], f"these are rows of {_TABLES[side]}")
    return Export(meta["data"], embeddings, ids["users"], ids["items"], known, meta["score"], meta)


def recommend(export: Export, users: Any = None, k: int = 20) -> Recommendations:
    """Ranks the items that users do not know, as `Run.recommend` of the exported run.

    Args:
        export: of a run.
        users: raw ids, or a single one (a string is one id); all users by default.
        k: how many items each; all, where there are fewer.

    Raises:
        UserError: A user is not known, or k is below 1.
    """
    rows = user_rows(users, export.user_ids, export.name)
    num_items = len(export.item_ids)
    plan = prepare(rows, [export.known], num_items, min(k, num_items), score=export.score)
    ranking = rank(plan, export.embeddings)
    return Recommendations(export.user_ids[rows], export.item_ids[ranking.items], ranking.scores)


def _write(export: Export, folder: Path) -> None:
    tables = {side: np.ascontiguousarray(table) for side, table in export.embeddings._asdict().items()}
    for (side, file), ids in zip(_TABLES.items(), (export.user_ids, export.item_ids), strict=True):
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(tables[side].ravel()), tables[side].shape[1])
        table = pa.table({"id": id_column(ids, export.name), "embedding": vectors})
        write_table(table, folder / file)
    known = pa.table({"user_row": export.known.users, "item_row": export.known.items})
    write_table(known, folder / _KNOWN)
    write_tensors(tables, folder / _VECTORS)
    meta = {
        "format": _FORMAT,
        "version": _VERSION,
        "data": export.name,
        "users": len(export.user_ids),
        "items": len(export.item_ids),
        "dim": tables["items"].shape[1],
        "known": len(export.known.users),
        "score": export.score,
        **export.about,
    }
    (folder / _META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")


def _write_index(items: Float[np.ndarray, "items dim"], file: Path) -> None:
    import faiss

    index = faiss.IndexFlatIP(items.shape[1])
    index.add(np.ascontiguousarray(items))
    file.write_bytes(faiss.serialize_index(index).data)  # of a full disk faiss itself says in its own words


def _read_meta(file: Path) -> dict[str, Any]:
    meta = read_meta_json(file, "a folder that slmrec-jax export made", _FIX)
    if not isinstance(meta, dict) or meta.get("format") != _FORMAT:
        raise UserError(f"{file}: it does not say that this is an export; give a folder that slmrec-jax export made")
    if meta.get("version") != _VERSION:
        raise UserError(
            f"{file}: the version is {ascii(meta.get('version'))[:20]}; this program knows {_VERSION}; {_FIX}"
        )
    right = {size: type(meta.get(size)) is int and meta[size] >= 0 for size in _SIZES}
    right |= {"data": isinstance(meta.get("data"), str) and meta["data"].isprintable()}
    right |= {"score": meta.get("score") in get_args(Score)}
    for field, is_right in right.items():
        if not is_right:
            raise UserError(f"{file}: {field} is {ascii(meta.get(field))[:60]}; expected what was written: {_FIX}")
    return meta


def _read_vectors(file: Path, meta: Mapping[str, Any]) -> Embeddings:
    tensors = read_tensors(file, f"embeddings of {' and '.join(_TABLES)}", _FIX)
    for side in _TABLES:
        shape = (meta[side], meta["dim"])
        if side not in tensors or tensors[side].dtype != np.float32 or tensors[side].shape != shape:
            raise UserError(f"{file}: expected {side} as {list(shape)} numbers of float32; {_FIX}")
    return Embeddings(*(jnp.asarray(tensors[side]) for side in _TABLES))
