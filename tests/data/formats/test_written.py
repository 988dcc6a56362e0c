"""Formats of other tools: what is written has the same fingerprint when it is read, and nothing is lost in silence."""

import csv

import ml_dtypes
import numpy as np
import pytest

from slmrec_jax.commands.main import main
from slmrec_jax.data import Feature, Words, load, make_dataset
from slmrec_jax.data.converting import OTHER_FORMATS, write_format
from slmrec_jax.data.dataset import NO_INTERACTIONS
from slmrec_jax.data.store import write_store
from slmrec_jax.errors import TooLarge, UserError
from slmrec_jax.types import Interactions

TOOLS = [*OTHER_FORMATS]
RNG = np.random.default_rng(0)
THERE = np.array([True, True, False, True, True, True])


def pairs(*rows):
    return Interactions(*np.array(rows, np.int64).reshape(-1, 2).T)


def shop(**changes):
    """Return a data set whose ids are in no order; users 2 and 3 and items 4 and 5 have no interactions."""
    given = {
        "train": pairs((0, 0), (0, 3), (1, 2), (1, 3), (4, 0), (4, 2)),
        "valid": pairs((0, 1), (4, 3)),
        "test": pairs((1, 0), (0, 3)),
        "num_users": 5,
        "num_items": 6,
        "features": {
            "visual": Feature(RNG.normal(size=(6, 3)).astype(np.float32), THERE),
            "textual": Feature(RNG.normal(size=(6, 2)).astype(np.float16), np.roll(THERE, 1)),
            "clip": Feature(RNG.normal(size=(6, 1)).astype(ml_dtypes.bfloat16), np.ones(6, bool)),
        },
        "user_ids": np.array(["zoë", "ann", "u-3", "bob", "7"]),
        "item_ids": np.array([30, 10, 50, 20, 60, 40]),
    }
    return make_dataset("shop", **given | changes)


BARE = {"valid": NO_INTERACTIONS, "features": {}}


@pytest.mark.parametrize("to", TOOLS)
@pytest.mark.parametrize("content", ["whole", "bare", "numbers by degree"])
def test_what_is_written_is_read_with_the_same_fingerprint(tmp_path, to, content):
    changes = BARE if content == "bare" or to == "lightgcn" else {}
    if content == "numbers by degree":
        changes = {**changes, "user_ids": None, "item_ids": np.arange(6)[::-1]}
    dataset = shop(**changes)
    dataset = dataset.by_degree() if content == "numbers by degree" else dataset
    written = write_format(dataset, tmp_path / "shop", to)
    again = load(tmp_path / "shop")
    assert written.dataset.fingerprint == again.fingerprint == dataset.fingerprint
    assert [note for note in written.notes if "left out" in note] == []
    assert not any("not read" in note for note in again.notes)
    for name, feature in again.features.items():
        there = feature.present
        np.testing.assert_array_equal(feature.values[~there], 0)
        assert there.sum() == dataset.features[name].present.sum()


def test_lightgcn_says_what_it_leaves_out(tmp_path):
    dataset = shop()
    written = write_format(dataset, tmp_path / "shop", "lightgcn")
    assert written.notes == [
        "left out, because lightgcn has no validation split: 2 interactions",
        "left out, because lightgcn has no features: visual, textual, clip",
    ]
    assert load(tmp_path / "shop").fingerprint == written.dataset.fingerprint != dataset.fingerprint
    assert (tmp_path / "shop" / "train.txt").read_text() == "0 0 3\n1 2 3\n4 0 2\n"
    assert (tmp_path / "shop" / "user_list.txt").read_text().splitlines()[:2] == ["org_id remap_id", "zoë 0"]


def test_mmrec_drops_new_users_and_fills_images(tmp_path):
    dataset = shop(test=pairs((2, 0), (1, 0)))
    written = write_format(dataset, tmp_path / "shop", "mmrec")
    assert written.notes == [
        "left out, because mmrec drops users without training interactions: 1 interactions of test",
        "text_feat.npy has 1 rows of NaN, for items without it; fill them in for MMRec",
    ]
    again = load(tmp_path / "shop")
    assert again.fingerprint == written.dataset.fingerprint
    with (tmp_path / "shop" / "shop.inter").open() as file:
        header, *rows = csv.reader(file, delimiter="\t")
    assert header == ["userID", "itemID", "x_label"]
    assert [label for _, _, label in rows] == ["0"] * 6 + ["1"] * 2 + ["2"]
    assert max(int(item) for _, item, _ in rows) == 5  # MMRec counts items by the largest id
    images = np.load(tmp_path / "shop" / "image_feat.npy")
    (missing,) = np.flatnonzero(again.item_ids == 50)
    assert (tmp_path / "shop" / "missed_img_itemIDs.csv").read_text() == f"{missing}\n"
    np.testing.assert_allclose(images[missing], np.delete(images, missing, axis=0).mean(axis=0), rtol=1e-6)


def test_recbole_has_its_own_columns(tmp_path):
    write_format(shop(), tmp_path / "shop", "recbole")
    files = {file.name: file.read_text().splitlines() for file in (tmp_path / "shop").iterdir()}
    ends = [".item", ".itememb", ".test.inter", ".train.inter", ".user", ".valid.inter"]
    assert sorted(files) == [f"shop{end}" for end in ends]
    assert files["shop.valid.inter"] == ["user_id:token\titem_id:token", "zoë\t10", "7\t20"]
    assert files["shop.user"][:2] == ["user_id:token\trow:float", "zoë\t0"]
    assert files["shop.itememb"][0] == "iid:token\timage_emb:float_seq\ttext_emb:float_seq\tclip_emb:float_seq"
    assert files["shop.itememb"][3].startswith("50\t\t")


def test_a_plain_table_keeps_titles_and_odd_ids(tmp_path):
    dataset = shop(
        user_ids=np.array(['c,y "x"', " a", "b\t", "d;e", "f|g"]),
        item_texts={"title": np.array(["a,\nb", "", '"c"', "d", "e", "f"], object)},
    )
    assert write_format(dataset, tmp_path / "shop", "plain").notes == []
    again = load(tmp_path / "shop")
    assert again.fingerprint == dataset.fingerprint
    assert again.item_texts["title"].tolist() == dataset.item_texts["title"].tolist()
    assert (
        write_format(dataset, tmp_path / "other", "mmrec").notes[0].startswith("left out, because mmrec does not show")
    )


@pytest.mark.parametrize(
    ("to", "changes", "line"),
    [
        ("plain", {"user_ids": np.array(["1", "2", "3", "4", "5"])}, "read back, raw ids of users would differ"),
        ("recbole", {"user_ids": np.array(["a\tb", "c", "d", "e", "f"])}, "once written, they could not be read"),
        ("lightgcn", {"user_ids": np.array(["a b", "c", "d", "e", "f"])}, "once written, they could not be read"),
        ("mmrec", {"features": {"image": Feature(np.ones((6, 1)), THERE)}}, "the names of modalities would differ"),
        ("plain", {"features": {"A": Feature(np.ones((6, 1)), THERE)}}, "the names of modalities would differ"),
        ("plain", {"features": {"../x": Feature(np.ones((6, 1)), THERE)}}, "modality '../x' cannot name a file"),
        ("mmrec", {"features": {"/x": Feature(np.ones((6, 1)), THERE)}}, "the modality '/x' cannot name a file"),
        ("recbole", {"features": {"visual": Feature(np.ones((6, 1)), ~THERE & THERE)}}, "no row of image_emb"),
    ],
)
def test_what_would_not_be_the_same_is_refused(tmp_path, to, changes, line):
    with pytest.raises(UserError) as caught:
        write_format(shop(**changes), tmp_path / "out", to)
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith(f"data set shop: {to} cannot hold these data: ")
    assert line in str(caught.value)
    assert ".part" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_to_read_it_back_says_nothing_about_the_format(tmp_path, monkeypatch):
    def read(folder, source):
        raise TooLarge("the tables need more than the memory_limit of 1 MiB")

    monkeypatch.setattr("slmrec_jax.data.converting.read_folder", read)
    with pytest.raises(TooLarge, match=r"^the tables need more than"):
        write_format(shop(), tmp_path / "out", "plain")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["mmrec", "recbole", "plain"])
def test_words_and_the_order_of_modalities_are_named(tmp_path, to):
    features = {
        "textual": Feature(np.ones((6, 1)), np.ones(6, bool)),
        "visual": Feature(np.ones((6, 2)), np.ones(6, bool)),
        "tags": Words(np.array([0, 1]), np.array([1, 0]), 2),
    }
    written = write_format(shop(features=features), tmp_path / "shop", to)
    assert written.notes == [
        f"left out, because {to} has only vectors and no words: tags",
        "the order of modalities is not kept: train on the folder with modalities textual visual",
    ]
    assert load(tmp_path / "shop").fingerprint == written.dataset.fingerprint


def test_the_command_writes_and_says_so(tmp_path, capsys):
    store, out = tmp_path / "store", tmp_path / "out"
    write_store(shop(), store)
    for to in ("mmrec", "lightgcn"):
        assert main(["data", "convert", str(store), str(out / to), "--to", to]) == 0
        said = capsys.readouterr().out
        assert f"{out / to}: shop, 0.0 MiB, fingerprint {load(out / to).fingerprint[:12]}" in said
        assert "! times and ratings, if any, are not written" in said
        assert ("! with the omitted parts, the fingerprint is" in said) == (to == "lightgcn")
    assert main(["data", "convert", str(store), str(out / "mmrec"), "--to", "plain"]) == 1
    assert "already exists" in capsys.readouterr().err
    assert main(["data", "convert", str(store), str(out / "x"), "--to", "cornac"]) == 1
    assert "mmrec" in capsys.readouterr().err


def test_a_list_of_users_counts_only_with_rows(tmp_path):
    write_format(shop(), tmp_path / "shop", "plain")
    listed = tmp_path / "shop" / "users.csv"
    listed.write_text("user,age\nzoë,7\n")
    assert load(tmp_path / "shop").num_users == 3
    listed.write_text("user,row\nzoë,0\n")
    with pytest.raises(UserError, match=r"interactions\.csv: row 4: user is 'ann', which users.csv does not have"):
        load(tmp_path / "shop")
