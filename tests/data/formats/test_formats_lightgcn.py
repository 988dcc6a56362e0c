"""LightGCN's and NGCF's folders: lines of a user and their items, or rows of pairs."""

import os

import pytest
from small_folders import SHARED, read, refusal, shared_folder, sizes, splits, write

from slmrec_jax.data import load

LINES = {"train.txt": b"0 0 2\n1 1\n2 \n", "test.txt": b"0 1\n1 \n2 3 0\n"}
PAIRS = {"data1.txt": b"2\t1\t13883\r\n1\t3\t1.2e+05\r\n", "test1.txt": b"1\t2\t57\r\n"}
HEAD = b"org_id remap_id\n"


def test_lines_of_a_user_and_their_items(tmp_path):
    dataset = read(tmp_path, LINES)
    assert (dataset.num_users, dataset.num_items) == (3, 4)
    assert splits(dataset) == [[(0, 0), (0, 2), (1, 1)], [], [(0, 1), (2, 0), (2, 3)]]
    assert dataset.item_ids.tolist() == [0, 1, 2, 3]


def test_the_last_user_may_have_no_items(tmp_path):
    assert read(tmp_path, LINES | {"test.txt": b"7"}).num_users == 8


def test_pairs_count_from_1_and_keep_their_ids(tmp_path):
    dataset = read(tmp_path, PAIRS)
    assert splits(dataset) == [[(0, 2), (1, 0)], [], [(0, 1)]]
    assert (dataset.user_ids.tolist(), dataset.item_ids.tolist()) == ([1, 2], [1, 2, 3])


def test_lists_name_users_and_items_and_count_them(tmp_path):
    lists = {
        "user_list.txt": HEAD + b"A1 1\nA0 0\nA2 2\nA3 3\n",
        "item_list.txt": b"org_id remap_id freebase_id\n70 0 m.0\n60 1 m.1\n50 2 m.2\n40 3 m.3\n30 4 m.4\n",
    }
    dataset = read(tmp_path, LINES | lists)
    assert dataset.user_ids.tolist() == ["A0", "A1", "A2", "A3"]
    assert dataset.item_ids.tolist() == [70, 60, 50, 40, 30]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_may_end_as_on_any_system(tmp_path, end):
    files = {"train.txt": b"0 1 2\n1 3\n".replace(b"\n", end), "test.txt": b"1 0" + end}
    assert splits(read(tmp_path, files)) == [[(0, 1), (0, 2), (1, 3)], [], [(1, 0)]]


@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        ("train.txt", b"0 1\n1 x\n", "line 2: found 'x'"),
        ("train.txt", b"0 1\n\n1 -1\n", "line 3: found '-1'"),
        ("train.txt", b"0 1.0\n", "line 1: found '1.0'"),
        ("train.txt", b"0 " + b"9" * 5000, "line 1: found '9999"),
        ("train.txt", b"0 \xff\x1b[2J\n", "line 1: found "),
        ("train.txt", b"0\n", "it has no interactions"),
        ("train.txt", b"", "it has no interactions"),
        ("item_list.txt", HEAD + b"a 0\nb 1\nc 1\n", "row 4: remap_id is 1 where 2 comes next"),
        ("item_list.txt", HEAD + b"a 0\na 1\nb 2\nc 3\n", "the raw id 'a' occurs in 2 rows"),
        ("item_list.txt", HEAD + b"a 0\nb x\n", "row 3: remap_id is 'x'"),
        ("item_list.txt", HEAD + b"a 0\n 1\n", "row 3: org_id is ''"),
        ("item_list.txt", HEAD + b"a 0\nb 1 2\n", "CSV parse error: Row #3: Expected 2"),
        ("item_list.txt", HEAD + b"\xff 0\n", ""),
        ("item_list.txt", HEAD, "it has no ids"),
        ("item_list.txt", b"org remap_id\na 0\n", "there is no column 'org_id'; it has 'org', 're"),
        ("item_list.txt", b"org_id remap_id org_id\na 0 a\n", "there is more than one column 'org_id'"),
        ("item_list.txt", b"", "it is empty"),
        ("user_list.txt", HEAD + b"a" * 257 + b" 0\n", "row 2: org_id is 'aaa"),
    ],
)
def test_malformed_lines_and_lists_are_refused(tmp_path, file, content, line):
    assert f"{file}: {line}" in refusal(tmp_path, LINES | {file: content})


@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        ("train.txt", b"0 2000000000\n", "largest item id is 2000000000, but only 4 ids occur"),
        ("data1.txt", b"", "there is train.txt and data1.txt; expected one"),
        ("item_list.txt", HEAD + b"a 0\nb 1\n", "train.txt: entry 1 of items is 2"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, file, content, line):
    assert line in refusal(tmp_path, LINES | {file: content})


@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        ("data1.txt", b"1\t1\t1\r\n0\t1\t1\r\n", "row 2: user is 0; expected ids counted from 1"),
        ("test1.txt", b"1\t1\t1\r\n1\t-1\t1\r\n", "row 2: item is -1"),
        ("test1.txt", b"1\t1\t1\r\n1\t1\r\n", "CSV parse error: Row #2: Expected 3 columns, got 2"),
        ("test1.txt", b"1 1 1\r\n1 1 1\r\n", "row 1 has 1 columns separated by '\\t'; expected 2 to 3: 'user'"),
        ("test1.txt", b"1\t1\t1\t1\r\n", "row 1 has 4 columns"),
    ],
)
def test_malformed_pairs_are_refused(tmp_path, file, content, line):
    assert f"{file}: {line}" in refusal(tmp_path, PAIRS | {file: content})


@pytest.mark.parametrize("files", [LINES, PAIRS])
def test_a_missing_test_split_is_named(tmp_path, files):
    train, test = files
    assert f"the test split is missing; expected {test}" in refusal(tmp_path, {train: files[train]})


@pytest.mark.parametrize("name", ["train.txt", "test.txt", "item_list.txt"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    write(tmp_path, LINES)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    assert f"{name}: not a regular file" in refusal(tmp_path)


def test_reads_lastfm():
    dataset = load(shared_folder(SHARED / "lastfm"))
    assert (dataset.num_users, dataset.num_items) == (1892, 4489)
    assert sizes(dataset) == [42135, 0, 10533]
    assert (dataset.user_ids[0], dataset.item_ids[0]) == (1, 1)
