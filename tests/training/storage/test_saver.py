"""Tests of when checkpoints are written; `tests/faults` tests that they are whole."""

import errno
from queue import Queue
from threading import Event

import jax.numpy as jnp
import pytest

from slmrec_jax.training.storage import arrays, saver
from slmrec_jax.training.storage.checkpoint import Checkpoint, Place, Tally

SECONDS = 60
"""A time-out; only a test that hangs takes so long."""


class Rest(Event):
    """An event that records when a wait begins, and whether it was cut short."""

    begun, cut_short = Queue(), Queue()

    def wait(self, timeout=None):
        self.begun.put(self.is_set())
        found = super().wait(timeout)
        self.cut_short.put(found)
        return found


@pytest.fixture
def rests(monkeypatch):
    """Make the writer rest until the test ends the rest; return where rests are recorded."""
    monkeypatch.setattr(Rest, "begun", Queue())
    monkeypatch.setattr(Rest, "cut_short", Queue())
    monkeypatch.setattr(saver, "Event", Rest)
    monkeypatch.setattr(saver, "REST", 1e9)
    monkeypatch.setattr(saver, "MOST_REST", SECONDS / 2)
    return Rest


@pytest.fixture
def disk(monkeypatch):
    """Replace the disk by a list of the epochs that were written, which can be full."""

    class Disk(list):
        full = False

    disk = Disk()

    def write(folder, checkpoint):
        if disk.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        disk.append(checkpoint.place.epochs)
        disk.last = checkpoint

    monkeypatch.setattr(saver.checkpoints, "write_checkpoint", write)
    return disk


def save(opened, epoch, needed=()):
    opened.save(Checkpoint(Place(epoch), jnp.zeros(2), Tally()), [], frozenset(map(Place, needed)))


def saved_while_it_rests(opened, rests):
    """Save five checkpoints: the first is written at once; of the others, the third is needed, the fifth the newest."""
    save(opened, 1)
    assert rests.begun.get(timeout=SECONDS) is False
    for epoch in (2, 3):
        save(opened, epoch)
    for epoch in (4, 5):
        save(opened, epoch, needed=[3])


def test_the_writer_rests_until_it_is_waited_for(disk, rests, tmp_path):
    with saver.open_saver(tmp_path, print) as opened:
        saved_while_it_rests(opened, rests)
        assert disk == [1]
        opened.wait()
        assert disk == [1, 3, 5]
        assert rests.cut_short.get_nowait()
        assert rests.begun.get_nowait()  # one for both, which is none
        save(opened, 6)
        assert rests.begun.get(timeout=SECONDS) is False
        save(opened, 7)
        assert disk == [1, 3, 5, 6]
        opened.finish()
        assert disk == [1, 3, 5, 6, 7]


def test_a_rest_is_in_proportion_and_ends(disk, rests, tmp_path, monkeypatch):
    monkeypatch.setattr(saver, "REST", 0.0)
    with saver.open_saver(tmp_path, print) as opened:
        for epoch in (1, 2, 3):
            save(opened, epoch)
            rests.begun.get(timeout=SECONDS)
            assert not rests.cut_short.get(timeout=SECONDS)
    assert disk == [1, 2, 3]


@pytest.mark.parametrize(("error", "written"), [(KeyboardInterrupt, [1]), (ValueError, [1, 3, 5])])
def test_an_error_does_not_wait_for_a_rest(error, written, disk, rests, tmp_path):
    """After Ctrl-C nothing more is written; after another error, what is owed is written first."""

    def failing():
        with saver.open_saver(tmp_path, print) as opened:
            saved_while_it_rests(opened, rests)
            raise error

    with pytest.raises(error):
        failing()
    assert disk == written
    assert rests.cut_short.get_nowait()


def test_a_disk_that_refuses_is_not_tried_again_and_again(disk, rests, tmp_path):
    said = []
    with saver.open_saver(tmp_path, said.append) as opened:
        save(opened, 1)
        rests.begun.get(timeout=SECONDS)
        disk.full = True
        for epoch in range(2, 30):
            save(opened, epoch)
        opened.wait()
        assert 1 <= len(said) <= 2
        disk.full = False
        opened.finish()
    assert disk == [1, 29]


def test_without_copies_arrays_are_written_at_once_and_a_refusal_ends_the_run(disk, tmp_path):
    given = Checkpoint(Place(9), jnp.zeros(2), Tally())
    for copies in (True, False):
        with saver.open_saver(tmp_path, print, copies=copies) as opened:
            opened.save(given, [], frozenset())
            opened.wait()
        assert (disk.last.progress is given.progress) != copies
    del disk[:]
    with saver.open_saver(tmp_path, print, copies=False) as opened:
        for epoch in (1, 2):
            save(opened, epoch)
            assert disk[-1] == epoch
        disk.full = True
        with pytest.raises(OSError, match="No space left"):
            save(opened, 3)
        disk.full = False
    assert disk == [1, 2]


def test_the_needed_and_the_newest_two_checkpoints_are_kept(rests, tmp_path, monkeypatch):
    monkeypatch.setattr(
        saver.checkpoints, "write_checkpoint", lambda folder, each: (folder / str(each.place)).mkdir(parents=True)
    )
    with saver.open_saver(tmp_path, print) as opened:
        for epoch in range(1, 6):
            save(opened, epoch, needed=[2] if epoch > 1 else [])
            opened.wait()
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"2", "4", "5"}


def test_after_a_refusal_it_rests_too(disk, rests, tmp_path):
    said = []
    with saver.open_saver(tmp_path, said.append) as opened:
        disk.full = True
        save(opened, 1)
        assert rests.begun.get(timeout=SECONDS) is False
        save(opened, 2)
        assert len(said) == 1
        disk.full = False
        opened.finish()
    assert disk == [2]


def test_an_error_of_writing_without_a_text_is_named(tmp_path, monkeypatch):
    def fail(path, tree):
        raise MemoryError

    monkeypatch.setattr(arrays, "_check_written", fail)
    with pytest.raises(OSError, match="MemoryError"):
        arrays.save_arrays(tmp_path / "saved", {"x": jnp.zeros(2)})
