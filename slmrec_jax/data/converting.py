"""Write data sets in the formats of other tools, so that comparisons with them start from the same files.

Content that a format cannot hold is left out with a note, or rejected. Before the folder is moved into place, it is
read back with the package's own reader, and its fingerprint must equal that of the data to be written.
"""

import csv
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from slmrec_jax.config.source import Source
from slmrec_jax.data.dataset import NO_INTERACTIONS, Dataset
from slmrec_jax.data.formats import lightgcn, mmrec, plain, read_folder, recbole
from slmrec_jax.data.formats.written import vectors_of
from slmrec_jax.data.own_files import id_column
from slmrec_jax.durable import whole_folder, writing
from slmrec_jax.errors import TooLarge, UserError, check_choice, setting
from slmrec_jax.types import Interactions


class OtherFormat(NamedTuple):
    """A format to write, and what it can hold besides training and test."""

    write: Callable[[Dataset, Path], list[str]]
    """Fills an empty folder that has its final name, and returns notes about its files."""
    validation: bool = True
    new_users: bool = True
    """Whether it can hold held-out interactions of users without training interactions."""
    vectors: bool = True
    texts: bool = False
    """Whether it can hold titles and images of items."""


OTHER_FORMATS: Mapping[str, OtherFormat] = {
    "mmrec": OtherFormat(mmrec.write, new_users=False),
    "recbole": OtherFormat(recbole.write),
    "lightgcn": OtherFormat(lightgcn.write, validation=False, vectors=False),
    "plain": OtherFormat(plain.write, texts=True),
}


class Written(NamedTuple):
    """The result of `write_format`."""

    dataset: Dataset
    """The data set without the content that the format cannot hold."""
    notes: list[str]
    """One line for each omission, and for each fact that a user of the other tool needs to know."""


def write_format(dataset: Dataset, folder: Path, to: str) -> Written:
    """Write a data set as a folder in the format of another tool, atomically.

    Args:
        dataset: The data set, with splits.
        folder: The folder to make. Its files are named after it.
        to: A key of `OTHER_FORMATS`.

    Raises:
        UserError: The folder exists already or cannot be written, or the data would differ when read back.
        TooLarge: Memory does not suffice to read the folder back.
    """
    check_choice(setting("to"), to, OTHER_FORMATS)
    kept, notes = _what_fits(dataset, to)
    for name in kept.features:
        if Path(name).name != name or name == "..":
            raise _cannot_hold(dataset, to, f"the modality {name!r} cannot name a file")
    for ids in (kept.user_ids, kept.item_ids):
        id_column(ids, dataset.name)  # rejects ids that are not Unicode text
    with writing(folder, "give another folder"), whole_folder(folder) as part:
        try:
            notes += OTHER_FORMATS[to].write(kept, part)
            found, _ = read_folder(part, Source(str(part)))
        except TooLarge:  # too little memory says nothing about the format
            raise
        except (UserError, csv.Error) as error:
            reason = str(error).replace(str(part), str(folder))
            raise _cannot_hold(dataset, to, f"once written, they could not be read ({reason})") from error
        again = found if isinstance(found, Dataset) else found.dataset
        if again.fingerprint != kept.fingerprint:
            raise _cannot_hold(dataset, to, f"read back, {_difference(kept, again)} would differ")
        if any(again.item_texts[kind].tolist() != texts.tolist() for kind, texts in kept.item_texts.items()):
            raise _cannot_hold(dataset, to, "read back, titles or images of items would differ")
    if list(again.features) != list(kept.features):
        order = " ".join(kept.features)
        notes.append(f"the order of modalities is not kept: train on the folder with {setting('modalities')} {order}")
    return Written(kept, notes)


def _what_fits(dataset: Dataset, to: str) -> tuple[Dataset, list[str]]:
    """Return the data set without the content that a format cannot hold, and notes about the omissions."""
    target, notes = OTHER_FORMATS[to], []
    if not target.validation and (count := len(dataset.valid.users)):
        notes.append(f"left out, because {to} has no validation split: {count:,} interactions")
        dataset = replace(dataset, valid=NO_INTERACTIONS)
    if not target.new_users:
        known = dataset.degrees()[0] > 0
        splits = [_of_users(pairs, known) for pairs in dataset.splits.values()]
        for (name, pairs), left in zip(dataset.splits.items(), splits, strict=True):
            if count := len(pairs.users) - len(left.users):
                why = f"because {to} drops users without training interactions"
                notes.append(f"left out, {why}: {count:,} interactions of {name}")
        train, valid, test = splits
        dataset = replace(dataset, train=train, valid=valid, test=test)
    fitting = vectors_of(dataset) if target.vectors else {}
    if others := [name for name in dataset.features if name not in fitting]:
        holds = "only vectors and no words" if target.vectors else "no features"
        notes.append(f"left out, because {to} has {holds}: {', '.join(others)}")
    if dataset.item_texts and not target.texts:
        notes.append(f"left out, because {to} does not show items: {' and '.join(dataset.item_texts)}")
        dataset = replace(dataset, item_texts={})
    return replace(dataset, features=fitting), notes


def _of_users(pairs: Interactions, chosen: Bool[np.ndarray, " users"]) -> Interactions:
    taken = chosen[pairs.users]
    return pairs if taken.all() else Interactions(pairs.users[taken], pairs.items[taken])


def _cannot_hold(dataset: Dataset, to: str, why: str) -> UserError:
    return UserError(f"data set {dataset.name}: {to} cannot hold these data: {why}; choose another {setting('to')}")


def _difference(kept: Dataset, found: Dataset) -> str:
    """Name the first part in which two data sets differ."""
    if (kept.num_users, kept.num_items) != (found.num_users, found.num_items):
        return "the numbers of users and items"
    for what, one, other in (("users", kept.user_ids, found.user_ids), ("items", kept.item_ids, found.item_ids)):
        if set(one.tolist()) != set(other.tolist()):
            return f"raw ids of {what}"
    if set(kept.features) != set(found.features):
        return "the names of modalities"
    return "interactions or vectors"
