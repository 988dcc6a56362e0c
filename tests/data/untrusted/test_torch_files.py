"""Tensors: what torch writes is read as torch means it; anything else is refused, and nothing runs."""

import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from foreign_files import EVIL, reading, refusal, tensor_pickle, text, torch_stream, torch_zip

from slmrec_jax.data.untrusted.torch_files import read_tensor

STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
}
SIX = np.arange(1, 7)


@pytest.fixture
def read(tmp_path):
    return reading(tmp_path / "feat_v.pt", read_tensor)


def stream(values, pickled, **options):
    return torch_stream(pickled, values.tobytes(), key="94459794912160", size=values.size, **options)


def both(values, **options):
    """Return the same tensor in both forms."""
    zipped = torch_zip(tensor_pickle(**options), values.tobytes())
    return [zipped, stream(values, tensor_pickle(key="94459794912160", view=b"N", **options))]


def same(found, expected):
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.asarray(expected).dtype.newbyteorder("=")
    assert found.shape == np.asarray(expected).shape
    assert (found == expected).all()
    return True


# --- what is read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", STORAGES)
def test_reads_every_type_of_number(read, storage):
    values = SIX.astype(STORAGES[storage])
    for content in both(values, shape=(2, 3), storage=storage):
        assert same(read(content), values.reshape(2, 3))


def test_reads_bfloat16_as_float32(read):
    values = np.array([1.0, -2.5, 0.0, 3.0e38, np.inf, 1e-40], np.float32)
    upper = (values.view("<u4") >> 16).astype("<u2")
    expected = (upper.astype(np.uint32) << 16).view(np.float32)
    for content in both(upper, shape=(3, 2), storage="BFloat16Storage"):
        assert same(read(content), expected.reshape(3, 2))


def test_reads_truths(read):
    for content in both(np.array([1, 0, 2], np.uint8), shape=(3,), storage="BoolStorage"):
        assert same(read(content), np.array([True, False, True]))


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "expected"),
    [
        ((3, 2), (1, 3), 0, [[1, 4], [2, 5], [3, 6]]),
        ((2, 2), (3, 1), 1, [[2, 3], [5, 6]]),
        ((2,), (3,), 2, [3, 6]),
        ((), (), 5, 6),
        ((1, 6), (2**47, 1), 0, [[1, 2, 3, 4, 5, 6]]),
        ((2, 2), (0, 1), 4, [[5, 6], [5, 6]]),
        ((0, 128), (128, 1), 0, np.zeros((0, 128))),
        ((2, 0), (1, 1), 6, np.zeros((2, 0))),
    ],
)
def test_strides_and_offsets_are_followed(read, shape, strides, offset, expected):
    for content in both(SIX.astype("<f4"), shape=shape, strides=strides, size=6, offset=offset):
        found = read(content)
        assert same(found, np.array(expected, np.float32))
        assert found.flags.c_contiguous
        assert found.flags.owndata or found.base.flags.owndata


def test_reads_parameters_and_tensors_of_other_devices(read):
    values = SIX.astype("<f4")
    for content in both(values, shape=(2, 3), parameter=True, module="torch.cuda", location="cuda:0"):
        assert same(read(content), values.reshape(2, 3))


def test_reads_any_folder_name_and_no_byte_order(read):
    values = SIX.astype("<f4")
    content = torch_zip(tensor_pickle((6,)), values.tobytes(), folder="v_feat_sample", byteorder=None)
    assert same(read(content), values)


def test_reads_big_endian_archives(read):
    content = torch_zip(tensor_pickle((6,)), SIX.astype(">f4").tobytes(), byteorder=b"big")
    assert same(read(content), SIX.astype(np.float32))


MAKE = """
import sys, torch
folder = sys.argv[1]
base = torch.arange(24).reshape(4, 6)
for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"):
    for form in (True, False):
        tensor = (base % 5).to(getattr(torch, name))
        views = {"plain": tensor, "part": tensor.t()[1:, ::2], "one": tensor[1, 1]}
        if tensor.is_floating_point():
            views["parameter"] = torch.nn.Parameter(tensor)
        for view, made in views.items():
            torch.save(made, f"{folder}/{name}-{view}-{form}.pt", _use_new_zipfile_serialization=form)
"""


def test_reads_what_torch_itself_writes(tmp_path):
    if subprocess.run([sys.executable, "-c", "import torch"], capture_output=True).returncode:
        pytest.skip("torch is not installed, and no dependency of the package")
    subprocess.run([sys.executable, "-W", "ignore", "-c", MAKE, str(tmp_path)], check=True, timeout=300)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2 * (10 * 3 + 4)
    for file in files:
        name, view, _ = file.stem.split("-")
        whole = (np.arange(24).reshape(4, 6) % 5).astype("float32" if name == "bfloat16" else name)
        expected = {"plain": whole, "parameter": whole, "part": whole.T[1:, ::2], "one": whole[1, 1]}[view]
        assert same(read_tensor(file), expected), file.name


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVIL)
def test_code_is_refused_with_its_place(read, name):
    raw = SIX.astype("<f4").tobytes()
    plain = tensor_pickle((6,))
    hidden = plain.replace(b"ccollections\nOrderedDict\n)R", EVIL[name].removesuffix(b"."))
    later = torch_stream(plain, raw, size=6)
    for content in (
        EVIL[name],
        torch_zip(EVIL[name], raw),
        torch_zip(hidden, raw),
        torch_stream(EVIL[name], raw, size=6),
        later.replace(b"\x80\x02]", EVIL[name].removesuffix(b".") + b"]"),
    ):
        line = refusal(read, content)
        assert "byte " in line or not content.startswith((b"\x80", b"PK"))


RAW = SIX.astype("<f4").tobytes()
ODD_TENSORS = {
    "shows too much": ({"shape": (2, 3), "offset": 1}, "it reads value 6 of its storage, which has 6"),
    "strides too far": ({"shape": (2, 3), "strides": (4, 1)}, "it reads value 6 of its storage"),
    "repeats": (
        {"shape": (10**6, 6), "strides": (0, 1), "size": 6},
        "its shape (1000000, 6) has more values than the 6",
    ),
    "repeats with a vast stride": ({"shape": (7,), "strides": (0,), "size": 6}, "more values than the 6"),
    "a lying size": ({"shape": (2, 3), "size": 7}, "24 bytes for 7 values of FloatStorage"),
    "another type": ({"shape": (2, 3), "storage": "DoubleStorage"}, "24 bytes for 6 values of DoubleStorage"),
    "a negative offset": ({"shape": (6,), "offset": -1}, "it has -1 for a size"),
    "a negative stride": ({"shape": (6,), "strides": (-1,), "offset": 5}, "it has -1 for a size"),
    "a negative size": ({"shape": (-6,), "strides": (1,), "size": 6}, "it has -6 for a size"),
    "a vast size": ({"shape": (2**60,), "strides": (0,), "size": 6}, "it has 1152921504606846976 for a size"),
    "an absurd size": ({"shape": (2**900,), "strides": (0,), "size": 6}, "an absurd number"),
    "a vast and empty shape": (
        {"shape": (2**40, 2**40, 0), "strides": (0, 0, 0), "size": 6},
        "its shape is (1099511627776",
    ),
    "no strides": ({"shape": (6,), "strides": ()}, "its shape is a tuple of 1 and its strides are a tuple of 0"),
    "many dimensions": ({"shape": (1,) * 9}, "it has 9 dimensions"),
    "complex": ({"shape": (3,), "storage": "ComplexFloatStorage"}, "asks for 'torch.ComplexFloatStorage'"),
    "quantized": ({"shape": (6,), "storage": "QUInt8Storage"}, "asks for 'torch.QUInt8Storage'"),
    "of another library": ({"shape": (6,), "module": "os"}, "asks for 'os.FloatStorage'"),
    "a part of a storage": ({"shape": (6,), "view": b"(K\x01K\x02t"}, "its storage is a part of another one"),
    "a storage of more words": ({"shape": (6,), "view": b"NN"}, "its numbers are not in a storage"),
    "a storage elsewhere": ({"shape": (6,), "key": "1"}, "no entry 'data/1'|its storages are a list"),
}


@pytest.mark.parametrize("name", ODD_TENSORS)
def test_what_does_not_fit_is_refused(read, name):
    options, found = ODD_TENSORS[name]
    pickled = tensor_pickle(**options)
    size = options.get("size", 3 if name == "complex" else 6)
    for content in (torch_zip(pickled, RAW), torch_stream(pickled, RAW, key="0", size=size)):
        line = refusal(read, content)
        assert any(part in line for part in found.split("|"))


PLAIN = tensor_pickle((6,))
ODD_PICKLES = {
    "a number": (b"\x80\x02K\x07.", "it holds an int"),
    "a dict of tensors": (b"\x80\x02}" + text("a") + PLAIN[2:-1] + b"s.", "it holds a dict"),
    "a list of tensors": (b"\x80\x02]" + PLAIN[2:-1] + b"a.", "the opcode EMPTY_LIST, which a tensor does not need"),
    "a bare storage": (b"\x80\x02)Q.", "it holds a reference"),
    "no storage": (PLAIN.replace(b"tQK", b"tK", 1), "its numbers are not in a storage"),
    "a key of another kind": (PLAIN.replace(b"storage", b"modules"), "its numbers are not in a storage"),
    "a storage of no type": (PLAIN.replace(b"ctorch\nFloatStorage\n", b"N"), "its storage is nothing called a str"),
    "a type of tensor": (
        PLAIN.replace(b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n"),
        "OrderedDict called",
    ),
    "a name of no text": (PLAIN.replace(text("0"), b"K\x00"), "FloatStorage called an int"),
    "a shape of no tuple": (PLAIN.replace(b"(K\x06t", b"K\x06"), "its shape is an int"),
    "a truth for an offset": (PLAIN.replace(b"QK\x00", b"Q\x88"), "a size has a bool"),
    "too few arguments": (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        "it holds torch._utils._rebuild_tensor_v2",
    ),
    "a parameter of nothing": (b"\x80\x02ctorch._utils\n_rebuild_parameter\n)R.", "it holds torch._utils._rebuild_par"),
    "another rebuilder": (PLAIN.replace(b"tensor_v2", b"tensor_v3"), "asks for 'torch._utils._rebuild_tensor_v3'"),
    "many opcodes": (b"\x80\x02" + b")" * 20_000 + b".", "more than 10000 opcodes, which a tensor does not need"),
    "nothing": (b"", "the file ends in the middle"),
}


@pytest.mark.parametrize("name", ODD_PICKLES)
def test_other_pickles_are_refused(read, name):
    pickled, found = ODD_PICKLES[name]
    assert found in refusal(read, torch_zip(pickled, RAW))
    if name != "nothing":
        assert found in refusal(read, torch_stream(pickled, RAW, size=6))


def test_compressed_archives_are_refused(read):
    bomb = torch_zip(tensor_pickle((10**6,)), bytes(4 * 10**6), compress=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 10**4
    assert "is compressed, as torch.save never does" in refusal(read, bomb)


GOOD = torch_zip(PLAIN, RAW)
CENTRAL = GOOD.index(b"PK\x01\x02", GOOD.index(RAW))
"""Where the archive's table of contents starts."""


def with_entry(field, value, entry=3):
    """Return the archive with four bytes changed in the n-th line of its table of contents."""
    place = CENTRAL
    for _ in range(entry - 1):
        place = GOOD.index(b"PK\x01\x02", place + 1)
    return GOOD[: place + field] + struct.pack("<I", value) + GOOD[place + field + 4 :]


ARCHIVES = {
    "a lying length": (with_entry(24, 10**9), "is compressed"),
    "two lying lengths": (
        with_entry(20, 10**9).replace(struct.pack("<II", 10**9, 24), struct.pack("<II", *[10**9] * 2)),
        "claims 1000000000 bytes in a file of",
    ),
    "a wrong sum": (with_entry(16, 7), "Bad CRC-32"),
    "an entry elsewhere": (with_entry(42, 10**8), "not a readable zip archive"),
    "an entry of a password": (with_entry(8, 1), "not a readable zip archive"),
    "changed numbers": (GOOD.replace(RAW, RAW[::-1]), "Bad CRC-32"),
    "no table of contents": (GOOD[:CENTRAL], "not a readable zip archive"),
    "nothing but its mark": (b"PK", "not a readable zip archive"),
    "no pickle": (GOOD.replace(b"data.pkl", b"data.pkk"), "no entry 'data.pkl'"),
    "no numbers": (GOOD.replace(b"data/0", b"data/7"), "no entry 'data/0'"),
    "two folders": (GOOD.replace(b"archive/byteorder", b"brchive/byteorder"), "2 folders; expected one"),
    "two of a name": (GOOD.replace(b"byteorder", b"data.pkl\0"), "two entries 'data.pkl'"),
    "another byte order": (torch_zip(PLAIN, RAW, byteorder=b"middle"), "byteorder is neither"),
    "an empty archive": (b"PK\x05\x06" + bytes(18), "no entry 'data.pkl'"),
    "too few numbers": (torch_zip(PLAIN, RAW[:-1]), "23 bytes for 6 values"),
    "too many numbers": (torch_zip(PLAIN, RAW + b"x"), "25 bytes for 6 values"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_malformed_archives_get_one_line(read, name):
    content, found = ARCHIVES[name]
    assert found in refusal(read, content)


STREAM = torch_stream(PLAIN, RAW, size=6)
STREAMS = {
    "another mark": (
        STREAM.replace(b"\x19.\x80\x02", b"\x18.\x80\x02", 1),
        "it starts with an int that is not torch's mark",
    ),
    "another version": (torch_stream(PLAIN, RAW, size=6, version=1002), "its version is not 1001"),
    "a big-endian machine": (torch_stream(PLAIN, RAW, size=6, little_endian=b"\x89"), "little-endian"),
    "no machine": (STREAM[: STREAM.index(b"}(")] + b"N." + PLAIN, "little-endian"),
    "two storages": (STREAM.replace(b"a." + struct.pack("<Q", 6), b"a" + text("1") + b"a."), "its storages are a list"),
    "another size": (torch_stream(PLAIN, RAW, size=5), "the storage has 5 values; expected 6"),
    "a vast size": (torch_stream(PLAIN, RAW, size=2**63), "the storage has 9223372036854775808 values; expected 6"),
    "too few numbers": (STREAM[:-1], "23 bytes for 6 values"),
    "too many numbers": (STREAM + b"x", "25 bytes for 6 values"),
    "text": (b"hello", "it starts neither as a zip archive nor as a pickle"),
    "nothing": (b"", "it starts neither"),
    "a tar": (b"storages\0\0\0", "it starts neither"),
}


@pytest.mark.parametrize("name", STREAMS)
def test_malformed_streams_get_one_line(read, name):
    content, found = STREAMS[name]
    assert found in refusal(read, content)


@pytest.mark.parametrize("content", [GOOD, STREAM], ids=["archive", "stream"])
def test_truncated_anywhere(read, content):
    for end in range(len(content)):
        refusal(read, content[:end])
