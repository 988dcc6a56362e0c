"""Reader for `.safetensors` files. Each tensor's dtype and shape are checked before its numbers are read."""

import json
import math
import mmap
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
from jaxtyping import Shaped

from slmrec_jax.data.readers.npy_files import MAX_DIMENSIONS, is_hollow
from slmrec_jax.data.readers.opening import check_file
from slmrec_jax.data.readers.refusals import MAX_SHOWN, listed
from slmrec_jax.errors import UserError, one_line

_TYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    **{f"{letter.upper()}{8 * size}": f"<{letter}{size}" for letter in "ui" for size in (1, 2, 4, 8)},
    **{f"F{8 * size}": f"<f{size}" for size in (2, 4, 8)},
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
}
"""The supported safetensors dtypes."""


def read_tensors(
    file: Path, expected: str, fix: str = "write it again", *, mapped: bool = False
) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Read all tensors of a file by name. `fix` is the advice for a damaged file.

    bfloat16 and float8 keep their dtype, from ml_dtypes. Complex numbers and numbers of fewer than eight bits are
    rejected. With `mapped`, arrays are read-only views of the file, which must not change while they are in use.
    """
    check_file(file, expected)
    try:
        with safetensors.safe_open(file, framework="np") as opened:
            names = list(opened.keys())
            for name in names:
                _check_tensor(file, name, opened.get_slice(name))
        views = _map_tensors(file)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{file}: not a readable .safetensors file ({one_line(error)}); {fix}") from error
    return {name: views[name] if mapped else views[name].copy() for name in names}


def read_metadata(file: Path) -> dict[str, str]:
    """Return the metadata, which may be empty, of a file that `read_tensors` has read."""
    with safetensors.safe_open(file, framework="np") as opened:
        return dict(opened.metadata() or {})


def _map_tensors(file: Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Return views of a file whose header the library has checked."""
    with file.open("rb") as opened:
        data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    first = 8 + int.from_bytes(data[:8], "little")
    views = {}
    for name, entry in json.loads(data[8:first]).items():
        if name == "__metadata__":
            continue
        kind, count = np.dtype(_TYPES[entry["dtype"]]), math.prod(entry["shape"])
        # NumPy does not accept an offset at the end of the file, where an empty array may be.
        flat = np.frombuffer(data, kind, count, first + entry["data_offsets"][0]) if count else np.zeros(0, kind)
        views[name] = flat.reshape(entry["shape"])
    return views


def _check_tensor(file: Path, name: str, tensor: Any) -> None:
    """Reject a tensor that cannot be read."""
    kind, shape = str(tensor.get_dtype()), tensor.get_shape()
    what = f"{file}: the tensor {listed([name])}"
    if kind not in _TYPES:
        known = ", ".join(_TYPES)
        raise UserError(f"{what} is of type {kind[:MAX_SHOWN]}; expected one of {known}: convert it, as to F32")
    if len(shape) > MAX_DIMENSIONS:
        raise UserError(f"{what} has {len(shape)} dimensions; expected at most {MAX_DIMENSIONS}: reshape it")
    if is_hollow(shape, file.stat().st_size):
        raise UserError(f"{what} is of shape {tuple(shape)} and holds no values; fill it, or remove the file")
