"""The embedded DuckDB: what it may read, what it leaves behind, and how names and values come through it."""

from itertools import pairwise

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from slmrec_jax.data import load
from slmrec_jax.data.pairs import blocks_of_users, renumbered, unique_pairs
from slmrec_jax.data.readers.engine import Engine, limited_memory, quoted_name, quoted_text
from slmrec_jax.errors import UserError
from slmrec_jax.types import Interactions


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def write(file, columns):
    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.table(columns), file)
    return file


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_csv('{folder}/secret.csv')",
        "SELECT * FROM '{folder}/secret.csv'",
        "SELECT * FROM glob('{folder}/*')",
        "SELECT content FROM read_text('{folder}/secret.csv')",
        "COPY (SELECT 1) TO '{folder}/new.csv'",
        "ATTACH '{folder}/new.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SELECT * FROM 'https://example.com/x.parquet'",
        "SET memory_limit = '100GB'",
        "SET enable_external_access = true",
        "SELECT * FROM hidden",
    ],
)
def test_nothing_but_the_given_files_is_read(tmp_path, query):
    (tmp_path / "secret.csv").write_text("a\n1\n")
    hidden = pa.table({"a": [1]})  # DuckDB could take a variable for a table
    assert hidden.num_rows
    engine = Engine()
    with pytest.raises(duckdb.Error):
        engine.rows(query.format(folder=tmp_path))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["secret.csv"]


def test_the_private_folder_goes_with_the_engine(tmp_path, temporary):
    file = write(tmp_path / "t.parquet", {"a": [1]})
    engine = Engine([file])
    (private,) = temporary.iterdir()
    assert private.stat().st_mode & 0o77 == 0
    assert engine.rows(engine.parquet([file], {"a": 0})) == [(1, 0, 0)]
    del engine
    assert list(temporary.iterdir()) == []
    engine = Engine()
    engine.close()
    assert list(temporary.iterdir()) == []


def test_no_private_folder_is_left_if_duckdb_does_not_start(temporary, monkeypatch):
    def fail(**options):
        raise duckdb.Error("no")

    monkeypatch.setattr(duckdb, "connect", fail)
    with pytest.raises(duckdb.Error):
        Engine()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("kind", [OSError, pa.ArrowInvalid, duckdb.OutOfMemoryException, duckdb.IOException])
@pytest.mark.parametrize("words", ["Out of Memory Error: no room", "IO Error: No space left on device"])
def test_too_little_room_while_a_result_is_read_is_one_line(tmp_path, kind, words):
    engine = Engine([write(tmp_path / "t.parquet", {"a": [1]})])
    with pytest.raises(UserError, match="the tables need more than the memory_limit of"), engine._refusing():
        raise kind(words)


@pytest.mark.parametrize("name", ["a'b.parquet", 'a"b.parquet', "*.parquet", "[ab]?.parquet", "ü; DROP.parquet"])
def test_names_are_not_read_as_queries_or_patterns(tmp_path, name):
    odd = """x" FROM t; DROP TABLE "t'--"""
    file = write(tmp_path / name, {odd: ["it's"], "b": [2]})
    write(tmp_path / "b0.parquet", {odd: ["other"], "b": [3]})
    engine = Engine([file])
    where = f"({engine.parquet([file], {odd: 0, 'b': 1})}) WHERE {quoted_name(odd)} = " + quoted_text("it's")
    assert engine.rows(f"SELECT {quoted_name(odd)}, b FROM {where}") == [("it's", 2)]


def test_odd_names_of_columns_are_read(tmp_path):
    odd = 'who "did"; DROP TABLE x--'
    write(tmp_path / "t.parquet", {odd: ["a", "a", "b"], "item's": [1, 2, 3]})
    dataset = load(tmp_path, split="mmrec", user_column=odd, item_column="item's")
    assert dataset.user_ids.tolist() == ["a", "b"]


def test_a_limit_holds_within_its_block_alone():
    def limit():
        return Engine().rows("SELECT current_setting('memory_limit'), current_setting('threads')")[0]

    with limited_memory("100MiB"):
        assert limit() == ("100.0 MiB", 1)
    assert limit()[0] != "100.0 MiB"
    with pytest.raises(UserError, match="memory_limit is '4 apples'"), limited_memory("4 apples"):
        pass


def test_ids_whose_hashes_collide_are_joined_by_themselves(tmp_path, monkeypatch):
    write(tmp_path / "t.parquet", {"user": ["a", "b", "a"], "item": ["x", "y", "y"]})
    expected = load(tmp_path, split="mmrec").fingerprint
    rows = Engine.rows

    def collide(self, query):
        found = rows(self, query)
        return [(*found[0][:2], found[0][2] - 1)] if "DISTINCT hash" in query else found

    monkeypatch.setattr(Engine, "rows", collide)
    assert load(tmp_path, split="mmrec").fingerprint == expected


TICK = 1_694_282_882_238_000_000
ZONED = [f"2023-09-09T18:08:02.{238_000_000 + step:09}+02" for step in (3, 2, 1)]


@pytest.mark.parametrize("first", range(3))
def test_nanoseconds_in_a_zone_are_in_order(tmp_path, first):
    order = np.roll(np.arange(3), first)
    table = pa.table({"user": ["a"] * 3, "item": ["x", "y", "z"], "time": ZONED}).take(order)
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    assert load(tmp_path, split="leave-one-out").test.items.tolist() == [0]


# --- blocks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize("seed", range(4))
def test_interactions_are_renumbered_in_blocks_of_users(monkeypatch, size, seed):
    monkeypatch.setattr("slmrec_jax.data.pairs._BLOCK", size)
    rng = np.random.default_rng(seed)
    given = Interactions(rng.integers(9, size=60), rng.integers(7, size=60))
    pairs = unique_pairs(given, 7)
    known = sorted(set(zip(*(column.tolist() for column in given), strict=True)))
    assert list(zip(pairs.users.tolist(), pairs.items.tolist(), strict=True)) == known
    assert unique_pairs(pairs, 7) is pairs
    covered = list(blocks_of_users(pairs.users))
    assert [place for block in covered for place in range(block.start, block.stop)] == list(range(len(known)))
    ends = [(pairs.users[one.stop - 1], pairs.users[other.start]) for one, other in pairwise(covered)]
    assert all(last != first for last, first in ends)
    users, items = rng.permutation(9)[: 9 - seed], rng.permutation(7)[: 7 - seed]
    rows = np.full(7, -1, np.int32)
    rows[items] = np.arange(len(items))
    found = renumbered(pairs, users, rows, 9, len(items))
    places = {user: place for place, user in enumerate(users.tolist())}
    expected = sorted((places[user], int(rows[item])) for user, item in known if user in places and rows[item] >= 0)
    assert list(zip(found.users.tolist(), found.items.tolist(), strict=True)) == expected
    assert found.users.dtype == found.items.dtype == np.int32
