"""Data sets of frames and arrays in memory equal those of files with the same content."""

import datetime

import duckdb
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

import slmrec_jax as slm
from slmrec_jax import UserError

USERS = ["u2", "u1", "u1", "u3", "u2", "u1", "u3", "u2", "u3"]
ITEMS = ["b", "a", "c", "a", "c", "b", "b", "a", "d"]
TIMES = [1, 2, 3, 4, 5, 6, 7, 8, 9]
COLUMNS = {"user": USERS, "item": ITEMS, "timestamp": TIMES}
VECTORS = np.arange(8, dtype=np.float32).reshape(4, 2)
SPLIT = "leave-one-out"


class OnlyInterchange:
    """A frame that has the dataframe interchange protocol and no other."""

    def __init__(self, table):
        self._table = table

    def __dataframe__(self, **options):
        return self._table.__dataframe__(**options)


class Frame:
    """A frame, by its columns."""

    columns = ("x", "y")


def pandas_frame():
    return pytest.importorskip("pandas").DataFrame(COLUMNS)


def pandas_categories():
    return pandas_frame().astype({"user": "category", "item": "category"})


def polars_frame():
    return pytest.importorskip("polars").DataFrame(COLUMNS)


def duckdb_relation():
    connection = duckdb.connect()
    return connection.register("given", pa.table(COLUMNS)).table("given")


KINDS = {
    "mapping": lambda: COLUMNS,
    "arrays": lambda: {name: np.array(values) for name, values in COLUMNS.items()},
    "arrow": lambda: pa.table(COLUMNS),
    "dictionary": lambda: pa.table({**COLUMNS, "user": pa.array(USERS).dictionary_encode()}),
    "interchange": lambda: OnlyInterchange(pa.table(COLUMNS)),
    "stream": lambda: pa.RecordBatchReader.from_batches(pa.table(COLUMNS).schema, pa.table(COLUMNS).to_batches()),
    "record batch": lambda: pa.table(COLUMNS).to_batches()[0],
    "relation": duckdb_relation,
    "pandas": pandas_frame,
    "pandas categories": pandas_categories,
    "polars": polars_frame,
}


@pytest.fixture(scope="module")
def from_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shop"
    (folder / "features").mkdir(parents=True)
    pa.csv.write_csv(pa.table(COLUMNS), folder / "interactions.csv")
    pa.csv.write_csv(pa.table({"item": ["d", "c", "b", "a"]}), folder / "items.csv")
    np.save(folder / "features" / "clip.npy", VECTORS)
    return slm.load(folder, split=SPLIT)


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_of_any_kind_is_the_data_of_files(from_files, kind):
    found = slm.dataset(KINDS[kind](), features={"clip": VECTORS}, items=["d", "c", "b", "a"], split=SPLIT)
    assert found.fingerprint == from_files.fingerprint
    assert found.item_ids.tolist() == ["d", "c", "b", "a"]
    assert found.source is None


@pytest.mark.parametrize(
    "vectors",
    [
        (["a", "b", "c", "d"], VECTORS[::-1]),
        (np.array(["c", "x", "b", "d", "a"]), np.r_[VECTORS[1:2], [[9.0, 9.0]], VECTORS[[2, 0, 3]]]),
        {"d": VECTORS[0], "c": [2.0, 3.0], "b": VECTORS[2], "a": VECTORS[3]},
    ],
)
def test_features_may_be_keyed_by_id(from_files, vectors):
    found = slm.dataset(COLUMNS, features={"clip": vectors}, items=["d", "c", "b", "a"], split=SPLIT)
    assert found.fingerprint == from_files.fingerprint


def test_an_item_without_a_vector_lacks_the_modality():
    found = slm.dataset(COLUMNS, features={"clip": (["a", "c"], VECTORS[:2])}, split=SPLIT)
    assert found.features["clip"].present.tolist() == [True, False, True, False]
    holes = VECTORS.copy()
    holes[1] = np.nan
    by_row = slm.dataset(COLUMNS, features={"clip": holes}, items=["a", "b", "c", "d"], split=SPLIT)
    assert by_row.features["clip"].present.tolist() == [True, False, True, True]


def test_a_pair_of_arrays_of_numbers():
    found = slm.dataset((np.array([10, 10, 7]), np.array([2, 0, 1])), features={"x": VECTORS[:3]}, split="mmrec")
    assert found.user_ids.tolist() == [7, 10]
    assert found.item_ids.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(found.features["x"].values, VECTORS[:3])


def test_splits_by_mapping_and_by_column():
    parts = {"train": (USERS[:5], ITEMS[:5]), "validation": (USERS[5:7], ITEMS[5:7]), "test": (USERS[7:], ITEMS[7:])}
    labels = ["train"] * 5 + ["valid"] * 2 + ["test"] * 2
    by_mapping, by_column = slm.dataset(parts), slm.dataset({**COLUMNS, "split": labels})
    assert by_mapping.fingerprint == by_column.fingerprint
    assert [len(pairs.users) for pairs in by_mapping.splits.values()] == [5, 2, 2]


def test_times_ratings_and_cores():
    dates = [datetime.datetime(2020, 1, 1) + datetime.timedelta(days=day) for day in TIMES]
    assert slm.dataset({**COLUMNS, "timestamp": dates}, split=SPLIT).fingerprint == (
        slm.dataset(COLUMNS, split=SPLIT).fingerprint
    )
    rated = slm.dataset({**COLUMNS, "stars": [5] * 8 + [1]}, min_rating=2.0, split="mmrec")
    assert rated.item_ids.tolist() == ["a", "b", "c"]
    assert "rows with a rating below 2, left out: 1 of 9" in rated.notes[0]
    assert slm.dataset(COLUMNS, k_core=2, split="mmrec").item_ids.tolist() == ["a", "b", "c"]


def test_other_names_of_columns():
    renamed = {"who": USERS, "what": ITEMS}
    found = slm.dataset(renamed, user_column="who", item_column="what", split="mmrec")
    assert found.fingerprint == slm.dataset((USERS, ITEMS), split="mmrec").fingerprint


REFUSED = {
    "a number": ((3,), {}, "interactions is 3, of type int: give a pandas, Polars or Arrow table"),
    "empty": (({},), {}, "interactions is {}"),
    "no items": (({"user": USERS},), {}, "interactions: there is no column 'item'"),
    "lengths": (((USERS, ITEMS[:3]),), {}, "interactions: columns of 'user', 'item' have different lengths"),
    "missing": ((([*USERS[:4], None, *USERS[5:]], ITEMS),), {}, "interactions: row 4: user is missing"),
    "floats": ((([1.5] * 9, ITEMS),), {}, "interactions: row 0: user is 1.5"),
    "a split": (({"train": (USERS, ITEMS), "test": 3},), {}, "interactions['test'] is 3"),
    "no split": (((USERS, ITEMS),), {"split": None}, "it is not split; say how with split='NAME'"),
    "a wrong split": (((USERS, ITEMS),), {"split": "half"}, "there is no split 'half'"),
    "one dimension": (((USERS, ITEMS),), {"features": {"x": [1, 2]}}, "features['x']: an array of int64 of shape (2,)"),
    "an array of pairs": ((np.ones((2, 2)),), {}, "interactions is array([[1., 1... [1., 1.]]), of type ndarray"),
    "ragged": (
        ((USERS, ITEMS),),
        {"features": {"x": (["a", "b", "c"], [None, [1], [1, 2]])}},
        "features['x']: row 2 has 2 numbers, and row 1 has 1; give vectors of one length",
    ),
    "no vectors": (((USERS, ITEMS),), {"features": {"x": (["a"], [None])}}, "features['x']: every vector is missing"),
    "present": (
        ((USERS, ITEMS),),
        {"features": {"x": slm.Feature(VECTORS, np.ones(3, bool))}, "items": list("abcd")},
        "features['x']: `present` has the shape (3,) and `values` (4, 2)",
    ),
    "infinite in order": (
        ((USERS, ITEMS),),
        {"features": {"x": np.where(VECTORS == 4, np.inf, VECTORS)}, "items": list("abcd")},
        "features['x']: 1 values in 1 rows are NaN or infinite as float32 (rows 2, counted from 0); fix them, or make",
    ),
    "ids": (((USERS, ITEMS),), {"features": {"x": (["a"], VECTORS)}}, "features['x']: 1 ids for 4 vectors"),
    "twice": (
        ((USERS, ITEMS),),
        {"features": {"x": (["a", "b", "a", "d"], VECTORS)}},
        "features['x']: row 2: item is 'a' for the second time",
    ),
    "other ids": (((USERS, ITEMS),), {"features": {"x": (["y"], VECTORS[:1])}}, "features['x']: no row has an id"),
    "no order": (((USERS, ITEMS),), {"features": {"x": VECTORS}}, "features['x']: 4 rows without ids"),
    "rows": (((USERS, ITEMS),), {"features": {"x": VECTORS[:3]}, "items": list("abcd")}, "3 rows for 4 items"),
    "infinite": (
        ((USERS, ITEMS),),
        {"features": {"x": (["a"], np.array([[1.0, np.inf]]))}},
        "features['x']: 1 values in 1 rows are NaN or infinite as float32 (rows 0",
    ),
    "one split twice": (
        ({"train": (USERS, ITEMS), "val": (USERS, ITEMS), "validation": (USERS, ITEMS)},),
        {},
        "which all name the split ",
    ),
    "unknown split": (
        ({"train": (USERS, ITEMS), "eval": (USERS, ITEMS)},),
        {},
        "interactions has 'eval', which names no split; give train, ",
    ),
    "tuples": (([("u1", "a"), ("u2", "b")],), {}, "interactions is [('u1', 'a'), ('u2', 'b')], of type list"),
    "mixed": ((([1, "a", 2, 3, 4, 5, 6, 7, 8], ITEMS),), {}, "interactions: column 'user' cannot be read"),
    "numbers for names": (({"0": USERS, "1": ITEMS},), {}, "name the column of users with user_column"),
    "a name": (((USERS, ITEMS),), {"name": "a\x1b[31m"}, "is not a valid name for a data set or a modality"),
    "a frame": (((USERS, ITEMS),), {"features": {"x": Frame()}}, "features['x'] is of type Frame: give an array"),
    "two titles": (
        ((USERS, ITEMS),),
        {"items": {"item": list("abcd"), "title": list("abcd"), "Title": list("abcd")}},
        "items: 'title' and 'Title' are both columns of titles",
    ),
    "catalogue": (((USERS, ITEMS),), {"items": list("abc")}, "interactions: row 8: item is 'd', which items does not"),
    "catalogue twice": (((USERS, ITEMS),), {"items": list("aabcd")}, "items: row 1: item is 'a' for the second time"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_names_the_argument(case):
    arguments, options, expected = REFUSED[case]
    with pytest.raises(UserError) as raised:
        slm.dataset(*arguments, **{"split": "mmrec", **options})
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_else_is_a_column_of_ids_or_of_vectors():
    expected = slm.dataset((USERS, ITEMS), features={"x": (list("abcd"), VECTORS)}, split="mmrec")
    series = np.empty(4, np.object_)
    series[:] = list(VECTORS)
    holes = np.ma.masked_array(VECTORS, mask=[[False] * 2, [True] * 2, [False] * 2, [False] * 2])
    for same in (series, list(VECTORS), VECTORS.astype(np.float16), jnp.asarray(VECTORS, jnp.bfloat16)):
        found = slm.dataset((USERS, ITEMS), features={"x": (list("abcd"), same)}, split="mmrec")
        assert found.fingerprint == expected.fingerprint
    for lacking in (holes, slm.Feature(VECTORS, np.array([True, False, True, True]))):
        found = slm.dataset((USERS, ITEMS), features={"x": lacking}, items=list("abcd"), split="mmrec")
        assert found.features["x"].present.tolist() == [True, False, True, True]
    half = VECTORS.astype(np.float16)
    for vectors in ([half[0], None], [half[0], np.nan], pa.array([half[0].tolist(), None], pa.list_(pa.float16()))):
        for some in ({"a": vectors[0], "b": vectors[1]}, (["a", "b"], vectors)):
            if not isinstance(vectors[0], pa.Scalar) or isinstance(some, tuple):
                found = slm.dataset((USERS, ITEMS), features={"x": some}, split="mmrec").features["x"]
                assert found.present.tolist() == [True, False, False, False]
                assert found.values.dtype == np.float16
    masked = np.ma.masked_array(np.arange(9), mask=[False] * 8 + [True])
    with pytest.raises(UserError, match="row 8: user is missing"):
        slm.dataset((masked, ITEMS), split="mmrec")


def test_a_series_of_vectors_is_keyed_by_its_index():
    pandas = pytest.importorskip("pandas")
    expected = slm.dataset((USERS, ITEMS), features={"x": (list("abcd"), VECTORS)}, split="mmrec")
    series = pandas.Series(list(VECTORS[::-1]), index=list("dcba"))
    assert slm.dataset((USERS, ITEMS), features={"x": series}, split="mmrec").fingerprint == expected.fingerprint


def test_a_column_of_times_of_an_unknown_name_is_named():
    found = slm.dataset({"user": USERS, "item": ITEMS, "bought": TIMES}, split=SPLIT)
    assert "interactions: no known column of times; columns that are not read: 'bought'" in found.notes
    shop = slm.dataset({"customer": USERS, "sku": ITEMS, "ordered_at": TIMES}, split=SPLIT)
    assert shop.fingerprint == slm.dataset(COLUMNS, split=SPLIT).fingerprint


def test_numbers_beyond_any_column_are_refused_and_halves_are_read():
    ids = pa.array([1, 2, 2])
    with pytest.raises(UserError, match=r"interactions: .*60,0.*; make its columns numbers, text or times"):
        slm.dataset({"user": ids.cast(pa.decimal256(60, 0)), "item": [1, 2, 3]}, split="mmrec")
    halves = slm.dataset({"user": np.array([1, 2, 2], np.float16), "item": [1, 2, 3]}, split="mmrec")
    assert halves.user_ids.tolist() == [1, 2]


def test_columns_that_are_not_used_may_hold_anything():
    odd = {**COLUMNS, "note": [{"a": 1}, "text", 3, None, [1], 2.5, "x", "y", "z"]}
    assert slm.dataset(odd, split=SPLIT).fingerprint == slm.dataset(COLUMNS, split=SPLIT).fingerprint
    frame = pytest.importorskip("polars").DataFrame(COLUMNS)
    frame = frame.with_columns(frame["user"].cast(pytest.importorskip("polars").Categorical))
    assert slm.dataset(frame, split=SPLIT).fingerprint == slm.dataset(COLUMNS, split=SPLIT).fingerprint


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_columns_of_frames_that_are_not_used_may_hold_anything(library):
    frame = pytest.importorskip(library).DataFrame
    kinds = {"strict": False} if library == "polars" else {}
    odd = {"note": [{"a": 1}, object(), 3, None, [1], 2.5, "x", "y", "z"], "rating": [object(), "x", *[3] * 7]}
    mixed = frame({**COLUMNS, **{name: np.array(values, object) for name, values in odd.items()}}, **kinds)
    found = slm.dataset(mixed, split=SPLIT)
    assert found.fingerprint == slm.dataset(COLUMNS, split=SPLIT).fingerprint
    assert "ratings are not used: a row counts as an interaction whatever its rating" in found.notes
    with pytest.raises(UserError, match=r"interactions: (column 'rating' cannot be read|rating is a column of)"):
        slm.dataset(mixed, split=SPLIT, min_rating=2.0)


def test_an_id_is_the_same_in_all_tables():
    """`1.0` is written without its fraction where all ids are like that, and stays as it is where one table says so."""
    whole = slm.dataset({"train": (["1.0", "2.0"], ["x", "y"]), "test": (["1"], ["y"])})
    assert whole.user_ids.tolist() == [1, 2]
    parts = {"train": (["1.0", "a", "1.0"], ["x", "y", "y"]), "test": (["1.0", "1.0"], ["z", "w"])}
    mixed = slm.dataset(parts)
    assert mixed.user_ids.tolist() == ["1.0", "a"]
    assert (mixed.test.users == 0).all()


@pytest.mark.parametrize(
    ("items", "keys"),
    [
        (["1.0", "2.0", "a"], ["1.0", "2.0"]),
        (["1.0", "2.0", "3.0"], ["1.0", "a", "2.0"]),
        (["1", "2", "a"], ["1.0", "2.0"]),
        (["1", "2", "3.0"], ["1.0", "2.0"]),
        (["1", "2", "3"], ["1.0", "1", "2"]),
        ([1, 2, 3], [1.0, 2.0]),
    ],
)
def test_keys_of_features_are_those_of_items(items, keys):
    found = slm.dataset((list("abc"), items), features={"x": (keys, VECTORS[: len(keys)])}, split="mmrec")
    assert found.features["x"].present.tolist() == [True, True, False]
    if len(keys) == 3 and "1" in keys:  # an id as it is written wins
        np.testing.assert_array_equal(found.features["x"].values[:2], VECTORS[1:3])


def test_keys_that_become_one_are_refused():
    with pytest.raises(UserError, match=r"features\['x'\]: row 1: item is '1.00' for the second time"):
        slm.dataset((list("abc"), [1, 2, 3]), features={"x": (["1.0", "1.00"], VECTORS[:2])}, split="mmrec")


def test_missing_vectors_of_pandas_and_of_mappings():
    pandas = pytest.importorskip("pandas")
    for given in ({"a": VECTORS[0], "b": pandas.NA}, {"a": VECTORS[0], None: None}):
        found = slm.dataset((USERS, ITEMS), features={"x": given}, split="mmrec")
        assert found.features["x"].present.tolist() == [True, False, False, False]
