"""What is explored comes from the runs themselves, which must be on the same data."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from slmrec_jax import Config, UserError, train
from slmrec_jax.exploring.answers import answer
from slmrec_jax.exploring.explored import explore

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("optax_promotion")]


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    """SLMRec on two modalities, MF on three, and MF on other splits."""
    folder, config = tmp_path_factory.mktemp("runs"), Config(dim=8, batch_size=512, num_layers=1, epochs=1)
    others = replace(tiny, valid=tiny.test, test=tiny.valid)
    with jax.numpy_dtype_promotion("standard"):
        return [
            train(replace(config, task="none", modalities=("visual", "textual")), tiny, out=folder / "a"),
            train(replace(config, model="mf"), tiny, out=folder / "b"),
            train(replace(config, model="mf"), others, out=folder / "c"),
        ]


def test_two_runs_beside_each_other(runs):
    explored = explore(runs[:2])
    assert [run.name for run in explored.runs] == ["a", "b"]
    assert list(explored.tables) == ["visual", "acoustic", "textual", "trained: a", "trained: b"]
    first, second = explored.runs
    assert list(first.without) == ["visual", "textual"]
    for whole, table in zip(first.whole, runs[0].embeddings, strict=True):
        np.testing.assert_allclose(whole, table, rtol=1e-5, atol=1e-6)
    assert (second.without, second.reason) == ({}, "mf does not read modalities when it ranks")
    for row in (0, 5):
        for run, listed in zip(runs, answer(explored, "user", {"row": str(row)})["runs"], strict=False):
            found = run.recommend(run.dataset.user_ids[row]).items[0].tolist()
            assert [item["id"] for item in listed] == found


def test_runs_on_other_data_are_refused(runs):
    with pytest.raises(UserError, match=r"a and .*c have different users, items, splits or features: explore each"):
        explore([runs[0], runs[2]])


def test_a_run_of_a_method_of_ones_own_has_no_contributions(runs):
    run = runs[0]
    foreign = replace(run, config=replace(run.config, num_layers=2, model="vbpr"))
    shown = explore([foreign]).runs[0]
    assert shown.without == {}
    assert "own" in shown.reason or "checkpoint" in shown.reason
