"""A window of time: `--from` and `--until`."""

from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pytest
from small_folders import parquet, read, refusal, write

import slmrec_jax as slm
from slmrec_jax.commands.main import main
from slmrec_jax.commands.parsing import parse
from slmrec_jax.commands.train import TrainFlags
from slmrec_jax.config import Config
from slmrec_jax.config.serialization import from_json, to_json
from slmrec_jax.data import Source, load, read_source
from slmrec_jax.data.formats.windows import time_text

DAYS = [f"2025-01-{day:02d}" for day in range(1, 9)]
SECONDS = [int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) for day in DAYS]


def table(times):
    return "user,item,date\n" + "".join(f"u{row % 2},i{row},{time}\n" for row, time in enumerate(times))


def kept(folder, content, since=None, until=None, name="x.csv"):
    """Return the rows that count, which are those of the items' names."""
    source = Source(str(write(folder, {name: content})), since=since, until=until)
    found, _ = read_source(source)
    return [int(item[1:]) for item in found.dataset.item_ids]


def arrow(times, kind):
    column = pa.array(DAYS if times is None else times)
    rows = np.arange(len(column))
    return parquet(
        {"user": [f"u{row % 2}" for row in rows], "item": [f"i{row}" for row in rows], "ts": column.cast(kind)}
    )


MOMENTS = pa.array([datetime.fromisoformat(day) for day in DAYS])
DATES = {
    "days": table(DAYS),
    "days and times": table([f"{day} 00:00:00" for day in DAYS]),
    "in a zone": table([f"{day}T01:00:00+01:00" for day in DAYS]),
    "nanoseconds": table([f"{day}T00:00:00.000000000Z" for day in DAYS]),
    "date32": arrow([date.fromisoformat(day) for day in DAYS], pa.date32()),
    "timestamp[s]": arrow(MOMENTS, pa.timestamp("s")),
    "timestamp[ns]": arrow(MOMENTS, pa.timestamp("ns")),
    "timestamp[us, UTC]": arrow(MOMENTS, pa.timestamp("us", "UTC")),
}
NUMBERS = {
    "seconds": table(SECONDS),
    "floats": table([second + 0.0 for second in SECONDS]),
    "int32": arrow(SECONDS, pa.int32()),
    "double": arrow(SECONDS, pa.float64()),
    "decimal": arrow(SECONDS, pa.decimal128(24, 2)),
}


def name_of(content):
    return "x.csv" if isinstance(content, str) else "x.parquet"


@pytest.mark.parametrize("form", DATES)
def test_dates(tmp_path, form):
    content = DATES[form]
    assert kept(tmp_path, content, "2025-01-03", "2025-01-06", name_of(content)) == [2, 3, 4]
    in_a_zone, just_after = "2025-01-03T00:30:00+01:00", "2025-01-05T00:00:00.000001"
    assert kept(tmp_path, content, in_a_zone, just_after, name_of(content)) == [2, 3, 4]
    of_numpy = (time_text(np.datetime64(day, "ns")) for day in ("2025-01-03", "2025-01-06"))
    assert kept(tmp_path, content, *of_numpy, name_of(content)) == [2, 3, 4]
    just_before, just_after = "2025-01-03T00:00:00.000000001", "2025-01-05T00:00:00.000000001"
    assert kept(tmp_path, content, just_before, just_after, name_of(content)) == [3, 4]
    number = refusal(tmp_path, since="5", split="mmrec")
    assert number.startswith(f"{name_of(content)}: since is '5', but the times are dates, such as '2025-01-01")
    assert number.endswith(": give such a date")


@pytest.mark.parametrize("form", NUMBERS)
def test_numbers(tmp_path, form):
    content = NUMBERS[form]
    assert kept(tmp_path, content, str(SECONDS[2]), f"{SECONDS[5]}.0", name_of(content)) == [2, 3, 4]
    assert kept(tmp_path, content, f"{SECONDS[6]}.5", name=name_of(content)) == [7]
    for wrong in ("2025-01-03", "soon", "", "nan", "1_0") if form == "seconds" else ("2025-01-03",):
        line = refusal(tmp_path, since=wrong, split="mmrec")
        assert line.startswith(f"{name_of(content)}: since is {wrong!r}, but the times are numbers, such as '17")


@pytest.mark.parametrize(
    ("content", "how", "line"),
    [
        ("user,item\na,x\n", {"since": "5"}, "x.csv: there is no column of times; it has 'user', 'item': name it with"),
        (table(DAYS), {"until": "2024-12-31"}, "x.csv: every row has a time from 2024-12-31 on; expected some"),
        (table(DAYS), {"since": "2025-02-30"}, "x.csv: since is '2025-02-30', but the times are dates"),
        (table([*DAYS, ""]), {"since": DAYS[0]}, "x.csv: row 10: timestamp is"),
        ("user,item,split,date\na,x,0,2\n", {"until": 5}, "it is already split, but until selects the data"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, content, how, line):
    assert line in refusal(tmp_path, {"x.csv": content}, split="mmrec", **how)


def test_lists_of_items_and_the_demo_have_no_times(tmp_path):
    assert "there is no column of times" in refusal(tmp_path, {"x_pairs.tsv": "a\tx y\n"}, since=1, split="mmrec")
    with pytest.raises(slm.UserError, match="already split, but since"):
        load("demo", since=1)


def test_the_window_comes_before_the_core_and_the_split_and_is_noted(tmp_path):
    rows = "user,item,date\n" + "".join(f"u{n % 4},i{n // 4},{n}\n" for n in range(40))
    dataset = read(tmp_path, {"x.csv": rows}, split="time", since=20, until=36, k_core=4)
    assert [len(pairs.users) for pairs in dataset.splits.values()] == [12, 2, 2]
    assert dataset.notes[1:3] == (
        "x.csv: rows with a time before 20, left out: 20 of 40",
        "x.csv: rows with a time from 36 on, left out: 4 of 20",
    )
    assert "x.csv: rows with a time before 0, left out: 0 of 40" in load(tmp_path, split="time", since=0).notes
    assert (dataset.source.since, dataset.source.until) == ("20", "36")


def test_frames_have_windows_too():
    clicks = {"user": [1, 1, 2, 2], "item": [1, 2, 1, 2], "time": np.array(DAYS[:4], "datetime64[ns]")}
    data = slm.dataset(clicks, since=datetime(2025, 1, 2, tzinfo=UTC), until=date(2025, 1, 4), split="mmrec")
    assert sum(len(pairs.users) for pairs in data.splits.values()) == 2


def test_the_flag_is_from_and_the_run_keeps_it(tmp_path, capsys):
    folder = str(write(tmp_path / "shop", {"x.csv": table(DAYS)}))
    assert main(["data", "inspect", folder, "--from", "2025-01-03", "--until=2025-01-06"]) == 0
    assert "x.csv: rows with a time before 2025-01-03, left out: 2 of 8" in capsys.readouterr().out
    assert main(["data", "convert", folder, str(tmp_path / "out"), "--split", "mmrec", "--from", "soon"]) == 1
    assert "x.csv: --from is 'soon', but the times are dates" in capsys.readouterr().err
    flags = parse(TrainFlags, "slmrec-jax train", ["--data", folder, "--from", "2025-01-02", "--until", "2025-01-07"])
    assert flags.settings == Config(data=folder, since="2025-01-02", until="2025-01-07")
    assert from_json(to_json(flags.settings), "config.json") == flags.settings
    assert main(["data", "inspect", "demo", "--from", "5"]) == 1
    assert "already split, but --from selects the data to split" in capsys.readouterr().err
