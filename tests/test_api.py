"""The whole Python interface from one import, as a notebook uses it."""

import ast
from pathlib import Path

import jax
import numpy as np
import pytest

import slmrec_jax as slm
from slmrec_jax import data as slm_data
from slmrec_jax.data.synthetic import demo

pytestmark = pytest.mark.usefixtures("optax_promotion")

SOURCE = ast.parse(Path(slm.__file__).read_text())


def test_every_public_name_is_imported_lazily_and_known_to_type_checkers():
    (checked,) = (node for node in SOURCE.body if isinstance(node, ast.If))
    for_checkers = {
        alias.name: node.module for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert for_checkers == {name: f"slmrec_jax.{module}" for name, module in slm._MODULES.items()}
    assert sorted(slm.__all__) == sorted(for_checkers)
    for name in slm.__all__:
        assert getattr(slm, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = slm.nothing


@pytest.mark.slow
def test_from_arrays_to_recommendations(tmp_path):
    rng = np.random.default_rng(0)
    users, items = rng.integers(40, size=900), rng.integers(30, size=900)
    vectors = {f"i{item}": rng.normal(size=6) for item in range(30)}
    frame = {"user": [f"u{user}" for user in users], "item": [f"i{item}" for item in items]}
    data = slm.dataset(frame, features={"clip": vectors}, split="leave-one-out")

    seen = []
    config = slm.Config(model="mf", dim=4, batch_size=256, epochs=2, ks=(5,))
    run = slm.train(config, data, out=tmp_path / "run", callbacks=[seen.append])
    assert 0 <= run.test["recall@5"] <= 1
    assert len(run.curves["loss/loss"]) == len(run.history) == sum(event.kind == "epoch" for event in seen)
    assert run.embeddings.users.shape == (40, 4)
    assert run.recommend(users=["u3"], k=3).items.shape == (1, 3)
    assert run.recommend(history=["i3", "i5"], k=3).items.shape == (1, 3)
    assert run.similar(items=["i3"], k=3).similar.shape == (1, 3)
    run.export(tmp_path / "exported")
    assert slm.load_run(tmp_path / "run").test == run.test

    config.save(tmp_path / "mine.toml")
    again = slm.train(slm.Config.load(tmp_path / "mine.toml"), data, out=tmp_path / "run", overwrite=True)
    assert again.test == run.test


@pytest.mark.slow
def test_a_training_loop_of_ones_own(monkeypatch):
    small = demo(num_users=60, num_items=80, num_scenes=6, exposures=40, columns={"visual": 8})
    monkeypatch.setattr(slm_data, "demo", lambda: small)
    data = slm.load("demo")
    s = slm.setup(slm.Config(model="lightgcn", dim=4, num_layers=1, batch_size=128), data)
    state = s.init()
    step = jax.jit(s.step, donate_argnums=0)
    first = None
    for i in range(s.steps_per_epoch):
        state, metrics = step(state, s.inputs, s.batch(i))
        first = first or float(metrics["loss"])
    assert float(metrics["loss"]) < first
    gradient = jax.grad(lambda p: s.loss(p, s.inputs, s.batch(0))[0])(state.params)
    assert jax.tree.structure(gradient) == jax.tree.structure(state.params)
    assert s.embed(state, s.inputs).items.shape == (data.num_items, 4)
