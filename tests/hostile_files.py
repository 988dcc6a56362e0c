"""Damaged and hostile files of every kind that readers know; the same `random.Random` makes the same files."""

import bz2
import functools
import gzip
import io
import os
import pickle
import random
import socket
import struct
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp
from foreign_files import EVIL, npy_header, parquet, tensor_file, tensor_pickle, torch_stream, torch_zip


class Special(NamedTuple):
    """Something other than a regular file, in place of one."""

    kind: str


Files = dict[str, bytes | Special]

COUNTS = [
    struct.pack(form, value)
    for form, value in (
        *(("<i", -1), ("<i", 2**31 - 1), ("<q", 2**62), ("<q", -1)),
        *(("<H", 65535), (">I", 2**31), ("B", 255), ("<I", 0)),
    )
]
OPCODES = [
    *(b"]" * 5000, b"}" * 5000, b"(" * 5000, b"N" + b"\x94" * 5000),
    *(b")" + b"\x85" * 5000, b"K\x01" * 5000, b"(l" * 500),
]
TEXTS = [
    *(b"9" * 25, b"9" * 5000, b"-1", b"1.5", b"NaN", b"\xff\xfe", b"\x00", b'"', b"\n", b"\r\n", b"\t\t"),
    *(b"[" * 3000, b"{" * 3000, b'"0": [1], ', b"\xef\xbb\xbf", "٣".encode(), b"1e400", b"4294967296", b"2147483646"),
    *(b"1999999", b"0, 99999999999999", b"F8_E5M2", b"F4", b"Asia/Tokyo", b"," * 3000),
]
WORDS_OF_PICKLES = [
    *(bytes([word]) for word in b"N\x88\x89)}]((t\x85\x86\x87suaebbRRR\x81Q\x94"),
    *(b"q\x00", b"q\x01", b"h\x00", b"h\x01", b"j\x02\0\0\0", b"r\x02\0\0\0", b"\x93"),
    *(b"K\x00", b"K\x01", b"K\x02", b"M\x00\x01", b"J\xff\xff\xff\xff", b"\x8a\x09" + b"\xff" * 9),
    *(b"G\x7f\xf0" + bytes(6), b"C\x08" + bytes(8), b"C\x00", b"\x8c\x02i8", b"\x8c\x02f8", b"\x8c\x01<"),
    *(b"\x8c\x04data", b"\x8c\x06_shape", b"\x8c\x03row", b"\x8c\x03col", b"\x8c\x07storage", b"\x8c\x010"),
    *(b"\x8c\x07indices", b"\x8c\x06indptr", b"\x96\x08" + bytes(15), b"cnumpy\nndarray\n", b"cnumpy\ndtype\n"),
    *(b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy.core.multiarray\nscalar\n"),
    *(b"cnumpy.core.numeric\n_frombuffer\n", b"cscipy.sparse._csr\ncsr_matrix\n"),
    *(b"c_codecs\nencode\n", b"c__builtin__\nbytes\n", b"ctorch._utils\n_rebuild_tensor_v2\n"),
    *(b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n"),
    *(b"cnumpy\ndtype\n\x8c\x02i8K\x00K\x01\x87R(K\x03\x8c\x01<NNNtb", b"]r\x03\0\0\0j\x03\0\0\0a"),
]
BOMB = zlib.compress(bytes(10**7), 9)


def truncate(content: bytes, source: random.Random) -> bytes:
    return content[: source.randrange(len(content))]


def flip_bits(content: bytes, source: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(source.choice((1, 1, 1, 2, 4, 16))):
        changed[source.randrange(len(changed))] ^= 1 << source.randrange(8)
    return bytes(changed)


def change_bytes(content: bytes, source: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(source.choice((1, 1, 2, 8))):
        changed[source.randrange(len(changed))] = source.randrange(256)
    return bytes(changed)


def overwrite_count(content: bytes, source: random.Random) -> bytes:
    count, place = source.choice(COUNTS), source.randrange(len(content))
    return content[:place] + count + content[place + len(count) :]


def repeat_slice(content: bytes, source: random.Random) -> bytes:
    start, end = sorted(source.randrange(len(content) + 1) for _ in range(2))
    place = source.choice((end, source.randrange(len(content) + 1)))
    return content[:place] + content[start:end] * source.choice((1, 1, 3, 50)) + content[place:]


def drop_slice(content: bytes, source: random.Random) -> bytes:
    start = source.randrange(len(content))
    return content[:start] + content[start + source.choice((1, 1, 2, 8, 64)) :]


def splice_evil(content: bytes, source: random.Random) -> bytes:
    evil, place = source.choice(list(EVIL.values())), source.randrange(len(content) + 1)
    evil = source.choice((evil, evil[2:], evil.removesuffix(b".")))
    return content[:place] + evil + content[source.choice((place, len(content))) :]


def splice_opcodes(content: bytes, source: random.Random) -> bytes:
    place = source.randrange(len(content) + 1)
    return content[:place] + source.choice(OPCODES) + content[place:]


def splice_text(content: bytes, source: random.Random) -> bytes:
    place = source.randrange(len(content) + 1)
    return content[:place] + source.choice(TEXTS) + content[place + source.choice((0, 1)) :]


def replace_number(content: bytes, source: random.Random) -> bytes:
    digits = [n for n, byte in enumerate(content) if chr(byte).isdigit()]
    if not digits:
        return flip_bits(content, source)
    place = source.choice(digits)
    return content[:place] + source.choice(TEXTS[:6] + TEXTS[-4:]) + content[place + 1 :]


def exchange_lines(content: bytes, source: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    source.shuffle(lines)
    return b"".join(lines + lines[: source.randrange(2)])


def swap_files(content: bytes, source: random.Random) -> bytes:
    start = b"" if source.random() < 0.5 else content
    return start + source.choice(list(FRESH.values()))


def replace_whole(content: bytes, source: random.Random) -> bytes:
    return source.choice(HOSTILE)(source)


MUTATIONS = (
    *(truncate, flip_bits, change_bytes, overwrite_count, repeat_slice, drop_slice, splice_evil, splice_opcodes),
    *(splice_text, replace_number, exchange_lines, swap_files, replace_whole),
)


def lying_matrix(source: random.Random) -> bytes:
    """A csr or csc matrix with one attribute that contradicts the others."""
    made = getattr(sp, source.choice(("csr_matrix", "csc_matrix")))(np.eye(4))
    lies = {
        "indptr": [
            *([0, 9, 1, 4, 4], [0, 1, 2, 3, 99], [0, -(2**63), 2**63 - 1, 2, 4]),
            *([4, 3, 2, 1, 0], [0, 4], [0] * 9999),
        ],
        "indices": [[0, 1, 2, 4], [-1, 1, 2, 3], [0], [2**40] * 4],
        "data": [[1.0], [np.nan] * 4, [[1.0] * 4]],
        "_shape": [(2**31 - 1, 4), (-1, 4), (4, 2**62), (4,), (0, 0), (10**6, 10**6), (4, True)],
    }
    name = source.choice(list(lies))
    value = source.choice(lies[name])
    setattr(made, name, value if name == "_shape" else np.array(value))
    return pickle.dumps(made, source.choice((2, 3, 4, 5)))


def lying_tensor(source: random.Random) -> bytes:
    """A tensor whose sizes, strides and storage contradict one another, in either form."""
    sizes = (0, 0, 1, 2, 3, 5, 6, 7, 100, -1, 10**6, 2**31, 2**40, 2**47, 2**62, 2**200)
    shape = [source.choice(sizes) for _ in range(source.choice((0, 1, 2, 2, 3, 9)))]
    strides = [source.choice(sizes) for _ in range(max(0, len(shape) + source.choice((-1, 0, 0, 0, 0))))]
    pickled = tensor_pickle(
        shape,
        strides,
        size=source.choice((6, 6, *sizes)),
        offset=source.choice((0, *sizes)),
        storage=source.choice(("DoubleStorage", "FloatStorage", "BFloat16Storage", "BoolStorage", "OsStorage")),
    )
    raw = bytes(source.choice((0, 6, 12, 24, 48)))
    if source.random() < 0.5:
        return torch_zip(pickled, raw, compress=source.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))
    return torch_stream(pickled, raw, size=source.choice((6, 0, 2**62)))


def zip_bomb(source: random.Random) -> bytes:
    """An archive with far more inside than outside, honestly compressed or claiming not to be."""
    bomb = torch_zip(tensor_pickle((2, 10**6)), bytes(8 * 10**6), compress=zipfile.ZIP_DEFLATED)
    if source.random() < 0.5:
        return bomb
    # The method, 8, is in the ninth byte of an entry and in the eleventh of its line in the table of contents.
    parts = bomb.replace(b"\x08\x00", b"\x00\x00")
    return source.choice((parts, b"PK\x03\x04" + BOMB, bomb + bomb))


def lying_header(source: random.Random) -> bytes:
    shapes = (
        *("(5, 2)", "(2147483647, 2147483647)", "(1, 99999999999999)", "()", "(-1, 2)", "(5, 2" + ", 1" * 40 + ")"),
        *("(0, 9)", "(0, 4000000000)", "(4000000000, 0)", "(999999999999999999, 0)", "(0, 999999999999999999)"),
    )
    codes = ("<f4", "|O", "<i8", "<U9", "<M8[s]", "|V9", "<f16", "<c16", "__import__('os')")
    header = npy_header(source.choice(codes), source.choice(shapes), source.choice((False, True, "None")))
    return header + source.choice((b"", bytes(40), EVIL["reduce"], pickle.dumps([[1, 2]])))


def multiplying_lists(source: random.Random) -> bytes:
    """Small on disk: each list is repeated many times."""
    many = source.choice((10, 100, 2000))
    head = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R(K\x01K\x01\x85N\x89"
    nested = b"](" + b"K\x01" * many + b"eq\x00" if source.random() < 0.7 else b"]q\x00h\x00a" * source.choice((1, 500))
    return npy_header("|O", f"({many},)") + head + b"](" + nested + b"h\x00" * (many - 1) + b"etb."


def deep_nest(source: random.Random) -> bytes:
    kind = source.choice(
        (b")" + b"\x85" * 200_000, b"]" * 200_000, b"}" * 100_000, b"(" * 200_000, b"N" + b"\x94" * 200_000)
    )
    return source.choice((b"", npy_header("|O", "(1,)"))) + b"\x80\x04" + kind + source.choice((b"", b"."))


def random_opcodes(source: random.Random) -> bytes:
    """A program of opcodes that readers know, in any order."""
    words = [source.choice(WORDS_OF_PICKLES) for _ in range(source.choice((3, 10, 40, 200)))]
    body = b"\x80\x04" + b"".join(words) + source.choice((b".", b""))
    kind = source.randrange(4)
    if kind == 0:
        return body
    if kind == 1:
        return npy_header("|O", source.choice(("(1,)", "()", "(2, 1)", "(0,)"))) + body
    return torch_zip(body, bytes(24)) if kind == 2 else torch_stream(body, bytes(24), size=6)


def hostile_json(source: random.Random) -> bytes:
    kinds = (
        lambda: b'{"0": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        lambda: b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        lambda: b'{"0": [1], "0": [2]}',
        lambda: b'{"0": [' + b"9" * 4000 + b"]}",
        lambda: b'{"0": [' + b"1," * 50_000 + b"1]}",
        lambda: b"{" + b",".join(b'"%d": []' % n for n in range(5_000)) + b"}",
        lambda: b'{"0": [' + b",".join([b"[]"] * 50_000) + b"]}",
        lambda: b'{"0": [2147483646], "2147483646": [0]}',
        lambda: b'{"0": [10000000]}',
        lambda: b'{"\\ud800": [1]}',
    )
    return source.choice(kinds)()


def lying_tensor_file(source: random.Random) -> bytes:
    """safetensors whose type, shape and size contradict one another, or for which NumPy has no type."""
    kinds = ("F32", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3", "BF16", "C64", "I64", "BOOL", "F9", "F8_E4M3FNUZ")
    shapes = (
        *([5, 2], [0, 2**40], [2**40, 0], [2**62, 2**62], [1] * 100),
        *([0] * 100, [5, 2] + [1] * 40, [10**30], [], [-1, 2]),
    )
    kind, shape = source.choice(kinds), source.choice(shapes)
    return tensor_file(kind, shape, bytes(source.choice((0, 1, 4, 5, 8, 10, 20, 40, 80))))


@functools.cache
def packed_tables() -> tuple[bytes, ...]:
    """Parquet of a few KB that unpacks to hundreds of MB, in every way that Parquet has to store equal values once."""
    count = 2**19
    zeros = np.zeros(count, np.int64)
    once = pa.DictionaryArray.from_arrays(np.zeros(100, np.int32), ["x" * 10**6])
    starts = {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"}
    lists = pa.ListArray.from_arrays([0, count, 2 * count], pa.array(np.zeros(2 * count, np.float32)))
    return tuple(
        packed(column, times, **options)
        for column, times, options in (
            (zeros, 40, {}),
            (zeros, 40, {"use_dictionary": False, "column_encoding": "DELTA_BINARY_PACKED"}),
            (lists, 40, {}),
            (pa.array([None] * 3, pa.list_(pa.float32(), count)), 25, {}),
            (pa.array(["x" * 10**7]), 10, {}),
            (once, 1, {}),
            (pa.array(["x" * 10**5] * 100), 5, starts),
            (pa.array([b"x" * 10**5] * 100), 5, {}),
        )
    )


def packed(column: pa.Array, times: int, **options: object) -> bytes:
    """A column many times over, in row groups, so that this takes little memory."""
    table, sink = pa.table(dict.fromkeys(("user", "item", "v"), column)), io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", **options) as writer:
        for _ in range(times):
            writer.write_table(table)
    return sink.getvalue()


def packed_table(source: random.Random) -> bytes:
    """One of `packed_tables`, sometimes with a footer that lies about its counts."""
    content = source.choice(packed_tables())
    for _ in range(source.choice((0, 0, 1, 3))):
        place = source.randrange(len(content) - min(400, len(content)), len(content))
        content = content[:place] + bytes([source.randrange(256)]) + content[place + 1 :]
    return content


def zoned_table(source: random.Random) -> bytes:
    """Times in zones that exist or not, as ids or times."""
    zone = source.choice(("Nowhere/Land", "+99:99", "\x1b[31m", "Asia/Tokyo", "", "é" * 300))
    unit = source.choice(("s", "ms", "us", "ns"))
    times = pa.array([source.choice((0, 1, 2**50, -(2**50))) for _ in range(5)], pa.timestamp(unit, zone or None))
    plain = pa.array(range(5))
    columns = [times if source.random() < 0.5 else plain for _ in range(4)]
    return parquet(pa.table(dict(zip(("user", "item", "v", "timestamp"), columns, strict=True))))


def wide_header(source: random.Random) -> bytes:
    """Text with very many columns, or with one very long name."""
    separator = source.choice((",", "\t", " "))
    names = [f"c{n}" for n in range(source.choice((5_000, 50_000, 300_000)))]
    if source.random() < 0.2:
        names = ["user", "item", "c" * 2 * 10**6]
    ends = source.choice(("", "\n", "\n" + separator.join(["1"] * len(names))))
    return (separator.join(source.choice(([], ["user", "item"], ["item"])) + names) + ends).encode()


def odd_vectors(source: random.Random) -> bytes:
    """Text that may be a header or not, ids or not, numbers or not."""
    cells = ("", "0", "1", "2", "0.5", "nan", "inf", "1e400", "item", "i0", "0 1", "x", '"', "-", "1_0", "\x1b", "٣")
    separator = source.choice((",", "\t", ";"))
    width = source.choice((1, 2, 3, 3))
    rows = [separator.join(source.choice(cells) for _ in range(width)) for _ in range(source.choice((1, 2, 5)))]
    if source.random() < 0.5:
        rows.insert(0, separator.join(["item", "x", "y"][:width]))
    return "\n".join(rows).encode()


def packed_text(source: random.Random) -> bytes:
    """Compressed text that unpacks to a thousand times its size."""
    line = source.choice((b"user,item\n", b"x", b"1,1\n", b"\0", b"\xff\xfe"))
    pack = source.choice((functools.partial(gzip.compress, mtime=0), bz2.compress))
    return pack(b"user,item,split\n" + line * 2 * 10**6)


def code(source: random.Random) -> bytes:
    return source.choice(list(EVIL.values()))


def noise(source: random.Random) -> bytes:
    return source.randbytes(source.choice((0, 1, 10, 1000)))


HOSTILE = (
    *(lying_matrix, lying_tensor, zip_bomb, lying_header, multiplying_lists, deep_nest, random_opcodes, random_opcodes),
    *(hostile_json, lying_tensor_file, packed_table, zoned_table, wide_header, odd_vectors, packed_text, code, noise),
)
FRESH: Files = {}
"""The files of all samples, to take the place of others; filled by `fuzz_readers.main`."""


def damage(files: Files, source: random.Random) -> Files:
    """Return the files with one of them changed, in one way or two, or replaced by something that is not a file."""
    name = source.choice(list(files))
    content = files[name]
    if source.random() < 0.02:
        return files | {name: Special(source.choice(SPECIAL))}
    for _ in range(source.choice((1, 1, 1, 2))):
        content = source.choice(MUTATIONS)(content, source) if content else source.choice(HOSTILE)(source)
    return files | {name: content}


SPECIAL = ("pipe", "link to a pipe", "link to a device", "link to itself", "link to nothing", "folder", "socket")


def make_special(path: Path, kind: str) -> None:
    """Put something at the path that is not a regular file."""
    if kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        target = {"link to a device": "/dev/zero", "link to itself": path.name}.get(kind, ".other")
        if kind == "link to a pipe":
            os.mkfifo(path.with_name(target))
        path.symlink_to(target)
