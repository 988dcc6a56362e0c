"""Detection of raw ids that a person cannot tell apart."""

import re
import unicodedata
from collections import Counter

import numpy as np
from jaxtyping import Shaped

_UNSEEN = re.compile(r"[\s\u200b-\u200d\u2060\ufeff]+")
"""A pattern of all kinds of blanks and of zero-width characters."""


def alike(user_ids: Shaped[np.ndarray, " users"], item_ids: Shaped[np.ndarray, " items"]) -> list[str]:
    """Return warnings about users and items whose ids differ only in blanks or in the form of a character."""
    lines = []
    for what, ids in (("user", user_ids), ("item", item_ids)):
        texts = ids.tolist() if ids.dtype.kind == "U" else []
        seen = [_UNSEEN.sub("", unicodedata.normalize("NFKC", text)) for text in texts]
        repeated = {each: count for each, count in Counter(seen).items() if count > 1}
        if repeated:
            first = next(each for each in seen if each in repeated)
            one, other, *_ = (ids[place].item() for place, each in enumerate(seen) if each == first)
            lines.append(
                f"{what} ids that differ only in blanks or in the Unicode form of a character: "
                f"{sum(repeated.values())} of {len(seen)}, such as {one!r} and {other!r}; they are kept apart"
            )
    return lines
