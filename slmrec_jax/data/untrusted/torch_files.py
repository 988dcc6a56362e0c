"""Reader for tensors saved by `torch.save`, without torch or the pickle module: nothing in the file is executed.

A file consists of a pickle that describes the tensor, and a storage with the raw numbers. Since torch 1.6, these are
uncompressed entries of a zip archive (`<any>/data.pkl`, `<any>/data/0`). Before that, a file was a stream of four
pickles (a magic number, the format version, the machine's properties, the tensor), a pickled list of the storages'
keys, and for each storage the number of values and the values.
"""

import io
import math
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from jaxtyping import Shaped

from slmrec_jax.data.readers.npy_files import MAX_DIMENSIONS, is_hollow
from slmrec_jax.data.readers.opening import reading_untrusted
from slmrec_jax.data.readers.refusals import Malformed, quoted
from slmrec_jax.data.untrusted.pickle_machine import LIST_OPCODES, Call, Name, PickleKind, Reference, decode
from slmrec_jax.data.untrusted.pickled_arrays import as_integer, describe_value, short_number

_REBUILD, _PARAMETER = ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")
_STORAGE_CODES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",  # as raw bits
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "u1",
}
_STORAGES = {(module, name): name for name in _STORAGE_CODES for module in ("torch", "torch.cuda")}
_TENSOR_NAMES = {_REBUILD, _PARAMETER, *_STORAGES, ("collections", "OrderedDict")}
_TENSOR_PICKLE = PickleKind("a tensor", _TENSOR_NAMES, frozenset(("BINPERSID",)))
_HEAD_PICKLE = PickleKind("the head of a tensor's file", frozenset(), LIST_OPCODES)

_MAGIC, _STREAM_VERSION = 0x1950A86A20F9469CFC6C, 1001
_MAX_SIZE = 2**48


class _Tensor(NamedTuple):
    """The pickle's description of a tensor, which is a view of the numbers in a storage."""

    key: str
    """The name of the storage."""
    type: str
    size: int
    """The number of values in the storage."""
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """The strides in values, not in bytes, like `offset`."""


def read_tensor(path: Path) -> Shaped[np.ndarray, "..."]:
    """Read a file with one dense tensor or parameter of real numbers, saved from any device.

    bfloat16 becomes float32; other dtypes are kept. Memory stays within four times the file's size.
    """
    expected = "one dense tensor of real numbers that torch.save wrote"
    with reading_untrusted(path, expected, "save it again from a source you trust, or as .npy"):
        data = path.read_bytes()
        tensor = _from_archive(data) if data[:2] == b"PK" else _from_stream(data)
        if is_hollow(tensor.shape, len(data)):
            raise Malformed(f"its shape is {tensor.shape}, but it holds no values")
        return tensor


def _from_archive(data: bytes) -> Shaped[np.ndarray, "..."]:
    with _unzipping():
        archive = zipfile.ZipFile(io.BytesIO(data))
    entries = _entries_by_name(archive, len(data))

    def read(name: str) -> bytes:
        if name not in entries:
            raise Malformed(f"the archive has no entry {quoted(name)}")
        with _unzipping():
            return archive.read(entries[name])

    tensor = _tensor(decode(read("data.pkl"), _TENSOR_PICKLE)[0])
    order = read("byteorder") if "byteorder" in entries else b"little"
    if order not in (b"little", b"big"):
        raise Malformed("byteorder is neither little nor big")
    return _view(tensor, read(f"data/{tensor.key}"), ">" if order == b"big" else "<")


def _entries_by_name(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Return the entries of an archive of `size` bytes by name within the folder that contains them all."""
    entries: dict[str, zipfile.ZipInfo] = {}
    folders = set()
    for entry in archive.infolist():
        folder, _, name = entry.filename.partition("/")
        folders.add(folder)
        if name in entries:
            raise Malformed(f"the archive has two entries {quoted(name)}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise Malformed(f"the entry {quoted(name)} is compressed, as torch.save never does")
        if entry.file_size > size:
            raise Malformed(f"the entry {quoted(name)} claims {entry.file_size} bytes in a file of {size}")
        entries[name] = entry
    if len(folders) > 1:
        raise Malformed(f"the archive has {len(folders)} folders; expected one")
    return entries


@contextmanager
def _unzipping() -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, struct.error, NotImplementedError, EOFError, ValueError, RuntimeError) as error:
        # The exceptions of zipfile for an archive that is damaged, encrypted, or in an unknown form.
        raise Malformed(f"not a readable zip archive ({quoted(str(error) or type(error).__name__)})") from None


def _from_stream(data: bytes) -> Shaped[np.ndarray, "..."]:
    if data[:1] != b"\x80":
        raise Malformed("it starts neither as a zip archive nor as a pickle")
    magic, position = decode(data, _HEAD_PICKLE)
    if magic != _MAGIC:
        raise Malformed(f"it starts with {describe_value(magic)} that is not torch's mark")
    version, position = decode(data, _HEAD_PICKLE, position)
    if version != _STREAM_VERSION:
        raise Malformed(f"its version is not {_STREAM_VERSION}")
    machine, position = decode(data, _HEAD_PICKLE, position)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise Malformed("it was not written on a little-endian machine")
    value, position = decode(data, _TENSOR_PICKLE, position)
    tensor = _tensor(value)
    keys, position = decode(data, _HEAD_PICKLE, position)
    if keys != [tensor.key]:
        raise Malformed(f"its storages are {describe_value(keys)}; expected the one of the tensor")
    count, start = int.from_bytes(data[position : position + 8], "little"), position + 8
    if start > len(data) or count != tensor.size:
        raise Malformed(f"byte {position}: the storage has {count} values; expected {tensor.size}")
    return _view(tensor, memoryview(data)[start:], "<")


def _tensor(value: Any) -> _Tensor:
    if isinstance(value, Call) and value.name == _PARAMETER and value.arguments:
        value = value.arguments[0]
    if not isinstance(value, Call) or value.name != _REBUILD or len(value.arguments) not in (6, 7):
        raise Malformed(f"it holds {describe_value(value)}")
    storage, offset, shape, strides = value.arguments[:4]
    if not isinstance(shape, tuple) or not isinstance(strides, tuple) or len(shape) != len(strides):
        raise Malformed(f"its shape is {describe_value(shape)} and its strides are {describe_value(strides)}")
    if len(shape) > MAX_DIMENSIONS:
        raise Malformed(f"it has {len(shape)} dimensions")
    offset, *numbers = (_size(number) for number in (offset, *shape, *strides))
    sizes = tuple(numbers[: len(shape)])
    if math.prod(size or 1 for size in sizes) >= _MAX_SIZE:
        raise Malformed(f"its shape is {sizes}")
    return _Tensor(*_storage(storage), offset, sizes, tuple(numbers[len(shape) :]))


def _storage(value: Any) -> tuple[str, str, int]:
    """Return the name, type and size of a storage."""
    key = value.key if isinstance(value, Reference) else None
    if not isinstance(key, tuple) or len(key) not in (5, 6) or key[0] != "storage":
        raise Malformed("its numbers are not in a storage")
    _, kind, name, _, count, *view = key
    if not isinstance(kind, Name) or kind not in _STORAGES or not isinstance(name, str):
        raise Malformed(f"its storage is {describe_value(kind)} called {describe_value(name)}")
    if view not in ([], [None]):
        raise Malformed("its storage is a part of another one")
    return name, _STORAGES[kind], _size(count)


def _size(value: Any) -> int:
    number = as_integer(value, "a size")
    if not 0 <= number < _MAX_SIZE:
        raise Malformed(f"it has {short_number(number)} for a size")
    return number


def _view(tensor: _Tensor, content: bytes | memoryview, order: str) -> Shaped[np.ndarray, "..."]:
    """Copy the part of the storage that the tensor covers, after checking its bounds."""
    _, kind, size, offset, shape, strides = tensor
    dtype = np.dtype(order + _STORAGE_CODES[kind])
    if size * dtype.itemsize != len(content):
        raise Malformed(f"its storage has {len(content)} bytes for {size} values of {kind}")
    if math.prod(shape) > size:  # a stride of 0 repeats values that take space once
        raise Malformed(f"its shape {shape} has more values than the {size} of its storage")
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if last >= size and 0 not in shape:
        raise Malformed(f"it reads value {last} of its storage, which has {size}")
    if 0 in shape:
        stored = np.zeros(shape, dtype)
    else:
        steps = tuple(dtype.itemsize * stride for stride in strides)
        stored = np.ndarray(shape, dtype, content, offset * dtype.itemsize, steps)
    if kind == "BFloat16Storage":
        return np.array(stored.astype(np.uint16).view(ml_dtypes.bfloat16), np.float32, order="C")
    if kind == "BoolStorage":
        return np.array(stored != 0, order="C")
    return np.array(stored, dtype.newbyteorder("="), order="C")
