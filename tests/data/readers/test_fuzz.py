"""A short run of `fuzz_readers.py`, and checks that it notices what it looks for."""

import pickle
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import fuzz_readers
import hostile_files
import pytest
from fuzz_readers import Sample, examine

from slmrec_jax.errors import UserError


@pytest.mark.slow
def test_readers_give_data_or_one_line():
    script = Path(fuzz_readers.__file__)
    command = [sys.executable, str(script), "--inputs", "400"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "400 inputs, seed 0" in done.stdout
    assert ": 0 faults" in done.stdout


@pytest.fixture
def watch(monkeypatch):
    handler = signal.getsignal(signal.SIGPROF)
    monkeypatch.setattr(fuzz_readers, "SECONDS", 0.2)
    fuzz_readers.start_watch()
    yield
    tracemalloc.stop()
    signal.signal(signal.SIGPROF, handler)


def refuse(line):
    def read(folder):
        raise UserError(line.format(folder=folder))

    return read


def fail(folder):
    raise ValueError("of any kind")


def hang(folder):
    end = time.process_time() + 5
    while time.process_time() < end:
        pass


def hang_in_the_system(folder):
    try:
        hang(folder)
    except OSError as error:
        raise UserError(f"{folder}/a.pkl: cannot be read") from error


READERS = {
    "read": lambda folder: (folder / "a.pkl").read_bytes(),
    "refused": refuse("{folder}/a.pkl: no matrix"),
    "RUNS a pickle": lambda folder: pickle.loads(b"\x80\x02cos\ngetcwd\n)R."),
    "RUNS an expression": lambda folder: eval("1 + 1"),  # noqa: S307
    "RUNS into a file": lambda folder: (folder / "b").write_text(""),
    "RUNS a module": lambda folder: __import__("this_module_is_nowhere"),
    "RAISES": fail,
    "RAISES an end": lambda folder: sys.exit(),
    "HANGS": hang,
    "HANGS where errors of the system are caught": hang_in_the_system,
    "SWELLS": lambda folder: bytearray(2**23),
    "SAYS nothing of the file": refuse("no matrix"),
    "SAYS two lines": refuse("{folder}/a.pkl: no\nmatrix"),
}


@pytest.mark.parametrize("name", READERS)
def test_what_is_looked_for_is_noticed(tmp_path, watch, name):
    outcome = examine(Sample({}, READERS[name]), {"a.pkl": b"x"}, tmp_path)
    assert outcome.kind == name.split()[0], outcome


def test_the_same_seed_makes_the_same_inputs(monkeypatch):
    files = {"a.json": b'{"0": [1, 2], "1": []}'}
    monkeypatch.setitem(hostile_files.FRESH, "a.json", files["a.json"])
    monkeypatch.setattr(hostile_files, "packed_tables", lambda: (b"PAR1" * 200,))  # making the real ones takes seconds
    one, other = ([hostile_files.damage(files, source) for _ in range(50)] for source in map(random.Random, (7, 7)))
    assert one == other
    assert len({made["a.json"] for made in one}) > 25
