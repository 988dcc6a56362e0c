"""Reader and writer for folders of LightGCN and NGCF: text with a user and their items per line, or one pair per line.

Pairs (`data1.txt`, `test1.txt`: user, item, weight) count ids from 1, and lists count from 0. As in LightGCN, the
weight is not used. Neither form has a validation split or features.
"""

import re
from array import array
from pathlib import Path

import numpy as np

from slmrec_jax.config.source import Source
from slmrec_jax.data.dataset import NO_INTERACTIONS, Dataset
from slmrec_jax.data.formats.written import with_rows, write_text
from slmrec_jax.data.making import make_dataset
from slmrec_jax.data.readers.folders import file_of_split, not_read
from slmrec_jax.data.readers.json_lists import ItemLists
from slmrec_jax.data.readers.opening import check_file
from slmrec_jax.data.readers.raw_ids import as_rows, count_rows, raw_ids_by_row
from slmrec_jax.data.readers.tables import read_text
from slmrec_jax.data.readers.text_files import first_line
from slmrec_jax.errors import UserError
from slmrec_jax.types import Interactions

LOOKS_FOR = "train.txt and test.txt, or data1.txt and test1.txt"

_LINES = ("train.txt", "test.txt")
_PAIRS = ("data1.txt", "test1.txt")
_PAIR_COLUMNS = ("user", "item", "weight")
_NUMBERS = re.compile("[0-9]{1,18}+(?: [0-9]{1,18}+)*+")
"""A pattern of numbers that fit into 64 bits."""
_ID_LISTS = {"users": "user_list.txt", "items": "item_list.txt"}
_LIST_COLUMNS = ("org_id", "remap_id")


def recognises(folder: Path, source: Source) -> bool:
    """Return whether there is a training file under one of its known names."""
    return any((folder / names[0]).exists() for names in (_LINES, _PAIRS))


def read(folder: Path, source: Source) -> Dataset:
    """Read train and test, and the raw ids of `user_list.txt` and `item_list.txt` (`org_id remap_id`) if they exist.

    The lists determine the numbers of users and items. Without a list, the number is one more than the largest id, and
    raw ids are the numbers in the files.
    """
    forms = [names for names in (_LINES, _PAIRS) if (folder / names[0]).exists()]
    if len(forms) != 1:
        found = " and ".join(names[0] for names in forms) or "neither train.txt nor data1.txt"
        raise UserError(f"{folder}: there is {found}; expected one of them")
    files = {split: file_of_split(folder, split, [name]) for split, name in zip(("train", "test"), *forms, strict=True)}
    first, read_file = (0, _read_lines) if forms == [_LINES] else (1, _read_pairs)
    (train, train_users), (test, test_users) = (read_file(file) for file in files.values())
    lists = {side: folder / name for side, name in _ID_LISTS.items() if (folder / name).exists()}
    raw = {side: raw_ids_by_row(read_text(file, " ", _LIST_COLUMNS), *_LIST_COLUMNS) for side, file in lists.items()}
    num_users = len(raw.get("users", ())) or count_rows(str(folder), "user", [train_users, test_users])
    num_items = len(raw.get("items", ())) or count_rows(str(folder), "item", [train.items, test.items])
    return make_dataset(
        folder.resolve().name,
        train,
        NO_INTERACTIONS,
        test,
        num_users=num_users,
        num_items=num_items,
        user_ids=raw.get("users", np.arange(first, num_users + first)),
        item_ids=raw.get("items", np.arange(first, num_items + first)),
        origins={**files, **lists},
        notes=not_read(folder, [*files.values(), *lists.values()]),
    )


def write(dataset: Dataset, folder: Path) -> list[str]:
    """Write train and test as one line per user with their items, and the lists of raw ids. There are no notes."""
    for name, pairs in zip(_LINES, (dataset.train, dataset.test), strict=True):
        starts = np.flatnonzero(np.diff(pairs.users, prepend=-1))
        with (folder / name).open("w") as opened:
            for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(pairs.users)], strict=False):
                opened.write(f"{pairs.users[start]} {' '.join(map(str, pairs.items[start:end].tolist()))}\n")
    for side, ids in (("users", dataset.user_ids), ("items", dataset.item_ids)):
        write_text(folder / _ID_LISTS[side], " ", _LIST_COLUMNS, [with_rows(ids)])
    return []


def _read_lines(file: Path) -> ItemLists:
    check_file(file, "lines of a user and their items")
    users, counts, items = array("q"), array("q"), array("q")
    with file.open(encoding=first_line(file).encoding, errors="replace") as lines:  # accepts line ends of any system
        for number, line in enumerate(lines, start=1):
            ids = line.removeprefix("\ufeff").split()
            if not ids:
                continue
            if not _NUMBERS.fullmatch(" ".join(ids)):
                wrong = next(word for word in ids if not _NUMBERS.fullmatch(word))
                raise UserError(
                    f"{file}: line {number}: found {wrong[:40]!r}; expected a user and their items, whole numbers "
                    f"separated by spaces"
                )
            users.append(int(ids[0]))
            counts.append(len(ids) - 1)
            items.extend(map(int, ids[1:]))
    seen = np.array(users, np.int64)
    return ItemLists(Interactions(np.repeat(seen, np.array(counts, np.int64)), np.array(items, np.int64)), seen)


def _read_pairs(file: Path) -> ItemLists:
    table = read_text(file, "\t", _PAIR_COLUMNS[:2], names=_PAIR_COLUMNS)
    pairs = Interactions(*(as_rows(table, name, first=1) for name in _PAIR_COLUMNS[:2]))
    return ItemLists(pairs, pairs.users)
