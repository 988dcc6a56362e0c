"""Several seeds, as one program or one after another, compute what each computes in a run of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

from slmrec_jax import Config, setup, train
from slmrec_jax.config import with_settings
from slmrec_jax.errors import Diverged
from slmrec_jax.evaluation.protocol import plan_evaluation
from slmrec_jax.studies.tuning.seeds import best_value, fit_seeds, one_by_one, one_program
from slmrec_jax.types import Embeddings, Method

pytestmark = pytest.mark.usefixtures("optax_promotion")

SEEDS = (0, 2)

each_team = pytest.mark.parametrize("team", [one_program, one_by_one])


def fitted(made, team):
    valid = plan_evaluation(made.dataset, "valid", made.config.eval, made.config.ks)
    return list(fit_seeds(made, valid, SEEDS, team))[-1]


# SLMRec draws a mask in each step, and takes 40 s to compile.
@pytest.fixture(scope="module", params=["mf", pytest.param("slmrec", marks=pytest.mark.slow)])
def alone(request, tiny, tmp_path_factory):
    """A config, and the history of each seed in a run of its own."""
    config = Config(model=request.param, task="fm", dim=4, num_layers=1, batch_size=128, epochs=9)
    # With this L2, the two seeds of MF stop at different epochs.
    config = with_settings(config, {"eval.patience": 0, "optimizer.learning_rate": 1e-2, "mf.l2": 0.2})
    out, data = tmp_path_factory.mktemp("alone"), tiny.with_modalities(("visual",))
    with jax.numpy_dtype_promotion("standard"):
        runs = [train(with_settings(config, {"seed": seed}), data, out=out / str(seed)) for seed in SEEDS]
    return config, [run.history for run in runs]


@each_team
def test_seeds_together_are_runs_of_each_alone(alone, tiny, team):
    """Each seed stops by itself: a patience of 0 ends the two at different epochs."""
    config, expected = alone
    histories = fitted(setup(config, tiny.with_modalities(("visual",))), team)
    assert len(histories[0]) != len(histories[1])
    for ours, theirs in zip(histories, expected, strict=True):
        assert [record["improved"] for record in ours] == [record["improved"] for record in theirs]
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one["losses"]["loss"], other["losses"]["loss"], rtol=2e-5)
            np.testing.assert_allclose(one["selected"]["recall@20"], other["selected"]["recall@20"], atol=1e-6)


def recorded(tiny, rate=0.0):
    """A setup whose state keeps what it was given last; it ranks by numbers that its key drew, which grow by a rate.

    The rate is part of the state, so that all tests share one program for each team.
    """

    def init(key):
        drawn = jax.random.normal(key, (140, 4))
        params = {"rows": jnp.zeros((2, 100), jnp.int32), "drawn": drawn, "rate": jnp.float32(rate)}
        state = TrainState.create(apply_fn=None, params=params, tx=optax.sgd(1.0))
        return state.replace(step=jnp.int32(0), opt_state=())

    def step(state, inputs, batch):
        drawn = state.params["drawn"] * (1 + state.params["rate"] * jnp.sum(batch.users))
        params = state.params | {"rows": jnp.stack([batch.users, batch.items]), "drawn": drawn}
        negatives = jnp.sum(batch.negatives).astype(jnp.float32)
        metrics = {"loss": jnp.max(drawn), "negatives": negatives, "key": jax.random.uniform(batch.key)}
        return state.replace(step=state.step + 1, params=params), metrics

    def embed(state, inputs):
        return Embeddings(state.params["drawn"][:60], state.params["drawn"][60:])

    method = Method(init, step, embed, num_negatives=2)
    return setup(Config(batch_size=100, epochs=9), tiny, method=lambda config, spec: method)


def test_a_seed_sees_the_same_batches_negatives_and_keys(tiny):
    made, progress = recorded(tiny), []
    for team in (one_program(made, SEEDS), one_by_one(made, SEEDS)):
        after = team.train(team.init(), range(len(SEEDS)))
        progress.append([team.progress(after, place) for place in range(len(SEEDS))])
    for together, alone in zip(*progress, strict=True):
        np.testing.assert_array_equal(together.state.params["rows"], alone.state.params["rows"])
        np.testing.assert_array_equal(together.state.params["drawn"], alone.state.params["drawn"])
        for name in ("negatives", "key"):
            np.testing.assert_allclose(together.means.values[name], alone.means.values[name], rtol=1e-6)
    first, second = progress[0]
    assert not np.array_equal(first.state.params["rows"], second.state.params["rows"])


@each_team
def test_a_seed_that_diverges_says_which(tiny, team):
    seeds = "|".join(map(str, SEEDS))
    with pytest.raises(Diverged, match=rf"the loss of seed ({seeds}) is not finite in epoch \d"):
        fitted(recorded(tiny, rate=1e30), team)


def test_a_history_without_a_best_epoch_is_worth_nothing():
    assert best_value([]) == 0.0
    records = [{"selected": {"recall@20": 0.2}, "improved": True}, {"selected": {"recall@20": 0.1}, "improved": False}]
    assert best_value(records) == 0.2
