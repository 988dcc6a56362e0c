import dataclasses
import json
import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from listeners import on_epoch, texts_into

import slmrec_jax
from slmrec_jax import Config, UserError, load_run, setup, train, with_protocol
from slmrec_jax.config import IN_MEMORY, OptimizerConfig, with_defaults
from slmrec_jax.config.protocols import PROTOCOLS
from slmrec_jax.data.synthetic import demo
from slmrec_jax.errors import Interrupted
from slmrec_jax.methods import make_method
from slmrec_jax.training.inputs import make_spec
from slmrec_jax.training.loading import load_sharing
from slmrec_jax.training.storage import checkpoint
from slmrec_jax.training.storage.folder import Result, read_config
from slmrec_jax.training.storage.records import read_json
from slmrec_jax.types import Interactions

pytestmark = pytest.mark.usefixtures("cheap_runs", "optax_promotion")

CONFIG = Config(model="mf", dim=8, batch_size=128, epochs=6, ks=(5, 20))
"""The mechanics of runs are those of every system; this one compiles fastest."""

SLMREC = Config(dim=8, batch_size=128, num_layers=2, epochs=3, ks=(5, 20), task="fd+fm")


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    with jax.numpy_dtype_promotion("standard"):
        return train(CONFIG, tiny, out=tmp_path_factory.mktemp("run") / "run")


def state_of(folder, tiny):
    like = make_method(CONFIG, make_spec(CONFIG, tiny)).init(jax.random.key(9))
    epochs = checkpoint.places(folder / "checkpoints")[-1].epochs
    return epochs, jax.tree.leaves(checkpoint.restore_state(folder / "checkpoints", epochs, like))


def bare(history):
    """Records without what a clock says."""
    return [{name: value for name, value in record.items() if not name.endswith("seconds")} for record in history]


def test_the_run_folder(finished):
    assert sorted(path.name for path in finished.folder.iterdir()) == [
        "checkpoints",
        "config.json",
        "curves.png",
        "data",
        "dataset.json",
        "environment.json",
        "events",
        "lock",
        "metrics.jsonl",
        "result.json",
    ]
    result = read_json(finished.folder / "result.json", Result, "")
    assert result == finished.result
    assert set(result) == {
        *("valid", "test", "best_epoch", "epochs", "seed", "fingerprint", "protocol", "seconds", "step_ms"),
        *("peak_rss_bytes", "estimated_bytes", "skipped_steps", "rollbacks", "mesh", "processes"),
    }
    assert set(result["seconds"]) == {"compile", "train", "evaluate"}
    names = ("recall", "ndcg", "precision", "hit", "map", "mrr")
    assert set(result["test"]) == {f"{name}@{k}" for name in names for k in (5, 10, 20)}
    assert read_config(finished.folder) == with_defaults(dataclasses.replace(CONFIG, data=IN_MEMORY))
    assert len((finished.folder / "metrics.jsonl").read_text().splitlines()) == result["epochs"] == 6
    assert list((finished.folder / "events").iterdir())
    assert json.loads((finished.folder / "environment.json").read_text())["packages"]["jax"] == jax.__version__


def test_the_result_is_of_the_best_epoch(finished):
    values = [record["selected"]["recall@20"] for record in finished.history]
    assert finished.result["best_epoch"] == 1 + int(np.argmax(values))
    assert finished.result["valid"]["recall@20"] == max(values)


def test_the_same_seed_gives_the_same_bits(finished, tiny, tmp_path):
    again = train(CONFIG, tiny, out=tmp_path / "again")
    assert bare(again.history) == bare(finished.history)
    jax.tree.map(np.testing.assert_array_equal, again.embeddings, finished.embeddings)
    other = train(dataclasses.replace(CONFIG, seed=1, epochs=1), tiny, out=tmp_path / "other")
    assert other.history[0]["losses"] != finished.history[0]["losses"]


@pytest.mark.slow
def test_a_resumed_run_of_slmrec_is_the_uninterrupted_one(tiny, tmp_path):
    whole = train(SLMREC, tiny, out=tmp_path / "whole")
    train(dataclasses.replace(SLMREC, epochs=1), tiny, out=tmp_path / "parts")
    resumed = train(SLMREC, tiny, out=tmp_path / "parts", resume=True)
    assert bare(resumed.history) == bare(whole.history)
    jax.tree.map(np.testing.assert_array_equal, resumed.embeddings, whole.embeddings)


@pytest.mark.parametrize("stop_after", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_a_resumed_run_is_the_uninterrupted_one(finished, tiny, tmp_path, stop_after):
    """Parameters, optimizer state, step (and so the batch order), metrics and embeddings, to the bit."""

    def stop(event):
        if event.epoch == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)

    folder = tmp_path / "run"
    with pytest.raises(Interrupted) as raised:
        train(CONFIG, tiny, out=folder, callbacks=[on_epoch(stop)])
    assert raised.value.signal_number == signal.SIGTERM
    assert state_of(folder, tiny)[0] == stop_after
    resumed = train(CONFIG, tiny, out=folder, resume=True)
    assert bare(resumed.history) == bare(finished.history)
    jax.tree.map(np.testing.assert_array_equal, state_of(folder, tiny), state_of(finished.folder, tiny))
    jax.tree.map(np.testing.assert_array_equal, resumed.embeddings, finished.embeddings)
    assert resumed.result["test"] == finished.result["test"]


@pytest.mark.slow
def test_records_without_a_checkpoint_are_done_again(finished, tiny, tmp_path):
    folder = tmp_path / "run"
    train(dataclasses.replace(CONFIG, epochs=2), tiny, out=folder)
    with (folder / "metrics.jsonl").open("a") as file:  # as if killed between the record and the save
        file.write(json.dumps({"epoch": 3}) + "\n")
    longer = train(CONFIG, tiny, out=folder, resume=True)
    assert bare(longer.history) == bare(finished.history)


def test_resuming_a_finished_run_changes_nothing(finished, tiny):
    again = train(CONFIG, tiny, out=finished.folder, resume=True)
    assert again.history == finished.history
    assert again.result["test"] == finished.result["test"]


def test_a_loaded_run_evaluates_and_recommends_alike(finished, tiny):
    loaded = load_run(finished.folder, tiny)
    shared = load_sharing(finished.folder, {finished.dataset.fingerprint: finished.dataset}, "moved")
    assert shared.dataset is finished.dataset  # which needs no place to load it from
    assert loaded.evaluate("test").means == finished.result["test"]
    assert loaded.evaluate("test", "mmrec").means != finished.result["test"]
    ours, theirs = (run.recommend(["user-0007", "user-0003"], 5) for run in (loaded, finished))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert ours.users.tolist() == ["user-0007", "user-0003"]
    seen = set(tiny.item_ids[tiny.train.items[tiny.user_ids[tiny.train.users] == "user-0007"]])
    assert not seen & set(ours.items[0])
    assert (np.diff(ours.scores) <= 0).all()
    assert loaded.recommend(k=3).items.shape == (60, 3)


def refused(match, **arguments):
    with pytest.raises(UserError, match=match) as raised:
        train(**arguments)
    assert "\n" not in str(raised.value)


def test_more_items_than_there_are_are_all_of_them(finished):
    some = finished.dataset.user_ids[:3].tolist()
    found, expected = (finished.recommend(some, k=k) for k in (500, 80))
    assert found.items.shape == (3, 80)
    np.testing.assert_array_equal(found.items, expected.items)


def test_refusals(finished, tiny, tmp_path):
    folder, fresh = finished.folder, tmp_path / "fresh"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    refused("already exists", config=CONFIG, dataset=tiny, out=folder)
    refused("resume=True needs out: the folder", config=CONFIG, dataset=tiny, resume=True)
    refused("config.json is missing", config=CONFIG, dataset=tiny, out=fresh, resume=True)
    refused("another dim", config=dataclasses.replace(CONFIG, dim=4), dataset=tiny, out=folder, resume=True)
    other = demo(num_users=60, num_items=80, num_scenes=6, exposures=40, seed=5)
    refused("other data", config=CONFIG, dataset=other, out=folder, resume=True)
    refused(
        "ks: the cut-off 500 is beyond the 80 items",
        config=dataclasses.replace(CONFIG, ks=(500,)),
        dataset=tiny,
        out=fresh,
    )
    refused("no modality 'smell'", config=dataclasses.replace(CONFIG, modalities=("smell",)), dataset=tiny, out=fresh)
    refused("epochs is 0", config=dataclasses.replace(CONFIG, epochs=0), dataset=tiny, out=fresh)
    uncounted = with_protocol(dataclasses.replace(CONFIG, epochs=1), "slmrec")
    refused("epochs=1 is too few", config=uncounted, dataset=tiny, out=fresh)
    with pytest.raises(UserError, match="other data"):
        load_run(folder, other)
    with pytest.raises(UserError, match="dataset and data are both given"):
        load_run(folder, tiny, data=folder)
    with pytest.raises(UserError, match="no user 'nobody'"):
        finished.recommend(["nobody"])
    assert not fresh.exists()
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_checkpoint_of_another_model_is_refused(finished, tiny):
    other = dataclasses.replace(CONFIG, dim=4)
    like = make_method(other, make_spec(other, tiny)).init(jax.random.key(0))
    with pytest.raises(UserError, match="checkpoint of another model"):
        checkpoint.restore_state(finished.folder / "checkpoints", 6, like)


def test_a_run_that_diverges_stops_and_says_so(tiny, tmp_path):
    config = dataclasses.replace(CONFIG, optimizer=OptimizerConfig(chain=("sgd(1e30)",)))
    refused(
        r"not finite in epoch 1, step \d, whose batch has users user-",
        config=config,
        dataset=tiny,
        out=tmp_path / "run",
    )
    assert not (tmp_path / "run" / "result.json").exists()


def broken(*, skips):
    """Return a maker of methods whose steps are all NaN, or whose embeddings are infinite."""

    def make(config, spec):
        method = make_method(config, spec)

        def step(state, inputs, batch):
            after, metrics = method.step(state, inputs, batch)
            return after, jax.tree.map(lambda x: x * jnp.nan, metrics)

        def embed(state, inputs):
            return jax.tree.map(lambda x: x + jnp.inf, method.embed(state, inputs))

        return method._replace(step=step) if skips else method._replace(embed=embed)

    return make


@pytest.mark.parametrize(
    ("skips", "cause"),
    [
        (True, "all steps of epoch 1 were skipped, since none had a finite result"),
        (False, "the embeddings after epoch 1 are not finite, although its losses are"),
    ],
)
def test_an_epoch_without_embeddings_needs_a_new_run(tiny, tmp_path, skips, cause):
    # `cheap_runs` tells the programs apart by config.
    config = dataclasses.replace(CONFIG, on_nan="skip", batch_size=1000 if skips else 1001)
    advice = "start a new run with a lower optimizer.learning_rate or a higher temperature"
    refused(f"^{cause}; {advice}$", config=config, dataset=tiny, out=tmp_path / "run", method=broken(skips=skips))


@pytest.mark.slow
def test_stale_embeddings_are_those_before_the_last_step(tiny, tmp_path):
    config = dataclasses.replace(CONFIG, epochs=1, batch_size=100_000)
    stale = dataclasses.replace(config, eval=config.eval._replace(stale_embeddings=True))
    fresh, kept = (train(c, tiny, out=tmp_path / str(i)) for i, c in enumerate((config, stale)))
    assert (np.asarray(fresh.embeddings.users) != np.asarray(kept.embeddings.users)).any()
    # With one step an epoch, they are the initial ones.
    made = setup(config, tiny)
    initial = made.embed(made.init(), made.inputs)
    np.testing.assert_allclose(kept.embeddings.users, initial.users, rtol=1e-4, atol=1e-6)


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(finished, tiny, tmp_path):
    folder, said = tmp_path / "run", []

    def die(event):
        if event.text.startswith("run folder"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, tiny, out=folder, callbacks=[die])
    resumed = train(CONFIG, tiny, out=folder, resume=True, callbacks=[texts_into(said)])
    assert "resumed after the start" in said
    assert bare(resumed.history) == bare(finished.history)


def test_a_damaged_checkpoint_is_said_and_the_one_before_is_taken(finished, tiny, tmp_path):
    folder, said = tmp_path / "run", []
    shutil.copytree(finished.folder, folder)
    newest = folder / "checkpoints" / "6"
    for path in [path for path in newest.rglob("*") if path.is_file() and path.stat().st_size]:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    resumed = train(CONFIG, tiny, out=folder, resume=True, callbacks=[texts_into(said)])
    assert any("epoch 6 cannot be used" in line for line in said)
    assert bare(resumed.history) == bare(finished.history)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("result.json", "{}", "best_epoch is missing"),
        ("result.json", "[", "cannot read"),
        ("config.json", "{}", "made_by is missing"),
        ("metrics.jsonl", "[]\n" * 6, "line 1 does not hold a JSON object"),
        ("metrics.jsonl", "", "lacks epochs"),
        ("dataset.json", "{}", "fingerprint is missing"),
    ],
)
def test_a_damaged_run_folder_is_refused(finished, tiny, tmp_path, file, text, said):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    (folder / file).write_text(text)
    with pytest.raises(UserError, match=said):
        load_run(folder, tiny)


def test_resuming_for_more_epochs_is_written_down(tiny, tmp_path):
    folder = tmp_path / "run"
    train(dataclasses.replace(CONFIG, epochs=1), tiny, out=folder)
    train(dataclasses.replace(CONFIG, epochs=2), tiny, out=folder, resume=True)
    assert read_config(folder).epochs == 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_trains_to_a_result(tiny, tmp_path, protocol):
    config = with_protocol(dataclasses.replace(CONFIG, epochs=2, ks=(5,)), protocol)
    run = train(config, tiny, out=tmp_path / "run")
    assert run.result["protocol"] == protocol
    assert run.result["best_epoch"] in (1, 2)


def test_a_split_that_no_one_can_be_tested_on_is_refused_in_advance(tiny, tmp_path):
    stranger = tiny.train.users == 59
    train_split = Interactions(*(x[~stranger] for x in tiny.train))
    absent = dataclasses.replace(
        tiny, train=train_split, test=Interactions(np.array([59], np.int32), tiny.test.items[:1])
    )
    refused("no users to evaluate", config=with_protocol(CONFIG, "mmrec"), dataset=absent, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_without_validation_train_under_a_protocol_that_needs_none(tiny, tmp_path):
    none = Interactions(*np.zeros((2, 0), np.int32))
    without = dataclasses.replace(tiny, valid=none)
    config = dataclasses.replace(CONFIG, model="lightgcn", epochs=2)
    with pytest.raises(UserError, match="valid split"):
        train(config, without, out=tmp_path / "strict")
    assert not (tmp_path / "strict").exists()
    run = train(with_protocol(config, "lightgcn"), without, out=tmp_path / "run")
    assert "valid" not in run.result
    assert load_run(tmp_path / "run", without).evaluate("test").means == run.result["test"]


def test_the_jax_that_is_wrong_is_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "__version__", "0.10.2")
    refused("0.10.2", config=CONFIG, dataset=tiny, out=tmp_path / "run")


def test_the_public_names():
    assert all(hasattr(slmrec_jax, name) for name in slmrec_jax.__all__)
