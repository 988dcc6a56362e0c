"""Encode text ids as two tensors, because safetensors has no text dtype."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Shaped

from slmrec_jax.errors import UserError, one_line

BYTES, OFFSETS = "item_bytes", "item_offsets"
"""The names of the tensors: the concatenated ids as UTF-8, and the start of each id plus the end of the last."""


def encode_text_ids(ids: Shaped[np.ndarray, " rows"]) -> dict[str, Shaped[np.ndarray, " _"]]:
    """Encode text ids as tensors by name."""
    encoded = [each.encode() for each in ids.tolist()]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return {BYTES: np.frombuffer(b"".join(encoded), np.uint8), OFFSETS: offsets}


def decode_text_ids(file: Path, tensors: Mapping[str, Shaped[np.ndarray, "..."]]) -> Any:
    """Decode the tensors of `encode_text_ids` to an Arrow array."""
    text, offsets = tensors[BYTES], tensors[OFFSETS]
    if text.dtype != np.uint8 or offsets.dtype != np.int64 or text.ndim != 1 or offsets.ndim != 1 or not len(offsets):
        found = f"{BYTES} is {text.dtype} {text.shape} and {OFFSETS} {offsets.dtype} {offsets.shape}"
        raise UserError(f"{file}: {found}; expected bytes, and int64 with one more entry than there are ids")
    try:
        buffers = [None, pa.py_buffer(np.ascontiguousarray(offsets)), pa.py_buffer(np.ascontiguousarray(text))]
        ids = pa.Array.from_buffers(pa.large_string(), len(offsets) - 1, buffers)
        ids.validate(full=True)
    except pa.ArrowException as error:
        raise UserError(
            f"{file}: {BYTES} and {OFFSETS} are not valid text ({one_line(error)}); write them again"
        ) from error
    return ids.cast(pa.string())
