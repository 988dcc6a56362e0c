"""Reads the folders of MMRec: one table of interactions with a label for each split, and a `.npy` table a modality."""

from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped

from slmrec_jax.data.dataset import Dataset, Feature, make_dataset
from slmrec_jax.data.formats.interactions import keep_taken
from slmrec_jax.data.readers.feature_files import feature_of_rows, find_feature_files
from slmrec_jax.data.readers.folders import not_read
from slmrec_jax.data.readers.headers import first_row
from slmrec_jax.data.readers.npy_files import read_table
from slmrec_jax.data.readers.raw_ids import as_rows, count_rows, raw_ids_by_row
from slmrec_jax.data.readers.tables import choose_file, read_text
from slmrec_jax.data.readers.text_files import uncompressed
from slmrec_jax.errors import UserError
from slmrec_jax.types import Interactions

LOOKS_FOR = "an .inter file with a column x_label"

_USER, _ITEM, _LABEL, _TAKEN = "userID", "itemID", "x_label", "label"
_SPLITS = ("train", "valid", "test")
"""By label: 0, 1, 2."""
_RAW_IDS = {"users": ("u_id_mapping.csv", _USER), "items": ("i_id_mapping.csv", _ITEM)}
_MISSING = {"visual": "missed_img_itemIDs.csv"}
"""The file that lists items whose row was filled in with the mean, by modality."""


def recognises(folder: Path) -> bool:
    """Whether there is a table of interactions with labels."""
    return bool(_tables(folder))


def read(folder: Path) -> Dataset:
    """Reads the interactions, raw ids where they are given, and every `<modality>_feat.npy`.

    There are as many users and items as the largest id says. As in MMRec, users without training interactions are
    dropped from validation and test; a note says how many. Images that MMRec's preparation filled in with the mean
    count as missing.

    Rows whose column `label` is 0 are left out.

    Raises:
        UserError: A file that is missing, malformed, or at odds with the others.
    """
    file = choose_file(folder, _tables(folder), LOOKS_FOR)
    table = read_text(file, "\t", (_USER, _ITEM, _LABEL), optional=(_TAKEN,))
    notes: list[str] = []
    if _TAKEN in table.columns:
        table = keep_taken(table, _TAKEN, _TAKEN, notes)
    users, items, labels = (as_rows(table, name) for name in (_USER, _ITEM, _LABEL))
    wrong = np.flatnonzero(labels >= len(_SPLITS))
    if len(wrong):
        raise UserError(
            f"{table.row(int(wrong[0]))}: {_LABEL} is {labels[wrong[0]]}; expected 0 for training, 1 for validation, "
            f"2 for test"
        )
    if not (labels == 0).any():
        raise UserError(f"{file}: no row has the {_LABEL} 0; expected some to train on")
    counts = {"users": count_rows(str(file), "user", [users]), "items": count_rows(str(file), "item", [items])}
    known = np.isin(users, users[labels == 0])
    mapped = {side: folder / name for side, (name, _) in _RAW_IDS.items() if (folder / name).exists()}
    raw = {side: _raw_ids(path, _RAW_IDS[side][1], counts[side]) for side, path in mapped.items()}
    tables = find_feature_files(folder)
    lists = [folder / name for modality, name in _MISSING.items() if modality in tables]
    return make_dataset(
        folder.resolve().name,
        *(Interactions(users[chosen], items[chosen]) for chosen in ((labels == part) & known for part in range(3))),
        num_users=counts["users"],
        num_items=counts["items"],
        features={modality: _feature(folder, modality, path, counts["items"]) for modality, path in tables.items()},
        user_ids=raw.get("users"),
        item_ids=raw.get("items"),
        origins={part: str(path) for part, path in {**dict.fromkeys(_SPLITS, file), **mapped, **tables}.items()},
        notes=[
            *notes,
            *_dropped(users, labels, known),
            *not_read(folder, [file, *mapped.values(), *tables.values(), *lists]),
        ],
    )


def _tables(folder: Path) -> list[Path]:
    files = [file for file in sorted(folder.iterdir()) if uncompressed(file).suffix == ".inter"]
    return [file for file in files if _LABEL in first_row(file, "\t", lambda names: _LABEL in names)]


def _dropped(
    users: Int[np.ndarray, " rows"], labels: Int[np.ndarray, " rows"], known: Shaped[np.ndarray, " rows"]
) -> list[str]:
    return [
        f"{split}: interactions of users without training interactions, dropped: {dropped.sum()} of "
        f"{len(np.unique(users[dropped]))} users"
        for part, split in enumerate(_SPLITS)
        if (dropped := (labels == part) & ~known).any()
    ]


def _raw_ids(file: Path, row: str, count: int) -> Shaped[np.ndarray, " rows"]:
    """From the first column that is not `row`; the file is separated by tabs, or by commas, whatever its name says."""
    others = [name for name in first_row(file, "\t", lambda names: row in names, quotes=True) if name != row]
    if not others:
        raise UserError(f"{file}: one column only; expected the raw ids and {row!r}")
    table = read_text(file, "\t", (others[0], row), quotes=True)
    return raw_ids_by_row(table, others[0], row, count)


def _feature(folder: Path, modality: str, file: Path, num_items: int) -> Feature:
    feature = feature_of_rows(file, read_table(file))
    missing = folder / _MISSING[modality] if modality in _MISSING else file
    if missing != file and missing.exists() and len(feature.values) == num_items:
        feature.present[_missing(missing, num_items)] = False
    return feature


def _missing(file: Path, num_items: int) -> Int[np.ndarray, " missing"]:
    if file.is_file() and not file.read_bytes().strip():  # as it is when none is missing
        return np.zeros(0, np.int64)
    table = read_text(file, ",", (_ITEM,), names=(_ITEM,))
    items = as_rows(table, _ITEM)
    if items.max() >= num_items:
        index = int(items.argmax())
        raise UserError(f"{table.row(index)}: item {items[index]}; expected ids of 0..{num_items - 1}")
    return items
