"""Reader for JSON files, including item lists by user. Errors name the user and the position in the list."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from jaxtyping import Int

from slmrec_jax.data.inspect.checks import MAX_COUNT
from slmrec_jax.data.readers.opening import reading
from slmrec_jax.data.readers.refusals import MAX_SHOWN
from slmrec_jax.errors import UserError, one_line
from slmrec_jax.types import Interactions

_USER_KEY = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)


class ItemLists(NamedTuple):
    """The items of each user."""

    pairs: Interactions
    """The interactions in file order, int64."""
    users: Int[np.ndarray, " users"]
    """All users in the file, even without items."""


def read_item_lists(path: Path) -> ItemLists:
    """Read lists such as `{"0": [5, 3], "1": []}`, with memory of at most 64 times the file's size."""
    expected = "a list of items for each user"
    hooks = {"object_pairs_hook": _without_repeats, "parse_constant": _refuse_constant}
    value = read_json_file(path, f"JSON, {expected}", f"expected {expected}", **hooks)
    if not isinstance(value, dict):
        raise UserError(f"{path}: found {_json_type(value)}; expected an object, {expected}")
    for key, items in value.items():
        _check_items(path, key, items)
    users = np.fromiter((int(key) for key in value), np.int64, len(value))
    lengths = np.fromiter((len(items) for items in value.values()), np.int64, len(value))
    items = np.fromiter((item for items in value.values() for item in items), np.int64, int(lengths.sum()))
    return ItemLists(Interactions(np.repeat(users, lengths), items), users)


def read_json_file(path: Path, expected: str, fix: str, **hooks: Any) -> Any:
    """Read JSON in UTF-8. `hooks` are arguments of `json.loads`; `fix` is the advice for an error in the content."""
    with reading(path, expected):
        try:
            return json.loads(path.read_bytes().decode("utf-8-sig"), **hooks)
        except (ValueError, RecursionError) as error:
            fault = "nested too deeply" if isinstance(error, RecursionError) else one_line(error)
            raise UserError(f"{path}: not readable as JSON ({fault}); {fix}") from None


def read_json_object(path: Path, expected: str, fix: str) -> dict[str, Any]:
    """Read a JSON object as `read_json_file` does."""
    value = read_json_file(path, expected, fix)
    if not isinstance(value, dict):
        raise UserError(f"{path}: found {_json_type(value)}; expected an object, {expected}; {fix}")
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the user {twice[:MAX_SHOWN]!a} appears twice")
    return made


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not an id")


def _check_items(path: Path, key: str, items: Any) -> None:
    if not _USER_KEY.fullmatch(key) or int(key) > MAX_COUNT:
        raise UserError(f'{path}: found the user {key[:MAX_SHOWN]!a}; expected a whole number, such as "12"')
    if not isinstance(items, list):
        raise UserError(f"{path}: user {key} has {_json_type(items)}; expected a list of items")
    for place, item in enumerate(items):
        if type(item) is not int or not 0 <= item <= MAX_COUNT:
            found = ascii(item)[:MAX_SHOWN] if isinstance(item, str | int | float) else _json_type(item)
            raise UserError(f"{path}: user {key}: item {place} of their list is {found}; expected a whole number")


def _json_type(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")
