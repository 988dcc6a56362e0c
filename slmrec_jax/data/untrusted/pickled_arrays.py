"""Reads the NumPy arrays, types and numbers of a decoded pickle, as views on its bytes with every length checked."""

from typing import Any

import numpy as np
from jaxtyping import Shaped

from slmrec_jax.data.untrusted.pickle_machine import Call, Malformed, Name, Reference, quoted

_NDARRAY, _DTYPE = ("numpy", "ndarray"), ("numpy", "dtype")
RECONSTRUCT, _SCALAR, _FROMBUFFER = (
    tuple((f"{core}.{module}", name) for core in ("numpy.core", "numpy._core") for module in modules)
    for modules, name in (
        (("multiarray", "_multiarray_umath"), "_reconstruct"),
        (("multiarray", "_multiarray_umath"), "scalar"),
        (("numeric",), "_frombuffer"),
    )
)
# Protocol 2 has no opcode for bytes: it spells them as encoded text, and empty ones as a call of the type.
_ENCODE, _EMPTY_BYTES = ("_codecs", "encode"), ("__builtin__", "bytes")
ARRAY_NAMES = frozenset((_NDARRAY, _DTYPE, *RECONSTRUCT, *_SCALAR, *_FROMBUFFER, _ENCODE, _EMPTY_BYTES))
"""What a pickle asks for to write arrays and numbers."""

_DTYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


def read_array(value: Any, what: str) -> Shaped[np.ndarray, " entries"]:
    """An array of numbers of one dimension: a view on the bytes of the file.

    Args:
        value: A part of what `pickle_machine.decode` made.
        what: What it is called in error lines; so below.

    Raises:
        Malformed: It is something else, or not as long as it says; so below.
    """
    if not isinstance(value, Call):
        raise Malformed(f"{what} is {describe(value)}; expected an array")
    if value.name in _FROMBUFFER and len(value.arguments) in (4, 5):
        content, dtype, shape = value.arguments[:3]
    elif value.name in RECONSTRUCT and isinstance(value.state, tuple) and len(value.state) == 5:
        _, shape, dtype, _, content = value.state
    else:
        raise Malformed(f"{what} is {describe(value)} of another form than NumPy writes")
    if not isinstance(shape, tuple) or len(shape) != 1:
        raise Malformed(f"{what} is not of one dimension")
    kind, length, raw = read_dtype(dtype, what), read_integer(shape[0], what), read_bytes(content, what)
    if length < 0 or length * kind.itemsize != len(raw):
        raise Malformed(f"{what} has {len(raw)} bytes for {short(length)} values of {kind}")
    return np.frombuffer(raw, kind)


def read_dtype(value: Any, what: str) -> "np.dtype[Any]":
    """A type of number, with its byte order."""
    if isinstance(value, Call) and value.name == _DTYPE and value.arguments:
        code, state = value.arguments[0], value.state
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if isinstance(code, str) and code in _DTYPES and isinstance(order, str) and order in ("<", ">", "|"):
            if order == "|" and code[1] != "1":
                raise Malformed(f"{what} has no byte order")
            return np.dtype(order + code)
        raise Malformed(f"{what} is of type {quoted(code) if isinstance(code, str) else describe(code)}, not numbers")
    raise Malformed(f"{what} has {describe(value)} for a type")


def read_bytes(value: Any, what: str) -> bytes | bytearray:
    """Bytes, in any of the ways in which the protocols write them."""
    if isinstance(value, Call) and value.name == _EMPTY_BYTES and not value.arguments:
        return b""
    if isinstance(value, Call) and value.name == _ENCODE and len(value.arguments) == 2:
        value = value.arguments[0]
    if isinstance(value, str):  # bytes of Python 2, or encoded text: either way a character is a byte
        try:
            return value.encode("latin-1")
        except UnicodeEncodeError:
            raise Malformed(f"{what} has text where bytes belong") from None
    if not isinstance(value, bytes | bytearray):
        raise Malformed(f"{what} has {describe(value)} where bytes belong")
    return value


def read_integer(value: Any, what: str) -> int:
    """An integer of Python or of NumPy."""
    if isinstance(value, Call) and value.name in _SCALAR and len(value.arguments) == 2:
        kind, raw = read_dtype(value.arguments[0], what), read_bytes(value.arguments[1], what)
        if kind.kind in "iu" and len(raw) == kind.itemsize:
            return int.from_bytes(raw, "big" if kind.str[0] == ">" else "little", signed=kind.kind == "i")
    if not isinstance(value, int) or isinstance(value, bool):
        raise Malformed(f"{what} has {describe(value)} where an integer belongs")
    return value


def describe(value: Any) -> str:
    """What a value is, in bounded space: a value may hold itself many times over."""
    if isinstance(value, Call):
        return ".".join(value.name)
    if isinstance(value, Name):
        return ".".join(value)
    if isinstance(value, Reference):
        return "a reference"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return "nothing" if value is None else f"a {type(value).__name__}"


def short(number: int) -> str:
    """A number from a file, fit for an error line."""
    return str(number) if abs(number) < 2**64 else "an absurd number of"
