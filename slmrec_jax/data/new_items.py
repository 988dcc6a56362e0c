"""Reader for the features of new items without interactions: one file of vectors per modality."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Shaped

from slmrec_jax.data.dataset import Dataset, Feature, Words
from slmrec_jax.data.formats.plain_features import item_column
from slmrec_jax.data.inspect.checks import check_feature
from slmrec_jax.data.readers.dataset_folders import is_dataset_folder, is_saved_dataset, modalities_of
from slmrec_jax.data.readers.feature_files import by_modality, by_raw_id
from slmrec_jax.data.readers.feature_tables import FEATURE_SUFFIXES, VectorTable, read_vectors
from slmrec_jax.data.readers.folders import visible_entries
from slmrec_jax.data.readers.opening import unreadable
from slmrec_jax.data.readers.raw_ids import encode_ids, without_whole_fractions
from slmrec_jax.data.readers.text_files import uncompressed
from slmrec_jax.data.vectors import as_held
from slmrec_jax.errors import UserError, check_type


class NewItems(NamedTuple):
    """Items that training did not see."""

    ids: Shaped[np.ndarray, " items"]
    """The raw ids."""
    features: Mapping[str, Feature | Words]
    """The features, one entry per modality of the run."""
    notes: tuple[str, ...] = ()
    """Lines about what was left out of the files, or looks wrong in them."""


def read_new_items(path: str | Path, dataset: Dataset) -> NewItems:
    """Read a file of one modality, or a folder with one file per modality of the training data set.

    A file is `.npy`, `.safetensors`, `.parquet`, `.csv` or `.tsv`, or a folder of `datasets`, and is named after the
    modality. Its rows have raw ids (a column `item`, or a tensor of integers in addition to the vectors). If no file
    has ids, row i gets the id `new-i`.

    Args:
        path: The file or the folder.
        dataset: The data set that was trained on, such as `run.dataset`.

    Raises:
        UserError: A file cannot be read, a modality is not in the data set or has a different width there, or an item
            is already in the data set or has no features.
    """
    check_type("path", path, (str, Path), "the path of a feature file, or of a folder of them")
    check_type("dataset", dataset, Dataset, "the data set that was trained on, such as run.dataset")
    path = Path(path)
    named = None if dataset.source is None else dataset.source.item_column
    files = _find_files(path, dataset.features)
    tables = {modality: read_vectors(file, item_column(file, named), modality) for modality, file in files.items()}
    for modality, vectors in tables.items():
        _check_modality(path, modality, vectors, dataset)
    ids, given, notes = _in_one_order(path, tables)
    old = pc.is_in(*(without_whole_fractions(pa.array(each.astype(np.str_))) for each in (ids, dataset.item_ids)))
    old = old.to_numpy(zero_copy_only=False)
    if old.any():
        raise UserError(
            f"{path}: the item {ids[old.argmax()].item()!r} is already in data set {dataset.name}, with {old.sum()} of "
            f"{len(ids)}; leave these out"
        )
    bare = ~np.any([feature.present for feature in given.values()], axis=0)
    if bare.any():
        raise UserError(f"{path}: the item {ids[bare.argmax()].item()!r} has no feature to place it by; leave it out")
    features = {name: given.get(name) or missing_feature(known, len(ids)) for name, known in dataset.features.items()}
    return NewItems(ids, features, tuple(notes))


def _find_files(path: Path, known: Collection[str]) -> dict[str, Path]:
    """Return the file of each modality. A name that a file shares with one of the data is taken as it is."""
    try:
        if not path.exists():
            raise UserError(f"{path}: there is no such file or folder; give one with the features of new items")
        entries = visible_entries(path) if path.is_dir() and not _is_one_modality(path) else [path]
        found = [file for file in entries if uncompressed(file).suffix in FEATURE_SUFFIXES or is_dataset_folder(file)]
    except OSError as error:
        raise unreadable(path, error) from error
    if not found:
        suffixes = ", ".join(FEATURE_SUFFIXES)
        raise UserError(f"{path}: no features found; expected a file named after its modality, {suffixes}")

    def named(file: Path) -> list[str]:
        own = uncompressed(file).stem
        return [own] if own in known and not is_dataset_folder(file) else modalities_of(file)

    return by_modality((modality, file) for file in found for modality in named(file))


def _is_one_modality(path: Path) -> bool:
    """Return whether a folder is itself a folder of `datasets`, and does not hold files of several modalities."""
    has_files = any(uncompressed(file).suffix in FEATURE_SUFFIXES for file in visible_entries(path))
    return is_saved_dataset(path) or (is_dataset_folder(path) and not has_files)


def _check_modality(path: Path, modality: str, vectors: VectorTable, dataset: Dataset) -> None:
    known = dataset.features.get(modality)
    if not isinstance(known, Feature):
        has = ", ".join(name for name, feature in dataset.features.items() if isinstance(feature, Feature)) or "none"
        raise UserError(f"{path}: the run has no vectors of modality {modality!r}; it has: {has}")
    found, expected = vectors.values.shape[1], known.values.shape[1]
    if found != expected:
        raise UserError(f"{path}: {modality} has {found} columns, but {expected} in training; make it the same way")


def _in_one_order(
    path: Path, tables: Mapping[str, VectorTable]
) -> tuple[Shaped[np.ndarray, " items"], dict[str, Feature], list[str]]:
    """Return the item ids, the features in this order, and notes about omissions."""
    counts = {modality: len(vectors.values) for modality, vectors in tables.items()}
    keyed = [vectors.keys for vectors in tables.values() if vectors.keys is not None]
    if keyed and len(keyed) < len(tables):
        raise UserError(f"{path}: some files have raw ids and others do not; give all of them ids")
    if not keyed and len(set(counts.values())) > 1:
        shown = ", ".join(f"{modality} {count}" for modality, count in counts.items())
        raise UserError(f"{path}: files without ids have different numbers of rows ({shown}); give all of them ids")
    if keyed:
        ids = np.sort(encode_ids(keyed, "item").ids)
    else:
        ids = np.array([f"new-{row}" for row in range(max(counts.values()))])
    features, notes = {}, []
    for modality, (values, present, keys, _) in tables.items():
        if keys is None:
            where, feature = f"{path}: {modality}", Feature(np.array(as_held(values)), present)
            feature.values[~present] = 0
        else:
            where, (feature, found) = str(keys.file), by_raw_id(keys, "item", values, present, ids)
            notes += found
        check_feature(where, feature.values, feature.present, len(ids), from_file=True)
        features[modality] = feature
    return ids, features, notes


def missing_feature(known: Feature | Words, count: int) -> Feature | Words:
    """Make a modality of the same kind, width and dtype that all of `count` items lack."""
    if isinstance(known, Words):
        return Words(np.zeros(0, np.int32), np.zeros(0, np.int32), known.num_words)
    return Feature(np.zeros((count, known.values.shape[1]), known.values.dtype), np.zeros(count, np.bool_))
