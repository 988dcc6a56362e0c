# ruff: noqa: E402, S311
"""Feeds damaged and hostile files to every reader: the outcome is data, or one line that names the file.

    python tests/fuzz_readers.py --inputs 20000

Nothing else may be raised, nothing may run, write or hang, and memory stays within `MEMORY_PER_BYTE` times the size of
the files and a constant. An input that breaks this is kept under `--keep` for a second look. The same seed makes the
same inputs. What a small Parquet file may unpack to is lowered to `UNPACKED`, so that one that unpacks further shows.
"""

import argparse
import bz2
import codecs
import faulthandler
import functools
import gzip
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
import tracemalloc
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy
import scipy.sparse as sp

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from foreign_files import EVIL, npy, npy_header, object_npy, tensor_pickle, torch_stream, torch_zip

from slmrec_jax.data import Feature, Words, load, make_dataset, write_store
from slmrec_jax.data.readers import parquet_files
from slmrec_jax.data.readers.feature_tables import read_vectors
from slmrec_jax.data.readers.json_lists import read_item_lists
from slmrec_jax.data.readers.npy_files import read_table
from slmrec_jax.data.readers.tables import read_parquet
from slmrec_jax.data.untrusted.object_arrays import read_lists
from slmrec_jax.data.untrusted.pickles import read_sparse
from slmrec_jax.data.untrusted.torch_files import read_tensor
from slmrec_jax.errors import UserError
from slmrec_jax.serving import exports
from slmrec_jax.types import Interactions

MEMORY_PER_BYTE = 200
MEMORY, MEMORY_OF_FOLDER = 4 * 2**20, 96 * 2**20
"""What reading may take for each byte and besides. Counts of a million users and items cost the latter, and an id in a
small file may claim as many."""
UNPACKED = 2**22
SECONDS, BLOCKED = 10, 600
"""Of the processor, and by the clock: longer, and a reader hangs. The clock alone says little on a busy machine."""


class Special(NamedTuple):
    """What is no regular file, in place of one."""

    kind: str


Files = dict[str, bytes | Special]


class Sample(NamedTuple):
    """Valid files, and how they are read."""

    files: Files
    read: Callable[[Path], object]
    """Of the folder that they are in."""
    memory: int = MEMORY


# --- what is damaged ---------------------------------------------------------------------------------------------


def samples() -> dict[str, Sample]:
    """One sample or more of every reader, by name."""
    made = {}
    dense = np.array([[0, 2, 0, 1], [1, 0, 0, 0], [0, 0, 3, 0]])
    for layout in ("coo_matrix", "csr_matrix", "csc_array"):
        for protocol in (2, 3, 4, 5):
            content = pickle.dumps(getattr(sp, layout)(dense), protocol)
            made[f"sparse {layout} {protocol}"] = Sample(
                {"m.pkl": content}, lambda folder: read_sparse(folder / "m.pkl")
            )
    lists = [[0, np.int64(5), 300], [1], [2, 70000]]
    for protocol in (2, 3, 4, 5):
        content = object_npy(lists, protocol)
        made[f"lists {protocol}"] = Sample({"l.npy": content}, lambda folder: read_lists(folder / "l.npy"))
    for name, content in tensors().items():
        made[f"tensor {name}"] = Sample({"t.pt": content}, lambda folder: read_tensor(folder / "t.pt"))
    made["table"] = Sample({"t.npy": npy(TABLE)}, lambda folder: read_table(folder / "t.npy"))
    content = json.dumps({"0": [3, 1], "1": [], "2": [0]}).encode()
    made["item lists"] = Sample({"l.json": content}, lambda folder: read_item_lists(folder / "l.json"))
    for name, (file, key, content) in vectors().items():
        made[f"vectors {name}"] = Sample(
            {file: content}, lambda folder, file=file, key=key: read_vectors(folder / file, key), MEMORY_OF_FOLDER
        )
    for name, content in tables().items():
        made[f"columns {name}"] = Sample(
            {"t.parquet": content}, lambda folder: read_parquet(folder / "t.parquet", ["v"]), MEMORY_OF_FOLDER
        )
    made["export"] = Sample(exported(), exports.read_export, MEMORY_OF_FOLDER)
    for name, (format, files) in folders().items():
        made[f"folder {name}"] = Sample(
            files, lambda folder, format=format: load(str(folder), format=format), MEMORY_OF_FOLDER
        )
    return made


TABLE = np.arange(10, dtype=np.float32).reshape(5, 2)
PAIRS = [(0, 3), (0, 1), (1, 0), (2, 2), (2, 4)]
WORDS = np.array([[0, 0, 4, 2], [7, 3, 3, 5]])


def tensors() -> Files:
    six = np.arange(6.0)
    pickled = tensor_pickle((2, 3), storage="DoubleStorage")
    words = tensor_pickle((2, 4), storage="LongStorage", parameter=True)
    half = tensor_pickle((3, 2), (1, 3), storage="BFloat16Storage", offset=0)
    return {
        "archive": torch_zip(pickled, six.tobytes()),
        "archive of words": torch_zip(words, WORDS.tobytes(), folder="feat_t"),
        "stream": torch_stream(pickled, six.tobytes(), size=6),
        "stream of bfloat16": torch_stream(half, six.astype("<u2").tobytes(), size=6),
    }


def vectors() -> dict[str, tuple[str, str | None, bytes]]:
    """By name: the file, its column of raw ids, and its content."""
    rows = "".join(f"{x},{y}\n" for x, y in TABLE.tolist())
    keyed = "".join(f"i{n}\t{x} {y}\n" for n, (x, y) in enumerate(TABLE.tolist()))
    return {
        "csv": ("v.csv", None, rows.encode()),
        "csv with a header": ("v.csv", None, f"x,y\n{rows}".encode()),
        "tsv with ids": ("v.tsv", "item", f"item\tv\n{keyed}".encode()),
        "float8": ("v.safetensors", None, tensor_file("F8_E4M3", [5, 2], bytes(range(40, 50)))),
        "parquet": ("v.parquet", "item", parquet(pa.table({"item": range(5), "v": TABLE.tolist()}))),
        "parquet of columns": ("v.parquet", None, parquet(pa.table({"x": TABLE[:, 0], "y": TABLE[:, 1]}))),
    }


def tables() -> Files:
    """Parquet in the encodings that texts, numbers and times may have."""
    texts = [f"user-{n % 7}" for n in range(60)]
    prefixed = {"use_dictionary": False, "column_encoding": {"v": "DELTA_BYTE_ARRAY"}}
    plain = {"use_dictionary": False, "compression": "none"}
    fixed = pa.array(TABLE.tolist(), pa.list_(pa.float32(), 2))
    return {
        "of text": parquet(pa.table({"v": texts}), row_group_size=25),
        "of prefixed text": parquet(pa.table({"v": texts}), **prefixed),
        "of plain text": parquet(pa.table({"v": texts}), data_page_version="2.0", **plain),
        "of packed text": parquet(pa.table({"v": texts}), compression="zstd", data_page_version="2.0"),
        "of categories": parquet(pa.table({"v": pa.array(texts).dictionary_encode()})),
        "of numbers": parquet(pa.table({"v": np.arange(60)}), compression="zstd"),
        "of lists": parquet(pa.table({"v": fixed}), **plain),
        "of times": parquet(pa.table({"v": pa.array([3, 1, 2], pa.timestamp("us", "Asia/Tokyo"))})),
    }


def tensor_file(kind: str, shape: list[int], data: bytes) -> bytes:
    """A file of safetensors with one tensor of any type and shape."""
    header = json.dumps({"v": {"dtype": kind, "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data


def exported() -> Files:
    """What `export` writes."""
    ids, pairs = np.array(["ann", "bob", "cy"]), Interactions(*np.array(PAIRS[:3]).T)
    embeddings = exports.Embeddings(TABLE[:3], TABLE)
    export = exports.ExportedRun("toy", embeddings, ids, np.arange(5), pairs, "dot", {})
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "toy"
        exports.write_export(export, folder)
        return {file.name: file.read_bytes() for file in folder.iterdir()}


def folders() -> dict[str, tuple[str, Files]]:
    """By name: the format, and the files."""
    matrix = sp.coo_matrix((np.ones(5), tuple(zip(*PAIRS, strict=True))), shape=(3, 5))
    matrices = {f"{split}Mat.pkl": pickle.dumps(matrix, 3) for split in ("trn", "val", "tst")}
    features = {"image_feat.npy": npy(TABLE), "text_feat.npy": npy(TABLE.astype(np.float16))}
    lists = {f"{split}.json": b'{"0": [3, 1], "1": [0], "2": [2, 4]}' for split in ("train", "val", "test")}
    arrays = {
        "train.npy": npy(np.array(PAIRS)),
        "val.npy": object_npy([[0, 2], [1]], 2),
        "test.npy": object_npy([[2, 0]]),
    }
    tensor = torch_stream(tensor_pickle((5, 2)), TABLE.tobytes(), size=10)
    words = torch_zip(tensor_pickle((2, 4), storage="LongStorage"), WORDS.tobytes())
    labelled = "".join(f"{user}\t{item}\t{n % 3}\n" for n, (user, item) in enumerate(PAIRS * 2))
    typed = "".join(f"u{user}\ti{item}\t{n}\n" for n, (user, item) in enumerate(PAIRS))
    plain = [{"user": f"u{user}", "item": item, "split": "train"} for user, item in PAIRS]
    plain[1]["split"], plain[3]["split"] = "valid", "test"
    rows = "user,item,split\n" + "".join(f"{row['user']},{row['item']},{row['split']}\n" for row in plain)
    vectors = pa.table({"item": list(range(5)), "vector": TABLE.tolist()})
    kept = {"item": np.arange(5), "values": TABLE}
    return {
        "slmrec": ("slmrec", stored()),
        "diffmm": ("diffmm", matrices | features),
        "mmssl": ("mmssl", lists | features),
        "mmssl with a matrix": ("mmssl", {**lists, **features, "train_mat": pickle.dumps(matrix.tocsr(), 4)}),
        "mmgcn": ("mmgcn", {**arrays, "feat_v.pt": tensor, "feat_t.pt": words, "feat_a.npy": npy(TABLE)}),
        "lightgcn": (
            "lightgcn",
            {
                "train.txt": b"0 3 1\n1 0\n2 2 4\n",
                "test.txt": b"0 2\n1 \n",
                "item_list.txt": b"org_id remap_id\na 0\nb 1\nc 2\nd 3\ne 4\n",
            },
        ),
        "lightgcn pairs": ("lightgcn", {"data1.txt": b"1\t3\t1\r\n2\t1\t1\r\n", "test1.txt": b"1\t2\t1\r\n"}),
        "mmrec": (
            "mmrec",
            {
                "toy.inter": f"userID\titemID\tx_label\n{labelled}".encode(),
                **features,
                "i_id_mapping.csv": b"asin\titemID\na\t0\nb\t1\nc\t2\nd\t3\ne\t4\n",
            },
        ),
        "neurec": (
            "neurec",
            {
                "toy.train": b"7,3,1,5\n8,1,1,6\n7,4,1,7\n",
                "toy.test": b"7,1,1,9\n8,0,1,9\n",
                "toy_visual_feat.pt": tensor,
                "toy_textual_feat.pt": words,
            },
        ),
        "recbole": (
            "recbole",
            {
                f"toy.{part}.inter": f"user_id:token\titem_id:token\ttimestamp:float\n{typed}".encode()
                for part in ("train", "valid", "test")
            }
            | {"toy.itememb": b"iid:token\titem_emb:float_seq\ni0\t1 2\ni3\t3 4\n"},
        ),
        "plain text": (
            "plain",
            {"toy.csv": rows.encode(), "image.npy": npy(TABLE), "text_feat.csv": b"item,x,y\n1,0.5,2\n4,1.5,3\n"},
        ),
        "plain text of other encodings": (
            "plain",
            {
                "train.csv": rows.encode("utf-16"),
                "valid.csv.gz": gzip.compress(rows.encode()),
                "test.csv": rows.encode("utf-32"),
            },
        ),
        "plain parquet": (
            "plain",
            {
                "toy.parquet": parquet(pa.Table.from_pylist(plain)),
                "audio.parquet": parquet(vectors),
                "text.safetensors": safetensors.numpy.save(kept),
            },
        ),
    }


def stored() -> Files:
    """The package's own format."""
    features = {
        "visual": Feature(TABLE, np.arange(5) != 2),
        "textual": Words(*WORDS, 8),
    }
    pairs = Interactions(*np.array(PAIRS).T)
    ids = np.array(["ann", "bob", "cy"])
    dataset = make_dataset("toy", pairs, pairs, pairs, num_users=3, num_items=5, features=features, user_ids=ids)
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "toy"
        write_store(dataset, folder)
        return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def parquet(table: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


# --- how ---------------------------------------------------------------------------------------------------------

COUNTS = [
    struct.pack(form, value)
    for form, value in (
        ("<i", -1),
        ("<i", 2**31 - 1),
        ("<q", 2**62),
        ("<q", -1),
        ("<H", 65535),
        (">I", 2**31),
        ("B", 255),
        ("<I", 0),
    )
]
OPCODES = [
    b"]" * 5000,
    b"}" * 5000,
    b"(" * 5000,
    b"N" + b"\x94" * 5000,
    b")" + b"\x85" * 5000,
    b"K\x01" * 5000,
    b"(l" * 500,
]
TEXTS = [
    b"9" * 25,
    b"9" * 5000,
    b"-1",
    b"1.5",
    b"NaN",
    b"\xff\xfe",
    b"\x00",
    b'"',
    b"\n",
    b"\r\n",
    b"\t\t",
    b"[" * 3000,
    b"{" * 3000,
    b'"0": [1], ',
    b"\xef\xbb\xbf",
    "٣".encode(),
    b"1e400",
    b"4294967296",
    b"2147483646",
    b"1999999",
    b"0, 99999999999999",
    b"F8_E5M2",
    b"F4",
    b"Asia/Tokyo",
    b"," * 3000,
]
WORDS_OF_PICKLES = [
    *(
        b"N",
        b"\x88",
        b"\x89",
        b")",
        b"}",
        b"]",
        b"(",
        b"(",
        b"t",
        b"\x85",
        b"\x86",
        b"\x87",
        b"s",
        b"u",
        b"a",
        b"e",
        b"b",
        b"b",
    ),
    *(
        b"R",
        b"R",
        b"R",
        b"\x81",
        b"Q",
        b"\x94",
        b"q\x00",
        b"q\x01",
        b"h\x00",
        b"h\x01",
        b"j\x02\0\0\0",
        b"r\x02\0\0\0",
        b"\x93",
    ),
    *(
        b"K\x00",
        b"K\x01",
        b"K\x02",
        b"M\x00\x01",
        b"J\xff\xff\xff\xff",
        b"\x8a\x09" + b"\xff" * 9,
        b"G\x7f\xf0" + bytes(6),
    ),
    *(
        b"C\x08" + bytes(8),
        b"C\x00",
        b"\x8c\x02i8",
        b"\x8c\x02f8",
        b"\x8c\x01<",
        b"\x8c\x04data",
        b"\x8c\x06_shape",
        b"\x8c\x03row",
    ),
    *(b"\x8c\x03col", b"\x8c\x07storage", b"\x8c\x010", b"\x8c\x07indices", b"\x8c\x06indptr", b"\x96\x08" + bytes(15)),
    *(
        b"cnumpy\nndarray\n",
        b"cnumpy\ndtype\n",
        b"cnumpy.core.multiarray\n_reconstruct\n",
        b"cnumpy.core.multiarray\nscalar\n",
    ),
    *(
        b"cnumpy.core.numeric\n_frombuffer\n",
        b"cscipy.sparse._csr\ncsr_matrix\n",
        b"c_codecs\nencode\n",
        b"c__builtin__\nbytes\n",
    ),
    *(b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n"),
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
    return (
        source.choice(list(FRESH.values())) if source.random() < 0.5 else content + source.choice(list(FRESH.values()))
    )


def replace_whole(content: bytes, source: random.Random) -> bytes:
    return source.choice(HOSTILE)(source)


MUTATIONS = (
    truncate,
    flip_bits,
    change_bytes,
    overwrite_count,
    repeat_slice,
    drop_slice,
    splice_evil,
    splice_opcodes,
    splice_text,
    replace_number,
    exchange_lines,
    swap_files,
    replace_whole,
)


def lying_matrix(source: random.Random) -> bytes:
    """A csr or csc matrix with one attribute that does not fit the others."""
    made = getattr(sp, source.choice(("csr_matrix", "csc_matrix")))(np.eye(4))
    lies = {
        "indptr": [
            [0, 9, 1, 4, 4],
            [0, 1, 2, 3, 99],
            [0, -(2**63), 2**63 - 1, 2, 4],
            [4, 3, 2, 1, 0],
            [0, 4],
            [0] * 9999,
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
    """A tensor whose sizes, strides and storage do not fit, in either form."""
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
    """Far more inside than outside, honestly compressed or claiming not to be."""
    bomb = torch_zip(tensor_pickle((2, 10**6)), bytes(8 * 10**6), compress=zipfile.ZIP_DEFLATED)
    if source.random() < 0.5:
        return bomb
    # The method, 8, is in the ninth byte of an entry and in the eleventh of its line in the table of contents.
    parts = bomb.replace(b"\x08\x00", b"\x00\x00")
    return source.choice((parts, b"PK\x03\x04" + BOMB, bomb + bomb))


def lying_header(source: random.Random) -> bytes:
    shapes = (
        "(5, 2)",
        "(2147483647, 2147483647)",
        "(1, 99999999999999)",
        "()",
        "(-1, 2)",
        "(5, 2" + ", 1" * 40 + ")",
        "(0, 9)",
        "(0, 4000000000)",
        "(4000000000, 0)",
        "(999999999999999999, 0)",
        "(0, 999999999999999999)",
    )
    codes = ("<f4", "|O", "<i8", "<U9", "<M8[s]", "|V9", "<f16", "<c16", "__import__('os')")
    header = npy_header(source.choice(codes), source.choice(shapes), source.choice((False, True, "None")))
    return header + source.choice((b"", bytes(40), EVIL["reduce"], pickle.dumps([[1, 2]])))


def multiplying_lists(source: random.Random) -> bytes:
    """Small on disk: each list stands there many times."""
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
    """A program of the opcodes that readers know, in any order."""
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
    """safetensors of a type, a shape and a size that do not fit, or that NumPy has nothing for."""
    kinds = ("F32", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3", "BF16", "C64", "I64", "BOOL", "F9", "F8_E4M3FNUZ")
    shapes = (
        [5, 2],
        [0, 2**40],
        [2**40, 0],
        [2**62, 2**62],
        [1] * 100,
        [0] * 100,
        [5, 2] + [1] * 40,
        [10**30],
        [],
        [-1, 2],
    )
    kind, shape = source.choice(kinds), source.choice(shapes)
    return tensor_file(kind, shape, bytes(source.choice((0, 1, 4, 5, 8, 10, 20, 40, 80))))


@functools.cache
def packed_tables() -> tuple[bytes, ...]:
    """Parquet of some KB that unpacks to hundreds of MB, by every way that Parquet has to store equal values once."""
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
    """A column many times over: row group after row group, so that little memory is taken here."""
    table, sink = pa.table(dict.fromkeys(("user", "item", "v"), column)), io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", **options) as writer:
        for _ in range(times):
            writer.write_table(table)
    return sink.getvalue()


def packed_table(source: random.Random) -> bytes:
    """One of these; or with a footer that lies about its counts."""
    content = source.choice(packed_tables())
    for _ in range(source.choice((0, 0, 1, 3))):
        place = source.randrange(len(content) - min(400, len(content)), len(content))
        content = content[:place] + bytes([source.randrange(256)]) + content[place + 1 :]
    return content


def zoned_table(source: random.Random) -> bytes:
    """Times in zones that exist or not, where ids or times belong."""
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
    return source.choice((gzip.compress, bz2.compress))(b"user,item,split\n" + line * 2 * 10**6)


def code(source: random.Random) -> bytes:
    return source.choice(list(EVIL.values()))


def noise(source: random.Random) -> bytes:
    return source.randbytes(source.choice((0, 1, 10, 1000)))


HOSTILE = (
    lying_matrix,
    lying_tensor,
    zip_bomb,
    lying_header,
    multiplying_lists,
    deep_nest,
    random_opcodes,
    random_opcodes,
    hostile_json,
    lying_tensor_file,
    packed_table,
    zoned_table,
    wide_header,
    odd_vectors,
    packed_text,
    code,
    noise,
)
FRESH: Files = {}
"""Every sample's files, to be put in one another's place; filled by `main`."""


def damage(files: Files, source: random.Random) -> Files:
    """One of the files changed, in one way or in two, or replaced by what is no file."""
    name = source.choice(list(files))
    content = files[name]
    if source.random() < 0.02:
        return files | {name: Special(source.choice(SPECIAL))}
    for _ in range(source.choice((1, 1, 1, 2))):
        content = source.choice(MUTATIONS)(content, source) if content else source.choice(HOSTILE)(source)
    return files | {name: content}


SPECIAL = ("pipe", "link to a pipe", "link to a device", "link to itself", "link to nothing", "folder", "socket")


def make_special(path: Path, kind: str) -> None:
    """Puts there what is no regular file."""
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


# --- what is looked for ------------------------------------------------------------------------------------------

_FORBIDDEN = (
    "exec", "compile", "import", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn",
    "subprocess.Popen", "pty.spawn", "socket.", "ctypes.", "pickle.find_class", "marshal.", "code.__new__", "os.remove",
    "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.putenv", "shutil.",
    "tempfile.", "urllib.", "http.", "builtins.input", "webbrowser.", "sqlite3.", "function.__new__", "setopencodehook",
)  # fmt: skip
_watching, _events = [False], []


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if not _watching[0]:
        return
    if event.startswith(_FORBIDDEN):
        _events.append(f"{event} {str(arguments)[:80]}")
    elif event == "open":
        _, mode, flags = arguments
        if (isinstance(mode, str) and set(mode) & set("wax+")) or (
            isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
        ):
            _events.append(f"open for writing {str(arguments)[:80]}")


class Outcome(NamedTuple):
    """What came of one input."""

    kind: str
    """read, refused, or what is wrong."""
    detail: str
    seconds: float
    memory: int


def examine(sample: Sample, files: Files, folder: Path) -> Outcome:
    """Reads the files in an empty folder, under watch."""
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        if isinstance(content, Special):
            make_special(folder / name, content.kind)
        else:
            (folder / name).write_bytes(content)
    size = sum(len(content) for content in files.values() if not isinstance(content, Special))
    allowed = sample.memory + MEMORY_PER_BYTE * size
    _events.clear()
    resident = _resident()
    tracemalloc.reset_peak()
    before, start = tracemalloc.get_traced_memory()[0], time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    faulthandler.dump_traceback_later(BLOCKED, exit=True)  # for what does not return to Python
    _watching[0] = True
    try:
        sample.read(folder)
        kind, detail = "read", ""
    except UserError as error:
        kind, detail = "refused", str(error)
    except _Hangs:
        kind, detail = "HANGS", f"more than {SECONDS} s of the processor"
    except BaseException as error:
        kind, detail = "RAISES", f"{type(error).__name__}: {error}"
    finally:
        _watching[0] = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
    seconds = time.process_time() - start
    memory = max(tracemalloc.get_traced_memory()[1] - before, _resident() - resident)
    if _events:
        kind, detail = "RUNS", "; ".join(_events)
    elif kind == "refused" and (
        not detail.isprintable() or not (str(folder) in detail or f"data set {folder.name}" in detail)
    ):
        kind = "SAYS"
    elif memory > allowed:
        kind, detail = "SWELLS", f"{memory} bytes of memory for {size}"
    return Outcome(kind, detail, seconds, memory)


def _resident() -> int:
    """The most memory that this process has had, in bytes: one input that needs more than all before shows."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class _Hangs(BaseException):
    """Too much time was taken; no reader takes it for an error of the system, as it would `TimeoutError`."""


def _alarm(*_: object) -> None:
    if _watching[0]:
        raise _Hangs


_hooked: list[bool] = []


def start_watch() -> None:
    """An audit hook stays for the life of Python, so there is one only."""
    if not _hooked:
        sys.addaudithook(_audit)
        _hooked.append(True)
    codecs.lookup("unicode_escape")  # error lines may be the first to need it, and that imports it
    signal.signal(signal.SIGPROF, _alarm)
    tracemalloc.start()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="samples whose name starts so")
    parser.add_argument("--keep", type=Path, help="a folder for the inputs that break a rule")
    options = parser.parse_args(arguments)
    made = samples()
    FRESH.update({name: content for sample in made.values() for name, content in sample.files.items()})
    chosen = {name: sample for name, sample in made.items() if name.startswith(options.only)}
    source = random.Random(options.seed)
    parquet_files.SMALL = UNPACKED
    packed_tables()  # what making them takes is no reader's memory
    start_watch()
    begun = time.perf_counter()
    counts: dict[str, Counter[str]] = {name: Counter() for name in chosen}
    slowest, hungriest, faults = (0.0, ""), (0, ""), 0
    with tempfile.TemporaryDirectory() as base:
        for name, sample in chosen.items():  # also so that what is imported on first use is
            folder = Path(base) / "valid"
            folder.mkdir()
            for _ in range(2):
                outcome = examine(sample, sample.files, folder)
            if outcome.kind != "read":
                print(f"{name}: the valid sample is not read: {outcome.kind} {outcome.detail}")
                return 1
            shutil.rmtree(folder)
        for number in range(options.inputs):
            name = source.choice(list(chosen))
            files = damage(chosen[name].files, source)
            folder = Path(base) / f"input-{number}"
            folder.mkdir()
            outcome = examine(chosen[name], files, folder)
            counts[name][outcome.kind] += 1
            slowest = max(slowest, (outcome.seconds, f"{name}, input {number}"))
            hungriest = max(hungriest, (outcome.memory, f"{name}, input {number}"))
            if outcome.kind not in ("read", "refused"):
                faults += 1
                print(f"{name}, input {number}: {outcome.kind} {outcome.detail[:300]}")
                if options.keep:
                    shutil.copytree(folder, options.keep / folder.name, dirs_exist_ok=True)
            shutil.rmtree(folder)
    for name, kinds in counts.items():
        print(f"{name:24} " + ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())))
    print(f"slowest {slowest[0]:.2f} s ({slowest[1]}); most memory {hungriest[0] / 2**20:.0f} MiB ({hungriest[1]})")
    print(f"{options.inputs} inputs, seed {options.seed}, {time.perf_counter() - begun:.0f} s: {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
