"""When checkpoints are written; that they are whole is a matter of `faults`."""

import threading

import jax.numpy as jnp
import pytest

from slmrec_jax.training import saver
from slmrec_jax.training.checkpoint import Checkpoint, Place, Tally

FOREVER = 1e8


class Written(list):
    """The epochs whose checkpoints were written, in turn."""

    def __init__(self):
        self.first = threading.Event()

    def __call__(self, folder, checkpoint):
        self.append(checkpoint.place.epochs)
        self.first.set()


@pytest.fixture
def written(monkeypatch):
    written = Written()
    monkeypatch.setattr(saver.checkpoints, "write", written)
    return written


def save(opened, epoch, needed=()):
    opened.save(Checkpoint(Place(epoch), jnp.zeros(2), Tally()), [], frozenset(map(Place, needed)))


def saved_while_it_rests(opened, written):
    """The first is written at once; of those after it, the third is needed and the fifth the newest."""
    save(opened, 1)
    assert written.first.wait(60)
    for epoch in (2, 3):
        save(opened, epoch)
    for epoch in (4, 5):
        save(opened, epoch, needed=[3])


def test_the_writer_rests_until_it_is_waited_for(written, tmp_path, monkeypatch):
    monkeypatch.setattr(saver, "REST", FOREVER)
    with saver.open_saver(tmp_path, print) as opened:
        saved_while_it_rests(opened, written)
        assert written == [1]
        opened.wait()
        assert written == [1, 3, 5]
        written.first.clear()
        save(opened, 6)
        assert written.first.wait(60)
        save(opened, 7)
        assert written == [1, 3, 5, 6]  # it rests again
        opened.finish()
        assert written == [1, 3, 5, 6, 7]


def test_who_leaves_does_not_wait_for_the_rest(written, tmp_path, monkeypatch):
    monkeypatch.setattr(saver, "REST", FOREVER)

    def interrupted():
        with saver.open_saver(tmp_path, print) as opened:
            saved_while_it_rests(opened, written)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert written == [1]


def test_a_writer_that_does_not_rest_writes_what_comes(written, tmp_path, monkeypatch):
    monkeypatch.setattr(saver, "REST", 0.0)
    with saver.open_saver(tmp_path, print) as opened:
        for epoch in range(1, 4):
            save(opened, epoch)
            opened.wait()
    assert written == [1, 2, 3]
