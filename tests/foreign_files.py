"""Files as other programs write them, for the tests of readers, and how a test reads them or sees them refused."""

import io
import json
import pickle
import struct
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slmrec_jax.errors import UserError

EVIL = {
    "reduce": b"\x80\x02cos\nsystem\nU\x04true\x85R.",
    "stack global": b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.",
    "inst": b"(S'true'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'true'\no.",
    "build": b"\x80\x02cnumpy\nndarray\n)\x81}U\x0c__setstate__cos\nsystem\nsbU\x04trueb.",
}
"""Pickles that run something when they are loaded the usual way."""


def number(value):
    """Return the opcodes of an integer."""
    return pickle.dumps(value, 2)[2:-1]


def text(value):
    """Return the opcodes of a text, as torch writes it."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def numbers(values):
    return b"(" + b"".join(number(value) for value in values) + b"t"


def tensor_pickle(
    shape,
    strides=None,
    *,
    size=None,
    offset=0,
    storage="FloatStorage",
    module="torch",
    key="0",
    location="cpu",
    view=b"",
    parameter=False,
):
    """Return the pickle that `torch.save` writes for a tensor; contiguous if no strides are given."""
    if strides is None:
        strides = [int(np.prod(shape[n + 1 :])) for n in range(len(shape))]
    size = int(np.prod(shape)) if size is None else size
    hooks = b"ccollections\nOrderedDict\n)R"
    stored = b"(" + text("storage") + f"c{module}\n{storage}\n".encode() + text(key) + text(location) + number(size)
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + stored + view + b"tQ" + number(offset)
    tensor += numbers(shape) + numbers(strides) + b"\x89" + hooks + b"tR"
    if parameter:
        tensor = b"ctorch._utils\n_rebuild_parameter\n" + tensor + b"\x88" + hooks + b"\x87R"
    return b"\x80\x02" + tensor + b"."


def torch_zip(pickled, content, *, key="0", byteorder=b"little", folder="archive", compress=zipfile.ZIP_STORED):
    """Return a file of torch 1.6 or later."""
    entries = {"data.pkl": pickled, "byteorder": byteorder, f"data/{key}": content, "version": b"3\n"}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compress) as archive:
        for name, raw in entries.items():
            if raw is not None:
                archive.writestr(zipfile.ZipInfo(f"{folder}/{name}"), raw, compress)  # without the time
    return buffer.getvalue()


def torch_stream(pickled, content, *, key="0", size=0, little_endian=b"\x88", version=1001):
    """Return a file of torch before 1.6."""
    machine = b"}(" + text("protocol_version") + number(1001) + text("little_endian") + little_endian
    machine += text("type_sizes") + b"}(" + text("long") + number(4) + b"uu"
    head = (number(0x1950A86A20F9469CFC6C), number(version), machine)
    keys = b"\x80\x02]" + text(key) + b"a."
    return b"".join(b"\x80\x02" + each + b"." for each in head) + pickled + keys + struct.pack("<Q", size) + content


def npy_header(descr, shape, fortran_order=False):
    """Return the start of a `.npy` file, as NumPy writes it."""
    entries = f"{{'descr': '{descr}', 'fortran_order': {fortran_order}, 'shape': {shape}, }}"
    padded = entries + " " * (-(len(entries) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded.encode()


def object_npy(lists, protocol=4):
    """Return an array of lists as `numpy.save` writes it, with any protocol."""
    array = np.empty(len(lists), object)
    array[:] = lists
    return npy_header("|O", f"({len(lists)},)") + pickle.dumps(array, protocol)


def npy(array):
    """Return an array of numbers as `numpy.save` writes it."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def tensor_file(kind, shape, data):
    """Return a file of safetensors with one tensor of any type and shape."""
    return tensors_file(data, v=(kind, shape, 0, len(data)))


def tensors_file(data, **tensors):
    """Return a file of safetensors with tensors of any type and shape, as `name=(type, shape, start, end)`."""
    entries = {
        name: {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
        for name, (kind, shape, start, end) in tensors.items()
    }
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data


def parquet(table, **options):
    """Return a table of Arrow as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def arrow(table, **options):
    """Return a table of Arrow as a stream, in batches of two rows."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, **options) as writer:
        writer.write_table(table, max_chunksize=2)
    return sink.getvalue()


def refusal(read, *arguments, **named):
    """Return the one line with which a reader refuses its arguments."""
    with pytest.raises(UserError) as caught:
        read(*arguments, **named)
    assert str(caught.value).isprintable()
    return str(caught.value)


def reading(path, read):
    """Return a function that reads bytes as a file; a refusal must begin with its path."""

    def read_bytes(content):
        path.write_bytes(content)
        try:
            return read(path)
        except UserError as error:
            if not str(error).startswith(f"{path}: "):
                raise AssertionError(f"{error} does not name the file") from error
            raise

    return read_bytes
