"""Reads a tensor that `torch.save` wrote, without torch and without the pickle module: nothing in the file is run.

A file is a pickle that describes the tensor, and a storage: the raw numbers. Since torch 1.6 they are entries of a zip
archive, not compressed (`<any>/data.pkl`, `<any>/data/0`). Before, they followed one another in a stream: four pickles
(a magic number, the version of the form, the machine's properties, the tensor), a pickled list of the storages' keys,
and for each its number of values and the values.
"""

import io
import math
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Shaped

from slmrec_jax.data.readers.npy_files import is_hollow
from slmrec_jax.data.readers.opening import check_file, unreadable
from slmrec_jax.data.untrusted.pickle_machine import (
    LISTS,
    REFERENCES,
    Call,
    Kind,
    Malformed,
    Name,
    Reference,
    decode,
    decode_at,
    quoted,
)
from slmrec_jax.data.untrusted.pickled_arrays import describe, read_integer, short
from slmrec_jax.errors import UserError

T = TypeVar("T")

_REBUILD, _PARAMETER = ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")
_DTYPES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",  # the upper half of a float32
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "u1",
}
_STORAGES = {(module, name): name for name in _DTYPES for module in ("torch", "torch.cuda")}
_NAMES = {_REBUILD, _PARAMETER, *_STORAGES, ("collections", "OrderedDict")}
_TENSOR = Kind("a tensor", _NAMES, REFERENCES)
_PLAIN = Kind("the head of a tensor's file", frozenset(), LISTS)

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
_MAX_DIMENSIONS, _MAX_SIZE = 8, 2**48


class _Storage(NamedTuple):
    """The numbers that a tensor is a view of, as the pickle speaks of them."""

    key: str
    type: str
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """In values, not in bytes; so is `offset`."""


def read_tensor(path: Path) -> Shaped[np.ndarray, "..."]:
    """Reads a file that holds one dense tensor or parameter of real numbers, from any device.

    bfloat16 becomes float32; every other type stays. Memory stays within four times the file's size.

    Raises:
        UserError: It cannot be read, is truncated or inconsistent, or holds anything but one tensor.
    """
    check_file(path, "a tensor that torch.save wrote")
    try:
        data = path.read_bytes()
        tensor = _from_archive(data) if data[:2] == b"PK" else _from_stream(data)
        if is_hollow(tensor.shape, len(data)):
            raise Malformed(f"its shape is {tensor.shape}, but it holds no values")
        return tensor
    except OSError as error:
        raise unreadable(path, error) from error
    except Malformed as fault:
        raise UserError(
            f"{path}: {fault}; nothing in it was run; expected one dense tensor of real numbers that torch.save wrote: "
            f"save it again from a source you trust, or as .npy"
        ) from None


def _from_archive(data: bytes) -> Shaped[np.ndarray, "..."]:
    entries = _entries(data)
    tensor = _tensor(decode(_entry(entries, "data.pkl"), _TENSOR))
    order = _entry(entries, "byteorder") if "byteorder" in entries else b"little"
    if order not in (b"little", b"big"):
        raise Malformed("byteorder is neither little nor big")
    return _view(tensor, _entry(entries, f"data/{tensor.storage.key}"), ">" if order == b"big" else "<")


def _entries(data: bytes) -> dict[str, Callable[[], bytes]]:
    """How to read each of the archive's entries, by their names under the one folder that they are all in."""
    archive = _unzip(lambda: zipfile.ZipFile(io.BytesIO(data)))
    entries: dict[str, Callable[[], bytes]] = {}
    folders = set()
    for entry in archive.infolist():
        folder, _, name = entry.filename.partition("/")
        folders.add(folder)
        if name in entries:
            raise Malformed(f"the archive has two entries {quoted(name)}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise Malformed(f"the entry {quoted(name)} is compressed, as torch.save never does")
        if entry.file_size > len(data):
            raise Malformed(f"the entry {quoted(name)} claims {entry.file_size} bytes in a file of {len(data)}")
        entries[name] = partial(archive.read, entry)
    if len(folders) > 1:
        raise Malformed(f"the archive has {len(folders)} folders; expected one")
    return entries


def _entry(entries: dict[str, Callable[[], bytes]], name: str) -> bytes:
    if name not in entries:
        raise Malformed(f"the archive has no entry {quoted(name)}")
    return _unzip(entries[name])


def _unzip(read: Callable[[], T]) -> T:
    try:
        return read()
    except (zipfile.BadZipFile, struct.error, NotImplementedError, EOFError, ValueError, RuntimeError) as error:
        # What zipfile raises for an archive that is damaged, encrypted, or in a form it does not know.
        raise Malformed(f"not a readable zip archive ({quoted(str(error) or type(error).__name__)})") from None


def _from_stream(data: bytes) -> Shaped[np.ndarray, "..."]:
    if data[:1] != b"\x80":
        raise Malformed("it starts neither as a zip archive nor as a pickle")
    magic, position = decode_at(data, 0, _PLAIN)
    if magic != _MAGIC:
        raise Malformed(f"it starts with {describe(magic)} that is not torch's mark")
    version, position = decode_at(data, position, _PLAIN)
    if version != _VERSION:
        raise Malformed("its version is not 1001")
    machine, position = decode_at(data, position, _PLAIN)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise Malformed("it was not written on a little-endian machine")
    value, position = decode_at(data, position, _TENSOR)
    tensor = _tensor(value)
    keys, position = decode_at(data, position, _PLAIN)
    if keys != [tensor.storage.key]:
        raise Malformed(f"its storages are {describe(keys)}; expected the one of the tensor")
    count, start = int.from_bytes(data[position : position + 8], "little"), position + 8
    if start > len(data) or count != tensor.storage.size:
        raise Malformed(f"byte {position}: the storage has {count} values; expected {tensor.storage.size}")
    return _view(tensor, memoryview(data)[start:], "<")


def _tensor(value: Any) -> _Tensor:
    if isinstance(value, Call) and value.name == _PARAMETER and value.arguments:
        value = value.arguments[0]
    if not isinstance(value, Call) or value.name != _REBUILD or len(value.arguments) not in (6, 7):
        raise Malformed(f"it holds {describe(value)}")
    storage, offset, shape, strides = value.arguments[:4]
    if not isinstance(shape, tuple) or not isinstance(strides, tuple) or len(shape) != len(strides):
        raise Malformed(f"its shape is {describe(shape)} and its strides are {describe(strides)}")
    if len(shape) > _MAX_DIMENSIONS:
        raise Malformed(f"it has {len(shape)} dimensions")
    offset, *numbers = (_size(number) for number in (offset, *shape, *strides))
    sizes = tuple(numbers[: len(shape)])
    if math.prod(size or 1 for size in sizes) >= _MAX_SIZE:
        raise Malformed(f"its shape is {sizes}")
    return _Tensor(_storage(storage), offset, sizes, tuple(numbers[len(shape) :]))


def _storage(value: Any) -> _Storage:
    key = value.key if isinstance(value, Reference) else None
    if not isinstance(key, tuple) or len(key) not in (5, 6) or key[0] != "storage":
        raise Malformed("its numbers are not in a storage")
    _, kind, name, _, count, *view = key
    if not isinstance(kind, Name) or kind not in _STORAGES or not isinstance(name, str):
        raise Malformed(f"its storage is {describe(kind)} called {describe(name)}")
    if view not in ([], [None]):
        raise Malformed("its storage is a part of another one")
    return _Storage(name, _STORAGES[kind], _size(count))


def _size(value: Any) -> int:
    number = read_integer(value, "a size")
    if not 0 <= number < _MAX_SIZE:
        raise Malformed(f"it has {short(number)} for a size")
    return number


def _view(tensor: _Tensor, content: bytes | memoryview, order: str) -> Shaped[np.ndarray, "..."]:
    """A copy of what the tensor shows of its storage, once it is known to lie within."""
    storage, offset, shape, strides = tensor
    dtype = np.dtype(order + _DTYPES[storage.type])
    if storage.size * dtype.itemsize != len(content):
        raise Malformed(f"its storage has {len(content)} bytes for {storage.size} values of {storage.type}")
    if math.prod(shape) > storage.size:  # a stride of 0 repeats values that take room once
        raise Malformed(f"its shape {shape} has more values than the {storage.size} of its storage")
    if 0 in shape:
        return _values(np.zeros(shape, dtype), storage.type)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if last >= storage.size:
        raise Malformed(f"it shows value {last} of its storage, which has {storage.size}")
    steps = tuple(dtype.itemsize * stride for stride in strides)
    return _values(np.ndarray(shape, dtype, content, offset * dtype.itemsize, steps), storage.type)


def _values(stored: Shaped[np.ndarray, "..."], kind: str) -> Shaped[np.ndarray, "..."]:
    if kind == "BFloat16Storage":
        words = np.array(stored, np.uint32, order="C")
        words <<= 16
        return words.view(np.float32)
    if kind == "BoolStorage":
        return np.array(stored != 0, order="C")
    return np.array(stored, stored.dtype.newbyteorder("="), order="C")
