"""Tables in several files: folders of parts, partitioned or not."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from small_folders import ROWS, parquet, read, refusal, text, write

from slmrec_jax.data import load
from slmrec_jax.data.readers.engine import Engine

HOW = {"split": "leave-one-out"}


def columns(rows, **more):
    users, items, times = zip(*rows, strict=True)
    return {"user": users, "item": items, "timestamp": times, **more}


def expected(folder):
    return read(folder, {"interactions.csv": text(ROWS)}, **HOW).fingerprint


PARTS = {
    "Parquet": {f"part-{n}.parquet": parquet(columns(ROWS[n::3])) for n in range(3)},
    "Parquet below keys": {f"day={n}/x.parquet": parquet(columns(ROWS[n::3])) for n in range(3)},
    "names that look like patterns": {f"[{n}]*.parquet": parquet(columns(ROWS[n::3])) for n in range(3)},
    "what Spark leaves": {"part-0.parquet": parquet(columns(ROWS)), "_SUCCESS": "", ".part-0.parquet.crc": "x"},
    "CSV": {f"{n}.csv": text(ROWS[n::2]) for n in range(2)},
    "CSV of different forms": {
        "0.csv": text(ROWS[::2], ";"),
        "1.tsv.gz": gzip.compress(text([row[::-1] for row in ROWS[1::2]], "\t", "ts,item_id,user_id").encode()),
    },
}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("called", ["interactions", "ratings"])
def test_a_folder_of_parts_is_one_table(tmp_path, name, called):
    write(tmp_path / "shop" / called, PARTS[name])
    dataset = load(tmp_path / "shop", **HOW)
    assert dataset.fingerprint == expected(tmp_path / "whole")
    left = [note for note in dataset.notes if note.startswith("not read")]
    assert left == [f"not read: '{called}/_SUCCESS'"] * ("_SUCCESS" in PARTS[name])


@pytest.mark.parametrize("key", ["user", "split", "timestamp"])
def test_the_name_of_a_folder_is_a_value(tmp_path, key):
    place = {"user": 0, "timestamp": 2}.get(key)
    rows = [*ROWS, ("u0", "i9", 99)]
    labels = ["train", "valid", "test"]
    value = lambda n, row: labels[n % 3] if place is None else row[place]  # noqa: E731
    for n, row in enumerate(rows):
        kept = {name: cells for name, cells in columns([row]).items() if name != key}
        write(tmp_path / "shop" / "interactions" / f"{key}={value(n, row)}", {f"{n}.parquet": parquet(kept)})
    whole = columns(rows, **({"split": [labels[n % 3] for n in range(len(rows))]} if place is None else {}))
    how = {} if place is None else HOW
    same = read(tmp_path / "whole", {"interactions.parquet": parquet(whole)}, **how)
    assert load(tmp_path / "shop", **how).fingerprint == same.fingerprint


def test_keys_above_the_data_set_are_no_columns(tmp_path):
    folder = tmp_path / "user=x"
    read(
        folder,
        {"interactions/0.parquet": parquet(columns(ROWS)), "interactions/1.parquet": parquet(columns(ROWS))},
        **HOW,
    )
    assert load(folder, **HOW).fingerprint == expected(tmp_path / "whole")


def test_a_folder_for_each_split(tmp_path):
    parts = {"train/0.parquet": ROWS[:6], "train/1.parquet": ROWS[6:10], "val/0.parquet": ROWS[10:13]}
    files = {name: parquet(columns(rows)) for name, rows in parts.items()}
    dataset = read(tmp_path / "parts", {**files, "test.csv": text(ROWS[13:])})
    labels = ["train"] * 10 + ["valid"] * 3 + ["test"] * 3
    whole = read(tmp_path / "whole", {"interactions.parquet": parquet(columns(ROWS, split=labels))})
    assert dataset.fingerprint == whole.fingerprint


@pytest.mark.parametrize(
    ("files", "line"),
    [
        (
            {"0.csv": text(ROWS), "1.csv": text([*ROWS, ("", "i", 1)])},
            "interactions/1.csv: row 18: user is ''; expected an id of 1 to 256 characters",
        ),
        (
            {"0.parquet": parquet(columns(ROWS)), "1.parquet": parquet({**columns(ROWS[:2]), "user": ["a", None]})},
            "interactions/1.parquet: row 2: user is missing; expected an id",
        ),
        (
            {"0.parquet": parquet(columns(ROWS)), "1.parquet": parquet({**columns(ROWS[:2]), "user": [1, 2]})},
            "interactions/1.parquet: 'user' is a column of int64, but of string in 0.parquet; use the same types",
        ),
        (
            {"0.parquet": parquet(columns(ROWS)), "1.parquet": parquet({"user": ["a"], "item": ["b"]})},
            "give all files of interactions the same columns",
        ),
        (
            {"0.parquet": parquet(columns(ROWS)), "1.csv": text(ROWS)},
            "1.csv: it is text, but 0.parquet is Parquet; give all files of interactions the same kind",
        ),
        ({"0.parquet": parquet(columns(ROWS)), "1.parquet": b"PAR1"}, "interactions/1.parquet: "),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path, files, line):
    write(tmp_path / "interactions", files)
    assert line in refusal(tmp_path, **HOW)


def test_damage_within_a_part_names_it(tmp_path):
    write(tmp_path / "interactions", PARTS["Parquet"])
    file = tmp_path / "interactions" / "part-1.parquet"
    content = bytearray(file.read_bytes())
    content[4:60] = b"\xff" * 56
    file.write_bytes(content)
    line = refusal(tmp_path, **HOW)
    assert line.startswith("interactions/part-1.parquet: not a readable Parquet file (")
    assert line.endswith("; write it again")


def test_what_is_left_out_of_a_folder_of_parts_is_named(tmp_path):
    folder = tmp_path / "shop" / "interactions"
    write(folder, {"a.csv": text(ROWS[::2]), "d.data": text(ROWS[1::2], "\t"), "sub/deep/_b.csv": text(ROWS)})
    write(folder, {"part-00001": text(ROWS), "c.CSV": text(ROWS), "c.json": "{}", "jpg/1.jpg": "", ".hidden": ""})
    write(tmp_path / "elsewhere", {"e.csv": text(ROWS[:3])})
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "linked.csv").symlink_to(tmp_path / "elsewhere")
    dataset = load(tmp_path / "shop", **HOW)
    assert dataset.fingerprint == expected(tmp_path / "whole")
    names = ("c.CSV", "c.json", "jpg/", "link/", "linked.csv/", "part-00001", "sub/")
    assert "not read: " + ", ".join(f"'interactions/{name}'" for name in names) in dataset.notes


def test_what_is_left_out_beside_a_part_in_a_folder_of_the_folder_is_named(tmp_path):
    parts = {"sub/deep/a.csv": text(ROWS), "sub/b.xml": "", "sub/deep/_c.csv": text(ROWS)}
    write(tmp_path / "interactions", parts)
    notes = load(tmp_path, **HOW).notes
    assert "not read: 'interactions/sub/b.xml', 'interactions/sub/deep/_c.csv'" in notes


@pytest.mark.parametrize("called", ["train", "valid", "val", "validation", "test", "ratings", "interactions"])
@pytest.mark.parametrize("part", ["readme.txt", "log.csv", "x.dat", "y.parquet"])
@pytest.mark.parametrize("beside", ["interactions.parquet", "x.inter", "log.csv"])
def test_a_folder_without_columns_of_users_and_items_is_no_table(tmp_path, called, part, beside):
    if beside == "interactions.parquet":
        table = parquet(columns(ROWS))
    else:
        table = text(ROWS, "\t", "user_id:token\titem_id:token\ttimestamp:float") if ".inter" in beside else text(ROWS)
    other = parquet({"epoch": [1, 2]}) if part.endswith(".parquet") else "epoch,loss\n1,2\n"
    dataset = read(tmp_path / "shop", {beside: table, f"{called}/{part}": other}, **HOW)
    assert dataset.fingerprint == expected(tmp_path / "whole")
    assert f"not read: '{called}/'" in dataset.notes


def test_a_folder_of_parts_with_unknown_columns_is_described(tmp_path):
    files = {"interactions/0.parquet": parquet({"buyer": ["a"], "thing": ["b"]})}
    line = refusal(tmp_path, files, **HOW)
    assert "'interactions/0.parquet' has the columns 'buyer', 'thing': name the columns of users and items with" in line
    named = {"user_column": "buyer", "item_column": "thing"}
    assert read(tmp_path, files, split="mmrec", **named).num_items == 1


def test_a_parquet_file_that_is_named_as_a_packed_one_is_read(tmp_path):
    dataset = read(tmp_path / "shop", {"interactions.parquet.gz": parquet(columns(ROWS))}, **HOW)
    assert dataset.fingerprint == expected(tmp_path / "whole")


# --- memory ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limit", ["lots", "4", "-1GB", "1kB", "", "99999999999TB", f"{'9' * 400}GB", f"{'9' * 300}TB", "1126TB"]
)
def test_a_limit_that_is_no_size_is_refused(tmp_path, limit):
    line = refusal(tmp_path, {"interactions.csv": text(ROWS)}, memory_limit=limit, **HOW)
    assert line.startswith(f"memory_limit is '{limit[:40]}': give ")
    assert "type" not in line


@pytest.mark.parametrize("limit", ["100MB", "0.5 GiB", "1g"])
def test_a_limit_may_be_written_in_several_ways(tmp_path, limit):
    dataset = read(tmp_path / "whole", {"interactions.csv": text(ROWS)}, memory_limit=limit, **HOW)
    assert dataset.fingerprint == expected(tmp_path / "same")


@pytest.mark.slow
def test_a_table_larger_than_the_limit_waits_in_the_temporary_folder(tmp_path, monkeypatch):
    spilled, temporary = [], tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    blocks = Engine.blocks

    def watched(self, query):
        for block in blocks(self, query):
            spilled.append(sum(file.stat().st_size for file in temporary.rglob("*.tmp")))
            yield block

    monkeypatch.setattr(Engine, "blocks", watched)
    rng = np.random.default_rng(0)
    (tmp_path / "shop").mkdir()
    users, items = rng.integers(300_000, size=4_000_000), rng.integers(50_000, size=4_000_000)
    table = {"user": users, "item": items, "timestamp": np.arange(4_000_000)}
    pyarrow.parquet.write_table(pa.table(table), tmp_path / "shop" / "interactions.parquet")
    found = {limit: load(tmp_path / "shop", split="leave-one-out", memory_limit=limit) for limit in ("64MB", "2GB")}
    assert max(spilled) > 2**20
    assert len({dataset.fingerprint for dataset in found.values()}) == 1
    assert list(temporary.iterdir()) == []


def test_a_small_file_of_many_rows_is_merged_and_not_held(tmp_path):
    rows = {
        "user": pa.DictionaryArray.from_arrays(np.zeros(3_000_000, np.int32), ["x" * 200]),
        "item": np.zeros(3_000_000, np.int64),
    }
    pyarrow.parquet.write_table(pa.table(rows), tmp_path / "interactions.parquet")
    assert (tmp_path / "interactions.parquet").stat().st_size < 10**5
    dataset = load(tmp_path, split="mmrec", memory_limit="64MB")
    assert "rows that repeat an interaction, merged: 2999999 of 3000000" in dataset.notes


def test_more_than_memory_and_disk_hold_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("slmrec_jax.data.readers.engine._LEAST_BYTES", 2**20)
    rng = np.random.default_rng(0)
    rows = {"user": rng.integers(2**40, size=400_000), "item": np.zeros(400_000, np.int64)}
    line = refusal(tmp_path, {"interactions.parquet": parquet(rows)}, split="mmrec", memory_limit="2MB")
    assert "the tables need more than the memory_limit of 1 MiB and the room in " in line
    assert "give more memory, or free some space there" in line
