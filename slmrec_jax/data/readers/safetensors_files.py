"""Reads `.safetensors` files; every tensor's type and shape is checked before its numbers are read."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
from jaxtyping import Shaped

from slmrec_jax.data.readers.npy_files import MAX_DIMENSIONS, is_hollow
from slmrec_jax.data.readers.opening import check_file
from slmrec_jax.data.readers.refusals import MAX_SHOWN, listed, one_line
from slmrec_jax.errors import UserError

_TYPES = ("BOOL", "U8", "U16", "U32", "U64", "I8", "I16", "I32", "I64", "F16", "F32", "F64", "BF16")
"""Types that safetensors converts to NumPy."""
_FLOAT8 = {
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
}
"""Types that safetensors knows but does not convert to NumPy."""


def read_tensors(file: Path, expected: str, fix: str = "write it again") -> dict[str, Shaped[np.ndarray, "..."]]:
    """Read all tensors of a file by name; `fix` says what to do about a damaged file.

    bfloat16 and float8 keep their type, from ml_dtypes. Complex numbers and those of fewer than eight bits are refused.
    """
    check_file(file, expected)
    try:
        with safetensors.safe_open(file, framework="np") as opened:
            names = list(opened.keys())
            types = {name: _check_tensor(file, name, opened.get_slice(name)) for name in names}
            arrays = {name: np.asarray(opened.get_tensor(name)) for name in names if types[name] not in _FLOAT8}
        if len(arrays) < len(names):
            for name, tensor in safetensors.deserialize(file.read_bytes()):  # type: ignore[no-untyped-call]
                if name not in arrays:
                    raw = np.frombuffer(tensor["data"], _FLOAT8[types[name]])
                    arrays[name] = raw.reshape(tensor["shape"])
    except safetensors.SafetensorError as error:
        raise UserError(f"{file}: not a readable .safetensors file ({one_line(error)}); {fix}") from error
    return {name: arrays[name] for name in names}


def _check_tensor(file: Path, name: str, tensor: Any) -> str:
    """Return the type of a tensor after checking that it can be read."""
    kind, shape = str(tensor.get_dtype()), tensor.get_shape()
    what = f"{file}: the tensor {listed([name])}"
    if kind not in _TYPES and kind not in _FLOAT8:
        known = ", ".join((*_TYPES, *_FLOAT8))
        raise UserError(f"{what} is of type {kind[:MAX_SHOWN]}; expected one of {known}: convert it, as to F32")
    if len(shape) > MAX_DIMENSIONS:
        raise UserError(f"{what} has {len(shape)} dimensions; expected at most {MAX_DIMENSIONS}: reshape it")
    if is_hollow(shape, file.stat().st_size):
        raise UserError(f"{what} is of shape {tuple(shape)} and holds no values; fill it, or remove the file")
    return kind
