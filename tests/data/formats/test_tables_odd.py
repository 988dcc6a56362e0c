"""Tables whose names and values DuckDB would read in its own way: case, keys of folders, wide numbers, odd times."""

import datetime
import io
import urllib.parse

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_folders import ROWS, pairs, parquet, read, refusal, text, write

import slmrec_jax
from slmrec_jax.data import load, write_store
from slmrec_jax.data.readers.engine import Engine
from slmrec_jax.errors import UserError

pd = pytest.importorskip("pandas")

USERS, ITEMS, TIMES = zip(*ROWS, strict=True)
HOW = {"split": "leave-one-out"}
OTHERS = ["other"] * len(ROWS)


def table(*columns):
    """Return a table of (name, values), in which names may repeat."""
    names, values = zip(*columns, strict=True)
    return parquet(pa.table([pa.array(each) for each in values], names=list(names)))


def expected(folder):
    return read(folder, {"interactions.csv": text(ROWS)}, **HOW).fingerprint


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "item"),
    [
        (("ID", "id", "user", "timestamp"), "id"),
        (("ID", "id", "id_1", "user", "timestamp"), "id_1"),
        (("row", "part", "item", "filename", "file_row_number", "file_index", "user", "timestamp"), "item"),
        (("part", "row", "user", "timestamp"), "row"),
        (("item", "column_0", "column_1", "user", "timestamp"), "column_1"),
        (("filename", "file_index", "file_row_number", "user", "timestamp"), "file_row_number"),
    ],
)
@pytest.mark.parametrize("parts", [1, 2])
def test_the_column_of_exactly_that_name_is_read(tmp_path, names, item, parts):
    values = {item: ITEMS, "user": USERS, "timestamp": TIMES}
    files = {
        f"interactions/{n}.parquet": table(*((name, values.get(name, OTHERS)[n::parts]) for name in names))
        for n in range(parts)
    }
    assert read(tmp_path / "shop", files, item_column=item, **HOW).fingerprint == expected(tmp_path / "whole")


def test_the_store_reads_its_own_columns(tmp_path):
    dataset = read(tmp_path / "shop", {"interactions.parquet": parquet({"user": USERS, "item": ITEMS})}, split="mmrec")
    write_store(dataset, tmp_path / "stored")
    file = tmp_path / "stored" / "interactions.parquet"
    found = pq.read_table(file)
    names = ["USER_ROW", *found.column_names]
    pq.write_table(pa.table([np.zeros(len(found), np.int32), *found.columns], names=names), file)
    assert load(tmp_path / "stored").fingerprint == dataset.fingerprint


@pytest.mark.parametrize(("column", "key"), [("user", "user"), ("USER", "user"), ("user", "User")])
def test_a_key_that_is_also_a_column_is_refused(tmp_path, column, key):
    files = {f"interactions/{key}=x/0.parquet": table((column, USERS), ("item", ITEMS), ("timestamp", TIMES))}
    line = refusal(tmp_path, files, user_column="user", **HOW)
    assert line == (
        f"interactions/{key}=x/0.parquet: {column!r} is a column and {key!r} the key of a folder; rename one of them"
    )


def test_keys_that_are_not_used_may_differ(tmp_path):
    files = {f"interactions/{key}=1/0.parquet": text_part for key, text_part in zip("kj", halves(), strict=True)}
    assert read(tmp_path / "shop", files, **HOW).fingerprint == expected(tmp_path / "whole")
    line = refusal(tmp_path / "shop", user_column="k", **HOW)
    assert "slmrec-jax" not in line


def halves():
    return [table(("user", USERS[n::2]), ("item", ITEMS[n::2]), ("timestamp", TIMES[n::2])) for n in range(2)]


@pytest.mark.parametrize("value", ["it's", "a b", "ü", "a/b", "a=b"])
def test_values_of_keys_are_decoded(tmp_path, value):
    folder = tmp_path / "interactions"
    for n, user in enumerate([value, "other"]):
        write(folder / f"user={urllib.parse.quote(user, safe='')}", {f"{n}.parquet": table(("item", ["a", "b"]))})
    assert load(tmp_path, split="mmrec").user_ids.tolist() == sorted([value, "other"])


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("user=__HIVE_DEFAULT_PARTITION__", "row 1: user is missing; expected an id"),
        ("user=%FF", "has a name that is not UTF-8; rename it"),
        ("user=\udcff", "has a name that is not UTF-8; rename it"),
        ("user=%00", "row 1: user is "),
    ],
)
def test_a_key_without_a_text_is_refused(tmp_path, name, line):
    write(tmp_path / "interactions" / name, {"0.parquet": table(("item", ["a", "b"]))})
    assert line in refusal(tmp_path, split="mmrec")


def test_parts_may_differ_in_the_width_of_integers(tmp_path):
    kinds = (pa.int32(), pa.int64(), pa.uint8(), pa.int32())
    files = {
        f"interactions/{n}.parquet": table(
            ("user", pa.array([n, n + 1], kind)), ("item", [2**40, n]), ("timestamp", pa.array([n, n + 9], kind))
        )
        for n, kind in enumerate(kinds)
    }
    whole = {"user": [], "item": [], "timestamp": []}
    for n in range(len(kinds)):
        whole["user"] += [n, n + 1]
        whole["item"] += [2**40, n]
        whole["timestamp"] += [n, n + 9]
    same = read(tmp_path / "whole", {"interactions.parquet": parquet(whole)}, **HOW)
    assert read(tmp_path / "parts", files, **HOW).fingerprint == same.fingerprint
    bad = table(("user", [1, None]), ("item", [1, 2]), ("timestamp", [1, 2]))
    line = refusal(tmp_path / "parts", {"interactions/3.parquet": bad}, **HOW)
    assert line == "interactions/3.parquet: row 2: user is missing; expected an id"


# --- ids and numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["user", "item", "timestamp"])
def test_decimals_of_more_than_38_digits_are_refused(tmp_path, role):
    wide = pa.array([2**130 + n for n in range(len(ROWS))], pa.decimal256(60, 0))
    columns = {"user": USERS, "item": ITEMS, "timestamp": TIMES, role: wide}
    line = refusal(tmp_path, {"interactions.parquet": parquet(columns)}, **HOW)
    assert line.startswith(f"interactions.parquet: {role} is a column of decimal256(60, 0); expected ")
    assert "of at most 38 digits" in line


def test_bytes_of_one_length_are_text(tmp_path):
    users = pa.array([b"abcd", b"abcd", "é12".encode()], pa.binary(4))
    columns = {"user": users, "item": [1, 2, 3]}
    assert read(tmp_path, {"interactions.parquet": parquet(columns)}, split="mmrec").user_ids.tolist() == [
        "abcd",
        "é12",
    ]
    columns["user"] = pa.array([b"abcd", b"\xff\xfeab", b"abcd"], pa.binary(4))
    line = refusal(tmp_path, {"interactions.parquet": parquet(columns)}, split="mmrec")
    assert line.startswith("interactions.parquet: row 2: user is b'\\xff\\xfeab'; expected an id of text")


@pytest.mark.parametrize("least", [4.0, np.float64(4.0)])
def test_a_least_rating_may_be_of_any_kind(tmp_path, least):
    columns = {"user": ["a", "a", "b"], "item": ["x", "y", "x"], "rating": [3, 4, 5]}
    dataset = read(tmp_path, {"interactions.parquet": parquet(columns)}, split="mmrec", min_rating=least)
    assert sum(len(split.users) for split in dataset.splits.values()) == 2


@pytest.mark.parametrize("column", ["rating", "timestamp"])
def test_numbers_with_underscores_are_refused(tmp_path, column):
    rows = "".join(f"{user},{item},{time}\n" for user, item, time in [*ROWS, ("u9", "i9", "1_000")])
    how = HOW if column == "timestamp" else {"min_rating": 1.0, "split": "mmrec"}
    line = refusal(tmp_path, {"interactions.csv": f"user,item,{column}\n{rows}"}, **how)
    assert line.startswith(f"interactions.csv: row 18: {column} is '1_000'; expected a number")


# --- times -------------------------------------------------------------------------------------------------------


def last_items(times, kind):
    """Return a table of one user, and its items from the first to the last."""
    return pa.table({"user": ["u"] * len(times), "item": [f"i{n}" for n in range(len(times))], "time": kind(times)})


def order(folder, content):
    """Return the items of the only user in order of time, as leave-one-out finds them."""
    dataset = read(folder, {"interactions.parquet": content}, **HOW)
    return [dataset.item_ids[item] for split in dataset.splits.values() for _, item in pairs(split)]


LARGE = [
    (pa.timestamp("us"), 2**63 - 1),
    (pa.timestamp("ns"), 2**63 - 1),
    (pa.timestamp("us", "UTC"), 2**63 - 1),
    (pa.timestamp("ns", "UTC"), 2**63 - 1),
    (pa.timestamp("us"), 2**62),
    (pa.timestamp("ms"), 2**53),
    (pa.date32(), 2**31 - 1),
    (pa.date32(), 2**31 - 9),
]


@pytest.mark.parametrize(("kind", "large"), LARGE)
def test_the_largest_times_are_in_order(tmp_path, kind, large):
    times = [5, large, -large]
    table = last_items(times, lambda values: pa.array(values, kind))
    items = ["i2", "i0", "i1"]
    assert order(tmp_path, parquet(table)) == items
    dataset = slmrec_jax.dataset(table, **HOW)
    assert [dataset.item_ids[item] for split in dataset.splits.values() for _, item in pairs(split)] == items


def test_int96_of_a_far_year_is_in_order(tmp_path):
    times = [datetime.datetime(2020, 1, 1), datetime.datetime(9999, 12, 31), datetime.datetime(1, 1, 1)]
    buffer = io.BytesIO()
    table = last_items(times, lambda values: pa.array(values, pa.timestamp("us")))
    pq.write_table(table, buffer, use_deprecated_int96_timestamps=True)
    assert order(tmp_path, buffer.getvalue()) == ["i2", "i0", "i1"]


@pytest.mark.parametrize(("unit", "large"), [("s", 2**50), ("ms", 2**62), ("ms", -(2**62))])
def test_times_that_are_too_large_name_their_row(tmp_path, unit, large):
    table = last_items([1, 2, large, 4], lambda values: pa.array(values, pa.timestamp(unit)))
    for statistics in (True, False):
        pq.write_table(table, tmp_path / "interactions.parquet", row_group_size=2, write_statistics=statistics)
        line = refusal(tmp_path, **HOW)
        assert line.startswith("interactions.parquet: row 3: timestamp is ")
        assert line.endswith("; expected a time between the years -290000 and 290000")
    with pytest.raises(UserError, match=r"interactions: row 2: timestamp is .*; expected a time between the years"):
        slmrec_jax.dataset(table, **HOW)


DATES = ["2020-01-02", "2020-01-02 10:00", "2020-01-02T10:00:00.5"]


@pytest.mark.parametrize("first", [*DATES, "2020-01-02T10:00:00Z", "2020-01-02 10:00:00+02:00"])
@pytest.mark.parametrize(
    "odd",
    ["infinity", "-infinity", "epoch", "2020-01-01 (BC)", "2020-01-01 00:00:00 BC", "294247-01-10", "1_000"],
)
def test_text_that_is_no_date_names_its_row(tmp_path, first, odd):
    line = refusal(tmp_path, {"interactions.csv": text([("a", "x", first), ("a", "y", odd), ("a", "z", first)])}, **HOW)
    assert line == f"interactions.csv: row 3: timestamp is {odd!r}; expected a date in the same form as the first"


@pytest.mark.parametrize("zone", ["Z", "+02", "+0200", "+02:00", " UTC"])
def test_dates_in_a_zone_are_read(tmp_path, zone):
    rows = [("a", "x", f"2020-01-02 10:00:03{zone}"), ("a", "y", f"2020-01-02T10:00:02.5{zone}")]
    dataset = read(tmp_path, {"interactions.csv": text([*rows, ("a", "z", f"2020-01-02 10:00:01{zone}")])}, **HOW)
    assert dataset.test.items.tolist() == [0]


# --- damage ------------------------------------------------------------------------------------------------------


def test_damage_that_appears_late_names_its_file(tmp_path):
    (tmp_path / "interactions").mkdir()
    rng = np.random.default_rng(0)
    for n in range(3):
        file = tmp_path / "interactions" / f"{n}.parquet"
        columns = {name: rng.integers(2**20, size=200_000) for name in ("user", "item")}
        pq.write_table(pa.table(columns), file, row_group_size=50_000, compression="zstd", use_dictionary=False)
        if n == 1:
            content = bytearray(file.read_bytes())
            content[len(content) // 2 : len(content) // 2 + 99_000] = b"\xff" * 99_000
            file.write_bytes(content)
    line = refusal(tmp_path, split="mmrec")
    assert line.startswith("interactions/1.parquet: not a readable Parquet file (")
    assert "slmrec-jax-" not in line
    engine = Engine(sorted((tmp_path / "interactions").iterdir()))
    with pytest.raises(UserError, match=r"interactions/1\.parquet: "), engine._refusing():
        raise pa.ArrowInvalid("a message that names no file")


def test_a_store_damaged_in_the_middle_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    columns = {"user": rng.integers(5000, size=300_000), "item": rng.integers(2**12, size=300_000)}
    dataset = read(tmp_path / "shop", {"interactions.parquet": parquet(columns)}, split="mmrec")
    write_store(dataset, tmp_path / "stored")
    file = tmp_path / "stored" / "interactions.parquet"
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 9000] = b"\xff" * 9000
    file.write_bytes(content)
    line = refusal(tmp_path / "stored")
    assert line.startswith("interactions.parquet: not a readable Parquet file (")


def test_text_in_memory_that_is_not_utf_8_is_refused():
    users = pa.Array.from_buffers(pa.string(), 2, pa.array([b"a", b"\xff\xfe"]).buffers())
    with pytest.raises(UserError, match=r"interactions: .*; make its columns numbers, text or times; text must be UTF"):
        slmrec_jax.dataset(pa.table({"user": users, "item": [1, 2]}), split="mmrec")


def test_dates_of_pandas_are_read():
    frame = pd.DataFrame({"user": ["u"] * 3, "item": list("xyz"), "time": pd.to_datetime(["2020", "2019", "2018"])})
    for unit in ("s", "ms", "us", "ns"):
        frame["time"] = frame["time"].astype(f"datetime64[{unit}]")
        assert slmrec_jax.dataset(frame, **HOW).test.items.tolist() == [0]
