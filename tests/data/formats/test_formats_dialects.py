"""Tables as tools and people write them: separators, encodings, line ends, quotes, and numbers and times in text."""

import bz2
import datetime
import gzip

import pyarrow as pa
import pytest
from small_folders import ROWS, SHARED, parquet, read, refusal, shared_folder, splits, text

from slmrec_jax.data import load

TYPED = "user_id:token,item_id:token,timestamp:float"
DIALECTS = {
    "semicolons": ("clicks.csv", text(ROWS, ";")),
    "tabs in .csv": ("clicks.csv", text(ROWS, "\t")),
    "bars": ("clicks.csv", text(ROWS, "|")),
    "commas in .tsv": ("clicks.tsv", text(ROWS)),
    "text": ("clicks.txt", text(ROWS, "\t")),
    "carriage returns": ("clicks.csv", text(ROWS, end="\r")),
    "UTF-16": ("clicks.csv", text(ROWS).encode("utf-16")),
    "UTF-16, big-endian": ("clicks.csv", b"\xfe\xff" + text(ROWS, end="\r\n").encode("utf-16-be")),
    "UTF-32": ("clicks.csv", text(ROWS).encode("utf-32")),
    "marked UTF-8": ("clicks.csv", b"\xef\xbb\xbf" + text(ROWS, ";").encode()),
    "gzip": ("interactions.csv.gz", gzip.compress(text(ROWS).encode())),
    "gzip of UTF-16 with tabs": ("clicks.tsv.gz", gzip.compress(text(ROWS, "\t").encode("utf-16"))),
    "bzip2": ("clicks.csv.bz2", bz2.compress(text(ROWS).encode())),
    "zstandard": ("clicks.csv.zst", pa.compress(text(ROWS).encode(), codec="zstd", asbytes=True)),
    "capitals and blanks": ("clicks.csv", text(ROWS, header="User ID,ITEM-ID,Time")),
    "MovieLens": ("ratings.csv", text(ROWS, header="userId,movieId,timestamp")),
    "Amazon": ("reviews.csv", text(ROWS, header="reviewerID,asin,unixReviewTime")),
    "RetailRocket": ("events.csv", text(ROWS, header="visitorid,itemid,timestamp")),
    "sessions": ("clicks.csv", text(ROWS, header="session_id,product_id,ts")),
    "RecBole with commas": ("clicks.inter", text(ROWS, header=TYPED)),
    "RecBole sessions": ("clicks.inter", text(ROWS, "\t", TYPED.replace("user", "session"))),
    "RecBole, compressed": ("clicks.inter.gz", gzip.compress(text(ROWS, "\t", TYPED).encode())),
    "a file known by its name, but with a header": ("ratings.dat", text(ROWS, "\t")),
    "less common names beside the common ones": (
        "x.csv",
        text([(*row, 1, 2) for row in ROWS], header="user,item,timestamp,session_id,movieId"),
    ),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_a_dialect_holds_the_same_data(tmp_path, name):
    file, content = DIALECTS[name]
    expected = read(tmp_path / "plain", {"interactions.csv": text(ROWS)}, split="leave-one-out")
    assert read(tmp_path / "folder", {file: content}, split="leave-one-out").fingerprint == expected.fingerprint


NUMBERS = [(user[1:], item[1:], 5, time) for user, item, time in ROWS]
BY_NAME = {
    "u.data": {"u.data": text(NUMBERS, "\t", ""), "u.item": b"1|caf\xe9\n", "u1.base": text(NUMBERS[:2], "\t", "")},
    "ratings.dat": {"ratings.dat": text(NUMBERS, "::", ""), "movies.dat": b"1::caf\xe9::x\n"},
    "pairs.tsv": {
        "shop_pairs.tsv": "".join(f"{user}\t{' '.join(str(user + step) for step in range(4))}\n" for user in range(4))
    },
}


@pytest.mark.parametrize("name", BY_NAME)
def test_files_without_a_header_are_known_by_their_name(tmp_path, name):
    plain = {"x.csv": text(NUMBERS, header="user,item,rating,time")}
    expected = read(tmp_path / "plain", plain, split="leave-one-out")
    assert read(tmp_path / "known", BY_NAME[name], split="leave-one-out").fingerprint == expected.fingerprint


def test_lists_have_an_order_for_each_user_alone(tmp_path):
    files = {"shop_pairs.tsv": "1\t5 3 5 4\n2\t4 5\n", "shop_likes_and_views.txt": "5\t1\t2\n"}
    dataset = read(tmp_path, files, split="leave-one-out")
    assert dataset.item_ids[dataset.test.items].tolist() == [4]
    assert dataset.notes[:2] == (
        "not read: 'shop_likes_and_views.txt'",
        "rows that repeat an interaction, merged: 1 of 6",
    )
    assert "these data have only each user's order" in refusal(tmp_path, split="time")
    long = {"shop_pairs.tsv": f"1\t5\n2\t4 {'x' * 300}\n"}
    assert "shop_pairs.tsv: row 2: item is 'xxx" in refusal(tmp_path, long, split="time")


def test_lists_give_way_to_a_table_with_times(tmp_path):
    dataset = read(tmp_path, {"shop_pairs.tsv": "1\t5 3\n", "shop_pairs.csv": text(ROWS)}, split="time")
    assert "not read: 'shop_pairs.tsv'" in dataset.notes


def test_other_formats_read_other_separators_and_encodings(tmp_path):
    folders = {
        "lightgcn": {"train.txt": "0 1 2\r1 0\r".encode("utf-16"), "test.txt": b"\xef\xbb\xbf0 0\r\n"},
        "lightgcn pairs": {"data1.txt": "1;2;1\n1;3;1\n2;1;1\n", "test1.txt": "1\t1\t1\n"},
        "mmrec": {
            "x.inter": "userID;itemID;x_label\n0.0;1;0.0\n0.0;2;0.0\n1.0;0;0.0\n0.0;0;2.0\n",
            "u_id_mapping.csv": "user_id|userID\n0|0\n1|1\n",
        },
    }
    for name, files in folders.items():
        assert splits(read(tmp_path / name, files)) == [[(0, 1), (0, 2), (1, 0)], [], [(0, 0)]], name
    neurec = read(tmp_path / "neurec", {"x.train": "0;1\n0;2\n1;0\n", "x.test": "0,0\n"})
    assert splits(neurec) == [[(0, 0), (0, 1), (1, 2)], [], [(0, 2)]]


UNREADABLE = {
    "UTF-16 without a mark": (
        "interactions.csv",
        text(ROWS).encode("utf-16-le"),
        "NUL in row 1, as in UTF-16 without a byte-order mark; save the table as UTF-8",
    ),
    "Latin-1": ("interactions.csv", "user,item\nJosé,b\n".encode("latin-1"), "UTF8 data; save the table as UTF-8"),
    "too many columns": ("interactions.csv", "user,item" + ",x" * 20000, "row 1 has more than 10000 columns"),
    "not compressed": ("interactions.csv.gz", b"hello", "not a readable table (zlib"),
    "cut off": ("interactions.csv.gz", gzip.compress(text(ROWS).encode())[:-9], "not a readable table (Trunc"),
    "a bomb": (
        "interactions.csv.gz",
        gzip.compress(b"user,item\n" + b"a,b\n" * 5_000_000, 1),
        "it unpacks to more than 50 times its size",
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_table_that_cannot_be_read_is_refused(tmp_path, name):
    file, content, line = UNREADABLE[name]
    found = refusal(tmp_path, {file: content}, split="mmrec")
    assert found.startswith(f"{file}: ")
    assert line in found


# --- numbers and times -------------------------------------------------------------------------------------------


def test_whole_numbers_may_be_written_as_floating_point(tmp_path):
    rows = "user,item,split,time\na,x,0.0,1.0\na,y,1.0,2.0\na,z,2.0,3.0\n"
    assert splits(read(tmp_path, {"interactions.csv": rows})) == [[(0, 0)], [(0, 1)], [(0, 2)]]


TIMES = [
    pa.array([1, 5, 3, 4, 2]),
    pa.array([0.1, 0.5, 0.3, 0.4, 0.2]),
    pa.array(["1", "50", "30", "40", "2"]),
    pa.array(["1", "5e1", "3e1", "4e1", "2"]),
    pa.array([datetime.datetime(2020, 1, day, 10) for day in (1, 5, 3, 4, 2)]),
    pa.array([datetime.date(2020, 1, day) for day in (1, 5, 3, 4, 2)]),
    pa.array([f"2020-01-0{day}" for day in (1, 5, 3, 4, 2)]),
    pa.array([f"2020-01-01T0{hour}:00:00Z" for hour in (1, 5, 3, 4, 2)]),
    pa.array([f"2020-01-01 10:00:00+0{9 - hour}:00" for hour in (1, 5, 3, 4, 2)]),
]


@pytest.mark.parametrize("times", TIMES, ids=[f"{times.type} {times[1]}" for times in TIMES])
def test_times_of_any_kind(tmp_path, times):
    content = parquet({"user": ["ann"] * 5, "item": list("abcde"), "timestamp": times})
    dataset = read(tmp_path, {"interactions.parquet": content}, split="leave-one-out")
    assert splits(dataset) == [[(0, 0), (0, 2), (0, 4)], [(0, 3)], [(0, 1)]]


def test_times_are_read_only_if_the_split_uses_them(tmp_path):
    read(tmp_path, {"interactions.csv": b"user,item,timestamp\na,x,\na,y,1\na,z,2\n"}, split="mmrec")
    assert "interactions.csv: row 2: timestamp is ''" in refusal(tmp_path, split="time")


TICK = 1_694_282_882_238_000_000
NANOSECONDS = {
    "text": [str(TICK + step) for step in (3, 2, 1)],
    "text with a fraction": [f"{TICK + step}.0" for step in (3, 2, 1)],
    "dates as text": [f"2023-09-09T18:08:02.{238_000_000 + step:09}" for step in (3, 2, 1)],
    "whole numbers": [TICK + step for step in (3, 2, 1)],
    "timestamps": pa.array([TICK + step for step in (3, 2, 1)], pa.timestamp("ns")),
}


@pytest.mark.parametrize("times", NANOSECONDS.values(), ids=NANOSECONDS)
def test_times_one_nanosecond_apart_are_in_order(tmp_path, times):
    for number, order in enumerate(([0, 1, 2], [2, 1, 0])):
        table = pa.table({"user": ["a"] * 3, "item": ["x", "y", "z"], "time": times}).take(order)
        dataset = read(tmp_path / str(number), {"interactions.parquet": parquet(table)}, split="leave-one-out")
        assert splits(dataset) == [[(0, 2)], [(0, 1)], [(0, 0)]]


def test_times_may_be_decimals_without_a_fraction_or_have_blanks_around(tmp_path):
    times = [10**18 + 3, 10**18 + 1, 10**18 + 2]
    rows = "user,item,time\n" + "".join(f"u,{item}, {time}\n" for item, time in enumerate(times))
    columns = {"user": ["u"] * 3, "item": [0, 1, 2], "time": pa.array(times).cast(pa.decimal128(20, 0))}
    half = {**columns, "time": pa.array([1.5, 2.5, 3]).cast(pa.decimal128(20, 1))}
    for name, files in (("text", {"x.csv": rows}), ("decimals", {"x.parquet": parquet(columns)})):
        assert read(tmp_path / name, files, split="leave-one-out").test.items.tolist() == [0]
    line = refusal(tmp_path / "half", {"x.parquet": parquet(half)}, split="leave-one-out")
    assert "row 1: timestamp is Decimal('1.5'); expected a whole number" in line


@pytest.mark.parametrize("times", [("10:00:00 UTC", "11:30:00 UTC"), ("10:00:00+02", "09:30:00+00")])
def test_times_may_name_their_zone_in_short(tmp_path, times):
    rows = "user,item,time\n" + "".join(f"u,{item},2020-01-01 {time}\n" for item, time in enumerate(times[::-1]))
    dataset = read(tmp_path, {"x.csv": rows + f"u,2,2019-12-31 {times[1]}\n"}, split="leave-one-out")
    assert dataset.test.items.tolist() == [0]


# --- quotes ------------------------------------------------------------------------------------------------------

TITLES = "".join(f"u{row},i{row},x\n" for row in range(5))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (f'user,item,title\nu,i,y\nu,j,"12 inch\n{TITLES}', "row 3: a cell begins with a quote that is never closed"),
        (f'user,item,title\nu,j,"12 inch\n{TITLES}u,k,"y\nu,l,z\n', "row 2: a cell begins with a quote"),
        (f'user,item,title\nu,j,"a\n""b\n{TITLES}', "row 2: a cell begins with a quote"),
        ('user,item\nu,"a\nb"\n', r"row 2: item is 'a\nb'; expected an id of 1 to 256 characters"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_quote_that_is_not_closed_swallows_no_rows(tmp_path, content, line, encoding):
    assert line in refusal(tmp_path, {"interactions.csv": content.encode(encoding)}, split="mmrec")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_text_in_quotes_may_go_over_lines_and_hold_quotes(tmp_path, monkeypatch, end):
    monkeypatch.setattr("slmrec_jax.data.readers.tables._BLOCK", 64)
    rows = ['u,i,"line\nanother, of ""words"""', 'v,j,5" disc', 'w,k,""', 'u,k,"a"', 'v,i,"\n\n"'] * 9
    content = "\n".join(["user,item,text", *rows, ""]).replace("\n", end)
    dataset = read(tmp_path, {"interactions.csv": content}, split="mmrec")
    assert dataset.item_ids.tolist() == ["i", "j", "k"]
    assert "rows that repeat an interaction, merged: 40 of 45" in dataset.notes


def test_cells_in_quotes_are_read_in_every_text_file(tmp_path):
    content = '"user_id";"item_id";"rating"\n"1";"A;B";"4"\n"2";"C";"5"\n"2";"A;B";"5"\n'
    dataset = read(tmp_path, {"x.txt": content}, split="mmrec")
    assert (dataset.user_ids.tolist(), dataset.item_ids.tolist()) == ([1, 2], ["A;B", "C"])


# --- inputs that failed once -------------------------------------------------------------------------------------

CASES = {
    "caps": (240, ()),
    "dups": (240, ("rows that repeat an interaction, merged: 80 of 320",)),
    "gz": (240, ()),
    "label_plain": (120, ("interactions.csv: rows with label 0, left out: 120 of 240",)),
    "mlhead": (240, ("ratings.csv: item is column 'movieId'",)),
    "mm_floatlabel": (240, ()),
    "pairs_tsv": (226, ("rows that repeat an interaction, merged: 12 of 238",)),
    "rb_comma": (240, ()),
    "rb_parts": (240, ()),
    "semi": (240, ()),
    "tabcsv": (240, ()),
    "udata": (240, ()),
    "utf16": (240, ()),
}


@pytest.mark.parametrize("name", CASES)
def test_a_shared_case_is_read(name):
    count, notes = CASES[name]
    divided = name in ("label_plain", "mm_floatlabel", "rb_parts")
    dataset = load(shared_folder(SHARED.parent / "cases" / name), split=None if divided else "leave-one-out")
    assert sum(map(len, splits(dataset))) == count
    assert set(notes) <= set(dataset.notes)
