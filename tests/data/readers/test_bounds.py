"""Small files that claim sizes that they do not hold, or unpack to far more than their own size."""

import contextlib
import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import foreign_files
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign_files import npy, npy_header, refusal, tensor_pickle, tensors_file, torch_stream, torch_zip

from slmrec_jax import UserError
from slmrec_jax.data import load
from slmrec_jax.data.readers import parquet_files
from slmrec_jax.data.readers.feature_tables import read_vectors
from slmrec_jax.data.readers.npy_files import read_table
from slmrec_jax.data.readers.tables import read_parquet, read_text
from slmrec_jax.data.untrusted.object_arrays import read_lists
from slmrec_jax.data.untrusted.torch_files import read_tensor

MANY = 10**17
ROWS = 100_000


HOLLOW = {
    "rows of nothing.npy": (read_table, npy_header("<f4", f"({MANY}, 0)")),
    "columns of nothing.npy": (read_table, npy_header("<f4", f"(0, {MANY})")),
    "lists of nothing.npy": (read_lists, npy_header("<i8", f"({MANY}, 0)")),
    "archive.pt": (read_tensor, torch_zip(tensor_pickle((2**47, 0), size=0), b"")),
    "stream.pt": (read_tensor, torch_stream(tensor_pickle((0, 2**47), size=0), b"", size=0)),
    "rows.safetensors": (lambda file: read_vectors(file, None), tensors_file(b"", v=("F32", [MANY, 0], 0, 0))),
    "columns.safetensors": (lambda file: read_vectors(file, None), tensors_file(b"", v=("F32", [0, MANY], 0, 0))),
}


@pytest.mark.parametrize("name", HOLLOW)
def test_a_size_of_0_does_not_make_the_others_free(tmp_path, name):
    read, content = HOLLOW[name]
    (tmp_path / name).write_bytes(content)
    assert "holds no values" in refusal(read, tmp_path / name)


@pytest.mark.parametrize("shape", [(0, 2), (3, 0)])
def test_an_empty_table_of_features_is_refused_and_an_empty_list_of_pairs_is_not(tmp_path, shape):
    file = tmp_path / "visual.npy"
    file.write_bytes(npy(np.zeros(shape, np.float32)))
    assert "a table of shape" in refusal(read_vectors, file, None)
    file.write_bytes(npy(np.zeros((0, 3), np.int64)))
    assert len(read_lists(file).ids) == 0


@pytest.mark.parametrize(
    ("tensor", "data", "line"),
    [
        (("F32", [1] * 100, 0, 4), bytes(4), "has 100 dimensions"),
        (("F32", [2**62, 2**62], 0, 4), bytes(4), "not a readable .safetensors file"),
        (("F4", [3, 2], 0, 3), bytes(3), "is of type F4; expected one of BOOL"),
        (("C64", [1, 1], 0, 8), bytes(8), "is of type C64"),
    ],
)
def test_tensors_that_numpy_cannot_hold_get_one_line(tmp_path, tensor, data, line):
    (tmp_path / "visual.safetensors").write_bytes(tensors_file(data, v=tensor))
    assert line in refusal(read_vectors, tmp_path / "visual.safetensors", None)


# --- Parquet -----------------------------------------------------------------------------------------------------


def parquet(file, columns, **options):
    file.write_bytes(foreign_files.parquet(pa.table(columns), compression="zstd", **options))
    return file


def lists(lengths):
    return pa.ListArray.from_arrays(np.cumsum([0, *lengths], dtype=np.int32), pa.array(np.zeros(sum(lengths), "f4")))


PACKED = {
    "equal rows": {"v": np.zeros(ROWS, np.int64)},
    "lists of zeros": {"v": lists([ROWS // 2] * 2)},
    "missing lists": {"v": pa.array([None] * 2, pa.list_(pa.float32(), ROWS))},
    "a long text": {"v": ["x" * 8 * ROWS]},
}
REPEATED = {
    "one text for all rows": ({"v": ["x" * 1000] * ROWS}, {}),
    "a dictionary": ({"v": pa.array(["x" * 1000] * ROWS).dictionary_encode()}, {}),
    "bytes": ({"v": [b"x" * 1000] * ROWS}, {}),
    "the start of the text before": (
        {"v": ["x" * 1000] * ROWS},
        {"use_dictionary": False, "column_encoding": {"v": "DELTA_BYTE_ARRAY"}},
    ),
}


@pytest.fixture
def bounded(monkeypatch):
    monkeypatch.setattr(parquet_files, "SMALL", 2**17)


@pytest.mark.parametrize("name", PACKED)
def test_what_pages_unpack_to_is_known_before_they_are_read(tmp_path, monkeypatch, bounded, name):
    file = parquet(tmp_path / "t.parquet", PACKED[name])
    for method in ("read", "iter_batches"):
        monkeypatch.setattr(pq.ParquetFile, method, lambda *_, **__: pytest.fail("something was read"))
    assert file.stat().st_size < 4000
    assert "t.parquet: unpacks to" in refusal(read_parquet, file, ["v"])


@pytest.mark.parametrize("name", REPEATED)
def test_text_that_is_stored_once_counts_for_every_row(tmp_path, monkeypatch, name):
    columns, options = REPEATED[name]
    file = parquet(tmp_path / "t.parquet", columns, **options)
    assert len(read_parquet(file, ["v"]).columns["v"]) == ROWS  # 100 MB, which is not much
    monkeypatch.setattr(parquet_files, "SMALL", 2**20)
    assert "t.parquet: unpacks to" in refusal(read_parquet, file, ["v"])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_dictionary": False},
        {"use_dictionary": False, "column_encoding": {"v": "DELTA_LENGTH_BYTE_ARRAY"}},
        REPEATED["the start of the text before"][1],
    ],
)
def test_text_is_read_whatever_its_encoding(tmp_path, options):
    texts = [f"user-{n % 70}" for n in range(1000)]
    kinds = {"string": pa.string(), "large": pa.large_string(), "view": pa.string_view()}
    for kind in kinds.values():
        file = parquet(tmp_path / "t.parquet", {"v": pa.array(texts, kind)}, row_group_size=300, **options)
        assert read_parquet(file, ["v"]).columns["v"].to_pylist() == texts


def test_text_that_builds_on_the_one_before_is_read_in_steps(tmp_path, monkeypatch):
    texts = [f"{'x' * 300}{n:06}" for n in range(1000)]
    file = parquet(tmp_path / "t.parquet", {"v": texts}, **REPEATED["the start of the text before"][1])
    monkeypatch.setattr(parquet_files, "SMALL", 2**19)  # its one page has 16 KB, so that a step is of 32 rows
    assert read_parquet(file, ["v"]).columns["v"].to_pylist() == texts
    monkeypatch.setattr(parquet_files, "SMALL", 2**17)
    assert "unpacks to" in refusal(read_parquet, file, ["v"])


def varint(number, length):
    """A signed number as Thrift writes it, in as many bytes."""
    groups = [(2 * number >> 7 * place) & 127 for place in range(length)]
    return bytes(group | 128 for group in groups[:-1]) + bytes(groups[-1:])


def change_footer(file, old, new):
    content = file.read_bytes()
    start = len(content) - 8 - struct.unpack("<I", content[-8:-4])[0]
    assert old in content[start:]
    file.write_bytes(content[:start] + content[start:].replace(old, new))


def test_a_footer_that_lies_about_its_values_hides_nothing(tmp_path, bounded):
    file = parquet(tmp_path / "t.parquet", PACKED["lists of zeros"])
    change_footer(file, varint(ROWS, 3), varint(2, 3))
    assert pq.ParquetFile(file).metadata.row_group(0).column(0).num_values == 2
    assert "unpacks to" in refusal(read_parquet, file, ["v"])


def test_a_footer_with_more_rows_than_values_is_damaged(tmp_path):
    file = parquet(tmp_path / "t.parquet", {"v": np.arange(ROWS)})
    assert pq.ParquetFile(file).metadata.row_group(0).column(0).num_values == ROWS
    change_footer(file, varint(ROWS, 3), varint(ROWS + 9, 3))
    assert "t.parquet: not a readable Parquet file" in refusal(read_parquet, file, ["v"])


def test_every_damaged_page_header_gets_one_line(tmp_path):
    file = parquet(tmp_path / "t.parquet", {"v": np.arange(50)})
    content = file.read_bytes()
    for place in range(4, 40):  # raising anything else fails
        for value in (0, 0x5C, 0x19, 0xFF):
            file.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
            with contextlib.suppress(UserError):
                read_parquet(file, ["v"])


def test_a_footer_at_odds_with_itself_does_not_end_the_process(tmp_path):
    file = parquet(tmp_path / "t.parquet", {"v": lists([2, 3])})
    optional = b"\x35\x02\x18\x01v"  # the third and the fourth field of a column: how often it occurs, and its name
    assert file.read_bytes().count(optional) == 1
    file.write_bytes(file.read_bytes().replace(optional, b"\x35\x36\x18\x01v"))
    assert "not a readable Parquet file" in refusal(read_parquet, file, ["v"])  # pyarrow's metadata().column() aborts


def test_a_column_whose_name_is_no_text_gets_one_line(tmp_path):
    file = parquet(tmp_path / "t.parquet", {"vé": np.arange(5)})
    file.write_bytes(file.read_bytes().replace("vé".encode(), b"v\x80\x80"))
    for read in (lambda: read_parquet(file, ["v"]), lambda: read_vectors(file, None)):
        assert "t.parquet: not a readable" in refusal(read)


def test_a_table_as_people_have_them_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_files, "SMALL", 0)
    rng = np.random.default_rng(0)
    columns = {
        "user": np.sort(rng.integers(0, 500, ROWS)),
        "item": [f"B{item:09}" for item in rng.zipf(1.3, ROWS) % 1000],
        "split": ["train"] * ROWS,
        "timestamp": np.arange(ROWS),
    }
    table = read_parquet(parquet(tmp_path / "t.parquet", columns), list(columns))
    assert {name: column.to_pylist() for name, column in table.columns.items()} == {
        name: list(column) for name, column in columns.items()
    }


def test_a_column_for_each_number_is_read(tmp_path):
    values = np.random.default_rng(0).normal(size=(3, 100)).astype(np.float32)
    columns = {f"v.{place}" if place % 2 else f"v{place}": column for place, column in enumerate(values.T)}
    read = read_vectors(parquet(tmp_path / "visual.parquet", {"item": [7, 8, 9], **columns}), "item")
    assert np.array_equal(read.values, values)


def test_a_row_of_numbers_for_each_item_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_files, "SMALL", 0)
    values = np.random.default_rng(0).normal(size=(60, 32)).astype(np.float32)
    for kind in (pa.list_(pa.float32()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 32)):
        file = parquet(tmp_path / "visual.parquet", {"v": pa.array(values.tolist(), kind)})
        assert np.array_equal(read_vectors(file, None).values, values)


OTHERS = [[["a"]], [[[1.0]]], [{"a": 1.0}], pa.array([[("a", 1.0)]], pa.map_(pa.string(), pa.float32()))]


@pytest.mark.parametrize("values", OTHERS)
def test_columns_of_other_things_are_refused(tmp_path, values):
    file = parquet(tmp_path / "t.parquet", {"v": values})
    assert "'v' is a column of" in refusal(read_parquet, file, ["v"])


MEASURE = """
import sys
from pathlib import Path
import pyarrow as pa
from slmrec_jax.data.readers import parquet_files
from slmrec_jax.data.readers.tables import read_parquet
from slmrec_jax.errors import UserError
usual, parquet_files.SMALL = parquet_files.SMALL, 2**24
for file in map(Path, sys.argv[1:]):
    try:
        read_parquet(file, ["v"])
    except UserError as error:
        assert "unpacks to" in str(error), error
    else:
        raise SystemExit(f"{file} was read")
print(pa.default_memory_pool().max_memory())
parquet_files.SMALL = usual
read_parquet(file, ["v"])
print(pa.default_memory_pool().max_memory())
"""


@pytest.mark.slow
def test_files_that_unpack_to_tens_of_megabytes_are_refused_in_a_few(tmp_path):
    files = [
        parquet(tmp_path / "rows.parquet", {"v": pa.chunked_array([pa.array(np.zeros(2**18, np.int64))] * 20)}),
        parquet(tmp_path / "lists.parquet", {"v": lists([1_500_000] * 3)}),
        parquet(tmp_path / "text.parquet", {"v": ["x" * 40_000_000]}),
        parquet(tmp_path / "repeated.parquet", {"v": pa.DictionaryArray.from_arrays([0] * 200, ["x" * 250_000])}),
    ]
    assert sum(file.stat().st_size for file in files) < 2**16
    command = [sys.executable, "-c", MEASURE, *map(str, files)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    refused, read = map(int, done.stdout.split())
    assert refused < 2**22
    assert read > 2**24


def test_one_long_vector_does_not_lengthen_the_missing_ones(tmp_path):
    file = parquet(tmp_path / "visual.parquet", {"v": lists([2**20, *[0] * 2**20])})
    assert "1048577 rows of 1048576 numbers take 4194308 MiB, but most rows have none" in refusal(
        read_vectors, file, None
    )
    pairs = "user,item,split\n" + "".join(f"u,{item},train\n" for item in range(2**10))
    (tmp_path / "interactions.csv").write_text(pairs)
    parquet(file, {"item": [5], "v": lists([2**20])})
    assert "1024 rows of 1048576 numbers take 4096 MiB" in refusal(load, str(tmp_path), format="plain")


# --- text --------------------------------------------------------------------------------------------------------


def test_a_header_of_too_many_columns_is_refused(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text(",".join(["user", "item", *(f"c{n}" for n in range(10_000))]) + "\n" + ",".join(["1"] * 10_002))
    assert "row 1 has more than 10000 columns" in refusal(read_text, file, ",", ["user", "item"])
    assert "more than 10000 columns" in refusal(load, str(tmp_path), format="plain")


def test_a_first_row_with_a_very_long_cell_gets_one_line(tmp_path):
    (tmp_path / "t.csv").write_text(f"user,item,{'c' * 200_000}\n1,2\n")
    assert "t.csv" in refusal(lambda: load(str(tmp_path), format="plain"))
    (tmp_path / "t.csv").write_text("c" * 200_000 + "\n1\n")
    assert str(tmp_path) in refusal(lambda: load(str(tmp_path), format="plain"))


def test_a_header_as_wide_as_an_embedding_is_read(tmp_path):
    file = tmp_path / "t.csv"
    values = np.random.default_rng(0).normal(size=(3, 4096)).astype(np.float32)
    buffer = io.StringIO()
    np.savetxt(buffer, values, delimiter=",")
    file.write_text(buffer.getvalue())
    assert np.array_equal(read_vectors(file, None).values, values)
