"""MMRec's folders: labels name the splits, mappings the raw ids, and a list the images that are missing."""

import numpy as np
import pytest
from small_folders import read, refusal, splits, write

from slmrec_jax.data import load

# User 2 has no training interaction; item 3 has none at all.
MMREC = {
    "small.inter": b"userID\titemID\trating\ttimestamp\tx_label\n"
    b"0\t0\t5.0\t1362700800\t0\n1\t1\t5.0\t1362700801\t0\n0\t1\t4.0\t1362700802\t1\n1\t4\t4.0\t1362700803\t2\n"
    b"2\t0\t3.0\t1362700804\t1\n2\t2\t3.0\t1362700805\t2\n",
    "image_feat.npy": np.arange(10, dtype=np.float64).reshape(5, 2),
    "text_feat.npy": np.ones((5, 3), np.float32),
}
MAPPINGS = {
    "u_id_mapping.csv": b"user_id\tuserID\nA3\t0\nA1\t1\nA2\t2\n",
    "i_id_mapping.csv": b"asin,itemID\nB4,4\n0007,3\nB2,2\nB1,1\nB0,0\n",
}
HEAD = b"userID\titemID\tx_label\n"
ROW = HEAD + b"0\t0\t0\n"
USERS = b"user_id\tuserID\n"


def test_labels_name_the_splits(tmp_path):
    dataset = read(tmp_path, MMREC)
    assert (dataset.num_users, dataset.num_items) == (3, 5)
    assert splits(dataset) == [[(0, 0), (1, 1)], [(0, 1)], [(1, 4)]]
    assert list(dataset.features) == ["visual", "textual"]
    assert dataset.features["visual"].values[4].tolist() == [8, 9]
    assert dataset.notes == tuple(
        f"{split}: interactions of users without training interactions, dropped: 1 of 1 users"
        for split in ("valid", "test")
    )


def test_mappings_are_separated_by_tabs_or_commas(tmp_path):
    dataset = read(tmp_path, MMREC | MAPPINGS)
    assert dataset.user_ids.tolist() == ["A3", "A1", "A2"]
    assert dataset.item_ids.tolist() == ["B0", "B1", "B2", "0007", "B4"]


@pytest.mark.parametrize(("listed", "missing"), [(b"1\n3\n", [1, 3]), (b"", []), (b"\n", [])])
def test_images_filled_in_with_the_mean_are_missing(tmp_path, listed, missing):
    visual, textual = read(tmp_path, MMREC | {"missed_img_itemIDs.csv": listed}).features.values()
    assert np.flatnonzero(~visual.present).tolist() == missing
    assert not visual.values[missing].any()
    assert textual.present.all()


def test_of_several_tables_the_one_named_like_the_folder_is_read(tmp_path):
    folder = write(tmp_path / "small", MMREC | {"small14.inter": MMREC["small.inter"].replace(b"4\t4.0", b"3\t4.0")})
    assert load(folder).num_items == 5
    folder.rename(tmp_path / "large")
    assert "found several ('small.inter', 'small14.inter'); keep one" in refusal(tmp_path / "large")


@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        ("small.inter", ROW + b"0\t1\t3\n", "row 3: x_label is 3; expected 0 for training"),
        ("small.inter", ROW + b"0\t-1\t0\n", "row 3: itemID is -1; expected ids counted from 0"),
        ("small.inter", ROW + b"0\tB01\t0\n", "row 3: itemID is 'B01'; expected a whole number"),
        ("small.inter", ROW + b"0\t1\t0\t5\n", "CSV parse error: Row #3: Expected 3 columns, got 4"),
        ("small.inter", ROW.replace(b"userID", b"uid"), "there is no column 'userID'; it has 'uid', 'i"),
        ("small.inter", HEAD + b"0\t0\t1\n", "no row has the x_label 0"),
        ("small.inter", HEAD, "no row has the x_label 0"),
        ("image_feat.npy", np.ones((6, 2)), "6 rows for 5 items"),
        ("image_feat.npy", np.array([[None]]), "not a readable .npy table"),
        ("missed_img_itemIDs.csv", b"5\n", "row 1: item 5; expected ids of 0..4"),
        ("missed_img_itemIDs.csv", b"x\n", "row 1: itemID is 'x'"),
        ("u_id_mapping.csv", USERS + b"a\t0\nb\t1\n", "2 ids, but there are 3 userIDs"),
        ("u_id_mapping.csv", USERS + b"a\t0\nb\t0\nc\t2\n", "row 3: userID is 0 where 1"),
        ("u_id_mapping.csv", USERS + b"a\t0\na\t1\nc\t2\n", "the raw id 'a' occurs in 2"),
        ("u_id_mapping.csv", b"userID\n0\n", "one column only; expected the raw ids and 'userID'"),
        ("u_id_mapping.csv", b"user_id,id\na,0\n", "there is no column 'userID'"),
    ],
)
def test_malformed_files_are_refused(tmp_path, file, content, line):
    assert f"{file}: {line}" in refusal(tmp_path, MMREC | {file: content})


def test_tables_of_features_that_do_not_fit_are_refused(tmp_path):
    two = {"visual_feat.npy": np.ones((5, 2))}
    assert "visual_feat.npy are both visual features; keep one" in refusal(tmp_path, MMREC | two)
    (tmp_path / "visual_feat.npy").unlink()
    short = {"image_feat.npy": np.ones((2, 2)), "missed_img_itemIDs.csv": b"4\n"}
    assert "image_feat.npy: 2 rows for 5 items" in refusal(tmp_path, short)
