"""The package's own format: a folder with Parquet tables, safetensors features, and `meta.json`.

    meta.json              format, version, name, counts, modalities in order, fingerprint, notes
    interactions.parquet   user_row, item_row, split; sorted as in the data set, whose rows are numbered by degree
    users.parquet          id: the raw id of each row; items.parquet likewise, and title and image if known
    features/N-NAME.safetensors   values (items, columns) and present (items), or items and words (pairs)

float16 and bfloat16 vectors are stored unchanged, and float32 vectors as float16 if that is lossless. They are read as
memory-mapped files. A folder whose content does not match the stored fingerprint is rejected.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
from jaxtyping import Shaped

from slmrec_jax.config.source import Source
from slmrec_jax.data.dataset import SPLITS, Dataset, Feature, Words, by_split
from slmrec_jax.data.inspect.checks import check_count
from slmrec_jax.data.making import make_dataset
from slmrec_jax.data.own_files import (
    id_column,
    item_columns,
    read_ids,
    read_item_texts,
    read_meta_json,
    write_table,
    write_tables,
    write_tensors,
)
from slmrec_jax.data.pairs import pair_blocks
from slmrec_jax.data.readers.columns import is_text
from slmrec_jax.data.readers.engine import Engine
from slmrec_jax.data.readers.folders import not_read
from slmrec_jax.data.readers.parquet_files import limit
from slmrec_jax.data.readers.row_ids import Column
from slmrec_jax.data.readers.rows import parquet_rows
from slmrec_jax.data.readers.safetensors_files import read_tensors
from slmrec_jax.data.vectors import as_float16_if_lossless
from slmrec_jax.durable import whole_folder, writing
from slmrec_jax.errors import UserError
from slmrec_jax.types import Interactions

META = "meta.json"
LOOKS_FOR = f"{META} of slmrec-jax"

_FORMAT, _STORE_VERSION = "slmrec-jax", 2
"""The format and its version. Version 1 defined fingerprints differently."""
_MARK = re.compile(rb'^\s*\{\s*"format":\s*"slmrec-jax"')
_INTERACTIONS, _USERS, _ITEMS, _FEATURES = "interactions.parquet", "users.parquet", "items.parquet", "features"
_FIELDS = {
    "format": str,
    "version": int,
    "name": str,
    "users": int,
    "items": int,
    "interactions": dict,
    "modalities": list,
    "fingerprint": str,
    "notes": list,
}
_ROW_BYTES = 9
"""The bytes of an interaction in memory, including the number of its split."""
_WRITE_AGAIN = "restore the folder, or write it again (slmrec-jax data convert, or write_store in Python)"
_TENSORS = {
    "items": ("int32",),
    "words": ("int32",),
    "values": ("float16", "bfloat16", "float32"),
    "present": ("bool",),
}
"""The allowed dtypes of each tensor of a feature file."""


def write_store(dataset: Dataset, folder: Path) -> None:
    """Write a data set as a folder in the package's own format, atomically.

    Rows are numbered by degree (`Dataset.by_degree`), so that readers need not do it.

    Raises:
        UserError: The folder exists already or cannot be written, or a raw id cannot be stored in a file.
    """
    for name in (dataset.name, *dataset.features):
        if not name.isprintable():  # error messages contain it
            raise UserError(f"data set {dataset.name!a}: the name {name!a} has control characters; rename it")
    with writing(folder, "give another folder"), whole_folder(folder) as part:
        _write_parts(dataset.by_degree(), part)


def recognises(folder: Path, source: Source) -> bool:
    """Return whether there is a `meta.json` that begins like one of this format."""
    file = folder / META
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return bool(_MARK.match(opened.read(256)))


def read(folder: Path, source: Source) -> Dataset:
    """Read a folder written by `write_store`."""
    meta = _read_meta(folder / META)
    modalities = {entry["name"]: entry for entry in meta["modalities"]}
    files = {name: _feature_file(folder, place, name) for place, name in enumerate(modalities)}
    tables = interactions, users, items = tuple(folder / name for name in (_INTERACTIONS, _USERS, _ITEMS))
    dataset = make_dataset(
        meta["name"],
        **_read_splits(interactions),
        num_users=meta["users"],
        num_items=meta["items"],
        features={name: _read_stored_feature(files[name], entry) for name, entry in modalities.items()},
        user_ids=read_ids(users),
        item_ids=read_ids(items),
        item_texts=read_item_texts(items),
        origins={**dict.fromkeys(SPLITS, interactions), **files, "users": users, "items": items},
        notes=[*meta["notes"], *not_read(folder, [folder / META, folder / _FEATURES, *tables, *files.values()])],
    )
    if dataset.fingerprint != meta["fingerprint"]:
        raise UserError(
            f"{folder}: a file was changed or damaged; its content has the fingerprint {dataset.fingerprint[:12]} "
            f"but {META} says {meta['fingerprint'][:12]!a}; {_WRITE_AGAIN}"
        )
    return dataset


def _write_parts(dataset: Dataset, folder: Path) -> None:
    (folder / _FEATURES).mkdir(parents=True)
    sizes = {split: len(pairs.users) for split, pairs in dataset.splits.items()}
    write_tables(_tables_of_interactions(dataset), folder / _INTERACTIONS)
    write_table(pa.table({"id": id_column(dataset.user_ids, dataset.name)}), folder / _USERS)
    write_table(pa.table(item_columns(dataset.item_ids, dataset.item_texts, dataset.name)), folder / _ITEMS)
    modalities = []
    for place, (name, feature) in enumerate(dataset.features.items()):
        write_tensors(_as_tensors(feature), _feature_file(folder, place, name))
        kept = {"num_words": feature.num_words} if isinstance(feature, Words) else {"stored": feature.stored}
        modalities.append({"name": name, **kept})
    meta = {
        "format": _FORMAT,
        "version": _STORE_VERSION,
        "name": dataset.name,
        "users": dataset.num_users,
        "items": dataset.num_items,
        "interactions": sizes,
        "modalities": modalities,
        "fingerprint": dataset.fingerprint,
        "notes": list(dataset.notes),
    }
    (folder / META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")


def _as_tensors(feature: Feature | Words) -> dict[str, Shaped[np.ndarray, "..."]]:
    if isinstance(feature, Words):
        return {"items": feature.items, "words": feature.words}
    values = feature.values
    return {
        "values": as_float16_if_lossless(values) if values.dtype == np.float32 else values,
        "present": feature.present,
    }


def _feature_file(folder: Path, place: int, modality: str) -> Path:
    """Return a path that every file system accepts, for any modality name."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", modality)[:40]
    return folder / _FEATURES / f"{place}-{plain}.safetensors"


def _read_meta(file: Path) -> dict[str, Any]:
    meta = read_meta_json(file, "what slmrec-jax data convert writes", _WRITE_AGAIN)
    if not isinstance(meta, dict) or meta.get("format") != _FORMAT:
        raise UserError(f"{file}: it does not declare a data set of {_FORMAT}; give another folder")
    if meta.get("version") != _STORE_VERSION:
        raise UserError(
            f"{file}: the version is {ascii(meta.get('version'))[:20]}; this program reads {_STORE_VERSION}: update "
            f"it, or make the folder again"
        )
    for field, kind in _FIELDS.items():
        if type(meta.get(field)) is not kind:
            _refuse_field(file, field, meta.get(field))
    for what in ("users", "items"):
        check_count(what, meta[what], str(file))
    if not meta["name"].isprintable():
        _refuse_field(file, "name", meta["name"])
    if not all(isinstance(note, str) for note in meta["notes"]):
        _refuse_field(file, "notes", meta["notes"])
    seen: set[str] = set()
    for entry in meta["modalities"]:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name.isprintable() or name in seen:
            _refuse_field(file, "modalities", entry)
        if type(entry.get("num_words", 1)) is not int or type(entry.get("stored", "")) is not str:
            _refuse_field(file, "modalities", entry)
        seen.add(name)
    return meta


def _refuse_field(file: Path, field: str, found: object) -> NoReturn:
    raise UserError(f"{file}: {field} is {ascii(found)[:60]}; expected what was written: {_WRITE_AGAIN}")


def _tables_of_interactions(dataset: Dataset) -> Iterator[Any]:
    for number, pairs in enumerate(dataset.splits.values()):
        for block in pair_blocks(max(1, len(pairs.users))):
            users, items = pairs.users[block], pairs.items[block]
            splits = pa.DictionaryArray.from_arrays(np.full(len(users), number, np.int8), pa.array(SPLITS))
            yield pa.table({"user_row": users, "item_row": items, "split": splits})


def _read_splits(file: Path) -> dict[str, Interactions]:
    names = ("user_row", "item_row", "split")
    rows = parquet_rows(Engine([file]), file, [file], file.parent, dict(zip(names, names, strict=True)))
    expected = ", ".join(SPLITS)
    for name in names[:2]:
        if not pa.types.is_integer(rows.kinds[name]):
            raise rows.wrong_type(name, "whole numbers")
    if not is_text(rows.kinds["split"]):
        raise rows.wrong_type("split", expected)
    (count,) = rows.num_rows()
    if _ROW_BYTES * count > limit(file):
        raise UserError(f"{file}: unpacks to {_ROW_BYTES * count >> 20} MiB, more than is possible; {_WRITE_AGAIN}")
    users, items, splits = columns = [Column(dtype, count) for dtype in (np.int32, np.int32, np.int8)]
    wanted = [f"TRY_CAST({name} AS INTEGER)" for name in names[:2]]
    wanted.append(
        "CASE split " + " ".join(f"WHEN '{split}' THEN {n}" for n, split in enumerate(SPLITS)) + " END::TINYINT"
    )
    with closing(rows.blocks(*wanted)) as found:
        for block in found:
            if any(values.null_count for values in block.columns):
                break
            for column, values in zip(columns, block.columns, strict=True):
                column.add(values.to_numpy())
        else:
            wanted = []
    for name, value in zip(names, wanted, strict=False):
        rows.check_complete(name, expected if name == "split" else "a row number")
        rows.check(name, f"({value}) IS NULL", expected if name == "split" else "a row number")
    pairs, numbers = Interactions(users.whole(), items.whole()), splits.whole()
    if (np.diff(numbers) < 0).any():
        return by_split(pairs, numbers)
    ends = np.searchsorted(numbers, np.arange(len(SPLITS) + 1, dtype=np.int8))
    return {
        split: Interactions(pairs.users[ends[n] : ends[n + 1]], pairs.items[ends[n] : ends[n + 1]])
        for n, split in enumerate(SPLITS)
    }


def _read_stored_feature(file: Path, entry: Mapping[str, Any]) -> Feature | Words:
    names = ("items", "words") if "num_words" in entry else ("values", "present")
    tensors = read_tensors(file, f"the tensors {' and '.join(names)}", _WRITE_AGAIN, mapped=True)
    if sorted(tensors) != sorted(names):
        raise UserError(f"{file}: it has tensors other than {' and '.join(names)}; {_WRITE_AGAIN}")
    first, second = (tensors[name] for name in names)
    for name in names:
        found, kinds = tensors[name].dtype.name, _TENSORS[name]
        if found not in kinds:
            raise UserError(f"{file}: {name} is {found}; expected {' or '.join(kinds)}: {_WRITE_AGAIN}")
    if "num_words" in entry:
        return Words(first, second, entry["num_words"])
    return Feature(first, second, entry.get("stored", ""))
