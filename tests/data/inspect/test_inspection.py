"""Facts about a data set against counting by hand, the oddities reported, and the commands `slmrec-jax data`."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from slmrec_jax.commands.main import COMMANDS, main
from slmrec_jax.commands.parsing import parse
from slmrec_jax.data import SPLIT_METHODS, Feature, Words, load, make_dataset
from slmrec_jax.data.formats import FORMATS
from slmrec_jax.data.inspect import inspection as module
from slmrec_jax.data.inspect.findings import as_data, facts, oddities
from slmrec_jax.data.inspect.inspection import inspect_dataset
from slmrec_jax.types import Interactions

DEMO = "c8f13260c81da26691b68cc187d5c6c96e3936d45ac586a7f312de41f75ccea3"
"""The fingerprint of the demo data."""


def pairs(*rows):
    return Interactions(*np.array(rows, np.int64).reshape(-1, 2).T)


def small(**changes):
    visual = np.array([[3, 4], [0, 0], [3, 4], [np.nan, 1], [0, 2], [3, 4]], np.float16)
    given = {
        "train": pairs((0, 0), (0, 1), (1, 1), (2, 1)),
        "valid": pairs((0, 2), (2, 1), (3, 1)),
        "test": pairs((0, 1), (3, 4), (4, 4)),
        "num_users": 6,
        "num_items": 6,
        "features": {
            "visual": Feature(visual, np.array([True, True, True, False, True, True])),
            "textual": Words(np.array([0, 0, 0, 2]), np.array([1, 1, 4, 4]), 7),
        },
        "notes": ("two users were dropped",),
    }
    return make_dataset("small", **given | changes)


def test_counts():
    found = inspect_dataset(small())
    assert (found.users, found.items, found.interactions) == (6, 6, {"train": 4, "valid": 3, "test": 3})
    assert found.density == 10 / 36
    assert (found.cold_users, found.cold_items) == (3, 4)
    assert found.new_users == {"valid": 1, "test": 2}
    assert found.new_items == {"valid": 1, "test": 1}
    assert found.overlap == {"train & valid": 1, "train & test": 1, "valid & test": 0}
    assert found.bare_items == 1
    assert found.fingerprint == small().fingerprint
    assert found.notes == ("two users were dropped",)


def test_degrees_are_of_training():
    found = inspect_dataset(small())
    assert (found.user_degrees["min"], found.user_degrees["max"]) == (0, 2)
    assert (found.item_degrees["min"], found.item_degrees["median"], found.item_degrees["max"]) == (0, 0, 3)


@pytest.mark.parametrize("chunk", [2**22, 4])
def test_vectors(monkeypatch, chunk):
    monkeypatch.setattr(module, "_VALUES_PER_CHUNK", chunk)
    visual = inspect_dataset(small()).modalities["visual"]
    assert (visual.columns, visual.stored, visual.missing) == (2, "float16", 1)
    assert visual.norms == {"min": 0.0, "median": 5.0, "max": 5.0}
    assert (visual.zeros, visual.duplicates, visual.most_copies) == (1, 2, 3)


def test_rows_that_differ_are_not_taken_for_copies():
    rows = np.random.default_rng(0).integers(0, 2, (4096, 12)).astype(np.float32)
    rows[::7] *= -0.0
    found = inspect_dataset(small(num_items=4096, features={"v": Feature(rows, np.ones(4096, bool))})).modalities["v"]
    assert found.duplicates == 4096 - len(np.unique(np.abs(rows), axis=0))


def test_words():
    words = inspect_dataset(small()).modalities["textual"]
    assert (words.words, words.used, words.missing) == (7, 2, 4)
    assert words.per_item == {"min": 1, "median": 1, "max": 3}


def test_a_modality_that_no_item_has_and_no_modality():
    found = inspect_dataset(small(features={"visual": Feature(np.ones((6, 2)), np.zeros(6, bool))}))
    assert found.modalities["visual"].norms == {}
    assert found.bare_items == 6
    assert inspect_dataset(small(features={})).bare_items == 0


@pytest.mark.parametrize(
    ("changes", "line", "fix"),
    [
        ({}, "interactions in train & test: 1", "keep each in one split"),
        ({}, "users of test without training interactions: 2", "--protocol mmrec"),
        ({}, "items of valid without training interactions: 1", "--model slmrec"),
        ({}, "visual: items without it: 1 of 6", "--missing mean"),
        ({}, "visual: rows of zeros: 1", "NaN"),
        ({}, "visual: one row occurs 3 times", "leave these rows out"),
        ({}, "textual: items without words: 4", "masked"),
        ({}, "items without any modality: 1", "ids alone"),
        ({"features": {}}, "no modality", "--model lightgcn"),
        ({"valid": pairs()}, "no validation split", "--split validation"),
        ({"test": pairs()}, "no test split", "--split mmrec"),
        ({"valid": pairs(), "test": pairs()}, "nothing is held out", "--split mmrec"),
        ({"valid": pairs(), "test": pairs((0, 0))}, "users without any training interaction: 3", "remove"),
        (
            {"features": {"v": Feature(np.array([[1.0]] * 5 + [[1e6]]), np.ones(6, bool))}},
            "v: the largest norm is 1e+06",
            "divide rows",
        ),
    ],
)
def test_oddities_come_with_a_fix(changes, line, fix):
    lines = oddities(inspect_dataset(small(**changes)))
    assert any(line in each and fix in each for each in lines), lines


def test_a_clean_data_set_has_no_oddities():
    rows = np.random.default_rng(0).random((2, 3))
    clean = make_dataset(
        "clean",
        pairs((0, 0), (1, 1)),
        pairs((0, 1)),
        pairs((1, 0)),
        num_users=2,
        num_items=2,
        features={"visual": Feature(rows, np.ones(2, bool))},
        user_ids=np.array(["ann", "anna"]),
    )
    assert oddities(inspect_dataset(clean)) == []


def test_facts_are_one_line_each():
    found = inspect_dataset(small())
    lines = facts(found)
    assert lines["visual: vectors"] == "2 columns, stored as float16"
    assert lines["note 1"] == "two users were dropped"
    assert lines["fingerprint"] == found.fingerprint
    assert not any("\n" in line for line in lines.values())
    assert json.loads(json.dumps(as_data(found)))["modalities"]["visual"]["zeros"] == 1


# --- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def plain(tmp_path):
    """A folder that is not divided, with times."""
    folder = tmp_path / "shop"
    folder.mkdir()
    rows = "".join(f"u{n % 7},i{n * n % 11},{n}\n" for n in range(60))
    (folder / "shop.csv").write_text(f"user,item,timestamp\n{rows}")
    return str(folder)


def test_inspect_prints_facts_oddities_and_a_picture(plain, tmp_path, capsys):
    picture = tmp_path / "picture.png"
    assert main(["data", "inspect", plain, "--split", "time", "--plot", str(picture)]) == 0
    output = capsys.readouterr().out
    assert "plain" in output
    assert "split by 'time' with seed 0" in output
    assert load(plain, split="time").fingerprint in output
    assert "! no modality" in output
    assert picture.stat().st_size > 5000


def test_inspect_divides_by_the_seed(plain, capsys):
    assert main(["data", "inspect", plain, "--split", "mmrec", "--split-seed", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fingerprint"] == load(plain, split="mmrec", split_seed=3).fingerprint


def test_what_is_not_divided_can_be_inspected(plain, capsys):
    assert main(["data", "inspect", plain, "--json"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert (output["format"], output["divided"], output["interactions"]["test"]) == ("plain", False, 0)
    assert main(["data", "inspect", plain]) == 0
    assert "--split mmrec | lattice" in capsys.readouterr().out


def test_convert_and_make(plain, tmp_path, capsys):
    assert main(["data", "convert", plain, str(tmp_path / "kept"), "--split", "mmrec", "--split-seed", "3"]) == 0
    assert load(str(tmp_path / "kept")).fingerprint == load(plain, split="mmrec", split_seed=3).fingerprint
    assert load(plain, split="mmrec", split_seed=3).fingerprint != load(plain, split="mmrec").fingerprint
    assert main(["data", "make", "demo", str(tmp_path / "demo")]) == 0
    fingerprint = load(tmp_path / "demo").fingerprint
    assert fingerprint == DEMO
    assert fingerprint[:12] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["convert", "SHOP", "OUT"], "it is not split; say how with --split"),
        (["convert", "SHOP", "SHOP", "--split", "time"], "already exists"),
        (["convert", "SHOP", "OUT", "--split", "tmie"], "there is no split 'tmie'"),
        (["inspect", "SHOP", "--plot", "a.bmp"], "ends in .png"),
        (["inspect", "SHOP", "--plot", "/dev/null/none/a.png"], "cannot write"),
        (["inspect", "OUT"], "no such folder"),
        (["make", "tiktok", "OUT"], "name is 'tiktok': give demo;"),
        (["inspct", "SHOP"], "did you mean 'data inspect'"),
        (["inspect", "SHOP", "--polt", "x"], "did you mean '--plot'"),
    ],
)
def test_refusals_get_one_line(plain, tmp_path, capsys, arguments, line):
    places = {"SHOP": plain, "OUT": str(tmp_path / "out")}
    for name, place in places.items():
        arguments = [each.replace(name, place) for each in arguments]
    assert main(["data", *arguments]) == 1
    output = capsys.readouterr().err
    assert line in output
    assert output.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_data_alone_lists_its_commands(capsys):
    assert main(["data"]) == 0
    assert "data convert" in capsys.readouterr().out


# --- docs/data.md ------------------------------------------------------------------------------------------------

DOCS = (Path(__file__).parents[3] / "docs" / "data.md").read_text()
WRITTEN = re.findall(r"^slmrec-jax (.*)$", DOCS, re.MULTILINE)


def test_every_format_and_split_is_described():
    assert all(
        f"| `{name}` |" in DOCS and each.LOOKS_FOR.split()[0].rstrip(",") in DOCS for name, each in FORMATS.items()
    )
    assert all(f"| `{name}` | {split.summary}" in DOCS for name, split in SPLIT_METHODS.items() if name != "lattice")


@pytest.mark.parametrize("line", WRITTEN)
def test_every_command_that_is_written_is_understood(line):
    words = shlex.split(line)
    name = next(name for name in COMMANDS if words[: len(name.split())] == name.split())
    parse(COMMANDS[name][0], "slmrec-jax", words[len(name.split()) :])
