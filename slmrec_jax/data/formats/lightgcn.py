"""Reads the folders of LightGCN and NGCF: text with a user and all their items a line, or with one pair a row.

The pairs (`data1.txt`, `test1.txt`: user, item, weight) count ids from 1, the lines from 0. The weight is not used, as
in LightGCN. Neither form has a validation split or features.
"""

from array import array
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from slmrec_jax.data.dataset import Dataset, make_dataset
from slmrec_jax.data.readers.folders import not_read
from slmrec_jax.data.readers.opening import check_file
from slmrec_jax.data.readers.raw_ids import as_rows, count_rows, raw_ids_by_row
from slmrec_jax.data.readers.tables import read_text
from slmrec_jax.data.readers.text_files import first_line
from slmrec_jax.errors import UserError
from slmrec_jax.types import Interactions

LOOKS_FOR = "train.txt and test.txt, or data1.txt and test1.txt"

_LINES = ("train.txt", "test.txt")
_PAIRS = ("data1.txt", "test1.txt")
_COLUMNS = ("user", "item", "weight")
_DIGITS = 18
"""So many decimal digits fit into 64 bits."""
_RAW_IDS = {"users": "user_list.txt", "items": "item_list.txt"}


def recognises(folder: Path) -> bool:
    """Whether there is a training file under one of its names."""
    return any((folder / names[0]).exists() for names in (_LINES, _PAIRS))


def read(folder: Path) -> Dataset:
    """Reads train and test, and the raw ids of `user_list.txt` and `item_list.txt` (`org_id remap_id`) where they are.

    There are as many users and items as the lists say; without them, one more than the largest id. Without them, raw
    ids are the numbers that stand in the files.

    Raises:
        UserError: A file that is missing, malformed, or at odds with the others.
    """
    forms = [names for names in (_LINES, _PAIRS) if (folder / names[0]).exists()]
    if len(forms) != 1:
        found = " and ".join(names[0] for names in forms) or "neither train.txt nor data1.txt"
        raise UserError(f"{folder}: there is {found}; expected one of them")
    files = {split: folder / name for split, name in zip(("train", "test"), forms[0], strict=True)}
    for split, file in files.items():
        if not file.exists():
            raise UserError(f"{folder}: the {split} split is missing; expected {file.name}")
    if forms[0] == _LINES:
        (train, train_users), (test, test_users) = (_read_lines(file) for file in files.values())
        first, users = 0, [train_users, test_users]
    else:
        train, test = (_read_pairs(file) for file in files.values())
        first, users = 1, [train.users, test.users]
    lists = {side: folder / name for side, name in _RAW_IDS.items() if (folder / name).exists()}
    raw = {side: _read_raw_ids(file) for side, file in lists.items()}
    lengths = {side: len(ids) for side, ids in raw.items()}
    num_users = lengths.get("users") or count_rows(str(folder), "user", users)
    num_items = lengths.get("items") or count_rows(str(folder), "item", [train.items, test.items])
    return make_dataset(
        folder.resolve().name,
        train,
        Interactions(np.zeros(0, np.int32), np.zeros(0, np.int32)),
        test,
        num_users=num_users,
        num_items=num_items,
        user_ids=raw.get("users", np.arange(first, num_users + first)),
        item_ids=raw.get("items", np.arange(first, num_items + first)),
        origins={part: str(file) for part, file in {**files, **lists}.items()},
        notes=not_read(folder, [*files.values(), *lists.values()]),
    )


def _read_lines(file: Path) -> tuple[Interactions, Shaped[np.ndarray, " lines"]]:
    """The pairs, and every user who has a line, with items or without."""
    check_file(file, "lines of a user and their items")
    users, counts, items = array("q"), array("q"), array("q")
    with file.open(encoding=first_line(file).encoding, errors="replace") as lines:  # line ends of any system
        for number, line in enumerate(lines, start=1):
            ids = line.removeprefix("\ufeff").split()
            if not ids:
                continue
            together = "".join(ids)
            if not (together.isascii() and together.isdigit()) or max(map(len, ids)) > _DIGITS:
                wrong = next(word for word in ids if not (word.isascii() and word.isdigit()) or len(word) > _DIGITS)
                raise UserError(
                    f"{file}: line {number}: found {wrong[:40]!r}; expected a user and their items, whole numbers "
                    f"separated by spaces"
                )
            users.append(int(ids[0]))
            counts.append(len(ids) - 1)
            items.extend(map(int, ids[1:]))
    seen = np.array(users, np.int64)
    return Interactions(np.repeat(seen, np.array(counts, np.int64)), np.array(items, np.int64)), seen


def _read_pairs(file: Path) -> Interactions:
    table = read_text(file, "\t", _COLUMNS[:2], names=_COLUMNS)
    return Interactions(*(as_rows(table, name, first=1) for name in _COLUMNS[:2]))


def _read_raw_ids(file: Path) -> Shaped[np.ndarray, " rows"]:
    return raw_ids_by_row(read_text(file, " ", ("org_id", "remap_id")), "org_id", "remap_id")
