"""The package's own format: what is written is what is read, whole or not at all."""

import json
import os
import stat
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import safetensors.numpy

from slmrec_jax.data import Feature, Words, load, make_dataset, write_store
from slmrec_jax.data.own_files import write_tensors
from slmrec_jax.errors import UserError
from slmrec_jax.types import Interactions


def pairs(*rows):
    return Interactions(*np.array(rows, np.int64).reshape(-1, 2).T)


def small(**changes):
    given = {
        "train": pairs((0, 0), (0, 3), (1, 2)),
        "valid": pairs((2, 1)),
        "test": pairs((0, 1)),
        "num_users": 3,
        "num_items": 4,
        "features": {
            "zest": Feature(np.array([[0.1, -0.0], [1, 2], [3, 4], [5, 6]]), np.array([True, False, True, True])),
            "textual": Words(np.array([3, 0, 0]), np.array([1, 4, 4]), 7),
        },
        "user_ids": np.array(["ann", "Börje", "c,y\n"]),
        "notes": ("two users were dropped",),
    }
    return make_dataset("small", **given | changes)


CASES = {
    "words and missing rows": small(),
    "integer ids": small(user_ids=np.array([2**40, -1, 7]), item_ids=np.array([9, 8, 7, 6], np.uint16)),
    "ids that look like numbers": small(user_ids=np.array(["7", "007", "1e3"])),
    "no validation": small(valid=pairs()),
    "nothing held out, no features": small(valid=pairs(), test=pairs(), features={}),
    "no row present": small(features={"visual": Feature(np.ones((4, 2)), np.zeros(4, bool))}),
    "odd names": small(features=dict.fromkeys(("a/../b", "A", "a"), Feature(np.full((4, 1), 3.0), np.ones(4, bool)))),
    "large numbers": small(features={"visual": Feature(np.full((4, 1), 1e38), np.ones(4, bool))}),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_is_read(tmp_path, name):
    dataset = CASES[name]
    write_store(dataset, tmp_path / "kept")
    again = load(str(tmp_path / "kept"))
    assert again.fingerprint == dataset.fingerprint
    assert (again.name, again.notes) == (dataset.name, dataset.notes)
    assert list(again.features) == list(dataset.features)
    assert again.user_ids.tolist() == dataset.user_ids.tolist()
    stored = {name: feature.stored for name, feature in again.features.items() if isinstance(feature, Feature)}
    assert stored == {name: f.stored for name, f in dataset.features.items() if isinstance(f, Feature)}


def test_the_demo_is_read_as_it_was_written(tiny, tmp_path):
    write_store(tiny, tmp_path / "kept")
    again = load(str(tmp_path / "kept"))
    assert again.fingerprint == tiny.fingerprint
    for name, feature in tiny.features.items():
        np.testing.assert_array_equal(again.features[name].values, feature.values)


def test_vectors_take_half_the_room_where_that_loses_nothing(tmp_path):
    halves = np.array([[0.1], [-0.0], [6e-8], [2048]], np.float16)
    there = np.ones(4, bool)
    features = {"half": Feature(halves, there), "full": Feature(halves.astype("f4") + 1e-5, there)}
    write_store(small(features=features), tmp_path / "kept")
    files = sorted((tmp_path / "kept" / "features").iterdir())
    assert [safetensors.numpy.load_file(file)["values"].dtype for file in files] == [np.float16, np.float32]
    again = load(str(tmp_path / "kept"))
    assert np.signbit(again.features["half"].values[again.item_ids == 1, 0]).all()


def test_other_programs_can_read_the_tables(tmp_path):
    write_store(small(), tmp_path / "kept")
    rows = pyarrow.parquet.read_table(tmp_path / "kept/interactions.parquet").to_pylist()
    assert rows[3] == {"user_row": 2, "item_row": 3, "split": "valid"}  # item 1 has the lowest degree
    assert pyarrow.parquet.read_table(tmp_path / "kept/items.parquet")["id"].to_pylist() == [0, 2, 3, 1]
    assert pyarrow.parquet.read_table(tmp_path / "kept/users.parquet")["id"].to_pylist()[1] == "Börje"


# --- writing -----------------------------------------------------------------------------------------------------


def test_a_folder_named_demo_is_remembered_by_its_whole_path(tmp_path, monkeypatch):
    write_store(small(), tmp_path / "demo")
    monkeypatch.chdir(tmp_path)
    assert load("demo", format="slmrec").source.data == str(tmp_path / "demo")


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "kept").mkdir()
    with pytest.raises(UserError, match="already exists"):
        write_store(small(), tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []


@pytest.mark.parametrize("size", [0, 1200, 5000])
def test_a_full_disk_leaves_nothing(tmp_path, size, refusing_disk):
    """At the first table, a later one, and the features."""
    wide = Feature(np.ones((4, 2000), np.float32), np.ones(4, np.bool_), "float32")
    refusing_disk(size)
    with pytest.raises(UserError, match=r"cannot write .*kept: File too large; free some space, or give another"):
        write_store(small(features={"wide": wide}), tmp_path / "kept")
    assert list(tmp_path.iterdir()) == []


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    before = os.umask(0o022)
    try:
        write_store(small(), tmp_path / "kept")
    finally:
        os.umask(before)
    modes = {path.relative_to(tmp_path): stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert {mode for path, mode in modes.items() if path.suffix} == {0o644}
    assert {mode for path, mode in modes.items() if not path.suffix} == {0o755}


@pytest.mark.parametrize("rows", [0, 1, 5, 8])
def test_arrays_are_written_as_the_library_does(tmp_path, rows):
    rng = np.random.default_rng(0)
    tensors = {
        "present": rng.random(rows) < 0.5,
        "values": rng.random((rows, 3)).astype(np.float16)[:, ::-1],
        "Ж": rng.random((rows, 2)).astype(np.float32) if rows % 2 else rng.integers(9, size=rows).astype(np.int32),
    }
    write_tensors(tensors, tmp_path / "ours")
    safetensors.numpy.save_file({name: np.ascontiguousarray(each) for name, each in tensors.items()}, tmp_path / "its")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "its").read_bytes()
    read = safetensors.numpy.load_file(tmp_path / "ours")
    for name, each in tensors.items():
        np.testing.assert_array_equal(read[name], each)


def test_what_a_file_cannot_hold_is_refused(tmp_path):
    with pytest.raises(UserError, match="not valid Unicode text"):
        write_store(small(user_ids=np.array(["\ud800", "b", "c"])), tmp_path / "kept")
    with pytest.raises(UserError, match="control characters"):
        write_store(replace(small(), name="a\nb"), tmp_path / "kept")
    assert list(tmp_path.iterdir()) == []


# --- reading -----------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path):
    write_store(small(), tmp_path / "kept")
    return tmp_path / "kept"


def refused(folder, line):
    with pytest.raises(UserError, match=line) as caught:
        load(str(folder), format="slmrec")
    assert str(caught.value).isprintable()
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"version": 1}, "version is 1; this program reads 2"),
        ({"users": "3"}, "users is '3'"),
        ({"items": 10**24}, "meta.json: 1000000000000000000000000 items"),
        ({"users": 2}, "users is 2|raw ids for|outside"),
        ({"modalities": [{"name": "zest"}, {"name": "zest"}]}, "modalities is"),
        ({"modalities": [{"name": "a\nb"}]}, "modalities is"),
        ({"modalities": []}, "fingerprint"),
        ({"fingerprint": "0" * 64}, "changed or damaged"),
        ({"notes": [1]}, "notes is"),
        ({"name": "\x1b"}, "name is"),
    ],
)
def test_meta_that_does_not_fit(kept, change, line):
    meta = json.loads((kept / "meta.json").read_text())
    (kept / "meta.json").write_text(json.dumps(meta | change))
    refused(kept, line)


def test_meta_that_cannot_be_read(kept):
    for text, line in (("[" * 100_000, "JSON"), ("", "JSON"), ('{"format": "other"}', "does not declare")):
        (kept / "meta.json").write_text(text)
        refused(kept, line)
    (kept / "meta.json").unlink()
    refused(kept, "meta.json: there is no such file")


def test_a_change_of_the_content_is_seen(kept):
    file = kept / "features" / "0-zest.safetensors"
    tensors = safetensors.numpy.load_file(file)
    tensors["values"][0, 0] += 1
    safetensors.numpy.save_file(tensors, file)
    refused(kept, "changed or damaged")


@pytest.mark.parametrize(
    ("tensors", "line"),
    [
        ({"values": np.ones((4, 2), np.float64), "present": np.ones(4, bool)}, "values is float64"),
        ({"values": np.ones((4, 2), np.float32)}, "tensors other than"),
        ({"values": np.ones((3, 2), np.float32), "present": np.ones(3, bool)}, "3 rows for 4 items"),
    ],
)
def test_features_that_do_not_fit(kept, tensors, line):
    safetensors.numpy.save_file(tensors, kept / "features" / "0-zest.safetensors")
    refused(kept, line)


@pytest.mark.parametrize(
    ("file", "columns", "line"),
    [
        ("interactions", {"user_row": [0], "item_row": [0], "split": ["dev"]}, "row 1: split is 'dev'"),
        ("interactions", {"user_row": [0, 1], "item_row": [0, 0], "split": ["train", None]}, "row 2: split is missing"),
        ("interactions", {"user_row": [0], "item_row": [9], "split": ["train"]}, "items is 9"),
        ("interactions", {"user_row": [0], "split": ["train"]}, "no column 'item_row'"),
        ("users", {"id": ["a", "b", None]}, "id is a column of string"),
        ("users", {"id": [0.5, 1, 2]}, "id is a column of double"),
        ("users", {"id": ["a", "b", "b"]}, "raw id 'b' occurs in 2 rows"),
    ],
)
def test_tables_that_do_not_fit(kept, file, columns, line):
    pyarrow.parquet.write_table(pa.table(columns), kept / f"{file}.parquet")
    refused(kept, line)


def test_one_long_id_does_not_lengthen_all(kept):
    pyarrow.parquet.write_table(pa.table({"id": ["x" * 10**5, *map(str, range(10**5))]}), kept / "users.parquet")
    refused(kept, "users.parquet: an id has 100000 characters, too many for 100001 ids")


def test_files_that_are_not_there_or_no_files(kept):
    for name in ("interactions.parquet", "items.parquet", "features/1-textual.safetensors"):
        content = (kept / name).read_bytes()
        (kept / name).unlink()
        refused(kept, name.rpartition("/")[2])
        os.mkfifo(kept / name)
        refused(kept, "not a regular file")
        (kept / name).unlink()
        (kept / name).write_bytes(content[:-20])
        refused(kept, name.rpartition("/")[2])
        (kept / name).write_bytes(content)
    load(str(kept))
