"""Reader and writer for RecBole's atomic files: tables, usually tab-separated, whose header has names and types."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from slmrec_jax.config.source import Source
from slmrec_jax.data.dataset import Dataset, Feature
from slmrec_jax.data.formats.catalogues import in_catalogue, numbers_rows, read_numbered
from slmrec_jax.data.formats.interactions import SPLIT_NAMES, assemble, read_interactions
from slmrec_jax.data.formats.written import FILE_NAMES, raw_pairs, vectors_as_text, vectors_of, with_rows, write_text
from slmrec_jax.data.readers.columns import as_vectors
from slmrec_jax.data.readers.engine import Engine
from slmrec_jax.data.readers.feature_files import by_modality, by_raw_id, in_order, modality_name
from slmrec_jax.data.readers.folders import choose_file, inter_files, not_read, visible_entries, with_suffix
from slmrec_jax.data.readers.headers import first_row
from slmrec_jax.data.readers.opening import check_name
from slmrec_jax.data.readers.refusals import listed
from slmrec_jax.data.readers.row_ids import number_ids
from slmrec_jax.data.readers.tables import read_text
from slmrec_jax.data.readers.text_files import uncompressed
from slmrec_jax.data.split import Unsplit
from slmrec_jax.data.vectors import row_blocks
from slmrec_jax.errors import UserError

LOOKS_FOR = "an .inter file with columns user_id:token and item_id:token"

_ITEM_KEYS = ("item_id:token", "iid:token")
_TOKEN, _VECTOR = ":token", ":float_seq"
_LISTS = {"user": (".user", "user_id:token"), "item": (".item", "item_id:token")}
_ROW = "row:float"
"""The column that gives the order in a list of users or items. RecBole may read it as a feature or ignore it."""
_BENCHMARK_PARTS = {f"part{number}": split for number, split in enumerate(SPLIT_NAMES, 1)}
_SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names} | _BENCHMARK_PARTS
"""The split by the name part before `.inter`. Parts are the splits in the order of RecBole's `benchmark_filename`."""
_PART_NAME = re.compile("part[0-9]+")


def recognises(folder: Path, source: Source) -> bool:
    """Return whether there is an interaction table whose header has types."""
    return bool(inter_files(folder, _has_types))


def read(folder: Path, source: Source) -> Dataset | Unsplit:
    """Read `<name>.inter`, or `<name>.train.inter`, `.valid.inter` and `.test.inter`, and the items' vectors.

    `.val.inter` and `.validation.inter` also mean valid; `.part1.inter`, `.part2.inter` and `.part3.inter` mean train,
    valid and test. `<name>.` may be left out. If there are splits, an unsplit table is not read. Every row counts as an
    interaction, except rows with label 0 or a rating below the source's minimum. Users and items are those of the
    interactions in raw id order, or those of `<name>.user` and `<name>.item` if these have a column `row`. In any file
    with `item_id` or `iid`, a column of type float_seq is a modality: `item_emb` becomes item, `image_emb` becomes
    visual.
    """
    files = _find_inter_files(folder)
    engine = Engine()
    tables = {part: read_interactions(engine, file, source, "\t") for part, file in files.items()}
    rows = [found.rows for found in tables.values()]
    users, items = (number_ids(rows, role) for role in _LISTS)
    lists = _find_lists(folder)
    listed_ids = {role: read_numbered(file, "\t", _LISTS[role][1], _ROW, role=role) for role, file in lists.items()}
    if "user" in lists:
        users = in_catalogue(users, rows, listed_ids["user"], "user")
    if "item" in lists:
        items = in_catalogue(items, rows, listed_ids["item"])
    features, vector_files, notes = _read_vector_columns(folder, items.ids)
    files = {**vector_files, **files}
    notes += not_read(folder, [*files.values(), *lists.values()])
    return assemble(folder.resolve().name, tables, users, items, features, files, notes, source.split)


def write(dataset: Dataset, folder: Path) -> list[str]:
    """Write a table for each non-empty split, the users and items by row, and their vectors. There are no notes."""
    stem = folder / folder.name
    keys = [key for _, key in _LISTS.values()]
    for split, pairs in dataset.splits.items():
        if len(pairs.users):
            write_text(_with_end(stem, f".{split}.inter"), "\t", keys, raw_pairs(dataset, pairs))
    for ids, (end, key) in zip((dataset.user_ids, dataset.item_ids), _LISTS.values(), strict=True):
        write_text(_with_end(stem, end), "\t", (key, _ROW), [with_rows(ids)])
    if features := vectors_of(dataset):
        names = [f"{FILE_NAMES.get(name, name)}_emb{_VECTOR}" for name in features]
        widest = max((each.values for each in features.values()), key=lambda values: values.shape[1])
        tables = (
            (dataset.item_ids[rows], *(vectors_as_text(each, rows) for each in features.values()))
            for rows in row_blocks(widest)
        )
        write_text(_with_end(stem, ".itememb"), "\t", ("iid:token", *names), tables)
    return []


def _with_end(stem: Path, end: str) -> Path:
    return stem.with_name(stem.name + end)


def _find_lists(folder: Path) -> dict[str, Path]:
    """Return the lists of users and items, if they number their rows."""
    found = {}
    for role, (suffix, key) in _LISTS.items():
        files = [file for file in with_suffix(folder, (suffix,)) if numbers_rows(file, "\t", key, _ROW)]
        if files:
            found[role] = choose_file(folder, files, f"one list of {role}s by row")
    return found


def _has_types(names: Sequence[str]) -> bool:
    return any(name.endswith(_TOKEN) for name in names)


def _find_inter_files(folder: Path) -> dict[str, Path]:
    """Return the file of each split, or the only file under ""."""
    tables = inter_files(folder, _has_types)
    of_data: dict[str, dict[str, list[Path]]] = {}
    for file in tables:
        name, _, part = f".{uncompressed(file).stem}".rpartition(".")
        if _PART_NAME.fullmatch(part.lower()) and part.lower() not in _BENCHMARK_PARTS:
            parts = listed(list(_BENCHMARK_PARTS))
            raise UserError(f"{folder}: {file.name!a} is none of {parts}; name it after its split")
        if split := _SPLIT_OF.get(part.lower()):
            of_data.setdefault(name[1:], {}).setdefault(split, []).append(file)
    if not of_data:
        return {"": choose_file(folder, tables, LOOKS_FOR)}
    own = folder.resolve().name
    if len(of_data) > 1 and own not in of_data:
        found = listed([file.name for files in of_data.values() for each in files.values() for file in each])
        raise UserError(f"{folder}: {found} belong to several data sets; keep those of one, or name one {own}")
    files = of_data[own] if own in of_data else next(iter(of_data.values()))
    if "train" not in files:
        raise UserError(f"{folder}: the train split is missing; expected {own}.train.inter")
    return {
        split: choose_file(folder, files[split], f"one file of the {split} split")
        for split in SPLIT_NAMES
        if split in files
    }


def _read_vector_columns(
    folder: Path, item_ids: Shaped[np.ndarray, " items"]
) -> tuple[dict[str, Feature], dict[str, Path], list[str]]:
    files: list[tuple[str, Path]] = []
    features: dict[str, Feature] = {}
    notes: list[str] = []
    for file in visible_entries(folder):
        if uncompressed(file).suffix == ".inter":
            continue
        names = first_row(file, "\t", lambda found: not {*_ITEM_KEYS}.isdisjoint(found))
        key = next((name for name in names if name in _ITEM_KEYS), None)
        vectors = [name for name in names if name.endswith(_VECTOR)]
        if key is None or not vectors:
            continue
        check_name(file)
        table = read_text(file, "\t", (key, *vectors))
        for vector in vectors:
            modality = modality_name(vector.removesuffix(_VECTOR).removesuffix("_emb").removesuffix("_feat"))
            files.append((modality, file))
            features[modality], found = by_raw_id(table, key, *as_vectors(table, vector), item_ids, "text")
            notes += found
    return in_order(features), by_modality(files), notes
