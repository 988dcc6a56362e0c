"""Conversion of the records of a decoded pickle to NumPy arrays, dtypes and numbers, with every length checked."""

from typing import Any

import numpy as np
from jaxtyping import Shaped

from slmrec_jax.data.readers.refusals import Malformed, quoted
from slmrec_jax.data.untrusted.pickle_machine import Call, Name, Reference

_NDARRAY, _DTYPE = ("numpy", "ndarray"), ("numpy", "dtype")
_CORES = ("numpy.core", "numpy._core")
_MULTIARRAYS = {f"{core}.{module}" for core in _CORES for module in ("multiarray", "_multiarray_umath")}
RECONSTRUCT, _SCALAR = ({(module, name) for module in _MULTIARRAYS} for name in ("_reconstruct", "scalar"))
_FROMBUFFER = {(f"{core}.numeric", "_frombuffer") for core in _CORES}
# Protocol 2 has no opcode for bytes: it writes them as encoded text, and empty bytes as a call of the type.
_ENCODE, _EMPTY_BYTES = ("_codecs", "encode"), ("__builtin__", "bytes")
ARRAY_NAMES = frozenset((_NDARRAY, _DTYPE, *RECONSTRUCT, *_SCALAR, *_FROMBUFFER, _ENCODE, _EMPTY_BYTES))
"""The names that pickles of arrays and numbers refer to."""

_NUMBER_CODES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


def as_array(value: Any, what: str) -> Shaped[np.ndarray, " entries"]:
    """Convert a record to a one-dimensional array of numbers, as a view of the pickle's bytes, or raise `Malformed`.

    Here and below, `value` is a part of a result of `pickle_machine.decode`, and `what` is its name in error messages.
    """
    if not isinstance(value, Call):
        raise Malformed(f"{what} is {describe_value(value)}; expected an array")
    if value.name in _FROMBUFFER and len(value.arguments) in (4, 5):
        content, dtype, shape = value.arguments[:3]
    elif value.name in RECONSTRUCT and isinstance(value.state, tuple) and len(value.state) == 5:
        _, shape, dtype, _, content = value.state
    else:
        raise Malformed(f"{what} is {describe_value(value)} in a form that NumPy does not write")
    if not isinstance(shape, tuple) or len(shape) != 1:
        raise Malformed(f"{what} is not of one dimension")
    kind, length, raw = as_number_type(dtype, what), as_integer(shape[0], what), as_raw_bytes(content, what)
    if length < 0 or length * kind.itemsize != len(raw):
        raise Malformed(f"{what} has {len(raw)} bytes for {short_number(length)} values of {kind}")
    return np.frombuffer(raw, kind)


def as_number_type(value: Any, what: str) -> "np.dtype[Any]":
    """Convert a record to a numeric dtype, with its byte order, or raise `Malformed`."""
    if not isinstance(value, Call) or value.name != _DTYPE or not value.arguments:
        raise Malformed(f"{what} has {describe_value(value)} as its type")
    code, state = value.arguments[0], value.state
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
    if not isinstance(code, str) or code not in _NUMBER_CODES or order not in ("<", ">", "|"):
        found = quoted(code) if isinstance(code, str) else describe_value(code)
        raise Malformed(f"{what} is of type {found}, not numbers")
    if order == "|" and code[1] != "1":
        raise Malformed(f"{what} has no byte order")
    return np.dtype(f"{order}{code}")


def as_raw_bytes(value: Any, what: str) -> bytes | bytearray:
    """Convert a record of bytes, in any form of the pickle protocols, or raise `Malformed`."""
    if isinstance(value, Call) and value.name == _EMPTY_BYTES and not value.arguments:
        return b""
    if isinstance(value, Call) and value.name == _ENCODE and len(value.arguments) == 2:
        value = value.arguments[0]
    if isinstance(value, str):  # bytes of Python 2 or encoded text; in both cases, a character is a byte
        try:
            return value.encode("latin-1")
        except UnicodeEncodeError:
            raise Malformed(f"{what} has text where bytes belong") from None
    if not isinstance(value, bytes | bytearray):
        raise Malformed(f"{what} has {describe_value(value)} where bytes belong")
    return value


def as_integer(value: Any, what: str) -> int:
    """Convert a record of a Python or NumPy integer, or raise `Malformed`."""
    if isinstance(value, Call) and value.name in _SCALAR and len(value.arguments) == 2:
        kind, raw = as_number_type(value.arguments[0], what), as_raw_bytes(value.arguments[1], what)
        if kind.kind in "iu" and len(raw) == kind.itemsize:
            return int.from_bytes(raw, "big" if kind.str[0] == ">" else "little", signed=kind.kind == "i")
    if not isinstance(value, int) or isinstance(value, bool):
        raise Malformed(f"{what} has {describe_value(value)} where an integer belongs")
    return value


def describe_value(value: Any) -> str:
    """Describe the kind of a value, without its content, since a value may contain itself repeatedly."""
    if isinstance(value, Call | Name):
        return ".".join(value.name if isinstance(value, Call) else value)
    if isinstance(value, Reference):
        return "a reference"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    kind = type(value).__name__
    return "nothing" if value is None else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def short_number(number: int) -> str:
    """Format a number from a file for error messages."""
    return str(number) if abs(number) < 2**64 else "an absurd number of"
