"""Reader and writer for MMRec's folders: an interaction table with a split label, and one `.npy` per modality."""

from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from slmrec_jax.config.source import Source
from slmrec_jax.data.dataset import SPLITS, Dataset, Feature, by_split, take_rows
from slmrec_jax.data.formats.interactions import keep_taken
from slmrec_jax.data.formats.written import FILE_NAMES, vectors_of, with_rows, write_npy, write_text
from slmrec_jax.data.making import make_dataset
from slmrec_jax.data.readers.engine import Engine
from slmrec_jax.data.readers.feature_files import read_feature_tables
from slmrec_jax.data.readers.folders import choose_file, inter_files, not_read
from slmrec_jax.data.readers.headers import first_row
from slmrec_jax.data.readers.raw_ids import as_rows, count_rows, raw_ids_by_row
from slmrec_jax.data.readers.rows import memory_rows
from slmrec_jax.data.readers.tables import read_text
from slmrec_jax.errors import UserError
from slmrec_jax.types import Interactions

LOOKS_FOR = "an .inter file with a column x_label"

_USER, _ITEM, _LABEL, _TAKEN = "userID", "itemID", "x_label", "label"
_MAPPINGS = {"users": ("u_id_mapping.csv", _USER), "items": ("i_id_mapping.csv", _ITEM)}
_RAW = {"users": "user_id", "items": "asin"}
"""The names of the raw id columns in MMRec's own data. Any name is accepted when reading."""
_MISSED_IMAGES = "missed_img_itemIDs.csv"
"""The file that lists the items whose visual row was filled in with the mean."""


def recognises(folder: Path, source: Source) -> bool:
    """Return whether there is an interaction table with labels."""
    return bool(_labelled_files(folder))


def read(folder: Path, source: Source) -> Dataset:
    """Read the interactions, the raw ids if they are given, and every `<modality>_feat.npy`.

    The largest ids determine the numbers of users and items. As in MMRec, users without training interactions are
    dropped from validation and test; a note states how many. Images that MMRec's preparation filled in with the mean
    count as missing. Rows whose column `label` is 0 are dropped.
    """
    file = choose_file(folder, _labelled_files(folder), LOOKS_FOR)
    splits, counts, notes = _read_labelled(file)
    mappings = {side: folder / name for side, (name, _) in _MAPPINGS.items() if (folder / name).exists()}
    raw = {side: _read_mapping(path, _MAPPINGS[side][1], counts[side]) for side, path in mappings.items()}
    features, tables = read_feature_tables(folder)
    taken = [file, *mappings.values(), *tables.values()]
    if "visual" in features and (missed := folder / _MISSED_IMAGES).exists():
        _mark_missing(features["visual"], missed, counts["items"])
        taken.append(missed)
    return make_dataset(
        folder.resolve().name,
        *(splits[split] for split in SPLITS),
        num_users=counts["users"],
        num_items=counts["items"],
        features=features,
        user_ids=raw.get("users"),
        item_ids=raw.get("items"),
        origins={**dict.fromkeys(SPLITS, file), **mappings, **tables},
        notes=[*notes, *not_read(folder, taken)],
    )


def write(dataset: Dataset, folder: Path) -> list[str]:
    """Write the interactions, the raw ids, and one `.npy` per vector modality; return notes.

    The largest ids determine the numbers of users and items. Therefore, if the last ones have no interactions, users
    and items without training interactions are moved to the front.
    """
    numbered = _ending_with_interactions(dataset)
    tables = [(*pairs, np.full(len(pairs.users), label)) for label, pairs in enumerate(numbered.splits.values())]
    write_text(folder / f"{folder.name}.inter", "\t", (_USER, _ITEM, _LABEL), tables)
    for side, ids in (("users", numbered.user_ids), ("items", numbered.item_ids)):
        name, row = _MAPPINGS[side]
        write_text(folder / name, "\t", (_RAW[side], row), [with_rows(ids)], quotes=True)
    notes = []
    for modality, feature in vectors_of(numbered).items():
        file = folder / f"{FILE_NAMES.get(modality, modality)}_feat.npy"
        write_npy(feature, file, fill=modality == "visual")
        missing = np.flatnonzero(~feature.present)
        if len(missing) and modality == "visual":
            (folder / _MISSED_IMAGES).write_text("".join(f"{item}\n" for item in missing))
        elif len(missing):
            notes.append(f"{file.name} has {len(missing)} rows of NaN, for items without it; fill them in for MMRec")
    return notes


def _ending_with_interactions(dataset: Dataset) -> Dataset:
    """Return the data set, with users and items without training interactions moved to the front if needed.

    The order among nodes of equal degree is kept, and so is the fingerprint.
    """
    last = (dataset.num_users - 1, dataset.num_items - 1)
    largest = (max(int(ids.max(initial=-1)) for ids in each) for each in zip(*dataset.splits.values(), strict=True))
    if tuple(largest) == last:
        return dataset
    return take_rows(dataset, *(np.argsort(degrees > 0, kind="stable") for degrees in dataset.degrees()))


def _read_labelled(file: Path) -> tuple[dict[str, Interactions], dict[str, int], list[str]]:
    """Read the interactions of each split, the numbers of users and items, and notes."""
    table = read_text(file, "\t", (_USER, _ITEM, _LABEL), optional=(_TAKEN,))
    notes: list[str] = []
    if _TAKEN in table.columns:
        table = keep_taken(memory_rows(Engine(), table), _TAKEN, _TAKEN, notes).fetch()
    users, items, labels = (as_rows(table, name) for name in (_USER, _ITEM, _LABEL))
    wrong = np.flatnonzero(labels >= len(SPLITS))
    if len(wrong):
        found = f"{table.row(int(wrong[0]))}: {_LABEL} is {labels[wrong[0]]}"
        raise UserError(f"{found}; expected 0 for training, 1 for validation, 2 for test")
    if not (labels == 0).any():
        raise UserError(f"{file}: no row has the {_LABEL} 0; expected some to train on")
    counts = {"users": count_rows(str(file), "user", [users]), "items": count_rows(str(file), "item", [items])}
    known = np.isin(users, users[labels == 0])
    for split, dropped in by_split(Interactions(users[~known], items[~known]), labels[~known]).items():
        if len(dropped.users):
            found = f"{len(dropped.users)} of {len(np.unique(dropped.users))} users"
            notes.append(f"{split}: interactions of users without training interactions, dropped: {found}")
    return by_split(Interactions(users[known], items[known]), labels[known]), counts, notes


def _labelled_files(folder: Path) -> list[Path]:
    return inter_files(folder, lambda names: _LABEL in names)


def _read_mapping(file: Path, row: str, count: int) -> Shaped[np.ndarray, " rows"]:
    """Read the first column that is not `row`. Columns are separated by tabs or commas, regardless of the suffix."""
    others = [name for name in first_row(file, "\t", lambda names: row in names, quotes=True) if name != row]
    if not others:
        raise UserError(f"{file}: one column only; expected the raw ids and {row!r}")
    return raw_ids_by_row(read_text(file, "\t", (others[0], row), quotes=True), others[0], row, count)


def _mark_missing(feature: Feature, file: Path, num_items: int) -> None:
    if len(feature.values) != num_items:  # `make_dataset` rejects the table
        return
    if file.is_file() and not file.read_bytes().strip():  # the file is empty if no image is missing
        return
    table = read_text(file, ",", (_ITEM,), names=(_ITEM,))
    items = as_rows(table, _ITEM)
    if items.max() >= num_items:
        index = int(items.argmax())
        raise UserError(f"{table.row(index)}: item {items[index]}; expected ids of 0..{num_items - 1}")
    feature.present[items] = False
