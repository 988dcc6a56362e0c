"""Folders that Hugging Face `datasets` writes hold features: the same layout is written here by Arrow."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign_files import arrow, refusal

from slmrec_jax.content.catalogue import read_catalogue
from slmrec_jax.data import load
from slmrec_jax.data.new_items import read_new_items
from slmrec_jax.data.readers.feature_tables import read_vectors

PAIRS = "user,item,split\nu,a,train\nu,b,valid\nv,c,train\nv,a,test\n"
VALUES = {"b": [3.0, 4.5], "a": [0.5, -1.25], "z": [9.0, 9.0]}
"""By raw id: an item of the data lacks a vector, and one is not in the data."""
EXPECTED = [VALUES["a"], VALUES["b"], [0.0, 0.0]]
PICTURES = pa.array(
    [{"bytes": b"GIF89a", "path": None}] * 3, pa.struct([("bytes", pa.binary()), ("path", pa.string())])
)


def columns(kind=None, **others):
    vectors = pa.array(list(VALUES.values()), kind or pa.list_(pa.float32()))
    return {"item": list(VALUES), "vector": vectors} | others


def save_to_disk(folder, *shards, **options):
    """Write a table, or several as its shards, as `Dataset.save_to_disk` does."""
    folder.mkdir(parents=True)
    names = [f"data-{place:05d}-of-{len(shards):05d}.arrow" for place in range(len(shards))]
    metadata = {"huggingface": json.dumps({"info": {"features": {}}})}
    for name, shard in zip(names, map(pa.table, shards), strict=True):
        (folder / name).write_bytes(arrow(shard.replace_schema_metadata(metadata), **options))
    written = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0c252037412a1d5c"}
    (folder / "state.json").write_text(json.dumps({**written, "_format_type": None, "_split": None}, indent=2))
    (folder / "dataset_info.json").write_text(json.dumps({"citation": "", "features": {}}, indent=2))
    return folder


def save_dict(folder, **splits):
    """Write a folder for each split, as `DatasetDict.save_to_disk` does."""
    for name, table in splits.items():
        save_to_disk(folder / name, table)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return folder


@pytest.fixture
def shop(tmp_path):
    """A data set of the items a, b and c, without features."""
    (tmp_path / "interactions.csv").write_text(PAIRS)
    (tmp_path / "features").mkdir()
    return tmp_path


def parts(table):
    return [pa.table(table).slice(0, 1), pa.table(table).slice(1)]


def hub(folder, table, place="data"):
    (folder / place).mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(parts(table)):
        pq.write_table(part, folder / place / f"train-{number:05d}-of-00002.parquet")


LAYOUTS = {
    "saved": lambda folder: save_to_disk(folder, columns()),
    "saved as shards": lambda folder: save_to_disk(folder, *parts(columns())),
    "splits": lambda folder: save_dict(folder, **dict(zip(("train", "test"), parts(columns()), strict=True))),
    "from the Hub": lambda folder: hub(folder, columns()),
    "Parquet in the folder itself": lambda folder: hub(folder, columns(), "."),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_is_a_modality(shop, layout):
    LAYOUTS[layout](shop / "features" / "text")
    data = load(shop)
    assert list(data.features) == ["textual"]
    feature = data.features["textual"]
    assert feature.values.tolist() == EXPECTED
    assert feature.present.tolist() == [True, True, False]
    assert data.notes == (
        "text: rows of items that are not in the data, or without values: 1",
        "text: items without this feature: 1 of 3",
    )


@pytest.mark.parametrize("make", [pa.list_, pa.large_list, lambda number: pa.list_(number, 2)])
@pytest.mark.parametrize("layout", [save_to_disk, hub])
@pytest.mark.parametrize(
    ("number", "stored", "held"),
    [
        (pa.float16(), "float16", np.float16),
        (pa.float32(), "float32", np.float32),
        (pa.float64(), "float64", np.float32),
    ],
)
def test_lists_of_every_type_are_read(tmp_path, layout, make, number, stored, held):
    layout(tmp_path / "text", columns(make(number)))
    read = read_vectors(tmp_path / "text", "item", "textual")
    assert (read.stored, read.values.dtype) == (stored, held)
    assert read.values.tolist() == list(VALUES.values())
    assert read.keys.columns["item"].to_pylist() == list(VALUES)


def test_float16_of_one_parquet_file_is_held_as_it_is(shop):
    pq.write_table(pa.table(columns(pa.list_(pa.float16()))), shop / "features" / "text.parquet")
    feature = load(shop).features["textual"]
    assert (feature.stored, feature.values.dtype) == ("float16", np.float16)
    assert feature.values.tolist() == EXPECTED


@pytest.mark.parametrize("kind", [pa.list_(pa.float16()), pa.list_(pa.float16(), 2), pa.list_(pa.float32(), 2)])
@pytest.mark.parametrize("missing", [None, [np.nan, np.nan]])
def test_an_item_without_a_vector_or_with_one_of_nan_lacks_the_modality(shop, kind, missing):
    vectors = [missing, VALUES["a"], None]
    save_to_disk(shop / "features" / "text", {"item": ["b", "a", "c"], "v": pa.array(vectors, kind)})
    feature = load(shop).features["textual"]
    assert feature.present.tolist() == [True, False, False]
    assert feature.values.tolist() == [VALUES["a"], [0, 0], [0, 0]]


@pytest.mark.parametrize("place", ["features", "features/clip", "clip"])
def test_several_columns_of_vectors_are_modalities_by_their_names(shop, place):
    others = {"image_emb": columns()["vector"], "score": [1, 2, 3]}
    (shop / "features").rmdir()
    save_to_disk(shop / place, columns(**others))
    data = load(shop)
    assert list(data.features) == ["visual", "vector"]
    assert all(feature.values.tolist() == EXPECTED for feature in data.features.values())
    name = place.rpartition("/")[2]
    assert data.notes[-1] == f"{name}: columns that are not read: 'score'"


def test_ids_may_be_numbers_and_have_another_name(shop):
    (shop / "interactions.csv").write_text(PAIRS.replace(",a,", ",0,").replace(",b,", ",1,").replace(",c,", ",2,"))
    table = {"sku": [1, 0], "code": [0, 1], "v": [VALUES["b"], VALUES["a"]]}
    save_to_disk(shop / "features" / "text", table)
    assert load(shop).features["textual"].values.tolist() == EXPECTED
    (shop / "interactions.csv").write_text((shop / "interactions.csv").read_text().replace("item", "code"))
    data = load(shop, item_column="code")
    assert data.features["textual"].values.tolist() == [VALUES["b"], VALUES["a"], [0, 0]]
    assert "text: columns that are not read: 'sku'" in data.notes


def test_a_folder_beside_the_interactions_is_read_if_it_has_items_and_vectors(shop):
    save_to_disk(shop / "text", columns())
    save_to_disk(shop / "profiles", {"user": ["u", "v", "w"], **columns()})
    save_to_disk(shop / "prices", {"item": ["a"], "price": [1.5]})
    data = load(shop)
    assert list(data.features) == ["textual"]
    assert data.notes[-1] == "not read: 'features/', 'prices/', 'profiles/'"


def test_texts_and_pictures_without_vectors_get_a_command(shop):
    save_to_disk(shop / "features" / "things", {"item": list("abc"), "title": list("xyz"), "picture": PICTURES})
    data = load(shop)
    embed = f"slmrec-jax data embed {shop}/features/things {{}} --model MODEL --out {shop}/features"
    assert data.features == {}
    assert data.notes == (
        "things: no vectors for the column 'title'; make them with " + embed.format("--text title"),
        "things: no vectors for the pictures in 'picture'; save them in a folder PICTURES, each named after its item, "
        "and make vectors with " + embed.format("--images PICTURES"),
        "not read: 'features/'",
    )
    for name in ("text", "image"):
        np.save(shop / "features" / f"{name}.npy", np.ones((3, 2)))
    (shop / "items.csv").write_text("item\na\nb\nc\n")
    assert not [note for note in load(shop).notes if "data embed" in note]


def test_the_command_reads_the_texts(tmp_path):
    table = {"asin": list("abc"), "title": ["x", None, "z"], "image": PICTURES}
    catalogue = read_catalogue(save_to_disk(tmp_path / "things", table), ["title"], None)
    assert catalogue.ids.tolist() == list("abc")
    assert catalogue.columns == {"title": ["x", "", "z"]}
    assert "there is no column 'name'; it has 'asin', 'title'" in refusal(
        read_catalogue, tmp_path / "things", ["name"], None
    )


def test_new_items_may_be_in_a_folder(shop):
    save_to_disk(shop / "features" / "text", columns())
    data = load(shop)
    for name in ("new/text", "text_embeddings"):
        place = save_to_disk(shop / name, {"item": ["new", "other"], "v": [[1.0, 2.0], [3.0, 4.0]]})
        items = read_new_items(place.parent if name == "new/text" else place, data)
        assert items.ids.tolist() == ["new", "other"]
        assert items.features["textual"].values.tolist() == [[1, 2], [3, 4]]


# --- what is refused ---------------------------------------------------------------------------------------------

WRONG = {
    "rows of different lengths": (
        {"item": list("ab"), "v": [[1.0, 2.0], [1.0]]},
        "text: row 2: 1 numbers in v; expected 2, as in the first row with numbers",
    ),
    "no vector at all": (
        {"item": list("ab"), "v": pa.array([None, None], pa.list_(pa.float32()))},
        "text: no row of v has a number",
    ),
    "half a row": (
        {"item": list("ab"), "v": [[1.0, None], [1.0, 2.0]]},
        "text: 1 values in 1 rows are NaN or infinite as float32 (rows 1, counted from 1)",
    ),
    "an infinite value": ({"item": list("ab"), "v": [[1.0, 2.0], [np.inf, 1.0]]}, "(rows 2, counted from 1)"),
    "an id twice": ({"item": list("aa"), "v": [[1.0], [2.0]]}, "text: row 2: item is 'a' for the second time"),
    "an id that is missing": (
        {"item": ["a", None], "v": [[1.0], [2.0]]},
        "text: row 2: item is missing; expected an id",
    ),
    "no id of the data": ({"item": list("xy"), "v": [[1.0], [2.0]]}, "text: no row has an id of the data"),
    "no column of ids": (
        {"key": list("ab"), "v": [[1.0], [2.0]]},
        "text: there is no column of raw item ids; it has 'key', 'v': call it item, or name it with item_column",
    ),
    "two columns of ids": (
        {"item": list("ab"), "item_id": list("ab"), "v": [[1.0], [2.0]]},
        "text: 'item', 'item_id' could all be the column of items",
    ),
    "two columns of one modality": (
        {"item": list("ab"), "text_emb": [[1.0], [2.0]], "text_feat": [[1.0], [2.0]]},
        "text: the columns 'text_emb' and 'text_feat' are both textual features; keep one",
    ),
    "a name that cannot be shown": (
        {"item": list("ab"), "v\n": [[1.0], [2.0]], "w": [[1.0], [2.0]]},
        r"text: the column 'v\n' has control characters in its name; rename it",
    ),
    "lists of other things": (
        {"item": list("ab"), "v": [[1], [2]], "w": [[[1.0]], [[2.0]]]},
        "text: there is no column of vectors; it has 'item: string', 'v: list<item: int64>', "
        "'w: list<item: list<item: double>>': save one with lists of floats",
    ),
    "ids of another type": (
        {"item": pa.array(list("ab"), pa.string_view()), "v": [[1.0], [2.0]]},
        "data-00000-of-00001.arrow: 'item' is a column of string_view; expected numbers, text",
    ),
    "categories": (
        {"item": pa.array(list("ab")).dictionary_encode(), "v": [[1.0], [2.0]]},
        "'item' is a column of dictionary<values=string",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused(shop, name):
    table, said = WRONG[name]
    place = save_to_disk(shop / "features" / "text", table)
    line = refusal(load, shop)
    assert line.startswith(str(place))
    assert said in line


def test_two_modalities_of_one_name_are_refused(shop):
    save_to_disk(shop / "features" / "text", columns())
    np.save(shop / "features" / "text.npy", np.ones((3, 2)))
    assert "features/text.npy and " in (said := refusal(load, shop))
    assert "features/text are both textual features; keep one" in said


def test_a_column_of_one_split_alone_is_not_dropped(shop):
    more = columns(acoustic=pa.array([[1.0]] * 3))
    save_dict(shop / "features" / "clip", train=columns(), test=more)
    assert "'acoustic' is in only one of it and" in refusal(load, shop)


def test_a_folder_that_cannot_be_entered_is_no_saved_dataset(shop, monkeypatch):
    before, entered = Path.is_file, []

    def is_file(path):
        if path.parent.name == "lost+found":
            entered.append(path)
            raise PermissionError(13, "Permission denied")
        return before(path)

    (shop / "lost+found").mkdir()
    monkeypatch.setattr(Path, "is_file", is_file)
    assert load(shop).num_items == 3
    assert entered


def test_one_column_in_features_itself_is_named_by_its_column(shop):
    (shop / "features").rmdir()
    save_to_disk(shop / "features", columns() | {"item": list(VALUES)})
    assert list(load(shop).features) == ["vector"]


def test_new_items_may_be_in_a_folder_as_on_the_hub(shop):
    folder = shop / "features" / "clip" / "data"
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns()), folder / "train-00000-of-00001.parquet")
    dataset = load(shop)
    assert list(dataset.features) == ["clip"]
    new = shop.parent / "new" / "clip"
    (new / "data").mkdir(parents=True)
    pq.write_table(pa.table(columns() | {"item": ["x", "y", "w"]}), new / "data" / "train-00000-of-00001.parquet")
    assert list(read_new_items(new, dataset).ids) == ["w", "x", "y"]


def test_parts_that_differ_are_refused(shop):
    wide = columns(pa.list_(pa.float64()))
    save_to_disk(shop / "features" / "text", columns(), wide)
    line = refusal(load, shop)
    assert "data-00001-of-00002.arrow: vector is a column of list<item: double>, but of list<item: float> in " in line
    save_dict(shop / "features" / "image", train=columns(), test={"item": ["c"]})
    (shop / "features" / "text" / "state.json").unlink()
    assert "test/data-00000-of-00001.arrow: 'vector' is in only one of it and" in refusal(load, shop)


@pytest.mark.parametrize(
    "name", ["../text.arrow", "/etc/passwd", "..", ".", "", "a/b", "a\0b", 7, None, "data-00000-of-00001.arrow"]
)
def test_a_list_of_files_names_only_what_is_beside_it(shop, name):
    place = save_to_disk(shop / "features" / "text", columns())
    listed = ["data-00000-of-00001.arrow", name]
    (place / "state.json").write_text(json.dumps({"_data_files": [{"filename": each} for each in listed]}))
    said = "as entry 1; expected the names of files beside it, each once: save the data set again with save_to_disk"
    assert said in refusal(load, shop)
    (place / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "train" if name == listed[0] else name]}))
    assert "as entry 1; expected the names of splits beside it" in refusal(load, shop)


@pytest.mark.parametrize("content", ["[]", "{}", '{"_data_files": []}', '{"_data_files": [3]}', '{"_data_files": "x"}'])
def test_a_list_without_files_is_refused(shop, content):
    place = save_to_disk(shop / "features" / "text", columns())
    (place / "state.json").write_text(content)
    assert "text/state.json: it does not list the names of files; save the data set again" in refusal(load, shop)
    (place / "dataset_dict.json").write_text('{"splits": {"train": 0}}')
    assert "text/dataset_dict.json: it does not list the names of splits; save" in refusal(load, shop)
    (place / "dataset_dict.json").unlink()
    (place / "state.json").write_text(content[:-1])
    assert "text/state.json: not readable as JSON" in refusal(load, shop)


def test_damage_is_refused(shop):
    file = save_to_disk(shop / "features" / "text", columns(item=["ä", "a", "z"])) / "data-00000-of-00001.arrow"
    whole = file.read_bytes()
    end = whole[-8:]
    first = 8 + int.from_bytes(whole[4:8], "little")
    without_schema = whole[first:]
    for content, said in (
        (b"", "not a readable Arrow stream (cannot mmap an empty file)"),
        (end, "not a readable Arrow stream (it does not begin with a schema)"),
        (without_schema, "not a readable Arrow stream (it does not begin with a schema)"),
        (whole[:-8], "not a readable Arrow stream (its last bytes are not the end of a stream)"),
        (whole[:600] + end, "not a readable Arrow stream"),
        (b"ARROW1\0\0" + whole, "not a readable Arrow stream"),
        (
            whole.replace("ä".encode(), b"\xff\xff"),
            "(In column 0: Invalid: Invalid UTF8",
        ),
        (whole.replace(b"vector", b"v\x80ctor"), "not a readable Arrow stream ('utf-8' codec can't decode"),
    ):
        file.write_bytes(content)
        line = refusal(load, shop)
        assert said in line
        assert line.startswith(f"{file}: ")
    file.unlink()
    assert "data-00000-of-00001.arrow: there is no such file; expected an Arrow stream" in refusal(load, shop)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_stream_that_could_unpack_to_any_size_is_refused(shop, codec):
    options = pa.ipc.IpcWriteOptions(compression=codec)
    save_to_disk(shop / "features" / "text", columns(), options=options)
    said = "(its buffers are compressed, or it has dictionaries); save the data set again with save_to_disk"
    assert said in refusal(load, shop)


def test_dictionaries_of_other_columns_are_refused(shop):
    save_to_disk(shop / "features" / "text", columns(kind_of=pa.array(list("xyx")).dictionary_encode()))
    assert "its buffers are compressed, or it has dictionaries" in refusal(load, shop)
