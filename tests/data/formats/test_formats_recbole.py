"""RecBole's atomic files: one table or one for each split, and vectors under raw ids."""

import numpy as np
import pytest
from small_folders import read, refusal, splits

HEAD = b"user_id:token\titem_id:token\n"
INTER = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
VECTORS = b"iid:token\titem_emb:float_seq\n"
RECBOLE = {
    "small.inter": INTER + b"u2\t10\t4\t881250949\nu1\t9\t3\t891717742\nu1\t10\t1\t878887116\nu1\t9\t2\t881250000\n"
    b"u1\t7\t1\t878887117\n",
    "small.user": b"user_id:token\tage:float\nu1\t24\n",
    "small.item": b'item_id:token\ttitle:token_seq\n10\tThe "Matrix\n11\n',  # not read
    "small.itememb": VECTORS + b"9\t1 2.5\n10\t-3e-1 0\n8\t9 9\n",
}
PARTS = (HEAD + b"1\ta\n2\tb\n", HEAD + b"2\ta\n", HEAD + b"1\tb\n")
SPLITS = [[(0, 0), (1, 1)], [(1, 0)], [(0, 1)]]


def named(*names):
    return {f"{name}.inter": part for name, part in zip(names, PARTS, strict=True)}


def test_a_table_in_one_piece_asks_for_a_split(tmp_path):
    assert "it is not split; say how with split='NAME'" in refusal(tmp_path, RECBOLE)
    dataset = read(tmp_path, {}, split="time")
    assert dataset.user_ids.tolist() == ["u1", "u2"]
    assert dataset.item_ids.tolist() == [7, 9, 10]
    # (u1, 9) occurs twice, and counts from the first time on.
    assert splits(dataset) == [[(0, 0), (0, 1), (0, 2)], [], [(1, 2)]]


def test_vectors_have_raw_ids(tmp_path):
    dataset = read(tmp_path, RECBOLE, split="leave-one-out")
    (name, feature), *none = dataset.features.items()
    assert (name, none) == ("item", [])
    assert feature.values.tolist() == [[0, 0], [1, 2.5], [np.float32(-0.3), 0]]
    assert feature.present.tolist() == [False, True, True]
    assert dataset.notes[:3] == (
        "ratings are not used: a row counts as an interaction whatever its rating",
        "small.itememb: rows of items that are not in the data, or without values: 1",
        "small.itememb: items without this feature: 1 of 3",
    )


def test_vectors_of_interactions_are_no_modality(tmp_path):
    rows = b"user_id:token\titem_id:token\tmood:float_seq\n1\t2\t0.5 1\n1\t3\t0.5\n1\t4\t0\n"
    assert read(tmp_path, {"small.inter": rows}, split="mmrec").features == {}


@pytest.mark.parametrize("valid", ["x.valid", "x.val", "x.validation", "x.Valid", "x.part2", "valid"])
def test_files_may_be_divided_under_several_names(tmp_path, valid):
    name, _, part = valid.rpartition(".")
    train, test = ("Train", "Test") if part == "Valid" else ("part1", "part3") if part == "part2" else ("train", "test")
    files = named(*(f"{name}.{each}".lstrip(".") for each in (train, part, test)))
    dataset = read(tmp_path, files)
    assert splits(dataset) == SPLITS
    assert dataset.notes == ()
    (tmp_path / f"{valid}.inter").unlink()
    assert splits(read(tmp_path, {})) == [SPLITS[0], [], SPLITS[2]]


def test_a_whole_table_beside_the_parts_is_not_read(tmp_path):
    dataset = read(tmp_path, named("x.part1", "x.part2", "x.part3"))
    with_whole = read(tmp_path, {"x.inter": HEAD + b"1\ta\n"})
    assert with_whole.fingerprint == dataset.fingerprint
    assert with_whole.notes == ("not read: 'x.inter'",)


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (("a.train", "a.test", "b.valid"), "belong to several data sets; keep those of one"),
        (("a.part1", "a.part2", "a.part4"), "'a.part4.inter' is none of 'part1', 'part2', 'part3'"),
        (("\x1ba.part0", "a.part1", "a.part2"), r"'\x1ba.part0.inter' is none of"),
        (("a.valid", "a.validation", "a.train"), "expected one file of the valid split, found several ("),
    ],
)
def test_splits_that_do_not_belong_together_are_refused(tmp_path, names, line):
    assert line in refusal(tmp_path, named(*names))


@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        ("small.inter", b"who:token\titem_id:token\n1\t2\n", "there is no column 'user'; it has 'who:token', 'item"),
        ("small.inter", INTER + b"u1\t\t1\t1\n", "row 2: item is ''; expected an id"),
        ("small.inter", INTER + b"u1\t2\t1\n", "CSV parse error: Row #2: Expected 4 columns, got 3"),
        ("small.inter", INTER + b"u1\t9\t1\tsoon\n", "row 2: timestamp is 'soon'; expected a numb"),
        ("small.inter", INTER + b"u1\t9\t1\t\n", "row 2: timestamp is ''"),
        ("small.inter", INTER + b"u1\t9\t1\tnan\n", "row 2: timestamp is 'nan'"),
        ("small.inter", INTER, "it has no rows"),
        ("small.itememb", VECTORS + b"9\t1 2\n10\t1\n", "row 3: 1 numbers in item"),
        ("small.itememb", VECTORS + b"9\t1 2\n10\t1 x\n", "row 3: 'x' in item_emb"),
        ("small.itememb", VECTORS + b"9\t1\n9\t2\n", "row 3: iid:token is '9' for"),
        ("small.itememb", VECTORS + b"9\t\n", "no row of item_emb:float_seq has a"),
        ("small.itememb", VECTORS + b"9\tnan 1\n", "1 values in 1 rows are NaN"),
        ("small.itememb", b"iid:token\tit\x1bm:float_seq\n9\tx\n", r"row 2: 'x' in it\x1bm:float_seq; expected number"),
    ],
)
def test_malformed_files_are_refused(tmp_path, file, content, line):
    assert f"{file}: {line}" in refusal(tmp_path, RECBOLE | {file: content}, split="time")


@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        ("small.valid.inter", INTER + b"u1\t2\t1\t1\n", "the train split is missing; expected "),
        ("other.inter", INTER + b"u1\t2\t1\t1\n", "found several ('other.inter', 'small.inter'); keep one"),
        ("small.item", VECTORS.replace(b"emb", b"feat") + b"9\t1\n", "small.item and small.itememb are both item feat"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, file, content, line):
    assert line in refusal(tmp_path, RECBOLE | {file: content}, split="time")
