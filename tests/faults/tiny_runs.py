"""A small run, a disk that kills it or refuses its writes, and a digest that must not depend on either."""

import hashlib
import json
import os
import shutil
from concurrent.futures import Future

import jax
import numpy as np

from slmrec_jax import Config
from slmrec_jax.durable import PART
from slmrec_jax.training.storage import checkpoint

CONFIG = Config(model="mf", dim=4, batch_size=64, epochs=2, ks=(5,), checkpoint_every_steps=3)


OF_THE_CLOCK = ("seconds", "_ms", "_bytes", "sha256")
"""Endings of the names of figures that differ from run to run; a checksum covers them too."""


class Dead(BaseException):
    """The process has been killed."""


class Disk:
    """A replacement of `os` and `shutil` where the package writes, which counts requests and may refuse them."""

    def __init__(self, answer):
        self.answer, self.asked = answer, 0
        self.synced, self.moved_unsynced = set(), {}
        self.sizes_synced, self.records_synced = {}, {}

    def ask(self, name):
        self.asked += 1
        self.answer(name, self.asked)

    def fsync(self, descriptor):
        self.ask("fsync")
        os.fsync(descriptor)
        found = os.fstat(descriptor)
        self.synced.add(found.st_ino)
        self.sizes_synced[found.st_ino] = found.st_size

    def replace(self, source, target):
        self.ask("replace")
        os.replace(source, target)

    def rename(self, source, target):
        self.ask("rename")
        unsynced = [path for path in (source, *source.rglob("*")) if path.stat().st_ino not in self.synced]
        self.moved_unsynced[target.name] = unsynced
        records = target.parent.parent / "metrics.jsonl"
        if records.exists():
            on_disk = records.read_bytes()[: self.sizes_synced.get(records.stat().st_ino, 0)]
            self.records_synced[target.name] = on_disk.count(b"\n")
        os.rename(source, target)

    def rmtree(self, folder):
        self.ask("rmtree")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        for path in files[: len(files) // 2]:
            path.unlink()
        self.ask("rmtree, half of it")
        shutil.rmtree(folder)

    def __getattr__(self, name):
        return getattr(os, name)


def dies_at(number):
    """Return an answer that kills the process from the given request on."""

    def answer(name, asked):
        if asked >= number:
            raise Dead

    return answer


class Inline:
    """An executor that works in the calling thread, so that a run asks the same of the disk each time."""

    def __init__(self, *arguments):
        pass

    def submit(self, function):
        future = Future()
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)
        return future

    def shutdown(self, **options):
        pass


def digest(folder, shapes, run=None):
    """Return a hash of the last state, the records and results without times, and the recommendations."""
    last, found = checkpoint.places(folder / "checkpoints")[-1], hashlib.sha256()
    for leaf in jax.tree.leaves(checkpoint.restore(folder / "checkpoints", last, shapes).progress):
        found.update(np.asarray(leaf).tobytes())
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for part in (*records, json.loads((folder / "result.json").read_text())):
        kept = {name: value for name, value in part.items() if not name.endswith(OF_THE_CLOCK)}
        found.update(json.dumps(kept).encode())
    if run is not None:
        ranked = run.recommend(k=5)
        found.update(ranked.items.astype("U").tobytes() + np.asarray(ranked.scores).tobytes())
    assert not list((folder / "checkpoints").glob(f"*{PART}"))
    return found.hexdigest()
