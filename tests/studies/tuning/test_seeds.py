"""Several seeds, as one program or one after another, compute what each computes in a run of its own."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

from slmrec_jax import Config, train
from slmrec_jax.config import OptimizerConfig
from slmrec_jax.errors import Diverged
from slmrec_jax.evaluation.protocol import plan
from slmrec_jax.methods import make_method
from slmrec_jax.studies.tuning.seeds import best_value, fit_seeds, one_by_one, one_program, stack_keys
from slmrec_jax.training.inputs import make_inputs, make_spec
from slmrec_jax.training.loop import make_epoch, make_keys
from slmrec_jax.training.numbering import by_degree
from slmrec_jax.types import Embeddings, Method

pytestmark = pytest.mark.usefixtures("optax_promotion")

SEEDS = (0, 2)

each_team = pytest.mark.parametrize("team", [one_program, one_by_one])


def fitted(method, tiny, config, team):
    inputs = method.prepare(make_inputs(tiny, numbering=by_degree(tiny)))
    valid = plan(tiny, "valid", config.eval, config.ks)
    return list(fit_seeds(method, inputs, valid, config, SEEDS, team))[-1]


# SLMRec draws a mask in each step, and takes 45 s to compile.
@pytest.fixture(scope="module", params=["mf", pytest.param("slmrec", marks=pytest.mark.slow)])
def alone(request, tiny, tmp_path_factory):
    """A config, and the history of each seed in a run of its own."""
    rate = OptimizerConfig(learning_rate=1e-2)
    config = Config(model=request.param, task="fm", dim=4, num_layers=1, batch_size=128, epochs=9, optimizer=rate)
    config = replace(config, eval=config.eval._replace(patience=0))
    out = tmp_path_factory.mktemp("alone")
    with jax.numpy_dtype_promotion("standard"):
        return config, [train(replace(config, seed=seed), tiny, out=out / str(seed)).history for seed in SEEDS]


@each_team
def test_seeds_together_are_runs_of_each_alone(alone, tiny, team):
    """Each seed stops by itself: a patience of 0 ends the two at different epochs."""
    config, expected = alone
    histories = fitted(make_method(config, make_spec(config, tiny)), tiny, config, team)
    assert len(histories[0]) != len(histories[1])
    for ours, theirs in zip(histories, expected, strict=True):
        assert [record["improved"] for record in ours] == [record["improved"] for record in theirs]
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one["losses"]["loss"], other["losses"]["loss"], rtol=2e-5)
            np.testing.assert_allclose(one["selected"]["recall@20"], other["selected"]["recall@20"], atol=1e-6)


def recording(rate=0.0):
    """A method whose state keeps what it was given last; it ranks by numbers that its key drew."""

    def init(key):
        params = {"rows": jnp.zeros((2, 100), jnp.int32), "drawn": jax.random.normal(key, (140, 4))}
        state = TrainState.create(apply_fn=None, params=params, tx=optax.sgd(1.0))
        return state.replace(step=jnp.int32(0), opt_state=())

    def step(state, inputs, batch):
        drawn = state.params["drawn"] * (1 + rate * jnp.sum(batch.users))
        params = {"rows": jnp.stack([batch.users, batch.items]), "drawn": drawn}
        negatives = jnp.sum(batch.negatives).astype(jnp.float32)
        metrics = {"loss": jnp.max(drawn), "negatives": negatives, "key": jax.random.uniform(batch.key)}
        return state.replace(step=state.step + 1, params=params), metrics

    def embed(state, inputs):
        return Embeddings(state.params["drawn"][:60], state.params["drawn"][60:])

    return Method(init, step, embed, num_negatives=2)


def test_a_seed_sees_the_same_batches_negatives_and_keys(tiny):
    method, inputs = recording(), make_inputs(tiny)
    epoch = jax.jit(make_epoch(method, 100))
    keys = stack_keys(SEEDS)
    together = jax.jit(jax.vmap(epoch, in_axes=(0, None, 0)))(jax.vmap(method.init)(keys.init), inputs, keys)
    for place, seed in enumerate(SEEDS):
        alone = epoch(method.init(make_keys(seed).init), inputs, make_keys(seed))
        np.testing.assert_array_equal(together.state.params["rows"][place], alone.state.params["rows"])
        np.testing.assert_array_equal(together.state.params["drawn"][place], alone.state.params["drawn"])
        for name in ("negatives", "key"):
            np.testing.assert_allclose(together.metrics[name][place], alone.metrics[name], rtol=1e-6)
    assert not np.array_equal(together.state.params["rows"][0], together.state.params["rows"][1])


@each_team
def test_a_seed_that_diverges_says_which(tiny, team):
    config = Config(batch_size=100, epochs=9)
    seeds = "|".join(map(str, SEEDS))
    with pytest.raises(Diverged, match=rf"the loss of seed ({seeds}) is not finite in epoch \d"):
        fitted(recording(rate=1e30), tiny, config, team)


def test_a_history_without_a_best_epoch_is_worth_nothing():
    assert best_value([]) == 0.0
    records = [{"selected": {"recall@20": 0.2}, "improved": True}, {"selected": {"recall@20": 0.1}, "improved": False}]
    assert best_value(records) == 0.2
