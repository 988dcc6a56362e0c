"""Files of vectors: the forms of text, types that NumPy lacks, and advice that fits the file."""

import dataclasses
import gzip
import os
from pathlib import Path

import foreign_files
import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign_files import npy, refusal, tensor_pickle, tensors_file, torch_stream

from slmrec_jax import UserError
from slmrec_jax.data import Feature, load, make_dataset
from slmrec_jax.data.new_items import read_new_items
from slmrec_jax.data.own_files import write_tensors
from slmrec_jax.data.readers.feature_tables import read_vectors
from slmrec_jax.data.readers.tables import Table
from slmrec_jax.data.readers.text_ids import encode_text_ids
from slmrec_jax.types import Interactions

PAIRS = "user,item,split\nu,0,train\nu,1,valid\nv,2,train\nv,0,test\n"
NAMED = PAIRS.replace(",0,", ",a,").replace(",1,", ",b,").replace(",2,", ",c,")
VALUES = np.array([[0.5, -1.25], [3.0, 4.5], [7.0, 1e-3]], np.float32)


def folder(path, **files):
    """A plain data set; the names of features end in their type, as `image_csv`."""
    path.mkdir(exist_ok=True)
    (path / "features").mkdir(exist_ok=True)
    for name, content in {"interactions_csv": PAIRS, **files}.items():
        stem, _, suffix = name.rpartition("_")
        place = path if stem in ("interactions", "items") else path / "features"
        file = place / f"{stem}.{suffix}"
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


TEXTS = {
    "numbers alone": ("image.csv", "0.5,-1.25\n3,4.5\n7,1e-3\n", None),
    "tabs": ("image.tsv", "0.5\t-1.25\n3\t4.5\n7\t1e-3\n", None),
    "as NumPy writes it": ("image.csv", "5.0e-01, -1.25e+00\n3.0e+00, 4.5e+00\n7.0e+00, 1.0e-03\n", None),
    "a header": ("image.csv", "x,y\n0.5,-1.25\n3,4.5\n7,1e-3\n", None),
    "raw ids": ("image.csv", "item,x,y\nb,3,4.5\na,0.5,-1.25\nc,7,1e-3\n", "item"),
    "raw ids under another name": ("image.csv", "x,item_id,y\n3,b,4.5\n0.5,a,-1.25\n7,c,1e-3\n", "item_id"),
    "raw ids and columns that are counted": ("image.csv", "item,0,1\nb,3,4.5\na,0.5,-1.25\nc,7,1e-3\n", "item"),
    "raw ids and lists": ("image.csv", "item,v\nb,3 4.5\na,0.5 -1.25\nc,7 1e-3\n", "item"),
    "lists alone": ("image.csv", "0.5 -1.25\n3 4.5\n7 1e-3\n", None),
}


@pytest.mark.parametrize("name", TEXTS)
def test_vectors_may_be_text(tmp_path, name):
    file, content, key = TEXTS[name]
    (tmp_path / file).write_text(content)
    read = read_vectors(tmp_path / file, key)
    assert (read.stored, read.present.all()) == ("text", True)
    order = np.argsort(read.keys.columns["item"].to_pylist()) if key else np.arange(3)
    assert np.array_equal(read.values[order], VALUES)


def test_text_makes_the_same_data_set_as_numpy(tmp_path):
    forms = {
        "rows": {"image_csv": "0.5,-1.25\n3,4.5\n7,1e-3\n"},
        "numpy": {"image_npy": npy(VALUES)},
        "ids": {"image_csv": "item,x,y\n1,3,4.5\n0,0.5,-1.25\n2,7,1e-3\n"},
    }
    made = [load(str(folder(tmp_path / name, **files))).fingerprint for name, files in forms.items()]
    assert len(set(made)) == 1


def test_text_beside_the_interactions_is_read_if_it_is_named_as_a_modality(tmp_path):
    path = folder(tmp_path / "shop")
    for name in ("image.csv", "taste_feat.tsv", "prices.csv"):
        (path / name).write_text("0.5,2\n3,4\n7,1\n".replace(",", "\t" if name.endswith("tsv") else ","))
    dataset = load(str(path))
    assert set(dataset.features) == {"visual", "taste"}
    assert any("prices.csv" in note for note in dataset.notes)


@pytest.mark.parametrize("missing", ["", "NaN", "null", " "])
def test_an_empty_row_of_text_is_an_item_without_the_feature(tmp_path, missing):
    path = folder(tmp_path / "shop", image_csv=f"x,y\n0.5,2\n{missing},{missing}\n7,1\n")
    assert load(str(path)).features["visual"].present.tolist() == [True, False, True]


TEXT_REFUSED = {
    "a header that counts": ("0,1\n3,4.5\n7,1\n", "row 1 counts the columns"),
    "rows that are counted, as by pandas": (",0,1\n0,3,4.5\n1,7,1\n", "row 1 counts the columns"),
    "a column without a name": (",x,y\n0,3,4.5\n1,7,1\n", "column 1 has no name"),
    "ids without a header": ("a,0.5,2\nb,3,4.5\n", "row 1 has numbers and other text"),
    "ids of numbers without a header": (
        "10,0.5,2\n12,3,4.5\n11,1,1\n",
        r"the first column (column 1) looks like raw ids",
    ),
    "ids under a name that is not known": (
        "key,x,y\n10,0.5,2\n12,3,4.5\n",
        "the first column (key) looks like raw ids",
    ),
    "a word": ("x,y\n3,4.5\n7,high\n", "image.csv: row 3: y is 'high'; expected a number"),
    "an item alone": ("item\na\nb\n", "it has only the column 'item'"),
    "half a row": (
        "x,y\n0.5,2\n3,\n7,1\n",
        "1 values in 1 rows are NaN or infinite as float32 (rows 1, counted from 0)",
    ),
    "half a row under an id": (
        "item,x,y\n1,0.5,2\n0,3,\n2,7,1\n",
        "(rows 3, counted from 1); fix them, or make a whole row NaN",
    ),
    "rows of different lengths": ("x,y\n0.5,2\n3\n7,1\n", "Expected 2 columns, got 1"),
    "nothing": ("", "image.csv: it is empty"),
}


@pytest.mark.parametrize("name", TEXT_REFUSED)
def test_text_that_may_be_read_in_two_ways_is_refused(tmp_path, name):
    content, line = TEXT_REFUSED[name]
    assert line in refusal(load, str(folder(tmp_path / "shop", image_csv=content)))


def test_new_items_may_be_text(tmp_path):
    pairs, none = Interactions(*np.zeros((2, 1), np.int64)), Interactions(*np.zeros((2, 0), np.int64))
    features = {"visual": Feature(VALUES, np.ones(3, bool))}
    known = make_dataset("small", pairs, none, none, num_users=1, num_items=3, features=features)
    table = "item,x,y\nnew,1,2\nother,3,4\n"
    (tmp_path / "visual.csv").write_text(table)
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "visual.csv.gz").write_bytes(gzip.compress(table.encode()))
    for path in (tmp_path, tmp_path / "visual.csv", tmp_path / "packed", tmp_path / "packed" / "visual.csv.gz"):
        items = read_new_items(path, known)
        assert items.ids.tolist() == ["new", "other"]
        assert items.features["visual"].values.tolist() == [[1, 2], [3, 4]]
    (tmp_path / "visual.csv").write_text("1.5,2\n3,4\n")
    assert read_new_items(tmp_path, known).ids.tolist() == ["new-0", "new-1"]


# --- types -------------------------------------------------------------------------------------------------------

FLOAT8 = {
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "BF16": ml_dtypes.bfloat16,
}


@pytest.mark.parametrize("kind", FLOAT8)
def test_small_types_of_safetensors_are_read(tmp_path, kind):
    values = np.array([[0.5, 2.0], [4.0, 1.0], [8.0, 0.25]]).astype(FLOAT8[kind])
    raw, keys = values.tobytes(), np.array([2, 0, 1]).tobytes()
    tensors = {"v": (kind, [3, 2], 0, len(raw)), "item": ("I64", [3], len(raw), len(raw) + 24)}
    (tmp_path / "v.safetensors").write_bytes(tensors_file(raw + keys, **tensors))
    read = read_vectors(tmp_path / "v.safetensors", None)
    assert read.values.tolist() == [[0.5, 2.0], [4.0, 1.0], [8.0, 0.25]]
    assert read.values.dtype == (ml_dtypes.bfloat16 if kind == "BF16" else np.float32)
    assert read.stored == np.dtype(FLOAT8[kind]).name
    assert read.keys.columns["item"].to_pylist() == [2, 0, 1]


def test_times_in_an_unknown_zone(tmp_path):
    path = tmp_path / "shop"
    path.mkdir()
    times = pa.array([3, 1, 2], pa.timestamp("us", "Nowhere/\x1b[31m"))
    pq.write_table(pa.table({"user": times, "item": [0, 1, 2]}), path / "interactions.parquet")
    line = refusal(load, str(path))
    assert "user is a column of 'timestamp[us, tz=Nowhere/" in line
    assert "expected an id" in line
    columns = {"user": [1, 1, 1], "item": [0, 1, 2], "timestamp": times}
    pq.write_table(pa.table(columns), path / "interactions.parquet")
    dataset = load(str(path), split="leave-one-out")
    assert dataset.test.items.tolist() == [0]  # the last one, whatever the zone


def test_times_that_python_cannot_hold_have_a_form_for_error_lines():
    for kind in (pa.duration("s"), pa.timestamp("s"), pa.timestamp("s", "Nowhere/Land")):
        table = Table(Path("t.parquet"), {"v": pa.chunked_array([pa.array([2**62], kind)])}, first=1)
        assert table.value("v", 0) == f"a {kind} that cannot be shown on this machine"


# --- advice ------------------------------------------------------------------------------------------------------


def rows(count, first=1.0):
    values = np.arange(2.0 * count, dtype=np.float32).reshape(count, 2) + 0.5
    values[0] = first
    return values


CATALOGUE = "item\n0\n1\n2\n"
ADVICE = {
    "too few": (rows(2), "2 rows for 3 items; expected row i to be item i: give every item a row, all NaN"),
    "too many": (rows(5), "5 rows for 3 items; expected row i to be item i: remove the rows that belong to no item"),
    "one too many": (rows(4), "4 rows for 3 items; expected row i to be item i: remove the rows"),
    "padding": (rows(4, 0.0), "and the first one is all zeros, as RecBole pads its tables; remove that row"),
    "NaN in a row": (np.array([[1, 2], [3, np.nan], [5, 6]], np.float32), "(rows 1, counted from 0); fix them, or"),
}  # fmt: skip


@pytest.mark.parametrize("name", ADVICE)
def test_advice_fits_a_file(tmp_path, name):
    values, line = ADVICE[name]
    found = refusal(load, str(folder(tmp_path / "shop", items_csv=CATALOGUE, image_npy=npy(values))))
    assert line in found
    assert "present" not in found


def test_advice_fits_a_caller():
    pairs = Interactions(*np.zeros((2, 1), np.int64))
    for values, line in ((rows(2), "mark in `present`"), (np.full((3, 2), np.inf), "set `present` to False")):
        features = {"visual": Feature(values, np.ones(len(values), bool))}
        with pytest.raises(UserError, match=line):
            make_dataset("small", pairs, pairs, pairs, num_users=1, num_items=3, features=features)


def test_padding_is_seen_without_a_catalogue(tmp_path):
    assert "as RecBole pads" in refusal(load, str(folder(tmp_path / "shop", image_npy=npy(rows(4, 0.0)))))
    counted = PAIRS.replace(",2,", ",3,").replace(",1,", ",2,").replace(",0,", ",1,")  # row 0 is of no item
    dataset = load(str(folder(tmp_path / "counted", interactions_csv=counted, image_npy=npy(rows(4, 0.0)))))
    assert np.array_equal(dataset.features["visual"].values, rows(4)[1:])


def test_rows_are_those_of_the_file(tmp_path):
    values = rows(9)
    values[7, 1] = np.inf
    sparse = PAIRS.replace(",2,", ",7,")
    assert "(rows 7, counted from 0)" in refusal(
        load, str(folder(tmp_path / "shop", interactions_csv=sparse, image_npy=npy(values)))
    )


@pytest.mark.parametrize("name", ["mmrec", "mmgcn"])
def test_a_row_of_nan_is_an_item_without_the_feature_in_every_format(tmp_path, name):
    values = rows(3)
    values[1] = np.nan
    if name == "mmrec":
        (tmp_path / "toy.inter").write_text("userID\titemID\tx_label\n0\t0\t0\n0\t1\t1\n0\t2\t2\n")
        (tmp_path / "image_feat.npy").write_bytes(npy(values))
    else:
        for part in ("train", "val", "test"):
            (tmp_path / f"{part}.npy").write_bytes(npy(np.array([[0, 1], [0, 2], [0, 3]])))
        content = torch_stream(tensor_pickle((3, 2)), values.tobytes(), size=6)
        (tmp_path / "feat_v.pt").write_bytes(content)
    assert load(str(tmp_path), format=name).features["visual"].present.tolist() == [True, False, True]


CASES = Path(os.environ.get("SLMREC_CASES") or Path(__file__).parents[4] / "shared" / "cases")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("f_extra", "65 rows for 60 items; expected row i to be item i: remove the rows"),
        ("f_less", "50 rows for 60 items; expected row i to be item i: give every item a row, all NaN"),
        ("f_nan", "(rows 3, counted from 0); fix them, or make a whole row NaN"),
        ("n_by_0_npy", "its shape is (999999999999999999, 0), but it holds no values"),
        ("tz_unknown", "user is a column of timestamp[us, tz=Nowhere/Land]; expected an id"),
        ("safetensors_float8", None),
        ("f_huge", None),
        ("f_csvmixed", None),
    ],
)
def test_reported_files(name, line):
    if not (CASES / name).is_dir():
        pytest.skip(f"no {name} in {CASES} (SLMREC_CASES names another place)")
    if line is not None:
        assert line in refusal(load, str(CASES / name), split="leave-one-out")
        return
    dataset = load(str(CASES / name), split="leave-one-out")
    assert "visual" in dataset.features
    assert dataclasses.replace(dataset, name="").fingerprint


WHOLE = PAIRS.replace(",0,", ",0.0,").replace(",1,", ",1.0,").replace(",2,", ",2.0,")
NO_VECTORS = {
    "ids of other items": (PAIRS, "item,x\n7,1.5\n8,2\n", "no row has an id of the data; its first id is '7', and the"),
    "ids with blanks": (
        PAIRS.replace(",0", ", 0").replace(",1", ", 1").replace(",2", ", 2"),
        "item,x\n0,1\n",
        "no row",
    ),
    "no values": (PAIRS, "item,x\n0,\n1,nan\n", "no row has values"),
    "NaN alone": (PAIRS, "x,y\nnan,nan\nnan,nan\nnan,nan\n", "the rows of all items are NaN"),
    "integers without a header": (PAIRS, "2,1,3\n0,1,2\n1,4,2\n", "the first column (column 1) looks like raw ids"),
    "lists in brackets": (PAIRS, 'item,v\n0,"[0.5, 1]"\n', "expected numbers separated by blanks"),
    "a header that counts from 1": (PAIRS, "1,2,3\n0.5,1,2\n1,2,2\n", "row 1 counts the columns"),
    "two columns of ids": (PAIRS, "item,item_id,x\n0,1,2\n", "'item', 'item_id' could all be the column of items"),
}


@pytest.mark.parametrize("name", NO_VECTORS)
def test_a_feature_that_fits_no_item_or_any_is_refused(tmp_path, name):
    interactions, image, line = NO_VECTORS[name]
    path = folder(tmp_path / "shop", interactions_csv=interactions, image_csv=image)
    assert line in refusal(load, str(path))


def test_ids_that_are_all_whole_floats_are_whole_numbers(tmp_path):
    dataset = load(str(folder(tmp_path / "a", interactions_csv=WHOLE, image_csv="item,x\n0,1.5\n2,2.5\n1,7\n")))
    assert dataset.item_ids.tolist() == [0, 1, 2]
    assert dataset.features["visual"].values.ravel().tolist() == [1.5, 7, 2.5]
    mixed = load(str(folder(tmp_path / "b", interactions_csv=WHOLE.replace(",2.0,", ",2.1,"))))
    assert mixed.item_ids.tolist() == ["0.0", "1.0", "2.1"]


def test_a_blank_line_of_one_column_is_an_empty_cell(tmp_path):
    dataset = load(str(folder(tmp_path / "a", image_csv="\nprice\n0.5\n\n2.5\n")))
    assert dataset.features["visual"].present.tolist() == [True, False, True]
    assert dataset.features["visual"].values[[0, 2]].ravel().tolist() == [0.5, 2.5]


def parquet(**columns):
    return foreign_files.parquet(pa.table(columns))


def test_an_index_of_pandas_is_no_feature(tmp_path):
    image = parquet(a=[0.5, 1.5, 2.5], __index_level_0__=[2, 1, 0])
    assert "reset_index(drop=True)" in refusal(load, str(folder(tmp_path / "a", image_parquet=image)))


def test_features_may_be_compressed_and_other_tables_are_not_read(tmp_path):
    path = folder(tmp_path / "a")
    (path / "features" / "image.csv.gz").write_bytes(gzip.compress(b"item,x\n0,0.5\n1,1.5\n2,2.5\n"))
    for name in ("users", "movies"):
        (path / f"{name}.csv.gz").write_bytes(gzip.compress(b"user,age\n1,2\n"))
    (path / "movies.parquet").write_bytes(parquet(movieId=[1, 2], title=["a", "b"]))
    (path / "genre.parquet").write_bytes(parquet(item=[0, 1, 2], x=[1, 2, 3]))
    dataset = load(str(path))
    assert list(dataset.features) == ["visual", "genre"]
    assert "not read: 'movies.csv.gz', 'movies.parquet', 'users.csv.gz'" in dataset.notes


def vectors_of_text_ids(file, ids, values, **metadata):
    write_tensors({"values": values, **encode_text_ids(np.array(ids))}, file, metadata=metadata)


def test_ids_of_text_and_the_model_are_read_from_safetensors(tmp_path):
    shop = folder(tmp_path / "shop", interactions_csv=NAMED)
    made = {"source": "title", "model": "small", "model_sha256": "0123456789abcdef"}
    vectors_of_text_ids(shop / "features" / "text.safetensors", ["c", "ä€", "a"], VALUES.astype(np.float16), **made)
    data = load(shop)
    feature = data.features["textual"]
    assert feature.values.dtype == np.float16
    assert np.array_equal(feature.values, np.float16([VALUES[2], [0, 0], VALUES[0]]))
    assert feature.present.tolist() == [True, False, True]
    assert "text.safetensors: made from title by small (SHA-256 0123456789ab…)" in data.notes


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"item_bytes": np.uint8([97]), "item_offsets": np.int64([0, 1])}, "1 ids for 3 rows"),
        ({"item_bytes": np.uint8([97]), "item_offsets": np.int64([0, 1, 9, 1])}, "are not valid text"),
        ({"item_bytes": np.uint8([97, 255, 98]), "item_offsets": np.int64([0, 1, 2, 3])}, "are not valid text"),
        ({"item_bytes": np.uint8([97]), "item_offsets": np.int32([0, 1, 1, 1])}, "expected bytes, and int64"),
        ({"item_bytes": np.uint8([97]), "item_offsets": np.zeros(0, np.int64)}, "expected bytes, and int64"),
        ({"item_bytes": np.uint8([97]), "item_offsets": np.int64([0] * 4), "item": np.arange(3)}, "ids of text"),
    ],
)
def test_damaged_ids_of_text_are_refused(tmp_path, tensors, said):
    write_tensors({"values": VALUES, **tensors}, tmp_path / "text.safetensors")
    assert said in refusal(read_vectors, tmp_path / "text.safetensors", None)


def test_new_items_take_the_item_column_of_the_data_and_skip_names_with_a_dot(tmp_path):
    shop = folder(tmp_path / "shop", interactions_csv=NAMED.replace("item", "thing"), image_npy=npy(VALUES))
    (shop / "items.csv").write_text("thing\na\nb\nc\n")
    new = tmp_path / "new"
    new.mkdir()
    (new / "image.parquet").write_bytes(parquet(thing=["y", "x"], v=VALUES[:2].tolist()))
    (new / "._image.parquet").write_bytes(b"\0\5\26\7")
    found = read_new_items(new, load(shop, item_column="thing"))
    assert found.ids.tolist() == ["x", "y"]
    assert np.array_equal(found.features["visual"].values, VALUES[[1, 0]])
