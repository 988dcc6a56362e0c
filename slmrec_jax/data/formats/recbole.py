"""Reads RecBole's atomic files: tables separated by tabs whose header gives each column a name and a type."""

from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from slmrec_jax.data.columns import as_times, as_vectors, encode
from slmrec_jax.data.dataset import Dataset, Feature, make_dataset
from slmrec_jax.data.feature_files import add_feature_file, by_raw_id, in_order, modality_name
from slmrec_jax.data.split import Times, Unsplit, first_times
from slmrec_jax.data.tables import Table, choose_file, first_row, read_text
from slmrec_jax.errors import UserError
from slmrec_jax.types import Interactions

LOOKS_FOR = "an .inter file with columns user_id:token and item_id:token"

_USER, _ITEM, _TIME, _RATING = "user_id:token", "item_id:token", "timestamp:float", "rating:float"
_ITEM_KEYS = (_ITEM, "iid:token")
_VECTOR = ":float_seq"
_SPLITS = ("train", "valid", "test")


def recognises(folder: Path) -> bool:
    """Whether there is a table of interactions whose header says types."""
    return bool(_tables(folder))


def read(folder: Path) -> Dataset | Unsplit:
    """Reads `<name>.inter`, or `<name>.train.inter`, `.valid.inter` and `.test.inter`, and the items' vectors.

    Every row counts as an interaction, whatever its rating. Users and items are those of the interactions, in the
    order of their raw ids. A column of type float_seq beside `item_id` or `iid`, in whatever file, is a modality: that
    of `item_emb` is called item, of `image_emb` visual.

    Raises:
        UserError: A file that is missing, malformed, or at odds with the others.
    """
    files = _interaction_files(folder)
    tables = {part: read_text(file, "\t", (_USER, _ITEM), optional=(_TIME,)) for part, file in files.items()}
    users, items = (encode(list(tables.values()), name) for name in (_USER, _ITEM))
    whole = tables.get("")
    pairs = {part: Interactions(users.rows[n], items.rows[n]) for n, part in enumerate(tables)}
    features, origins, notes = _features(folder, items.ids)
    if any(_RATING in first_row(file, "\t") for file in files.values()):
        notes.insert(0, "ratings are not used: every row counts as an interaction")
    none = Interactions(np.zeros(0, np.int32), np.zeros(0, np.int32))
    dataset = make_dataset(
        folder.resolve().name,
        *(pairs.get(part, none) for part in ("train" if whole is None else "", "valid", "test")),
        num_users=len(users.ids),
        num_items=len(items.ids),
        features=features,
        user_ids=users.ids,
        item_ids=items.ids,
        origins=origins | {part or "train": str(file) for part, file in files.items()},
        notes=notes,
    )
    if whole is None:
        return dataset
    return Unsplit(dataset, partial(_times, whole, pairs[""], len(items.ids)) if _TIME in whole.columns else None)


def _times(table: Table, pairs: Interactions, num_items: int) -> Times:
    return first_times(pairs, as_times(table, _TIME), num_items)


def _tables(folder: Path) -> list[Path]:
    return [
        file
        for file in sorted(folder.glob("*.inter"))
        if any(name.endswith(":token") for name in first_row(file, "\t"))
    ]


def _interaction_files(folder: Path) -> dict[str, Path]:
    """The file of each split, or the only one under ""."""
    tables = _tables(folder)
    files = {part: [file for file in tables if file.stem.endswith(f".{part}")] for part in _SPLITS}
    whole = [file for file in tables if not file.stem.endswith(tuple(f".{part}" for part in _SPLITS))]
    if not any(files.values()):
        return {"": choose_file(folder, whole, LOOKS_FOR)}
    if not files["train"]:
        raise UserError(f"{folder}: the train split is missing; expected {folder.resolve().name}.train.inter")
    if whole:
        raise UserError(
            f"{folder}: there is {files['train'][0].name}, which is split, and {whole[0].name}, which is not; keep one"
        )
    return {part: choose_file(folder, found, f"the {part} split") for part, found in files.items() if found}


def _features(
    folder: Path, item_ids: Shaped[np.ndarray, " items"]
) -> tuple[dict[str, Feature], dict[str, str], list[str]]:
    files: dict[str, Path] = {}
    features: dict[str, Feature] = {}
    notes: list[str] = []
    for file in sorted(folder.iterdir()):
        names = first_row(file, "\t") if file.suffix != ".inter" else []
        key = next((name for name in names if name in _ITEM_KEYS), None)
        vectors = [name for name in names if name.endswith(_VECTOR)]
        if key is None or not vectors:
            continue
        table = read_text(file, "\t", (key, *vectors))
        for vector in vectors:
            modality = modality_name(vector.removesuffix(_VECTOR).removesuffix("_emb").removesuffix("_feat"))
            add_feature_file(files, modality, file)
            features[modality], found = by_raw_id(table, key, *as_vectors(table, vector), item_ids, "text")
            notes += found
    return in_order(features), {modality: str(file) for modality, file in files.items()}, notes
