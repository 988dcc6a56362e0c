"""Tests of runs that are killed, stopped, refused by the disk, or no longer finite."""

import contextlib
import dataclasses
import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cheap_runs import empty_pictures
from listeners import texts_into
from tiny_runs import CONFIG, Dead, Disk, Inline, dies_at, digest

from slmrec_jax import UserError, durable, train
from slmrec_jax.errors import Interrupted
from slmrec_jax.methods import make_method
from slmrec_jax.training import fit, recovery, selection, tensorboard
from slmrec_jax.training import train as train_module
from slmrec_jax.training.inputs import make_inputs
from slmrec_jax.training.setup import with_inputs
from slmrec_jax.training.storage import arrays, checkpoint, lock, saver
from slmrec_jax.training.storage.checkpoint import Place
from slmrec_jax.training.storage.manifest import write_manifest

pytestmark = pytest.mark.usefixtures("optax_promotion")


@pytest.fixture(scope="module", autouse=True)
def pictures():
    with empty_pictures():
        yield


@pytest.fixture(scope="module")
def compiled():
    """Setups with compiled programs, by what they were compiled for: tests differ in what happens, not in programs."""
    return {}


@pytest.fixture
def said():
    return []


@pytest.fixture
def go(tiny, compiled, said, monkeypatch):
    """A function that trains the same way each time, saves included, however slow the machine is."""
    compile_setup = train_module.compiled
    monkeypatch.setattr(saver, "ThreadPoolExecutor", Inline)
    monkeypatch.setattr(saver, "REST", 0.0)
    monkeypatch.setattr(fit, "SEGMENT_SECONDS", 1e9)

    def run(folder, *, resume=False, config=CONFIG, method=make_method, disk=None, stops=(), **changes):

        def compile_once(planned):
            key = method, planned.config.eval.stale_embeddings
            if key not in compiled:
                compiled[key] = with_inputs(compile_setup(planned), make_inputs(tiny))
            return planned._replace(loop=compiled[key].loop)

        with monkeypatch.context() as patch:
            patch.setattr(train_module, "compiled", compile_once)
            if disk is not None:
                patch.setattr(durable, "os", disk)
                patch.setattr(durable, "shutil", disk)
            if stops:
                patch.setattr(fit, "stop_requests", lambda: asked_after(stops))
            config = dataclasses.replace(config, **changes)
            return train(config, tiny, out=folder, resume=resume, method=method, callbacks=[texts_into(said)])

    return run


@contextlib.contextmanager
def asked_after(looks):
    """Ask to stop after the run has looked some number of times, once or twice a segment."""
    left = [looks]

    def asked():
        left[0] -= 1
        return signal.SIGTERM if left[0] <= 0 else None

    yield asked


def first_of(compiled):
    return next(iter(compiled.values()))


def shapes(compiled):
    return first_of(compiled).loop.shapes()


def taken(made, progress, step, stop):
    """The progress after the steps from one up to another, by hand."""
    keys = made.keys()
    drawn = made.loop.order(made.inputs, keys, jnp.int32(step))
    return made.loop.run(progress, drawn, made.inputs, keys, jnp.int32(stop - step))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return {"folder": tmp_path_factory.mktemp("whole") / "run"}


@pytest.fixture
def expected(go, whole, compiled):
    """The folder of a run that nothing disturbed, its digest, and how often it asked the disk."""
    if "digest" not in whole:
        disk = Disk(lambda name, asked: None)
        run = go(whole["folder"], disk=disk)
        whole |= {"digest": digest(whole["folder"], shapes(compiled), run), "asked": disk.asked, "disk": disk}
    return whole


def test_data_and_checkpoints_get_their_names_when_all_of_them_is_on_disk(expected):
    names = {name: unsynced for name, unsynced in expected["disk"].moved_unsynced.items() if not name.endswith(".part")}
    assert names == {"data": [], "0+3": [], "1": [], "1+3": [], "2": []}


def test_the_records_of_a_checkpoint_are_on_disk_before_it(expected):
    records = expected["disk"].records_synced
    assert {name: lines for name, lines in records.items() if not name.endswith(".part")} == {
        "0+3": 0,
        "1": 1,
        "1+3": 1,
        "2": 2,
    }


def killed(go, folder, moment):
    """Leave a run that died at a moment, or at its last one if it has fewer: the number of Orbax's files varies."""
    disk = Disk(dies_at(moment))
    with contextlib.suppress(Dead):
        go(folder, disk=disk)
        assert disk.asked < moment, "it went on after its death"
        shutil.rmtree(folder)
        killed(go, folder, disk.asked)


@pytest.mark.parametrize("kills", [5])
@pytest.mark.slow
def test_a_killed_run_goes_on_from_what_it_had_saved_to_the_same_bits(expected, go, said, compiled, tmp_path, kills):
    """A run may die at any of its writes, renames, deletions and waits for the disk."""
    moments = np.random.default_rng(0).choice(np.arange(1, expected["asked"] + 1), kills, replace=False)
    for number, moment in enumerate(moments):
        folder = tmp_path / str(number)
        killed(go, folder, moment)
        there = checkpoint.places(folder / "checkpoints")
        del said[:]
        begun = (folder / "config.json").exists()
        run = go(folder, resume=begun)
        if begun:
            assert f"resumed after {(there[-1] if there else Place(0)).words()}" in said, moment
        assert not any("WARNING" in line for line in said), said
        assert digest(folder, shapes(compiled), run) == expected["digest"], moment


@pytest.mark.parametrize(("kind", "first"), [("fsync", 30), ("rename", 2), ("replace", 4)])
def test_what_the_disk_refuses_is_said_and_tried_again(expected, go, said, compiled, tmp_path, kind, first):
    """Within a checkpoint, when it gets its name (after the data set), and when the first record is written."""
    asked = []

    def answer(name, _):
        asked.append(name)
        if name == kind and first <= asked.count(kind) < first + 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    run = go(tmp_path / "run", disk=Disk(answer))
    assert sum("WARNING" in line and "No space left on device" in line for line in said) == 2
    assert digest(tmp_path / "run", shapes(compiled), run) == expected["digest"]


@pytest.mark.parametrize("full", ["before", "meanwhile", "for its threads"])
def test_a_full_disk_is_one_error_in_its_own_words(
    expected, compiled, tmp_path, capfd, caplog, monkeypatch, full, refusing_disk
):
    """Orbax, whose threads print tracebacks, is not called if there is no room, and else kept from printing them."""

    def save(checkpointer, path, args):
        assert full == "meanwhile"
        logging.getLogger("absl").error("Traceback of a thread")
        raise ValueError("RESOURCE_EXHAUSTED: Error writing 'a' [OS error 27: File too large]\nSource locations")

    if full == "for its threads":
        monkeypatch.setattr(checkpoint, "check_room", lambda folder, size: None)
    else:
        monkeypatch.setattr(arrays.ocp.Checkpointer, "save", save)
    if full != "meanwhile":
        refusing_disk(500)
    made = first_of(compiled)
    saved = checkpoint.Checkpoint(Place(1), made.loop.init(made.keys()), checkpoint.Tally())
    with pytest.raises(OSError, match="File too large") as raised:
        checkpoint.write_checkpoint(tmp_path / "checkpoints", saved)
    assert (raised.value.errno, raised.value.strerror) == (errno.EFBIG, "File too large")
    assert list((tmp_path / "checkpoints").iterdir()) == []
    said = capfd.readouterr()
    assert "Traceback" not in said.err + said.out + caplog.text


def test_a_run_that_cannot_save_its_end_says_so(expected, go, said, compiled, tmp_path):
    def answer(name, asked):
        if asked > expected["asked"] // 2:
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(
        UserError, match=r"epoch 2 could not be saved; the last checkpoint is of .* resume=True"
    ) as raised:
        go(tmp_path / "run", disk=Disk(answer))
    assert "\n" not in str(raised.value)
    assert sum("Input/output error" in line for line in said) >= 1
    assert not (tmp_path / "run" / "result.json").exists()
    run = go(tmp_path / "run", resume=True)
    assert digest(tmp_path / "run", shapes(compiled), run) == expected["digest"]


@pytest.mark.parametrize("stops", [(1,), (1, 2), (1, 1, 1)])
def test_a_run_that_is_stopped_within_an_epoch_again_and_again(expected, go, compiled, tmp_path, stops):
    folder = tmp_path / "run"
    for number, looks in enumerate(stops):
        with pytest.raises(Interrupted):
            go(folder, resume=number > 0, stops=looks)
        assert checkpoint.places(folder / "checkpoints")[-1].steps > 0
    run = go(folder, resume=True)
    assert digest(folder, shapes(compiled), run) == expected["digest"]


def test_when_checkpoints_are_made_does_not_alter_the_bits(expected, go, compiled, tmp_path):
    run = go(tmp_path / "run", checkpoint_every_steps=1)
    assert digest(tmp_path / "run", shapes(compiled), run) == expected["digest"]


def test_how_fast_the_machine_is_does_not_alter_the_bits(expected, go, compiled, tmp_path, monkeypatch):
    """On a slow machine, a segment is one step."""
    monkeypatch.setattr(fit, "SEGMENT_SECONDS", 0.0)
    run = go(tmp_path / "run", checkpoint_every_steps=0)
    assert digest(tmp_path / "run", shapes(compiled), run) == expected["digest"]


def test_stale_embeddings_are_those_before_the_last_step(expected, go, compiled, tmp_path):
    made = first_of(compiled)
    run = go(tmp_path / "run", epochs=1, eval=CONFIG.eval._replace(stale_embeddings=True))
    progress = taken(made, made.loop.init(made.keys()), 0, made.loop.steps_per_epoch - 1)
    before = made.embed(progress.state, made.inputs)
    jax.tree.map(np.testing.assert_array_equal, run.embeddings, before)
    (record,) = run.history
    assert record["losses"] == json.loads((expected["folder"] / "metrics.jsonl").read_text().splitlines()[0])["losses"]


# tensorboardX cannot close the file either, and the garbage collector finds it open.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_events_that_cannot_be_written_do_not_end_training(expected, go, said, compiled, tmp_path, monkeypatch):
    def full(writer):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tensorboard.EventsWriter, "flush", full)
    run = go(tmp_path / "run")
    assert sum("no more TensorBoard events" in line for line in said) == 1
    assert digest(tmp_path / "run", shapes(compiled), run) == expected["digest"]


def damaged(path):
    """Yield each way to damage a file."""
    whole = path.read_bytes()
    if whole:
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        yield "flipped", lambda: path.write_bytes(flipped)
        yield "truncated", lambda: path.write_bytes(whole[:-1])
        yield "emptied", lambda: path.write_bytes(b"")
    yield "deleted", path.unlink


def test_damage_to_any_file_of_a_checkpoint_is_seen(expected, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(expected["folder"] / "checkpoints", folder)
    assert [checkpoint.damage(folder, place) for place in checkpoint.places(folder)] == [None] * 3
    seen = set()
    for path in [path for path in (folder / "2").rglob("*") if path.is_file()]:
        whole = path.read_bytes()
        for how, harm in damaged(path):
            harm()
            assert checkpoint.damage(folder, Place(2)), (path, how)
            path.write_bytes(whole)
            seen.add(path.relative_to(folder / "2").parts[0])
    assert seen == {"manifest.sha256", "tally.json", "training", "embeddings.safetensors"}
    assert checkpoint.damage(folder, Place(2)) is None
    (folder / "2" / "more").write_text("")
    assert "more was not saved with it" in checkpoint.damage(folder, Place(2))


def harm(folder, place):
    path = max(
        (folder / "checkpoints" / str(place)).rglob("*"), key=lambda path: path.is_file() and path.stat().st_size
    )
    path.write_bytes(path.read_bytes()[:-1])


def test_the_newest_good_checkpoint_is_taken(expected, go, said, compiled, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(expected["folder"], folder)
    harm(folder, 2)
    with pytest.raises(UserError, match=r"2 cannot be used: .* differs; the checkpoint is damaged"):
        checkpoint.restore_embeddings(folder / "checkpoints", 2)
    run = go(folder, resume=True)
    assert any(line.startswith("WARNING: the checkpoint of epoch 2 cannot be used") for line in said)
    assert "resumed after step 3 of epoch 2" in said
    assert digest(folder, shapes(compiled), run) == expected["digest"]
    for place in checkpoint.places(folder / "checkpoints"):
        harm(folder, place)
    with pytest.raises(UserError, match="no checkpoint can be used"):
        go(folder, resume=True)


def test_a_checkpoint_without_embeddings_is_refused(expected, tmp_path):
    path = tmp_path / "2"
    shutil.copytree(expected["folder"] / "checkpoints" / "2", path)
    (path / checkpoint.EMBEDDINGS).unlink()
    write_manifest(path)
    with pytest.raises(UserError, match=r"embeddings\.safetensors is missing: the checkpoint is damaged"):
        checkpoint.restore_embeddings(tmp_path, 2)


def test_a_run_does_not_go_on_without_its_best_epoch(expected, go, said, tmp_path):
    """Later checkpoints are whole, but could only lead to a result that is lost."""
    folder = tmp_path / "run"
    shutil.copytree(expected["folder"], folder)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    best = selection.best_epoch(records)
    harm(folder, best)
    if best == 1:
        with pytest.raises(UserError, match="no checkpoint can be used"):
            go(folder, resume=True)
        assert any("best epoch up to it, 1" in line for line in said)
    else:
        go(folder, resume=True)
        assert any("epoch 2 cannot be used" in line for line in said)


def test_a_checkpoint_without_its_manifest_is_none(expected, go, said, compiled, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(expected["folder"], folder)
    (folder / "checkpoints" / "2" / "manifest.sha256").unlink()
    go(folder, resume=True)
    assert any("epoch 2 cannot be used" in line and "manifest.sha256 is missing" in line for line in said)


def test_a_torn_last_line_of_the_records_is_cut_off(expected, go, compiled, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        go(folder, stops=4)
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"epoch": 2, "los\xff\x00')
    run = go(folder, resume=True)
    assert digest(folder, shapes(compiled), run) == expected["digest"]


def test_a_folder_is_held_by_one_run(expected, go, tiny, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(expected["folder"], folder)
    with lock.locked(folder), pytest.raises(UserError, match=rf"in use by another run \(process {os.getpid()}\)"):
        go(folder, resume=True)
    (tmp_path / "new").mkdir()
    with lock.locked(tmp_path / "new"), pytest.raises(UserError, match="in use by another run"):
        go(tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["lock"]

    system_open = os.open

    def refused(path, *arguments):
        if Path(path).name == lock.LOCK:
            raise OSError(errno.EROFS, "Read-only file system")
        return system_open(path, *arguments)

    monkeypatch.setattr(lock.os, "open", refused)
    with pytest.raises(UserError, match=r"cannot write the run folder .*: Read-only file system; give another out"):
        go(folder, resume=True)


def broken(where, at_step):
    """A maker of the small method whose loss or gradient is not finite at a step; `draw`: only for the first draws."""

    def make(config, spec):
        method = make_method(config, spec)

        def step(state, inputs, batch):
            after, metrics = method.step(state, inputs, batch)
            bad = jnp.asarray(state.step) == at_step
            if where == "draw":
                bad &= jax.random.key_data(batch.key)[0] == FIRST_DRAW["value"]
            if where == "gradient":
                params = jax.tree.map(lambda x: jnp.where(bad, jnp.inf, x), after.params)
                return after.replace(params=params), metrics
            return after, metrics | {"bpr": jnp.where(bad, jnp.nan, metrics["bpr"])}

        return method._replace(step=step)

    return make


FIRST_DRAW = {}
BROKEN = {where: broken(where, 4) for where in ("loss", "gradient")}


@pytest.mark.parametrize(("where", "term"), [("loss", "bpr"), ("gradient", "gradient")])
def test_the_step_the_term_and_the_batch_are_named(expected, go, tiny, compiled, tmp_path, where, term):
    folder = tmp_path / "run"
    with pytest.raises(UserError, match=rf"^{term} not finite in epoch 1, step 5, whose batch has users u") as raised:
        go(folder, method=BROKEN[where])
    assert "\n" not in str(raised.value)
    told = json.loads((folder / "not_finite.json").read_text())
    made = compiled[BROKEN[where], False]
    batch = made.batch(4)
    real = np.asarray(batch.mask)
    assert told["users"] == tiny.user_ids[np.asarray(batch.users)[real]].tolist()
    assert told["items"] == tiny.item_ids[np.asarray(batch.items)[real]].tolist()
    pairs = zip(told["users"], told["items"], strict=True)
    met = zip(tiny.user_ids[tiny.train.users].tolist(), tiny.item_ids[tiny.train.items].tolist(), strict=True)
    assert set(pairs) <= set(met)
    for place in checkpoint.places(folder / "checkpoints"):
        saved = checkpoint.restore(folder / "checkpoints", place, made.loop.shapes())
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(saved.progress))
    # The stopped run can continue without that step.
    run = go(folder, method=BROKEN[where], resume=True, on_nan="skip")
    assert run.result["skipped_steps"] == 1


@pytest.mark.slow
def test_a_skipped_step_leaves_all_but_its_number(expected, go, compiled, said, tmp_path):
    runs = []
    for stops in ((), (1,), (2, 1)):
        folder = tmp_path / str(len(stops))
        for number, looks in enumerate(stops):
            with pytest.raises(Interrupted):
                go(folder, method=BROKEN["loss"], on_nan="skip", resume=number > 0, stops=looks)
        run = go(folder, method=BROKEN["loss"], on_nan="skip", resume=bool(stops))
        runs.append(digest(folder, compiled[BROKEN["loss"], False].loop.shapes(), run))
        assert (run.result["skipped_steps"], run.result["rollbacks"]) == (1, 0)
    assert len(set(runs)) == 1
    assert any("bpr not finite" in line and line.endswith("the step is skipped") for line in said)
    # By hand: all steps of the first epoch but the fifth.
    made = compiled[BROKEN["loss"], False]
    progress = taken(made, made.loop.init(made.keys()), 0, 4)
    progress = progress._replace(state=progress.state.replace(step=jnp.int32(5)))
    if made.loop.steps_per_epoch > 5:
        progress = taken(made, progress, 5, made.loop.steps_per_epoch)
    saved = checkpoint.restore(tmp_path / "0" / "checkpoints", Place(1), made.loop.shapes())
    jax.tree.map(np.testing.assert_array_equal, saved.progress, progress)


@pytest.mark.slow
def test_a_rollback_draws_differently_and_resumes_to_the_same_bits(expected, go, compiled, said, tmp_path, monkeypatch):
    FIRST_DRAW["value"] = jax.random.key_data(first_of(compiled).batch(4).key)[0]
    method, runs = BROKEN.setdefault("draw", broken("draw", 4)), []
    for stops in ((), (2,), (2, 1)):
        folder = tmp_path / str(len(stops))
        for number, looks in enumerate(stops):
            with pytest.raises(Interrupted):
                go(folder, method=method, on_nan="rollback", resume=number > 0, stops=looks)
        run = go(folder, method=method, on_nan="rollback", resume=bool(stops))
        runs.append(digest(folder, compiled[method, False].loop.shapes(), run))
        assert (run.result["skipped_steps"], run.result["rollbacks"]) == (0, 1)
    assert len(set(runs)) == 1
    assert any("going back to step 3 of epoch 1 to continue with other random draws" in line for line in said)
    monkeypatch.setattr(recovery, "MAX_ROLLBACKS", 2)
    with pytest.raises(UserError, match="after 2 rollbacks"):
        go(tmp_path / "hopeless", method=BROKEN["loss"], on_nan="rollback")


@pytest.mark.slow
def test_real_kills():
    """Kill a few whole processes by SIGKILL; `make soak` kills hundreds."""
    command = [sys.executable, str(Path(__file__).parent / "soak.py"), "--kills", "3"]
    # XLA logs much about its cache; the package under test is the one beside the tests.
    settings = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False, env=settings)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["kills"] == 3
