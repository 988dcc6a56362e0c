"""Reader for SLMRec's folder, in NeuRec's format: train and test without a header, and features by raw item id."""

import re
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from slmrec_jax.config.source import Source
from slmrec_jax.data.dataset import NO_INTERACTIONS, Dataset, Feature, Words
from slmrec_jax.data.formats.mmgcn import read_vectors_or_words
from slmrec_jax.data.formats.roles import find_roles
from slmrec_jax.data.inspect.checks import check_finite
from slmrec_jax.data.making import make_dataset
from slmrec_jax.data.readers.feature_files import by_modality, feature_of_rows, modality_name
from slmrec_jax.data.readers.folders import choose_file, not_read, visible_entries
from slmrec_jax.data.readers.raw_ids import EncodedIds, encode_ids
from slmrec_jax.data.readers.refusals import listed
from slmrec_jax.data.readers.tables import Table, read_text
from slmrec_jax.data.vectors import as_held
from slmrec_jax.errors import UserError
from slmrec_jax.types import Interactions

LOOKS_FOR = "a .train and a .test file"

_COLUMNS = ("user", "item", "rating", "time")
_FEATURE_NAME = re.compile(
    r"_((?P<before>\w+)_feat|feat_(?P<after>\w+)|Feature(?P<within>[A-Z][a-z]+)\w*)\.(npy|pt)", re.ASCII
)
"""The pattern after the data set's name: `_visual_feat.pt`, `_feat_v.pt` or `_FeatureVideo_normal.npy`."""


def recognises(folder: Path, source: Source) -> bool:
    """Return whether there are a training file and a test file."""
    return bool(_training_files(folder))


def read(folder: Path, source: Source) -> Dataset:
    """Read train and test (user, item, optionally rating and time, separated by commas) and the features.

    As in NeuRec, users and items are numbered by first appearance in train, then in test. Row i of a feature table is
    the item with raw id i. An integer table with two rows lists pairs of an item and a word. Ratings and times are not
    used.
    """
    train = choose_file(folder, _training_files(folder), LOOKS_FOR)
    files = {"train": train, "test": train.with_suffix(".test")}
    tables = [read_text(file, ",", _COLUMNS[:2], names=_COLUMNS) for file in files.values()]
    for table in tables:
        _refuse_names(table)
    users, items = (encode_ids(tables, name) for name in _COLUMNS[:2])
    beside = [file for file in visible_entries(folder) if file.name.startswith(train.stem)]
    feature_files = by_modality(
        (modality_name((found["before"] or found["after"] or found["within"]).lower()), file)
        for file in beside
        if (found := _FEATURE_NAME.fullmatch(file.name, len(train.stem)))
    )
    return make_dataset(
        train.stem,
        Interactions(users.rows[0], items.rows[0]),
        NO_INTERACTIONS,
        Interactions(users.rows[1], items.rows[1]),
        num_users=len(users.ids),
        num_items=len(items.ids),
        features={modality: _read_feature_by_id(file, items) for modality, file in feature_files.items()},
        user_ids=users.ids,
        item_ids=items.ids,
        origins={**files, **feature_files},
        notes=not_read(folder, [*files.values(), *feature_files.values()]),
    )


def _refuse_names(table: Table) -> None:
    """Reject a first row of column names, which would become a user and an item."""
    first = [str(column[0].as_py()) for column in table.columns.values() if len(column)]
    if {"user", "item"} <= set(find_roles(first, {})):
        raise UserError(f"{table.file}: row 1 holds names ({listed(first)}), but this format has no header; remove it")


def _training_files(folder: Path) -> list[Path]:
    return [file for file in visible_entries(folder) if file.suffix == ".train" and file.with_suffix(".test").exists()]


def _read_feature_by_id(file: Path, items: EncodedIds) -> Feature | Words:
    values, of_words = read_vectors_or_words(file)
    if items.ids.dtype.kind != "i":
        raise UserError(
            f"{file}: row i is the item with the raw id i, but some ids are not whole numbers, for "
            f"example {items.ids[0].item()!r}; number the items, or write a plain table, which takes features under "
            "raw ids"
        )
    if of_words:
        return _words_by_id(file, values, items)
    outside = np.flatnonzero((items.ids < 0) | (items.ids >= len(values)))
    if len(outside):
        raise UserError(
            f"{file}: {len(values)} rows, but there is an item with the id {items.ids[outside[0]]}; expected row i to "
            f"be the item with the id i"
        )
    feature = feature_of_rows(file, as_held(values[items.ids]))
    check_finite(str(file), feature.values, items.ids, among=feature.present)
    return feature._replace(stored=values.dtype.name)


def _words_by_id(file: Path, pairs: Shaped[np.ndarray, "2 pairs"], items: EncodedIds) -> Words:
    order = np.argsort(items.ids)
    rows = order[np.minimum(np.searchsorted(items.ids, pairs[0], sorter=order), len(order) - 1)]
    known = items.ids[rows] == pairs[0]
    if not known.any():
        raise UserError(f"{file}: none of its {pairs.shape[1]} pairs of an item and a word has an item of the data")
    words = pairs[1].astype(np.int64)
    return Words(rows[known], words[known], max(1, int(words.max()) + 1))
