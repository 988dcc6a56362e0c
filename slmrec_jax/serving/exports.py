"""Exported runs: folders of embeddings that other programs can read, and that recommend without the model's code.

meta.json                sizes, score, protocol, fingerprint, test metrics, versions
users.parquet            id: the raw id of each row; embedding: its float32 vector
items.parquet            the same for items, with title and image if the data set has them
embeddings.safetensors   users, items: the same vectors as matrices
known.parquet            user_row, item_row: all interactions, which are not recommended again
items.faiss              optional: an exact inner-product index whose ids are rows of items.parquet
users.onnx, history.onnx, known.safetensors   optional: the scoring for other runtimes (`serving.onnx_models`)
"""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from jaxtyping import Float

from slmrec_jax.config.protocols import Score
from slmrec_jax.data.inspect.checks import check_range, check_raw_ids
from slmrec_jax.data.own_files import (
    id_column,
    item_columns,
    read_ids,
    read_item_texts,
    read_meta_json,
    write_table,
    write_tensors,
)
from slmrec_jax.data.pairs import unique_pairs
from slmrec_jax.data.readers.raw_ids import as_rows
from slmrec_jax.data.readers.safetensors_files import read_tensors
from slmrec_jax.data.readers.tables import read_parquet
from slmrec_jax.durable import whole_folder, writing
from slmrec_jax.errors import UserError, setting
from slmrec_jax.serving.served import Served
from slmrec_jax.types import Embeddings, Interactions

_EXPORT_FORMAT, _EXPORT_VERSION = "slmrec-jax export", 1
_META_FILE, _VECTORS_FILE, _KNOWN_FILE = "meta.json", "embeddings.safetensors", "known.parquet"
_FAISS_FILE = "items.faiss"
_TABLES = {"users": "users.parquet", "items": "items.parquet"}
_SIZES = ("users", "items", "dim", "known")
_EXPORT_AGAIN = "make the folder again with slmrec-jax export"


def write_export(export: Served, folder: Path, *, faiss: bool = False, onnx: bool = False) -> None:
    """Write an export atomically: the folder is complete or does not exist.

    Args:
        export: The content.
        folder: A new folder.
        faiss: Whether to add a faiss index of the items.
        onnx: Whether to add ranking models for ONNX runtimes.

    Raises:
        UserError: The folder exists or cannot be written, or a required library is not installed.
    """
    check_packages(faiss=faiss, onnx=onnx)
    with writing(folder, "give another folder"), whole_folder(folder) as part:
        known = _write_export_files(export, part)
        if faiss:
            _write_faiss_index(np.asarray(export.embeddings.items), part / _FAISS_FILE)
        if onnx:
            from slmrec_jax.serving.onnx_models import write_onnx_models

            write_onnx_models(part, _VECTORS_FILE, known, len(export.user_ids), export.score)


def check_packages(*, faiss: bool, onnx: bool) -> None:
    """Check that what an export is asked to add can be made.

    Raises:
        UserError: A required library is not installed.
    """
    for name, package, asked in (("faiss", "faiss-cpu", faiss), ("onnx", "onnx", onnx)):
        if asked and importlib.util.find_spec(name) is None:
            raise UserError(f"{setting(name, True)} needs the package {package}: pip install 'slmrec-jax[{name}]'")


def is_export(folder: Path) -> bool:
    """Return whether a folder looks like an export: it has at least one of the files that every export has."""
    return any((folder / name).exists() for name in (_META_FILE, *_TABLES.values()))


def read_export(folder: Path) -> Served:
    """Read a folder written by `write_export`.

    Raises:
        UserError: A file is missing, malformed, or does not fit the others.
    """
    meta = _read_export_meta(folder / _META_FILE)
    embeddings = _read_embeddings(folder / _VECTORS_FILE, meta)
    ids = {}
    for side, file in _TABLES.items():
        ids[side] = read_ids(folder / file)
        check_raw_ids(str(folder / file), ids[side], meta[side])
    known_file = folder / _KNOWN_FILE
    table = read_parquet(known_file, ("user_row", "item_row"))
    known = Interactions(as_rows(table, "user_row"), as_rows(table, "item_row"))
    if len(known.users) != meta["known"]:
        raise UserError(
            f"{known_file}: {len(known.users)} rows, but {_META_FILE} says {meta['known']}; {_EXPORT_AGAIN}"
        )
    for side, rows in zip(_TABLES, known, strict=True):
        check_range(str(known_file), side, rows, meta[side], f"these are rows of {_TABLES[side]}")
    texts = read_item_texts(folder / _TABLES["items"])
    return Served(meta["data"], embeddings, ids["users"], ids["items"], (known,), meta["score"], texts, meta)


def _write_export_files(export: Served, folder: Path) -> Interactions:
    """Write the files that every export has, and return the distinct known interactions."""
    tables = {side: np.ascontiguousarray(table, np.float32) for side, table in export.embeddings._asdict().items()}
    columns = {
        "users": {"id": id_column(export.user_ids, export.name)},
        "items": item_columns(export.item_ids, export.item_texts, export.name),
    }
    for side, file in _TABLES.items():
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(tables[side].ravel()), tables[side].shape[1])
        write_table(pa.table({**columns[side], "embedding": vectors}), folder / file)
    users, items = (np.concatenate(columns) for columns in zip(*export.known, strict=True))
    known = unique_pairs(Interactions(users, items), len(export.item_ids))
    write_table(pa.table({"user_row": known.users, "item_row": known.items}), folder / _KNOWN_FILE)
    write_tensors(tables, folder / _VECTORS_FILE)
    meta = {
        "format": _EXPORT_FORMAT,
        "version": _EXPORT_VERSION,
        "data": export.name,
        "users": len(export.user_ids),
        "items": len(export.item_ids),
        "dim": tables["items"].shape[1],
        "known": len(known.users),
        "score": export.score,
        **export.about,
    }
    (folder / _META_FILE).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    return known


def _write_faiss_index(items: Float[np.ndarray, "items dim"], file: Path) -> None:
    import faiss

    index = faiss.IndexFlatIP(items.shape[1])
    index.add(np.ascontiguousarray(items))
    file.write_bytes(faiss.serialize_index(index).data)  # faiss would report a full disk with its own exception


def _read_export_meta(file: Path) -> dict[str, Any]:
    meta = read_meta_json(file, "a folder that slmrec-jax export made", _EXPORT_AGAIN)
    if not isinstance(meta, dict) or meta.get("format") != _EXPORT_FORMAT:
        raise UserError(f"{file}: it does not say that this is an export; give a folder that slmrec-jax export made")
    if meta.get("version") != _EXPORT_VERSION:
        version = ascii(meta.get("version"))[:20]
        raise UserError(f"{file}: the version is {version}; this program reads {_EXPORT_VERSION}; {_EXPORT_AGAIN}")
    valid = {
        **{size: type(meta.get(size)) is int and meta[size] >= 0 for size in _SIZES},
        "data": isinstance(meta.get("data"), str) and meta["data"].isprintable(),
        "score": meta.get("score") in get_args(Score),
    }
    for field, is_valid in valid.items():
        if not is_valid:
            raise UserError(f"{file}: {field} is {ascii(meta.get(field))[:60]}, which is invalid: {_EXPORT_AGAIN}")
    return meta


def _read_embeddings(file: Path, meta: Mapping[str, Any]) -> Embeddings:
    tensors = read_tensors(file, f"embeddings of {' and '.join(_TABLES)}", _EXPORT_AGAIN)
    for side in _TABLES:
        shape = (meta[side], meta["dim"])
        if side not in tensors or tensors[side].dtype != np.float32 or tensors[side].shape != shape:
            raise UserError(f"{file}: expected {side} as {list(shape)} numbers of float32; {_EXPORT_AGAIN}")
    return Embeddings(*(jnp.asarray(tensors[side]) for side in _TABLES))
