"""Kill a training process by SIGKILL again and again, resume it until it is done, and compare what it leaves.

    python tests/faults/soak.py --kills 200

Modules are imported once, and each process is forked from there before JAX has made any thread; programs come from a
shared compilation cache. Half of the processes die at a write, rename, deletion or wait for the disk, the other half
at a random time: within a step, an evaluation, the start. The script prints the counts as JSON, and fails at the first
difference.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import optax  # noqa: F401
from tiny_runs import CONFIG, Disk, digest

import slmrec_jax.commands.main  # noqa: F401
from slmrec_jax import durable, train
from slmrec_jax.data.synthetic import demo
from slmrec_jax.training import train as train_module
from slmrec_jax.training.storage import checkpoint, saver
from slmrec_jax.training.storage.checkpoint import Place

DATA = demo(num_users=60, num_items=80, num_scenes=6, exposures=40, columns={"visual": 8}).by_degree()
MAX_SECONDS = 1000
"""A time-out; only a process that hangs takes so long, even on a busy machine."""


def child(folder, cache, dies_at, rest):
    """Train in a process of its own; leave the messages in `told`, and `digest` when it is done."""
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    shapes = []
    compiled = train_module.compiled

    def and_keep_shapes(planned):
        shapes.append(planned.loop.shapes())
        return compiled(planned)

    def answer(name, asked):
        if asked == dies_at:
            (folder.parent / "died").write_text(name)
            os.kill(os.getpid(), signal.SIGKILL)

    train_module.compiled = and_keep_shapes
    disk = Disk(answer)
    durable.os = durable.shutil = disk
    saver.REST = rest
    with (folder.parent / "told").open("w") as told:
        lines = [lambda event: print(event.text, file=told, flush=True)]
        run = train(CONFIG, DATA, out=folder, resume=(folder / "config.json").exists(), callbacks=lines)
    (folder.parent / "digest").write_text(json.dumps([digest(folder, shapes[0], run), disk.asked]))


def start(folder, cache, dies_at=0, rest=0.0):
    process = os.fork()
    if process == 0:
        status = 1
        try:
            child(folder, cache, dies_at, rest)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return process


def ended(process, seconds):
    """Return the status of a process that ended by itself or was killed after some seconds."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return status
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    return os.waitpid(process, 0)[1]


def undisturbed(root, cache):
    """Return what a run leaves, how often it asks the disk, and how long it takes once everything is compiled."""
    for name in ("first", "again"):
        (root / name).mkdir()
        begun = time.monotonic()
        status = ended(start(root / name / "run", cache), MAX_SECONDS)
        if status:
            sys.exit(f"the undisturbed run ended with {status}")
        seconds = time.monotonic() - begun
    found = [json.loads((root / name / "digest").read_text()) for name in ("first", "again")]
    if found[0][0] != found[1][0]:
        sys.exit("two undisturbed runs differ")
    return found[1][0], max(asked for _, asked in found), seconds


def main(kills, seed):
    rng, counts, resumed = np.random.default_rng(seed), Counter(), Counter()
    root = Path(tempfile.mkdtemp(prefix="soak-"))
    expected, asked, seconds = undisturbed(root, root / "cache")
    runs = 0
    while counts.total() < kills:
        runs += 1
        here = root / str(runs)
        here.mkdir()
        folder, done = here / "run", False
        while not done:
            there = checkpoint.places(folder / "checkpoints")
            by_disk = rng.random() < 0.5
            wanted = counts.total() < kills
            dies_at = int(rng.integers(1, asked + 1)) if by_disk and wanted else 0
            rest = float(rng.choice([0.0, saver.REST]))  # with it, so short a run writes little but its last checkpoint
            process = start(folder, root / "cache", dies_at, rest)
            status = ended(process, MAX_SECONDS if by_disk or not wanted else rng.uniform(0, seconds))
            begun, told = (
                (folder / "config.json").exists(),
                (here / "told").read_text() if (here / "told").exists() else "",
            )
            last = (there[-1] if there else Place(0)).words()
            if "resumed after" in told:
                resumed[last.split()[0]] += 1
                if f"resumed after {last}\n" not in told or "WARNING" in told:
                    sys.exit(f"run {runs}: {last} was saved, but: {told}")
            if os.WIFSIGNALED(status):
                died = here / "died"
                counts[died.read_text() if died.exists() else "clock, begun" if begun else "clock, start"] += 1
                died.unlink(missing_ok=True)
            elif status:
                sys.exit(f"run {runs} ended with {status}: {told}")
            else:
                done = True
            (here / "told").unlink(missing_ok=True)
        if json.loads((here / "digest").read_text())[0] != expected:
            sys.exit(f"run {runs} in {here} differs from the undisturbed one")
        shutil.rmtree(here)
    shutil.rmtree(root)
    print(json.dumps({"kills": counts.total(), "runs": runs, "killed at": counts, "resumed after": resumed}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    main(arguments.kills, arguments.seed)
