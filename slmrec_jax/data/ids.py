"""Finds raw ids that differ by nothing a person would see."""

import re
import unicodedata
from collections import Counter

import numpy as np
from jaxtyping import Shaped

_UNSEEN = re.compile(r"[\s\u200b-\u200d\u2060\ufeff]+")
"""Blanks of all kinds, and characters of no width."""


def alike(user_ids: Shaped[np.ndarray, " users"], item_ids: Shaped[np.ndarray, " items"]) -> list[str]:
    """A line on the users, and one on the items, whose ids differ by blanks or by the form of a character alone."""
    return [line for what, ids in (("user", user_ids), ("item", item_ids)) for line in _alike(what, ids)]


def _alike(what: str, ids: Shaped[np.ndarray, " ids"]) -> list[str]:
    if ids.dtype.kind != "U":
        return []
    seen = [_UNSEEN.sub("", unicodedata.normalize("NFKC", each)) for each in ids.tolist()]
    counts = Counter(seen)
    if len(counts) == len(seen):
        return []
    twice = next(each for each in seen if counts[each] > 1)
    one, other, *_ = (ids[place].item() for place, each in enumerate(seen) if each == twice)
    number = sum(count for count in counts.values() if count > 1)
    return [
        f"{what} ids that differ from another by blanks or the form of a character alone: {number} of {len(seen)}, as "
        f"{one!r} and {other!r}; they are kept apart"
    ]
