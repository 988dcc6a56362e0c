"""Tables as tools and people leave them: separators, encodings, names, line ends, and rows that do not count."""

import bz2
import gzip
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from slmrec_jax.commands.main import main
from slmrec_jax.config import Config
from slmrec_jax.data import Source, load, load_source
from slmrec_jax.errors import UserError
from slmrec_jax.training.run import _introduction

SHARED = Path(os.environ.get("SLMREC_SHARED") or Path(__file__).parents[4] / "shared" / "data").parent / "cases"
ROWS = [(f"u{user}", f"i{user + step}", 10 * user + step) for user in range(4) for step in range(4)]


def text(rows, separator=",", header="user,item,timestamp", end="\n"):
    lines = [header.replace(",", separator)] * bool(header) + [separator.join(map(str, row)) for row in rows]
    return "".join(line + end for line in lines)


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, np.ndarray):
            np.save(path, content)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(folder)


def refusal(folder, files, **how):
    with pytest.raises(UserError) as caught:
        load(write(folder, files), **how)
    line = str(caught.value)
    assert line.isprintable()
    return line.replace(f"{folder}/", "")


def pairs(split):
    return list(zip(split.users.tolist(), split.items.tolist(), strict=True))


def splits(dataset):
    return [pairs(split) for split in (dataset.train, dataset.valid, dataset.test)]


@pytest.fixture
def plain(tmp_path):
    """The rows as a plain table, divided."""
    (tmp_path / "plain").mkdir()
    return load(write(tmp_path / "plain", {"interactions.csv": text(ROWS)}), split="leave-one-out")


# --- how tables are written --------------------------------------------------------------------------------------

DIALECTS = {
    "semicolons": ("clicks.csv", text(ROWS, ";").encode()),
    "tabs in .csv": ("clicks.csv", text(ROWS, "\t").encode()),
    "bars": ("clicks.csv", text(ROWS, "|").encode()),
    "commas in .tsv": ("clicks.tsv", text(ROWS).encode()),
    "text": ("clicks.txt", text(ROWS, "\t").encode()),
    "carriage returns": ("clicks.csv", text(ROWS, end="\r").encode()),
    "UTF-16": ("clicks.csv", text(ROWS).encode("utf-16")),
    "UTF-16, big-endian": ("clicks.csv", b"\xfe\xff" + text(ROWS, end="\r\n").encode("utf-16-be")),
    "UTF-32": ("clicks.csv", text(ROWS).encode("utf-32")),
    "marked UTF-8": ("clicks.csv", b"\xef\xbb\xbf" + text(ROWS, ";").encode()),
    "gzip": ("interactions.csv.gz", gzip.compress(text(ROWS).encode())),
    "gzip of UTF-16 with tabs": ("clicks.tsv.gz", gzip.compress(text(ROWS, "\t").encode("utf-16"))),
    "bzip2": ("clicks.csv.bz2", bz2.compress(text(ROWS).encode())),
    "zstandard": ("clicks.csv.zst", pa.compress(text(ROWS).encode(), codec="zstd", asbytes=True)),
    "capitals and blanks": ("clicks.csv", text(ROWS, header="User ID,ITEM-ID,Time").encode()),
    "MovieLens": ("ratings.csv", text(ROWS, header="userId,movieId,timestamp").encode()),
    "Amazon": ("reviews.csv", text(ROWS, header="reviewerID,asin,unixReviewTime").encode()),
    "RetailRocket": ("events.csv", text(ROWS, header="visitorid,itemid,timestamp").encode()),
    "sessions": ("clicks.csv", text(ROWS, header="session_id,product_id,ts").encode()),
    "RecBole with commas": ("clicks.inter", text(ROWS, header="user_id:token,item_id:token,timestamp:float").encode()),
    "RecBole sessions": ("clicks.inter", text(ROWS, "\t", "session_id:token,item_id:token,timestamp:float").encode()),
    "RecBole, compressed": (
        "clicks.inter.gz",
        gzip.compress(text(ROWS, "\t", "user_id:token,item_id:token,timestamp:float").encode()),
    ),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_a_dialect_holds_the_same_data(tmp_path, plain, name):
    file, content = DIALECTS[name]
    assert load(write(tmp_path, {file: content}), split="leave-one-out").fingerprint == plain.fingerprint


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
    (tmp_path / "plain").mkdir()
    expected = load(
        write(tmp_path / "plain", {"x.csv": text(NUMBERS, header="user,item,rating,time")}), split="leave-one-out"
    )
    (tmp_path / "known").mkdir()
    assert load(write(tmp_path / "known", BY_NAME[name]), split="leave-one-out").fingerprint == expected.fingerprint


def test_lists_have_an_order_for_each_user_alone(tmp_path):
    files = {"shop_pairs.tsv": "1\t5 3 5 4\n2\t4 5\n", "shop_likes_and_views.txt": "5\t1\t2\n"}
    dataset = load(write(tmp_path, files), split="leave-one-out")
    assert dataset.item_ids[dataset.test.items].tolist() == [4]
    assert dataset.notes[:2] == (
        "not read: 'shop_likes_and_views.txt'",
        "rows that repeat an interaction, merged: 1 of 6",
    )
    assert "these data have only the order of each user's" in refusal(tmp_path, {}, split="time")
    assert "shop_pairs.tsv: row 2: item is 'xxx" in refusal(
        tmp_path, {"shop_pairs.tsv": f"1\t5\n2\t4 {'x' * 300}\n"}, split="time"
    )


def test_lists_give_way_to_a_table_with_times(tmp_path):
    files = {"shop_pairs.tsv": "1\t5 3\n", "shop_pairs.csv": text(ROWS)}
    dataset = load(write(tmp_path, files), split="time")
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
        (tmp_path / name).mkdir()
        dataset = load(write(tmp_path / name, files))
        assert splits(dataset) == [[(0, 1), (0, 2), (1, 0)], [], [(0, 0)]], name
    (tmp_path / "neurec").mkdir()
    neurec = load(write(tmp_path / "neurec", {"x.train": "0;1\n0;2\n1;0\n", "x.test": "0,0\n"}))
    assert splits(neurec) == [[(0, 0), (0, 1), (1, 2)], [], [(0, 2)]]


def test_lines_of_old_macintoshes_are_lines(tmp_path):
    dataset = load(write(tmp_path, {"train.txt": "0 1 2\r1 3\r", "test.txt": "1 0\r"}))
    assert splits(dataset) == [[(0, 1), (0, 2), (1, 3)], [], [(1, 0)]]


def test_a_separator_that_could_be_another_is_a_question(tmp_path):
    files = {"x.train": "7;5;4,5\n", "x.test": "7;5;4,5\n"}
    assert "x.train: row 1 can be divided by ',', ';'" in refusal(tmp_path, files)


def test_whole_numbers_may_be_written_as_floating_point(tmp_path):
    rows = "user,item,split,time\na,x,0.0,1.0\na,y,1.0,2.0\na,z,2.0,3.0\n"
    assert splits(load(write(tmp_path, {"interactions.csv": rows}))) == [[(0, 0)], [(0, 1)], [(0, 2)]]


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
        folder = tmp_path / str(number)
        folder.mkdir()
        table = pa.table({"user": ["a"] * 3, "item": ["x", "y", "z"], "time": times}).take(order)
        pq.write_table(table, folder / "interactions.parquet")
        assert splits(load(str(folder), split="leave-one-out")) == [[(0, 2)], [(0, 1)], [(0, 0)]]


# --- names of columns --------------------------------------------------------------------------------------------


def test_columns_can_be_named(tmp_path, plain):
    rows = [(0, *row[::-1]) for row in ROWS]
    folder = write(tmp_path, {"x.csv": text(rows, ";", "user,when,what,who")})
    named = {"user_column": "who", "item_column": "what", "time_column": "when"}
    dataset = load(folder, split="leave-one-out", **named)
    assert dataset.fingerprint == plain.fingerprint
    assert dataset.notes[0] == "x.csv: user is column 'who', item is column 'what', timestamp is column 'when'"
    assert dataset.source.user_column == "who"


def test_columns_of_a_table_without_a_header_are_numbered(tmp_path, plain):
    folder = write(tmp_path, {"x.csv": text([row[::-1] for row in ROWS], header="")})
    numbered = {"user_column": "3", "item_column": "2", "time_column": "1"}
    assert load(folder, split="leave-one-out", **numbered).fingerprint == plain.fingerprint


def test_recbole_columns_can_be_named_without_their_type(tmp_path, plain):
    folder = write(tmp_path, {"x.inter": text(ROWS, "\t", "who:token,what:token,when:float")})
    named = {"user_column": "who", "item_column": "what:token", "time_column": "when"}
    assert load(folder, split="leave-one-out", **named).fingerprint == plain.fingerprint


def test_the_catalogue_has_a_header_of_its_own(tmp_path):
    files = {"x.csv": text(ROWS, header=""), "items.csv": "title,item\n" + "".join(f"t,i{n}\n" for n in range(9))}
    folder = write(tmp_path, files)
    assert load(folder, split="mmrec", user_column="1", item_column="2").num_items == 9


def test_quotes_mean_the_same_without_a_header(tmp_path):
    folder = write(tmp_path, {"x.csv": '"ann, the first",x\n"bob",y\n'})
    assert load(folder, split="mmrec", user_column="1", item_column="2").user_ids.tolist() == ["ann, the first", "bob"]


def test_a_file_that_is_known_by_its_name_may_have_a_header(tmp_path, plain):
    folder = write(tmp_path, {"ratings.dat": text(ROWS, "\t")})
    assert load(folder, split="leave-one-out").fingerprint == plain.fingerprint


def test_a_name_that_is_common_goes_before_others(tmp_path, plain):
    rows = [(*row, 1, 2) for row in ROWS]
    files = {"x.csv": text(rows, header="user,item,timestamp,session_id,movieId")}
    assert load(write(tmp_path, files), split="leave-one-out").fingerprint == plain.fingerprint


USER, ITEM = "user_column", "item_column"


@pytest.mark.parametrize(
    ("files", "how", "line"),
    [
        (
            {"x.csv": "who,what\na,b\n", "y.tsv": "p\tq\n"},
            {},
            f"no known table of interactions; 'x.csv' has the columns 'who', 'what'; 'y.tsv' has the columns 'p', 'q': "
            f"name the columns of users and items by {USER} and {ITEM}",
        ),
        (
            {"interactions.csv": text(ROWS, header="")},
            {},
            "interactions.csv: there is no column 'user'; row 1 has 'u0', 'i0', '0', which is data: put a row of names "
            f"before it, as user and item, or give the number of the column, by {USER}",
        ),
        (
            {"interactions.csv": "user,what\na,b\n"},
            {"item_column": "that"},
            f"interactions.csv: there is no column 'that'; it has 'user', 'what': give one of these by {ITEM}",
        ),
        (
            {"interactions.csv": "user,asin,isbn\na,b,c\n"},
            {},
            f"interactions.csv: 'asin', 'isbn' are all columns of items; keep one, or name it by {ITEM}",
        ),
        (
            {"interactions.csv": text(ROWS)},
            {"user_column": "1", "item_column": "2"},
            "interactions.csv: row 1 holds the names 'user', 'item', 'timestamp'; give these instead",
        ),
        (
            {"interactions.csv": "a,b\nc,d\n"},
            {"user_column": "1", "item_column": "3"},
            "interactions.csv: there is no column '3'; it has '1', '2'",
        ),
        (
            {"train.txt": "0 1\n", "test.txt": "0 2\n"},
            {"time_column": "t"},
            "format lightgcn: its columns are fixed; leave out time_column",
        ),
        (
            {"interactions.csv": text(ROWS).encode("utf-16-le")},
            {},
            "interactions.csv: NUL in row 1, as in UTF-16 without a byte-order mark; save the table as UTF-8",
        ),
        ({"interactions.csv": "user,item\nJosé,b\n".encode("latin-1")}, {}, "UTF8 data; save the table as UTF-8"),
        (
            {"interactions.csv": "user,item," + ",".join(map(str, range(20000)))},
            {},
            "interactions.csv: row 1 has more than 10000 columns",
        ),
        ({"interactions.csv.gz": b"hello"}, {}, "interactions.csv.gz: not a readable table (zlib"),
        (
            {"interactions.csv.gz": gzip.compress(text(ROWS).encode())[:-9]},
            {},
            "interactions.csv.gz: not a readable table (Trunc",
        ),
        (
            {"interactions.csv.gz": gzip.compress(b"user,item\n" + b"a,b\n" * 5_000_000)},
            {},
            "interactions.csv.gz: it unpacks to more than 50 times its size",
        ),
    ],
)
def test_what_cannot_be_read_without_a_guess_is_refused_with_the_columns(tmp_path, files, how, line):
    assert line in refusal(tmp_path, files, split="mmrec", **how)


def test_the_demo_has_no_columns_to_name():
    with pytest.raises(UserError, match="the demo data: its columns are fixed; leave out user_column"):
        load("demo", user_column="who")


# --- which rows count --------------------------------------------------------------------------------------------


def test_rows_of_label_0_are_no_interactions(tmp_path):
    rows = "user,item,split,label\na,x,train,1\na,y,train,0\nb,x,train,1\nb,z,valid,1\nc,x,train,0\na,z,test,1\n"
    dataset = load(write(tmp_path, {"interactions.csv": rows}))
    assert dataset.user_ids.tolist() == ["a", "b"]
    assert splits(dataset) == [[(0, 0), (1, 0)], [(1, 1)], [(0, 1)]]
    assert dataset.notes == ("interactions.csv: rows with label 0, left out: 2 of 6",)


@pytest.mark.parametrize("labels", [("1.0", "0.0"), ("True", "false")])
def test_recbole_and_mmrec_labels_alike(tmp_path, labels):
    yes, no = labels
    recbole = f"user_id:token\titem_id:token\tlabel:float\n1\t2\t{yes}\n1\t3\t{no}\n1\t4\t{yes}\n"
    mmrec = f"userID\titemID\tx_label\tlabel\n0\t1\t0\t{yes}\n0\t0\t0\t{no}\n0\t2\t2\t{yes}\n"
    for name, content in (("recbole", recbole), ("mmrec", mmrec)):
        (tmp_path / name).mkdir()
        folder = write(tmp_path / name, {"x.inter": content})
        dataset = load(folder, split="mmrec" if name == "recbole" else None)
        assert len(dataset.train.users) + len(dataset.test.users) == 2
        assert "left out: 1 of 3" in dataset.notes[0]


def test_other_labels_are_not_used_and_that_is_said(tmp_path):
    dataset = load(write(tmp_path, {"x.csv": "user,item,label\na,x,toys\na,y,0\n"}), split="mmrec")
    assert len(dataset.train.users) == 2
    assert dataset.notes[0] == "x.csv: column 'label' is not used: it has other values than 0 and 1"


RATED = "user,item,rating\n" + "".join(
    f"{user},{item},{rating}\n"
    for user, item, rating in [
        *(("a", "x", 5), ("a", "y", 4), ("b", "x", 4.5), ("b", "y", 3), ("b", "y", 5)),
        *(("c", "x", -1), ("c", "z", 5), ("d", "w", 2)),
    ]
)


def test_rows_of_lower_ratings_are_left_out(tmp_path):
    dataset = load(write(tmp_path, {"x.csv": RATED}), split="mmrec", min_rating=4)
    assert (dataset.user_ids.tolist(), dataset.item_ids.tolist()) == (["a", "b", "c"], ["x", "y", "z"])
    assert pairs(dataset.train) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2)]
    assert dataset.notes[0] == "x.csv: rows with a rating below 4, left out: 3 of 8"


def test_the_core_is_found_step_by_step(tmp_path):
    # z leaves c with x alone; without c and d, w and z there are two users and two items.
    catalogue = {"items.csv": "item\nw\nv\nx\ny\nz\n", "image.npy": np.arange(10.0).reshape(5, 2)}
    dataset = load(write(tmp_path, {"x.csv": RATED, **catalogue}), split="mmrec", k_core=2)
    assert (dataset.user_ids.tolist(), dataset.item_ids.tolist()) == (["a", "b"], ["x", "y"])
    assert pairs(dataset.train) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert dataset.features["visual"].values.tolist() == [[4, 5], [6, 7]]
    assert "2-core: left out users 2 of 4, items 3 of 5, interactions 3 of 7" in dataset.notes
    assert dataset.source.k_core == 2


def test_ratings_are_looked_at_before_the_core(tmp_path):
    dataset = load(write(tmp_path, {"x.csv": RATED}), split="mmrec", min_rating=4.5, k_core=1)
    assert len(dataset.train.users) == 4
    with pytest.raises(UserError, match="the 2-core is empty"):
        load(str(tmp_path), split="mmrec", min_rating=4.5, k_core=2)


def test_times_stay_with_their_interactions_in_the_core(tmp_path):
    rows = "user,item,time\na,p,9\na,x,3\na,y,2\na,z,1\nb,x,1\nb,y,2\nb,z,3\n"
    dataset = load(write(tmp_path, {"x.csv": rows}), split="leave-one-out", k_core=2)
    assert splits(dataset) == [[(0, 2), (1, 0)], [(0, 1), (1, 1)], [(0, 0), (1, 2)]]


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ({"min_rating": 1}, "data set shop: it is divided into splits already, and min_rating chooses"),
        ({"k_core": 2}, "data set shop: it is divided into splits already, and k_core chooses"),
        ({"k_core": -1}, "k_core is -1: give a whole number, at least 0"),
        ({"min_rating": float("nan")}, "min_rating is nan: give a number"),
    ],
)
def test_a_choice_that_does_not_apply_is_refused(tmp_path, how, line):
    (tmp_path / "shop").mkdir()
    files = {"x.csv": "user,item,rating,split\na,b,1,train\na,c,2,test\n"}
    assert line in refusal(tmp_path / "shop", files, **how)


def test_a_choice_of_another_type_is_refused():
    with pytest.raises(UserError, match="k_core is '5', of type str: give a whole number"):
        load_source(Source("demo", k_core="5"))
    with pytest.raises(UserError, match="min_rating is '4', of type str: give"):
        load_source(Source("demo", min_rating="4"))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("user,item\na,b\n", "x.csv: there is no column of ratings; it has 'user', 'item': name it by rating_column"),
        ("user,item,rating\na,b,\n", "x.csv: row 2: rating is ''; expected a number"),
        ("user,item,rating\na,b,1\na,c,good\n", "x.csv: row 3: rating is 'good'; expected a number"),
        ("user,item,rating\na,b,1\n", "x.csv: every row has a rating below 4"),
    ],
)
def test_a_rating_that_is_none_is_refused(tmp_path, content, line):
    assert line in refusal(tmp_path, {"x.csv": content}, split="mmrec", min_rating=4)


def test_rows_that_are_left_out_count_in_error_lines(tmp_path):
    rows = "user,item,rating\na,x,1\na,y,5\n,z,5\n"
    assert "x.csv: row 4: user is ''" in refusal(tmp_path, {"x.csv": rows}, split="mmrec", min_rating=4)


# --- what is not read --------------------------------------------------------------------------------------------


def test_parts_of_recbole_are_its_splits(tmp_path):
    head = "user_id:token\titem_id:token\n"
    parts = {"x.part1.inter": f"{head}1\ta\n2\tb\n", "x.part2.inter": f"{head}2\ta\n", "x.part3.inter": f"{head}1\tb\n"}
    dataset = load(write(tmp_path, parts))
    assert splits(dataset) == [[(0, 0), (1, 1)], [(1, 0)], [(0, 1)]]
    assert dataset.notes == ()
    with_whole = load(write(tmp_path, {"x.inter": f"{head}1\ta\n"}))
    assert with_whole.fingerprint == dataset.fingerprint
    assert with_whole.notes == ("not read: 'x.inter'",)


MATRICES = ("trnMat.pkl", "valMat.pkl", "tstMat.pkl")


def folders():
    matrix = pickle.dumps(sp.coo_matrix(np.eye(2)), 3)
    lists = '{"0": [0], "1": [1]}'
    return {
        "diffmm": dict.fromkeys(MATRICES, matrix),
        "mmssl": dict.fromkeys(("train.json", "val.json", "test.json"), lists),
        "lightgcn": {"train.txt": "0 1\n", "test.txt": "0 0\n"},
        "mmrec": {"x.inter": "userID\titemID\tx_label\n0\t1\t0\n0\t0\t2\n"},
        "neurec": {"x.train": "0,1\n", "x.test": "0,0\n"},
        "recbole": {"x.train.inter": "user_id:token\titem_id:token\n1\t2\n"},
        "plain": {"train.csv": "user,item\na,b\n", "features/image.parquet": parquet(item=["b"], v=[[1.0]])},
    }


def parquet(**columns):
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


@pytest.mark.parametrize("format", ["diffmm", "mmssl", "lightgcn", "mmrec", "neurec", "recbole", "plain"])
def test_every_file_that_is_not_read_is_named(tmp_path, format):
    beside = {"likes_and_views.txt": "1 2 3", ".hidden": "", "covers/1.jpg": ""}
    beside |= {"features/image.jpg": ""} if format == "plain" else {}
    of_features = ", 'features/image.jpg'" if format == "plain" else ""
    notes = load(write(tmp_path, {**folders()[format], **beside})).notes
    assert notes[-1] == f"not read: 'covers/', 'likes_and_views.txt'{of_features}"


def test_a_name_that_is_not_read_is_shown_escaped_and_few_of_many(tmp_path):
    files = {f"{number:03}.jpg": "" for number in range(120)} | {"\x1b[2J.jpg": ""}
    notes = load(write(tmp_path, {"train.csv": "user,item\na,b\n", **files})).notes
    assert notes[-1].isprintable()
    assert notes[-1].endswith("'098.jpg' and 21 more")


def test_interactions_in_two_splits_are_counted_where_they_are_divided_again(tmp_path):
    rows = "user,item,split\na,x,train\na,x,test\na,y,train\n"
    dataset = load(write(tmp_path, {"x.csv": rows}), split="mmrec")
    assert "interactions that were in two splits, merged: 1" in dataset.notes


# --- the command -------------------------------------------------------------------------------------------------


def test_inspect_and_convert_take_the_same_flags(tmp_path, capsys):
    folder = write(tmp_path, {"x.csv": RATED.replace("user,item,rating", "who,what,how")})
    how = [
        "--user-column",
        "who",
        "--item-column",
        "what",
        "--rating-column",
        "how",
        "--min-rating",
        "4",
        "--k-core",
        "2",
    ]
    assert main(["data", "inspect", folder, *how]) == 0
    said = capsys.readouterr().out
    assert "x.csv: rows with a rating below 4, left out: 3 of 8" in said
    assert "2-core: left out users 1 of 3, items 1 of 3, interactions 1 of 5" in said
    assert main(["data", "convert", folder, str(tmp_path / "kept"), "--split", "mmrec", *how]) == 0
    names = {"user_column": "who", "item_column": "what", "rating_column": "how"}
    dataset = load(folder, split="mmrec", min_rating=4, k_core=2, **names)
    assert load(str(tmp_path / "kept")).fingerprint == dataset.fingerprint


def test_ids_that_look_the_same_are_marked(tmp_path, capsys):
    rows = "user,item\nann,x\nann ,x\nbob,cafe\u0301\nbob,caf\u00e9\nann,y\u200b\n"
    assert main(["data", "inspect", write(tmp_path, {"x.csv": rows})]) == 0
    said = capsys.readouterr().out
    assert (
        "! user ids that differ from another by blanks or the form of a character alone: 2 of 3, as 'ann' and" in said
    )
    assert "! item ids that differ from another by blanks or the form of a character alone: 2 of 4" in said
    assert main(["data", "inspect", "demo"]) == 0
    assert "ids that differ" not in capsys.readouterr().out


def test_training_begins_with_what_was_merged_left_out_and_not_read(tmp_path):
    rows = "user,item,rating\nann,x,5\nann,x,5\nann ,x,5\nann,y,1\nann,z,5\n"
    dataset = load(write(tmp_path, {"x.csv": rows, "likes.txt": ""}), split="validation", min_rating=2)
    said = _introduction(Config(), dataset)
    for line in (
        "x.csv: rows with a rating below 2, left out: 1 of 5",
        "not read: 'likes.txt'",
        "rows that repeat an interaction, merged: 1 of 4",
    ):
        assert line in said
    assert any(line.startswith("user ids that differ from another by blanks") for line in said)


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
    if not (SHARED / name).is_dir():
        pytest.skip(f"no cases at {SHARED} (SLMREC_SHARED names another place)")
    count, notes = CASES[name]
    divided = name in ("label_plain", "mm_floatlabel", "rb_parts")
    dataset = load(str(SHARED / name), split=None if divided else "leave-one-out")
    assert sum(map(len, splits(dataset))) == count
    assert set(notes) <= set(dataset.notes)


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
    dataset = load(write(tmp_path, {"interactions.csv": content}), split="mmrec")
    assert dataset.item_ids.tolist() == ["i", "j", "k"]
    assert "rows that repeat an interaction, merged: 40 of 45" in dataset.notes


# --- names of columns and files ----------------------------------------------------------------------------------

HEADED = text(ROWS, header="buyer,article,when")
BY_NUMBER = {"user_column": "1", "item_column": "2"}
OF_INTEGERS = "buyer,article\n1,2\n2,3\n"


@pytest.mark.parametrize(
    ("content", "how", "line"),
    [
        (HEADED, {**BY_NUMBER, "time_column": "3"}, "row 1: column 3 is 'when', which is a name; name columns by it"),
        (OF_INTEGERS, BY_NUMBER, "row 1: column 1 is 'buyer', which is a name"),
        (text(ROWS), {USER: "user", ITEM: "user"}, f"column 'user' is that of user and item; name another by {USER}"),
        (text(ROWS, header=""), {USER: "1", ITEM: "1"}, f"name another by {USER} or {ITEM}"),
        (text(ROWS), {"rating_column": "timestamp"}, "by rating_column or time_column"),
    ],
)
def test_a_column_has_one_role_and_row_1_without_names_is_data(tmp_path, content, how, line):
    assert line in refusal(tmp_path, {"x.csv": content}, split="mmrec", **how)


def test_a_first_row_that_is_read_as_data_is_shown(tmp_path):
    dataset = load(write(tmp_path, {"x.csv": HEADED}), split="mmrec", **BY_NUMBER)
    assert "x.csv: row 1 ('buyer', 'article') is read as data, not as names" in dataset.notes


def test_cells_in_quotes_are_read_in_every_text_file(tmp_path):
    content = '"user_id";"item_id";"rating"\n"1";"A;B";"4"\n"2";"C";"5"\n"2";"A;B";"5"\n'
    dataset = load(write(tmp_path, {"x.txt": content}), split="mmrec")
    assert (dataset.user_ids.tolist(), dataset.item_ids.tolist()) == ([1, 2], ["A;B", "C"])


HEAD = "user_id:token\titem_id:token\n"
PARTS = (f"{HEAD}1\ta\n2\tb\n", f"{HEAD}2\ta\n", f"{HEAD}1\tb\n")


@pytest.mark.parametrize("valid", ["x.val", "x.validation", "x.Valid", "x.part2", "valid"])
def test_recbole_splits_have_the_names_of_others(tmp_path, valid):
    name, _, part = valid.rpartition(".")
    train, test = ("Train", "Test") if part == "Valid" else ("part1", "part3") if part == "part2" else ("train", "test")
    names = [f"{name}.{each}.inter".lstrip(".") for each in (train, part, test)]
    dataset = load(write(tmp_path, dict(zip(names, PARTS, strict=True))))
    assert splits(dataset) == [[(0, 0), (1, 1)], [(1, 0)], [(0, 1)]]


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (("a.train", "a.test", "b.valid"), "are of several data sets; keep those of one"),
        (("a.part1", "a.part2", "a.part4"), "'a.part4.inter' is none of 'part1', 'part2', 'part3'"),
        (("\x1ba.part0", "a.part1", "a.part2"), r"'\x1ba.part0.inter' is none of"),
        (("a.valid", "a.validation", "a.train"), "are all the valid split"),
    ],
)
def test_recbole_splits_that_do_not_belong_together_are_refused(tmp_path, names, line):
    assert line in refusal(tmp_path, {f"{name}.inter": part for name, part in zip(names, PARTS, strict=True)})


@pytest.mark.parametrize("value", ["", "2", "maybe"])
def test_a_label_that_is_none_among_many_is_refused(tmp_path, value):
    content = f"user,item,label\na,x,1\na,y,0\nb,x,{value}\nb,y, 1\nb,z,0.0\n"
    assert f"x.csv: row 4: label is {value!r}; expected 0 or 1" in refusal(tmp_path, {"x.csv": content}, split="mmrec")


def test_times_may_be_decimals_without_a_fraction_or_have_blanks_around(tmp_path):
    times = [10**18 + 3, 10**18 + 1, 10**18 + 2]
    rows = "user,item,time\n" + "".join(f"u,{item}, {time}\n" for item, time in enumerate(times))
    columns = {"user": ["u"] * 3, "item": [0, 1, 2], "time": pa.array(times).cast(pa.decimal128(20, 0))}
    half = {**columns, "time": pa.array([1.5, 2.5, 3]).cast(pa.decimal128(20, 1))}
    for name, content in (("text", {"x.csv": rows}), ("decimals", {"x.parquet": parquet(**columns)})):
        (tmp_path / name).mkdir()
        assert load(write(tmp_path / name, content), split="leave-one-out").test.items.tolist() == [0]
    (tmp_path / "half").mkdir()
    line = refusal(tmp_path / "half", {"x.parquet": parquet(**half)}, split="leave-one-out")
    assert "row 1: timestamp is Decimal('1.5'); expected a whole number" in line


def test_ids_that_are_truth_values_are_refused(tmp_path):
    files = {"x.parquet": parquet(user=[True, False], item=[1, 2])}
    assert "x.parquet: user is a column of bool; expected an id" in refusal(tmp_path, files, split="mmrec")


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("interactions.csv", "sep=;\nuser;item\n1;2\n", "row 1 begins with 'sep=', which only Excel reads"),
        ("interactions.csv", "# exported\nuser,item\n1,2\n", "row 1 begins with '# exported', a comment"),
        ("interactions.csv", "<!DOCTYPE html>\n<html>\n", "as in a web page"),
        ("interactions.csv", "version https://git-lfs.github.com/spec/v1\n", "get that by git lfs pull"),
        ("interactions.csv", "user item rating\n1 2 3\n", "separate columns by commas or tabs"),
        ("interactions.csv.xz", "\xfd7zXZ", "'interactions.csv.xz' is packed: unpack it"),
        ("log.zip", "PK", "'log.zip' is packed: unpack it"),
    ],
)
def test_what_stands_in_place_of_a_table_is_named(tmp_path, name, content, line):
    assert line in refusal(tmp_path, {name: content})


@pytest.mark.parametrize("times", [("10:00:00 UTC", "11:30:00 UTC"), ("10:00:00+02", "09:30:00+00")])
def test_times_may_name_their_zone_in_short(tmp_path, times):
    rows = "user,item,time\n" + "".join(f"u,{item},2020-01-01 {time}\n" for item, time in enumerate(times[::-1]))
    dataset = load(write(tmp_path, {"x.csv": rows + "u,2,2019-12-31 " + times[1] + "\n"}), split="leave-one-out")
    assert dataset.test.items.tolist() == [0]
