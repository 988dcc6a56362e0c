"""The package's own format: a folder with tables in Parquet, features in safetensors, and `meta.json`.

    meta.json              format, version, name, counts, modalities in order, fingerprint, notes
    interactions.parquet   user_row, item_row, split; sorted as the data set has them
    users.parquet          id: the raw id of each row; items.parquet likewise
    features/N-NAME.safetensors   values (items, columns) and present (items), or items and words (pairs)

Vectors are kept as float16 where that loses nothing, else as float32. What is read has the fingerprint that was
written, or it is refused.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from jaxtyping import Int, Shaped

from slmrec_jax.data.dataset import SPLITS, Dataset, Feature, Words, make_dataset
from slmrec_jax.data.inspect.checks import check_count
from slmrec_jax.data.readers.folders import not_read
from slmrec_jax.data.readers.opening import check_file, unreadable
from slmrec_jax.data.readers.parquet_files import limit, type_name
from slmrec_jax.data.readers.raw_ids import as_rows
from slmrec_jax.data.readers.refusals import one_line
from slmrec_jax.data.readers.safetensors_files import read_tensors
from slmrec_jax.data.readers.tables import read_parquet
from slmrec_jax.durable import whole_folder, writing
from slmrec_jax.errors import UserError
from slmrec_jax.types import Interactions

META = "meta.json"
LOOKS_FOR = f"{META} of slmrec-jax"

_FORMAT, _VERSION = "slmrec-jax", 1
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
_MAX_META = 2**24
_FIX = "make the folder again with slmrec-jax data convert"
_TENSORS = {"items": ("int32",), "words": ("int32",), "values": ("float16", "float32"), "present": ("bool",)}
"""The types that each tensor of a feature file may have."""


def write_store(dataset: Dataset, folder: Path) -> None:
    """Writes a data set as a folder of its own, whole or not at all.

    Raises:
        UserError: The folder is there already or cannot be written, or a raw id cannot be kept in a file.
    """
    for name in (dataset.name, *dataset.features):
        if not name.isprintable():  # error lines name it
            raise UserError(f"data set {dataset.name!a}: the name {name!a} has control characters; rename it")
    with writing(folder, "give another folder"), whole_folder(folder) as part:
        _write(dataset, part)


def recognises(folder: Path) -> bool:
    """Whether there is a `meta.json` that begins as one of this format."""
    file = folder / META
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return bool(_MARK.match(opened.read(256)))


def read(folder: Path) -> Dataset:
    """Reads what `write_store` wrote.

    Raises:
        UserError: A file that is missing or malformed, or content that is not what was written.
    """
    file = folder / META
    meta = _read_meta(file)
    splits = _read_interactions(folder / _INTERACTIONS)
    files = {
        name: _feature_file(folder, place, name) for place, (name, _) in enumerate(_modalities(file, meta).items())
    }
    tables = [folder / name for name in (_INTERACTIONS, _USERS, _ITEMS)]
    dataset = make_dataset(
        meta["name"],
        *(splits[split] for split in SPLITS),
        num_users=meta["users"],
        num_items=meta["items"],
        features={name: _read_feature(files[name], entry) for name, entry in _modalities(file, meta).items()},
        user_ids=read_ids(folder / _USERS),
        item_ids=read_ids(folder / _ITEMS),
        origins={
            **{split: str(folder / _INTERACTIONS) for split in SPLITS},
            **{name: str(path) for name, path in files.items()},
            "users": str(folder / _USERS),
            "items": str(folder / _ITEMS),
        },
        notes=[*meta["notes"], *not_read(folder, [file, *tables, folder / _FEATURES, *files.values()])],
    )
    if dataset.fingerprint != meta["fingerprint"]:
        raise UserError(
            f"{folder}: a file was changed or damaged, as the content has the fingerprint {dataset.fingerprint[:12]} "
            f"and {META} says {meta['fingerprint'][:12]!a}; {_FIX}"
        )
    return dataset


def _write(dataset: Dataset, folder: Path) -> None:
    (folder / _FEATURES).mkdir(parents=True)
    pairs = [getattr(dataset, split) for split in SPLITS]
    sizes = [len(each.users) for each in pairs]
    names = pa.DictionaryArray.from_arrays(
        pa.array(np.repeat(np.arange(len(SPLITS), dtype=np.int8), sizes)), pa.array(SPLITS)
    )
    interactions = {
        "user_row": np.concatenate([each.users for each in pairs]),
        "item_row": np.concatenate([each.items for each in pairs]),
        "split": names,
    }
    write_table(pa.table(interactions), folder / _INTERACTIONS)
    for ids, name in ((dataset.user_ids, _USERS), (dataset.item_ids, _ITEMS)):
        write_table(pa.table({"id": id_column(ids, dataset.name)}), folder / name)
    modalities = []
    for place, (name, feature) in enumerate(dataset.features.items()):
        write_tensors(_tensors(feature), _feature_file(folder, place, name))
        if isinstance(feature, Words):
            modalities.append({"name": name, "num_words": feature.num_words})
        else:
            modalities.append({"name": name, "stored": feature.stored})
    meta = {
        "format": _FORMAT,
        "version": _VERSION,
        "name": dataset.name,
        "users": dataset.num_users,
        "items": dataset.num_items,
        "interactions": dict(zip(SPLITS, sizes, strict=True)),
        "modalities": modalities,
        "fingerprint": dataset.fingerprint,
        "notes": list(dataset.notes),
    }
    (folder / META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")


def write_table(table: pa.Table, file: Path) -> None:
    """Write a table as Parquet.

    Raises:
        OSError: the disk refuses it; Arrow passes on what a Python file raises.
    """
    with file.open("wb") as opened:
        pyarrow.parquet.write_table(table, opened, compression="zstd")


def write_tensors(tensors: Mapping[str, Shaped[np.ndarray, "..."]], file: Path) -> None:
    """Write arrays as safetensors, without a copy of them in memory.

    The library's own `save_file` makes files that only their owner can read, and raises no `OSError`.

    Raises:
        OSError: the disk refuses it.
    """
    kinds = {"float32": "F32", "float16": "F16", "int32": "I32", "bool": "BOOL"}
    # As the library orders them, so that each begins where its type may begin.
    ordered = sorted(tensors.items(), key=lambda each: (-each[1].itemsize, each[0]))
    ends = np.cumsum([0, *(array.nbytes for _, array in ordered)]).tolist()
    header = {
        name: {"dtype": kinds[array.dtype.name], "shape": list(array.shape), "data_offsets": [start, end]}
        for (name, array), start, end in zip(ordered, ends, ends[1:], strict=False)
    }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        for _, array in ordered:
            opened.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)


def id_column(ids: Shaped[np.ndarray, " rows"], name: str) -> Any:
    """Raw ids as a column of a file.

    Raises:
        UserError: One cannot be kept in a file; the data set's name stands in the line.
    """
    if ids.dtype.kind != "U":
        return pa.array(ids.astype(ids.dtype.newbyteorder("=")))
    try:
        return pa.array(ids.tolist(), pa.string())
    except UnicodeEncodeError as error:
        raise UserError(f"data set {name}: the raw id {error.object!a} is no Unicode text; rename it") from None


def _tensors(feature: Feature | Words) -> dict[str, Shaped[np.ndarray, "..."]]:
    if isinstance(feature, Words):
        return {"items": feature.items, "words": feature.words}
    with np.errstate(over="ignore"):
        half = feature.values.astype(np.float16)
    lossless = np.array_equal(half.astype(np.float32).view(np.int32), feature.values.view(np.int32))
    return {"values": half if lossless else feature.values, "present": feature.present}


def _feature_file(folder: Path, place: int, modality: str) -> Path:
    """A name that any file system takes, whatever the modality is called."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", modality)[:40]
    return folder / _FEATURES / f"{place}-{plain}.safetensors"


def _read_meta(file: Path) -> dict[str, Any]:
    meta = read_json(file, "what slmrec-jax data convert writes", _FIX)
    if not isinstance(meta, dict) or meta.get("format") != _FORMAT:
        raise UserError(f"{file}: it does not say that this is a data set of {_FORMAT}; give another folder")
    if meta.get("version") != _VERSION:
        raise UserError(
            f"{file}: the version is {ascii(meta.get('version'))[:20]}; this program knows {_VERSION}: update it, or "
            f"make the folder again"
        )
    for field, kind in _FIELDS.items():
        if type(meta.get(field)) is not kind:
            _refuse(file, field, meta.get(field))
    for what in ("users", "items"):
        check_count(what, meta[what], str(file))
    if not meta["name"].isprintable():
        _refuse(file, "name", meta["name"])
    if not all(isinstance(note, str) for note in meta["notes"]):
        _refuse(file, "notes", meta["notes"])
    return meta


def read_json(file: Path, expected: str, fix: str) -> Any:
    """Read a small JSON file that `data convert` or `export` wrote.

    Args:
        file: The file.
        expected: What it should hold, for error lines.
        fix: What to do about a damaged one.

    Raises:
        UserError: It cannot be read, is longer than such files are, or is not JSON.
    """
    check_file(file, expected)
    try:
        if file.stat().st_size > _MAX_META:
            raise UserError(f"{file}: {file.stat().st_size} bytes; expected at most {_MAX_META}: {fix}")
        return json.loads(file.read_bytes().decode("utf-8"))
    except OSError as error:
        raise unreadable(file, error) from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else one_line(error)
        raise UserError(f"{file}: not readable as JSON ({reason}); {fix}") from None


def _modalities(file: Path, meta: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    entries = {}
    for entry in meta["modalities"]:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name.isprintable() or name in entries:
            _refuse(file, "modalities", entry)
        if type(entry.get("num_words", 1)) is not int or type(entry.get("stored", "")) is not str:
            _refuse(file, "modalities", entry)
        entries[name] = entry
    return entries


def _refuse(file: Path, field: str, found: object) -> NoReturn:
    raise UserError(f"{file}: {field} is {ascii(found)[:60]}; expected what was written: {_FIX}")


def _read_interactions(file: Path) -> dict[str, Interactions]:
    table = read_parquet(file, ("user_row", "item_row", "split"))
    users, items = as_rows(table, "user_row"), as_rows(table, "item_row")
    names = table.columns["split"]
    if not pa.types.is_string(names.type):
        raise UserError(f"{file}: split is a column of {type_name(names.type)}; expected {', '.join(SPLITS)}")
    wrong = pc.index(pc.fill_null(pc.is_in(names, pa.array(SPLITS)), False), False).as_py()
    if wrong >= 0:
        raise UserError(f"{table.row(wrong)}: split is {table.value('split', wrong)}; expected {', '.join(SPLITS)}")
    parts: Int[np.ndarray, " rows"] = pc.index_in(names, pa.array(SPLITS)).to_numpy()
    chosen = [parts == part for part in range(len(SPLITS))]
    return {split: Interactions(users[rows], items[rows]) for split, rows in zip(SPLITS, chosen, strict=True)}


def read_ids(file: Path) -> Shaped[np.ndarray, " rows"]:
    """The raw ids of each row, as `id_column` wrote them under `id`.

    Raises:
        UserError: The file cannot be read, or holds no such column.
    """
    table = read_parquet(file, ("id",))
    column = table.columns["id"]
    if pa.types.is_integer(column.type) and column.null_count == 0:
        return np.asarray(column.to_numpy())
    if pa.types.is_string(column.type) and column.null_count == 0:
        longest = pc.max(pc.utf8_length(column)).as_py() or 0
        if len(column) * longest * np.dtype("U1").itemsize > limit(file):  # NumPy gives each text the longest's room
            raise UserError(f"{file}: an id has {longest} characters, too many for {len(column)} ids; shorten it")
        return np.array(column.to_pylist(), np.str_)
    raise UserError(f"{file}: id is a column of {type_name(column.type)}; expected one raw id a row, numbers or text")


def _read_feature(file: Path, entry: Mapping[str, Any]) -> Feature | Words:
    names = ("items", "words") if "num_words" in entry else ("values", "present")
    tensors = read_tensors(file, f"the tensors {' and '.join(names)}", _FIX)
    if sorted(tensors) != sorted(names):
        raise UserError(f"{file}: it has other tensors than {' and '.join(names)}; {_FIX}")
    for name in names:
        found, kinds = tensors[name], _TENSORS[name]
        if found.dtype.name not in kinds:
            raise UserError(f"{file}: {name} is of {found.dtype.name}; expected {' or '.join(kinds)}: {_FIX}")
    first, second = (tensors[name] for name in names)
    if "num_words" in entry:
        return Words(first, second, entry["num_words"])
    return Feature(first, second, entry.get("stored", ""))
