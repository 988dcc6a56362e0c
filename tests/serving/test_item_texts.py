"""Titles and pictures of items go with them: from tables and frames through runs' folders to every output."""

import json

import numpy as np
import pyarrow.parquet
import pytest

import slmrec_jax as slm
from slmrec_jax import UserError
from slmrec_jax.commands.main import main
from slmrec_jax.data import load, make_dataset, write_store
from slmrec_jax.reporting.items import item_names
from slmrec_jax.serving.exports import read_export, write_export
from slmrec_jax.serving.recommendations import write_ranked
from slmrec_jax.serving.served import recommend, served_of, similar_items
from slmrec_jax.types import Embeddings, Interactions

USERS, ITEMS = ["u1", "u2", "u3", "u1"], ["b", "a", "b", "c"]
CATALOGUE = {"item": ["c", "b", "a"], "title": ["A cat, asleep", "", "Ärger\x1b[2J"], "image": ["c.png", "b.png", ""]}
TITLES = {"c": "A cat, asleep", "b": "", "a": "Ärger\x1b[2J"}


@pytest.fixture(scope="module")
def dataset():
    return slm.dataset((USERS, ITEMS), items=CATALOGUE, split="mmrec")


@pytest.fixture(scope="module")
def served(dataset):
    """Each user is near the item of the same row."""
    return served_of(dataset, Embeddings(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)), "dot")


def titles(dataset):
    return dict(zip(dataset.item_ids.tolist(), dataset.item_texts["title"].tolist(), strict=True))


def test_they_come_from_tables_and_frames_and_stay_with_their_items(dataset, tmp_path):
    assert titles(dataset) == TITLES
    assert titles(dataset.by_degree()) == TITLES
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "interactions.csv").write_text("user,item\nu1,b\nu2,a\nu3,b\nu1,c\n")
    (folder / "items.csv").write_text(
        'item,Title,image,price\nc,"A cat, asleep",c.png,3\nb,,b.png,1\na,Ärger\x1b[2J,,2\n'
    )
    loaded = load(folder, split="mmrec")
    assert titles(loaded) == TITLES
    assert loaded.item_texts["image"].tolist() == CATALOGUE["image"]
    assert loaded.fingerprint == dataset.fingerprint


def test_they_are_kept_in_stores_and_exports(dataset, served, tmp_path):
    write_store(dataset, tmp_path / "store")
    assert titles(load(tmp_path / "store")) == TITLES
    write_export(served, tmp_path / "exported")
    read = read_export(tmp_path / "exported")
    assert {kind: texts.tolist() for kind, texts in read.item_texts.items()} == {
        kind: texts.tolist() for kind, texts in dataset.item_texts.items()
    }


def test_every_output_has_them(served, tmp_path, capsys):
    found = recommend(served, ["u2"], 2)
    for form in ("table", "jsonl", "parquet"):
        write_ranked([found], form, tmp_path / form)
    table = (tmp_path / "table").read_text()
    assert "A cat, asleep" in table
    assert "c.png" in table
    assert "\x1b" not in table
    line = json.loads((tmp_path / "jsonl").read_text())
    assert line["titles"] == [TITLES[item] for item in line["items"]]
    rows = pyarrow.parquet.read_table(tmp_path / "parquet").to_pylist()
    assert [row["title"] for row in rows] == line["titles"]
    similar = similar_items(served, ["a"], 2)
    assert similar.texts["title"].tolist() == [[TITLES[item] for item in similar.similar[0]]]


def test_the_command_shows_them(served, tmp_path, capsys):
    write_export(served, tmp_path / "exported")
    assert main(["similar", str(tmp_path / "exported"), "--items", "a", "-k", "2"]) == 0
    assert "A cat, asleep" in capsys.readouterr().out


def test_a_report_names_items_by_id_and_title(dataset):
    assert item_names(dataset) == ["c: A cat, asleep [c.png]", "b [b.png]", "a: Ärger\x1b[2J"]


def test_texts_of_another_form_are_refused():
    pairs = Interactions(np.array([0]), np.array([0]))
    wrong = np.array([1, 2], np.object_)
    with pytest.raises(UserError, match="title is not one text for each item; give 2 texts"):
        make_dataset("x", pairs, pairs, pairs, num_users=1, num_items=2, item_texts={"title": wrong})
