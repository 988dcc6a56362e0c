"""Reader for folders of Hugging Face `datasets` as tables: Arrow from `save_to_disk`, or Parquet as on the Hub.

`Dataset.save_to_disk` writes Arrow streams and lists them in `state.json`. `DatasetDict.save_to_disk` writes such a
folder per split and lists these in `dataset_dict.json`. A folder from the Hub has Parquet files, possibly in `data/`.
The parts of a table, including splits, are read one after another.

Arrow data are memory-mapped and not copied, so that they take no more memory than the file. Compressed buffers and
dictionaries, which `datasets` does not write, could unpack to any size and are rejected.
"""

import mmap
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from slmrec_jax.data.readers.columns import is_text
from slmrec_jax.data.readers.feature_files import modality_of, modality_of_name
from slmrec_jax.data.readers.headers import column_names
from slmrec_jax.data.readers.json_lists import read_json_file
from slmrec_jax.data.readers.opening import reading
from slmrec_jax.data.readers.parquet_files import type_name, wrong_kind
from slmrec_jax.data.readers.refusals import Malformed, listed, quoted, short_name
from slmrec_jax.data.readers.tables import Table, choose_names, read_parquet
from slmrec_jax.errors import UserError, one_line

_STATE, _INFO, _SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"
_PARQUET = ".parquet"
_HUB_FOLDER = "data"
_FEATURES = "features"
"""The name of a folder that says nothing about a modality."""
_END = b"\xff\xff\xff\xff\0\0\0\0"
"""The last bytes of an Arrow stream."""
_SAVE_AGAIN = "save the data set again with save_to_disk"


def is_saved_dataset(place: Path) -> bool:
    """Return whether a path is a folder that `save_to_disk` wrote; one that cannot be entered is not."""
    try:
        return (place / _SPLITS).is_file() or ((place / _STATE).is_file() and (place / _INFO).is_file())
    except PermissionError:
        return False


def is_dataset_folder(place: Path) -> bool:
    """Return whether a path is a folder that `save_to_disk` wrote or a folder of Parquet files."""
    return place.is_dir() and (is_saved_dataset(place) or bool(_parquet_files(place)))


def column_kinds(folder: Path) -> dict[str, Any]:
    """Return the Arrow type of each column, as in the first part of the table.

    Raises:
        UserError: A part cannot be read, or has other columns than the first.
    """
    first, *others = _parts(folder)
    kinds = _kinds_of_part(first)
    for part in others:
        if different := sorted(kinds.keys() ^ _kinds_of_part(part).keys()):
            raise UserError(
                f"{part}: {listed(different)} {'is' if len(different) == 1 else 'are'} in only one of it and {first}; "
                "save all parts and splits with the same columns"
            )
    return kinds


def _kinds_of_part(part: Path) -> dict[str, Any]:
    if part.suffix == _PARQUET:
        column_names(part)  # rejects files that are not Parquet
        with part.open("rb") as raw:
            schema = pyarrow.parquet.read_schema(raw)
        return dict(zip(schema.names, schema.types, strict=True))
    with _reading_arrow(part):
        schema = _open_stream(part)[0]
        return dict(zip(schema.names, schema.types, strict=True))


def vector_columns(folder: Path) -> dict[str, str]:
    """Return the vector columns (lists of floats) by modality; there may be none.

    A single modality is named after the folder, unless that is `features`. Otherwise, modalities are named after their
    columns.

    Raises:
        UserError: Two columns have the same modality, or a name has control characters.
    """
    columns = [name for name, kind in column_kinds(folder).items() if _is_list(kind, pa.types.is_floating)]
    if len(columns) < 2 and modality_of(folder) != _FEATURES:
        return {modality_of(folder): name for name in columns}
    found: dict[str, str] = {}
    for name in columns:
        if not name.isprintable():
            raise UserError(f"{folder}: the column {quoted(name)} has control characters in its name; rename it")
        modality = modality_of_name(name)
        if modality in found:
            both = f"the columns {short_name(found[modality])!r} and {short_name(name)!r}"
            raise UserError(f"{folder}: {both} are both {modality} features; keep one, or rename it")
        found[modality] = name
    return found


def modalities_of(place: Path) -> list[str]:
    """Return the modalities of a feature file or folder. A folder of `datasets` may have several."""
    if not is_dataset_folder(place):
        return [modality_of(place)]
    modalities = list(vector_columns(place))
    if not modalities:
        found = listed([f"{short_name(name)}: {type_name(kind)}" for name, kind in column_kinds(place).items()])
        raise UserError(f"{place}: there is no column of vectors; it has {found}: save one with lists of floats")
    return modalities


def read_dataset_folder(folder: Path, names: Sequence[str]) -> Table:
    """Read columns of all parts, one part after another.

    Raises:
        UserError: A part cannot be read, lacks a column, or has a column of a different type than the first part.
    """
    parts = _parts(folder)
    tables = [(read_parquet if part.suffix == _PARQUET else _read_arrow)(part, names) for part in parts]
    columns = {}
    for name in names:
        chunked = [table.columns[name] for table in tables]
        kind = chunked[0].type
        for part, column in zip(parts, chunked, strict=True):
            if column.type != kind:
                found = f"{short_name(name)} is a column of {type_name(column.type)}"
                raise UserError(
                    f"{part}: {found}, but of {type_name(kind)} in {parts[0]}; save both with the same type"
                )
        columns[name] = pa.chunked_array([chunk for column in chunked for chunk in column.chunks], kind)
    return Table(folder, columns, first=1)


def _parts(folder: Path) -> list[Path]:
    """Return the files of the table, in order."""
    if (folder / _SPLITS).is_file():
        splits = _listed_in(folder / _SPLITS, "the names of splits", lambda content: content["splits"])
        return [part for split in splits for part in _arrow_files(split)]
    return _arrow_files(folder) if is_saved_dataset(folder) else _parquet_files(folder)


def _arrow_files(folder: Path) -> list[Path]:
    return _listed_in(
        folder / _STATE, "the names of files", lambda content: [each["filename"] for each in content["_data_files"]]
    )


def _listed_in(file: Path, expected: str, pick: Callable[[Any], Any]) -> list[Path]:
    """Return the files or folders that a file lists. Each must be in the same folder and be listed once."""
    content = read_json_file(file, expected, _SAVE_AGAIN)
    try:
        names = pick(content)
    except (KeyError, TypeError):
        names = None
    if not isinstance(names, list) or not names:
        raise UserError(f"{file}: it does not list {expected}; {_SAVE_AGAIN}")
    for place, name in enumerate(names):
        is_entry = isinstance(name, str) and name.isprintable() and Path(name).name == name not in ("", "..")
        if not is_entry or name in names[:place]:
            wrong = f"found {quoted(str(name))} as entry {place}"
            raise UserError(f"{file}: {wrong}; expected {expected} beside it, each once: {_SAVE_AGAIN}")
    return [file.with_name(name) for name in names]


def _parquet_files(folder: Path) -> list[Path]:
    places = [place for place in (folder, folder / _HUB_FOLDER) if place.is_dir()]
    return [
        file
        for place in places
        for file in sorted(place.iterdir())
        if file.suffix == _PARQUET and file.name[0] not in "._"
    ]


def _read_arrow(file: Path, names: Sequence[str]) -> Table:
    """Read columns of a stream as views of the file, which must not change while they are used."""
    with _reading_arrow(file):
        schema, messages = _open_stream(file)
        chosen = choose_names(file, schema.names, names)
        for name in chosen:
            if not _is_plain(schema.field(name).type):
                raise wrong_kind(file, name, type_name(schema.field(name).type))
        batches = []
        for message in messages:
            if message.type != "record batch" or _is_compressed(message.metadata.to_pybytes()):
                raise Malformed("its buffers are compressed, or it has dictionaries")
            batch = pa.ipc.read_record_batch(message, schema).select(chosen)
            batch.validate(full=True)
            batches.append(batch)
        table = pa.Table.from_batches(batches, pa.schema([schema.field(name) for name in chosen]))
    return Table(file, dict(zip(chosen, table.columns, strict=True)), first=1)


def _open_stream(file: Path) -> tuple[Any, Iterator[Any]]:
    """Return the schema of a stream, and its other messages as views of the file."""
    with file.open("rb") as opened:
        data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    if data[-len(_END) :] != _END:
        raise Malformed("its last bytes are not the end of a stream")
    messages = iter(pa.ipc.MessageReader.open_stream(pa.py_buffer(data)))
    first = next(messages, None)
    if first is None or first.type != "schema":  # not checked by `read_schema`, which reads from anywhere
        raise Malformed("it does not begin with a schema")
    return pa.ipc.read_schema(first), messages


@contextmanager
def _reading_arrow(file: Path) -> Iterator[None]:
    with reading(file, "an Arrow stream"):
        try:
            yield
        except (pa.ArrowException, OSError, ValueError, struct.error, Malformed) as error:  # OSError: truncated
            raise UserError(f"{file}: not a readable Arrow stream ({one_line(error)}); {_SAVE_AGAIN}") from error


def _is_plain(kind: Any) -> bool:
    """Return whether columns of this type (numbers, text or lists) take no more memory than their buffers."""
    numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return numbers or (is_text(kind) and kind != pa.string_view()) or _is_list(kind, pa.types.is_primitive)


def _is_list(kind: Any, of: Callable[[Any], bool]) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and of(kind.value_type)


def _is_compressed(metadata: bytes) -> bool:
    """Return whether a message's record batch has the field for the compression of its buffers.

    The metadata are a flatbuffer that Arrow has verified: a table `Message`, whose field 2 is the batch, whose field 3
    is the compression.
    """
    batch = _flatbuffer_field(metadata, struct.unpack_from("<I", metadata)[0], 2)
    return batch is not None and _flatbuffer_field(metadata, batch, 3) is not None


def _flatbuffer_field(data: bytes, table: int, number: int) -> int | None:
    """Return the position of the table in a field of another table; `None` if the field is not set."""
    fields = table - struct.unpack_from("<i", data, table)[0]
    place = fields + 4 + 2 * number
    size = struct.unpack_from("<H", data, fields)[0]
    offset = struct.unpack_from("<H", data, place)[0] if place < fields + size else 0
    return table + offset + struct.unpack_from("<I", data, table + offset)[0] if offset else None
