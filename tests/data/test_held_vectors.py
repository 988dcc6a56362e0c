"""Vectors of half precision stay so on the host and on disk, and those of a file are mapped where no row changes."""

import subprocess
import sys
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from slmrec_jax.data import Feature, check_dataset, load, make_dataset, vectors, write_store
from slmrec_jax.data.dataset import take_rows
from slmrec_jax.data.formats.plain_features import in_row_order
from slmrec_jax.data.frames import dataset as from_frames
from slmrec_jax.data.inspect.inspection import inspect_dataset
from slmrec_jax.data.readers.feature_tables import read_vectors
from slmrec_jax.data.readers.safetensors_files import read_tensors
from slmrec_jax.errors import UserError
from slmrec_jax.types import Interactions

TYPES = [np.float16, ml_dtypes.bfloat16, np.float32]
HALVES = TYPES[:2]
ITEMS = 50


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(vectors, "_VALUES_PER_BLOCK", 20)


def table(dtype, seed=0, columns=4):
    return np.random.default_rng(seed).normal(size=(ITEMS, columns)).astype(dtype)


def dataset(values, present=None, **others):
    rng = np.random.default_rng(1)
    present = np.ones(len(values), bool) if present is None else present
    splits = [Interactions(rng.integers(9, size=30), rng.integers(ITEMS, size=30)) for _ in range(3)]
    return make_dataset("d", *splits, num_users=9, num_items=ITEMS, features={"visual": Feature(values, present)})


def same_bits(one, other):
    np.testing.assert_array_equal(one.astype(np.float32).view(np.int32), other.astype(np.float32).view(np.int32))


@pytest.mark.parametrize("dtype", [*TYPES, ">f2", ">f4"])
def test_types_that_stay(dtype):
    assert dataset(table(dtype)).features["visual"].values.dtype == np.dtype(dtype).newbyteorder("=")
    assert vectors.is_real(np.dtype(dtype))


@pytest.mark.parametrize("dtype", [np.float64, np.int16, np.bool_])
def test_types_that_become_float32(dtype):
    assert dataset(table(dtype)).features["visual"].values.dtype == np.float32


@pytest.mark.parametrize("dtype", HALVES)
def test_the_fingerprint_is_that_of_the_same_numbers_in_float32(dtype):
    present = np.arange(ITEMS) % 3 != 0
    half = dataset(table(dtype), present)
    full = dataset(table(dtype).astype(np.float32), present)
    assert half.fingerprint == full.fingerprint == half.by_degree().fingerprint
    assert half.by_degree().features["visual"].values.dtype == dtype
    facts = [inspect_dataset(each).modalities["visual"]._replace(stored="") for each in (half, full)]
    assert facts[0] == facts[1]


@pytest.mark.parametrize("dtype", TYPES)
def test_the_caller_may_change_what_it_passed(dtype):
    values = table(dtype)
    made = dataset(values)
    before = made.features["visual"].values.copy()
    values[:] = 1
    same_bits(made.features["visual"].values, before)


@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_not_finite_is_refused_by_its_rows(dtype):
    values = table(dtype)
    values[[3, 44], 1] = np.nan, np.inf
    with pytest.raises(UserError, match=r"2 values in 2 rows .*rows 3, 44, counted from 0\)"):
        dataset(values)
    made = dataset(values, ~np.isin(np.arange(ITEMS), [3, 44]))
    assert not made.features["visual"].values[[3, 44]].any()
    check_dataset(made)
    feature = made.features["visual"]
    with pytest.raises(UserError, match="build it with make_dataset"):
        check_dataset(replace(made, features={"visual": feature._replace(present=np.zeros(ITEMS, bool))}))
    with pytest.raises(UserError, match=r"is float64.*expected float16, bfloat16 or float32"):
        check_dataset(replace(made, features={"visual": feature._replace(values=feature.values.astype(float))}))


# --- mapped files ------------------------------------------------------------------------------------------------


def mapped(folder, values):
    np.save(folder / "x.npy", values)
    return np.load(folder / "x.npy", mmap_mode="r")


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_mapped_table_stays_the_file_unless_a_row_changes(tmp_path, dtype):
    values, present = table(dtype), np.arange(ITEMS) % 7 != 2
    values[~present] = 0
    given = mapped(tmp_path, values)
    kept = dataset(given, present).features["visual"].values
    assert vectors.is_mapped(kept)
    assert np.shares_memory(kept, given)
    assert not kept.flags.writeable
    values[2, 1] = -0.0  # all bits count: the fingerprint is of +0
    changed = dataset(mapped(tmp_path, values), present)
    assert not vectors.is_mapped(changed.features["visual"].values)
    assert changed.fingerprint == dataset(values, present).fingerprint
    assert np.signbit(np.load(tmp_path / "x.npy")[2, 1])  # the file is as it was


def test_other_mapped_tables_are_copied(tmp_path):
    for values in (table(np.float64), table(">f2"), np.asfortranarray(table(np.float16))):
        kept = dataset(mapped(tmp_path, values)).features["visual"].values
        assert not vectors.is_mapped(kept)
        assert kept.flags.c_contiguous
    np.save(tmp_path / "x.npy", table(np.float16))
    writeable = np.load(tmp_path / "x.npy", mmap_mode="r+")
    assert not vectors.is_mapped(dataset(writeable).features["visual"].values)
    view = writeable[:]
    view.flags.writeable = False
    assert not vectors.is_mapped(dataset(view).features["visual"].values)
    assert not vectors.is_mapped(np.zeros(3))


@pytest.mark.parametrize("dtype", TYPES)
def test_the_store_keeps_and_maps(tmp_path, dtype):
    present = np.arange(ITEMS) % 5 != 0
    made = dataset(table(dtype), present).by_degree()
    write_store(made, tmp_path / "kept")
    again = load(str(tmp_path / "kept"))
    found = again.features["visual"]
    assert again.fingerprint == made.fingerprint
    assert found.values.dtype == dtype
    assert vectors.is_mapped(found.values)
    assert vectors.is_mapped(again.by_degree().features["visual"].values)
    same_bits(found.values, made.features["visual"].values)
    file = next((tmp_path / "kept" / "features").iterdir())
    assert safetensors.numpy.load_file(file)["values"].dtype == dtype
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"0-visual.safetensors: not a readable .safetensors file") as caught:
        load(str(tmp_path / "kept"))
    assert "\n" not in str(caught.value)


def test_fewer_users_leave_all_items_in_the_file(tmp_path):
    made = dataset(mapped(tmp_path, table(np.float16)))
    users, items = np.array([5, 2]), np.arange(ITEMS)
    assert vectors.is_mapped(take_rows(made, users, items).features["visual"].values)
    fewer = take_rows(made, users, items[::-2]).features["visual"].values
    assert not vectors.is_mapped(fewer)
    same_bits(fewer, table(np.float16)[::-2])


@pytest.mark.parametrize("dtype", TYPES)
def test_tensors_are_read_the_same_way_mapped_or_not(tmp_path, dtype):
    tensors = {
        "values": table(dtype),
        "none": np.zeros((0, 3), dtype),
        "ids": np.arange(ITEMS),
        "one": np.ones((), dtype),
    }
    safetensors.numpy.save_file(tensors, tmp_path / "x.safetensors", metadata={"made": "here"})
    for is_view in (False, True):
        read = read_tensors(tmp_path / "x.safetensors", "tensors", mapped=is_view)
        assert read.keys() == tensors.keys()
        for name, each in read.items():
            assert each.dtype == tensors[name].dtype
            np.testing.assert_array_equal(each, tensors[name])
        assert vectors.is_mapped(read["values"]) == is_view
        assert read["values"].flags.writeable != is_view


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_rows_in_the_order_of_the_items_are_the_file(tmp_path, suffix):
    file = tmp_path / f"visual{suffix}"
    values = table(np.float16)
    if suffix == ".npy":
        np.save(file, values)
    else:
        safetensors.numpy.save_file({"v": values, "item": np.arange(ITEMS)}, file)
    rows = "".join(f"{item // 5},{item},train\n" for item in range(ITEMS))
    (tmp_path / "interactions.csv").write_text(f"user,item,split\n{rows}")
    feature = load(str(tmp_path)).features["visual"]
    assert vectors.is_mapped(feature.values)
    same_bits(feature.values, values)


@pytest.mark.parametrize("dtype", TYPES)
def test_rows_in_another_order_are_copied_in_their_type(tmp_path, dtype):
    file = tmp_path / "visual.safetensors"
    safetensors.numpy.save_file({"v": table(dtype)}, file)
    order = np.array([7, 3, 30])
    feature, _ = in_row_order(file, read_vectors(file, None), order, "fix")
    assert feature.values.dtype == dtype
    same_bits(feature.values, table(dtype)[order])


@pytest.mark.parametrize("dtype", TYPES)
def test_a_row_of_nan_is_an_item_without_the_feature(tmp_path, dtype):
    values = table(dtype)
    values[14] = np.nan
    safetensors.numpy.save_file({"v": values}, tmp_path / "visual.safetensors")
    read = read_vectors(tmp_path / "visual.safetensors", None)
    assert read.present.tolist() == [row != 14 for row in range(ITEMS)]
    made = dataset(read.values, read.present)
    assert made.features["visual"].values.dtype == dtype
    assert not made.features["visual"].values[14].any()


@pytest.mark.parametrize("dtype", TYPES)
def test_frames_keep_the_type(dtype):
    present = np.arange(ITEMS) != 3
    pairs = {"user": list(range(ITEMS)), "item": list(range(ITEMS)), "split": ["train"] * ITEMS}
    for given in (table(dtype), Feature(table(dtype), present), (list(range(ITEMS)), table(dtype))):
        feature = from_frames(pairs, features={"visual": given}, name="f").features["visual"]
        assert feature.values.dtype == dtype
        assert feature.present.sum() == ITEMS - isinstance(given, Feature)


@pytest.mark.slow
def test_loading_a_mapped_file_takes_little_memory(tmp_path):
    """Reading, checking, hashing and writing hold blocks of the rows; the pages of the file are not counted."""
    items, columns = 300_000, 128  # 73 MiB, and twice that as float32
    values = np.zeros((items, columns), np.float16)
    values[:, 0] = np.arange(items) % 1000
    np.save(tmp_path / "x.npy", values)
    program = f"""
import tracemalloc
from pathlib import Path
import numpy as np
from slmrec_jax.data import check_dataset, load, make_dataset, write_store
from slmrec_jax.data.readers.feature_files import feature_of_rows
from slmrec_jax.data.readers.npy_files import read_numbers
from slmrec_jax.types import Interactions

folder, pairs = Path({str(tmp_path)!r}), Interactions(np.arange(10), np.arange(10))
tracemalloc.start()
feature = feature_of_rows(folder / "x.npy", read_numbers(folder / "x.npy", "a table"))
made = make_dataset("d", pairs, pairs, pairs, num_users=10, num_items={items}, features={{"visual": feature}})
check_dataset(made)
write_store(made, folder / "kept")
load(str(folder / "kept"))
print(tracemalloc.get_traced_memory()[1])
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 4 * items * columns / 2
