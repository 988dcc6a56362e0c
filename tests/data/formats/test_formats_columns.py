"""Columns and rows of tables: what columns are called, which rows count, and what the user is told about it."""

import gzip

import numpy as np
import pytest
from small_folders import ROWS, pairs, read, refusal, splits, text, write

from slmrec_jax.commands.main import main
from slmrec_jax.config import Config
from slmrec_jax.data import Source, load, load_source
from slmrec_jax.errors import UserError
from slmrec_jax.training.setup import outline
from slmrec_jax.training.train import _introduction

USER, ITEM, TIME = "user_column", "item_column", "time_column"
NAMED = {
    "names": ("x.csv", text([(0, *row[::-1]) for row in ROWS], ";", "user,when,what,who"), ("who", "what", "when")),
    "numbers": ("x.csv", text([row[::-1] for row in ROWS], header=""), ("3", "2", "1")),
    "RecBole's names": ("x.inter", text(ROWS, "\t", "who:token,what:token,when:float"), ("who", "what:token", "when")),
}


@pytest.mark.parametrize("name", NAMED)
def test_columns_can_be_named_or_numbered(tmp_path, name):
    file, content, columns = NAMED[name]
    how = dict(zip((USER, ITEM, TIME), columns, strict=True))
    expected = read(tmp_path / "plain", {"interactions.csv": text(ROWS)}, split="leave-one-out")
    dataset = read(tmp_path / "named", {file: content}, split="leave-one-out", **how)
    assert dataset.fingerprint == expected.fingerprint
    assert dataset.source.user_column == columns[0]
    if name == "names":
        assert dataset.notes[0] == "x.csv: user is column 'who', item is column 'what', timestamp is column 'when'"


def test_the_catalogue_has_a_header_of_its_own(tmp_path):
    files = {"x.csv": text(ROWS, header=""), "items.csv": "title,item\n" + "".join(f"t,i{n}\n" for n in range(9))}
    assert read(tmp_path, files, split="mmrec", user_column="1", item_column="2").num_items == 9


def test_quotes_mean_the_same_without_a_header(tmp_path):
    dataset = read(
        tmp_path, {"x.csv": '"ann, the first",x\n"bob",y\n'}, split="mmrec", user_column="1", item_column="2"
    )
    assert dataset.user_ids.tolist() == ["ann, the first", "bob"]


HEADED = text(ROWS, header="buyer,article,when")
BY_NUMBER = {USER: "1", ITEM: "2"}


@pytest.mark.parametrize(
    ("content", "how", "line"),
    [
        ("user,what\na,b\n", {ITEM: "that"}, f"no column 'that'; it has 'user', 'what': give one of these with {ITEM}"),
        (
            "user,asin,isbn\na,b,c\n",
            {},
            f"'asin', 'isbn' could all be the column of items; keep one, or name it with {ITEM}",
        ),
        (text(ROWS), BY_NUMBER, "row 1 holds the names 'user', 'item', 'timestamp'; give these instead"),
        (text(ROWS, header=""), {USER: "1"}, f"there is no column of items: give its number, 1 to 3, with {ITEM}"),
        ("a,b\nc,d\n", {USER: "1", ITEM: "3"}, "there is no column '3'; it has '1', '2'"),
        (
            text(ROWS, header=""),
            {},
            "there is no column 'user'; row 1 has 'u0', 'i0', '0', which is data: put a row of names before it, "
            f"such as user and item, or give the number of the column, with {USER}",
        ),
        (HEADED, {**BY_NUMBER, TIME: "3"}, "row 1: column 3 is 'when', which is a name; give column names"),
        ("buyer,article\n1,2\n2,3\n", BY_NUMBER, "row 1: column 1 is 'buyer', which is a name"),
        (
            text(ROWS),
            {USER: "user", ITEM: "user"},
            f"column 'user' is used for both user and item; name another with {USER}",
        ),
        (text(ROWS, header=""), {USER: "1", ITEM: "1"}, f"name another with {USER} or {ITEM}"),
        (text(ROWS), {"rating_column": "timestamp"}, "with rating_column or time_column"),
    ],
)
def test_columns_that_are_not_clear_are_refused(tmp_path, content, how, line):
    found = refusal(tmp_path, {"interactions.csv": content}, split="mmrec", **how)
    assert found.startswith("interactions.csv: ")
    assert line in found


def test_a_folder_without_known_columns_lists_those_it_has(tmp_path):
    assert (
        f"no known table of interactions; 'x.csv' has the columns 'who', 'what'; 'y.tsv' has the columns 'p', 'q': "
        f"name the columns of users and items with {USER} and {ITEM}"
    ) in refusal(tmp_path, {"x.csv": "who,what\na,b\n", "y.tsv": "p\tq\n"})


def test_an_inter_file_without_types_needs_them(tmp_path):
    fix = "write types in the header of the .inter file, such as user_id:token, or rename it to .tsv"
    assert refusal(tmp_path, {"x.inter": "who\twhat\na\tb\n"}).endswith(f"has the columns 'who', 'what': {fix}")


def test_a_compressed_inter_file_has_no_note_about_other_columns(tmp_path):
    rows = text([(*row, 1) for row in ROWS], "\t", "user_id:token,item_id:token,x:float,y:float")
    dataset = read(tmp_path, {"x.inter.gz": gzip.compress(rows.encode())}, split="mmrec")
    assert not any("no known column of times" in note for note in dataset.notes)


def test_fixed_columns_cannot_be_named(tmp_path):
    line = refusal(tmp_path, {"train.txt": "0 1\n", "test.txt": "0 2\n"}, time_column="t")
    assert "format lightgcn: its columns are fixed; leave out time_column" in line
    with pytest.raises(UserError, match="the demo data: its columns are fixed; leave out user_column"):
        load("demo", user_column="who")


def test_a_first_row_that_is_read_as_data_is_shown(tmp_path):
    dataset = read(tmp_path, {"x.csv": HEADED}, split="mmrec", **BY_NUMBER)
    assert "x.csv: row 1 ('buyer', 'article') is read as data, not as names" in dataset.notes


# --- labels ------------------------------------------------------------------------------------------------------


def test_rows_of_label_0_are_no_interactions(tmp_path):
    rows = "user,item,split,label\na,x,train,1\na,y,train,0\nb,x,train,1\nb,z,valid,1\nc,x,train,0\na,z,test,1\n"
    dataset = read(tmp_path, {"interactions.csv": rows})
    assert dataset.user_ids.tolist() == ["a", "b"]
    assert splits(dataset) == [[(0, 0), (1, 0)], [(1, 1)], [(0, 1)]]
    assert dataset.notes == ("interactions.csv: rows with label 0, left out: 2 of 6",)


@pytest.mark.parametrize("labels", [("1.0", "0.0"), ("True", "false")])
def test_recbole_and_mmrec_have_labels_alike(tmp_path, labels):
    yes, no = labels
    recbole = f"user_id:token\titem_id:token\tlabel:float\n1\t2\t{yes}\n1\t3\t{no}\n1\t4\t{yes}\n"
    mmrec = f"userID\titemID\tx_label\tlabel\n0\t1\t0\t{yes}\n0\t0\t0\t{no}\n0\t2\t2\t{yes}\n"
    for name, content, split in (("recbole", recbole, "mmrec"), ("mmrec", mmrec, None)):
        dataset = read(tmp_path / name, {"x.inter": content}, split=split)
        assert len(dataset.train.users) + len(dataset.test.users) == 2
        assert "left out: 1 of 3" in dataset.notes[0]


def test_other_labels_are_not_used_and_a_note_says_so(tmp_path):
    dataset = read(tmp_path, {"x.csv": "user,item,label\na,x,toys\na,y,0\n"}, split="mmrec")
    assert len(dataset.train.users) == 2
    assert dataset.notes[0] == "x.csv: column 'label' is not used: it has values other than 0 and 1"


@pytest.mark.parametrize("value", ["", "2", "maybe"])
def test_a_label_that_is_none_among_many_is_refused(tmp_path, value):
    content = f"user,item,label\na,x,1\na,y,0\nb,x,{value}\nb,y, 1\nb,z,0.0\n"
    assert f"x.csv: row 4: label is {value!r}; expected 0 or 1" in refusal(tmp_path, {"x.csv": content}, split="mmrec")


# --- ratings and the core ----------------------------------------------------------------------------------------

RATED = "user,item,rating\n" + "".join(
    f"{user},{item},{rating}\n"
    for user, item, rating in [
        *(("a", "x", 5), ("a", "y", 4), ("b", "x", 4.5), ("b", "y", 3), ("b", "y", 5)),
        *(("c", "x", -1), ("c", "z", 5), ("d", "w", 2)),
    ]
)


def test_rows_of_lower_ratings_are_left_out(tmp_path):
    dataset = read(tmp_path, {"x.csv": RATED}, split="mmrec", min_rating=4.0)
    assert (dataset.user_ids.tolist(), dataset.item_ids.tolist()) == (["a", "b", "c"], ["x", "y", "z"])
    assert pairs(dataset.train) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2)]
    assert dataset.notes[0] == "x.csv: rows with a rating below 4, left out: 3 of 8"


def test_the_core_is_found_step_by_step(tmp_path):
    # z leaves c with x alone; without c and d, w and z there are two users and two items.
    catalogue = {"items.csv": "item\nw\nv\nx\ny\nz\n", "image.npy": np.arange(10.0).reshape(5, 2)}
    dataset = read(tmp_path, {"x.csv": RATED, **catalogue}, split="mmrec", k_core=2)
    assert (dataset.user_ids.tolist(), dataset.item_ids.tolist()) == (["a", "b"], ["x", "y"])
    assert pairs(dataset.train) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert dataset.features["visual"].values.tolist() == [[4, 5], [6, 7]]
    assert "2-core: left out users 2 of 4, items 3 of 5, interactions 3 of 7" in dataset.notes
    assert dataset.source.k_core == 2


def test_ratings_are_looked_at_before_the_core(tmp_path):
    assert len(read(tmp_path, {"x.csv": RATED}, split="mmrec", min_rating=4.5, k_core=1).train.users) == 4
    assert "the 2-core is empty" in refusal(tmp_path, split="mmrec", min_rating=4.5, k_core=2)


def test_times_stay_with_their_interactions_in_the_core(tmp_path):
    rows = "user,item,time\na,p,9\na,x,3\na,y,2\na,z,1\nb,x,1\nb,y,2\nb,z,3\n"
    dataset = read(tmp_path, {"x.csv": rows}, split="leave-one-out", k_core=2)
    assert splits(dataset) == [[(0, 2), (1, 0)], [(0, 1), (1, 1)], [(0, 0), (1, 2)]]


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ({"min_rating": 1.0}, "data set shop: it is already split, but min_rating selects"),
        ({"k_core": 2}, "data set shop: it is already split, but k_core selects"),
        ({"k_core": -1}, "k_core is -1: give at least 0"),
        ({"min_rating": float("nan")}, "min_rating is nan: give a finite number"),
    ],
)
def test_a_choice_that_does_not_apply_is_refused(tmp_path, how, line):
    files = {"x.csv": "user,item,rating,split\na,b,1,train\na,c,2,test\n"}
    assert line in refusal(tmp_path / "shop", files, **how)


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ({"k_core": "5"}, "k_core is '5', of type str: give a whole"),
        ({"min_rating": "4"}, "min_rating is '4', of type"),
    ],
)
def test_a_choice_of_another_type_is_refused(how, line):
    source = Source()
    for name, value in how.items():
        object.__setattr__(source, name, value)  # past the check of annotations in tests
    with pytest.raises(UserError, match=line):
        load_source(source)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("user,item\na,b\n", "there is no column of ratings; it has 'user', 'item': name it with rating_column"),
        ("user,item,rating\na,b,\n", "row 2: rating is ''; expected a number"),
        ("user,item,rating\na,b,1\na,c,good\n", "row 3: rating is 'good'; expected a number"),
        ("user,item,rating\na,b,1\n", "every row has a rating below 4"),
        # Rows that are left out count.
        ("user,item,rating\na,x,1\na,y,5\n,z,5\n", "row 4: user is ''"),
    ],
)
def test_a_rating_that_is_none_is_refused(tmp_path, content, line):
    assert f"x.csv: {line}" in refusal(tmp_path, {"x.csv": content}, split="mmrec", min_rating=4.0)


# --- the command -------------------------------------------------------------------------------------------------


def test_inspect_and_convert_take_the_same_flags(tmp_path, capsys):
    folder = write(tmp_path / "shop", {"x.csv": RATED.replace("user,item,rating", "who,what,how")})
    names = {"user_column": "who", "item_column": "what", "rating_column": "how"}
    how = [word for name, column in names.items() for word in (f"--{name.replace('_', '-')}", column)]
    how += ["--min-rating", "4", "--k-core", "2", "--memory-limit", "200MB"]
    assert main(["data", "inspect", str(folder), *how]) == 0
    output = capsys.readouterr().out
    assert "x.csv: rows with a rating below 4, left out: 3 of 8" in output
    assert "2-core: left out users 1 of 3, items 1 of 3, interactions 1 of 5" in output
    assert main(["data", "convert", str(folder), str(tmp_path / "kept"), "--split", "mmrec", *how]) == 0
    dataset = load(folder, split="mmrec", min_rating=4.0, k_core=2, **names)
    assert load(tmp_path / "kept").fingerprint == dataset.fingerprint
    assert main(["data", "convert", str(folder), str(tmp_path / "other"), "--memory-limit", "much"]) == 1
    assert "--memory-limit is 'much': give a size such as 4GB or 500MB" in capsys.readouterr().err


def test_ids_that_look_the_same_are_marked(tmp_path, capsys):
    rows = "user,item\nann,x\nann ,x\nbob,cafe\u0301\nbob,caf\u00e9\nann,y\u200b\n"
    assert main(["data", "inspect", str(write(tmp_path, {"x.csv": rows}))]) == 0
    output = capsys.readouterr().out
    assert (
        "! user ids that differ only in blanks or in the Unicode form of a character: 2 of 3, such as 'ann'" in output
    )
    assert "! item ids that differ only in blanks or in the Unicode form of a character: 2 of 4" in output


def test_training_begins_with_what_was_merged_left_out_and_not_read(tmp_path):
    rows = "user,item,rating\nann,x,5\nann,x,5\nann ,x,5\nann,y,1\nann,z,5\n"
    dataset = read(tmp_path, {"x.csv": rows, "likes.txt": ""}, split="validation", min_rating=2.0)
    output = _introduction(outline(Config(model="mf"), dataset))
    for line in (
        "x.csv: rows with a rating below 2, left out: 1 of 5",
        "not read: 'likes.txt'",
        "rows that repeat an interaction, merged: 1 of 4",
    ):
        assert line in output
    assert any(line.startswith("user ids that differ only in blanks") for line in output)
