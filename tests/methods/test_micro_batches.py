"""Several micro-batches in a step: the mean of their losses and gradients, for every system and task."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

import slmrec_jax as slm
from slmrec_jax import setup
from slmrec_jax.config import Config, MMSSLConfig, with_settings
from slmrec_jax.objectives.augmentations import feature_dropout
from slmrec_jax.types import Batch

pytestmark = pytest.mark.usefixtures("optax_promotion")

BASE = Config(dim=8, batch_size=40, num_layers=1)
"""One layer, since a step propagates once for all its micro-batches."""
SYSTEMS = {
    "fac": BASE,
    "fd+fm": replace(BASE, task="fd+fm"),
    "masked": replace(BASE, slmrec=replace(BASE.slmrec, mask_false_negatives=True)),
    "bm3": replace(BASE, model="bm3"),
    "mf": replace(BASE, model="mf", bpr_negatives=3),
    "lightgcn": replace(BASE, model="lightgcn"),
    "vbpr": replace(BASE, model="vbpr"),
    "mmgcn": replace(BASE, model="mmgcn"),
    "simgcl": replace(BASE, model="simgcl", num_layers=2),
    "sgl among all": with_settings(BASE, {"model": "sgl", "sgl.among": "all"}),
    "fac+rw, corrected": with_settings(BASE, {"task": "fac+rw", "slmrec.popularity_correction": 0.7, "num_layers": 2}),
}


def separate(batch: Batch) -> list[Batch]:
    """The micro-batches that have real rows, as batches of their own."""
    each = [Batch(*(x[m] for x in batch[:-1]), key=batch.key) for m in range(len(batch.users))]
    return [one for one in each if one.mask.any()]


@pytest.mark.parametrize(
    ("name", "rows_of_group"),
    [
        *(pytest.param(name, 100, marks=pytest.mark.slow) for name in SYSTEMS),
        ("fac", 120),
        pytest.param("lightgcn", 30, marks=pytest.mark.slow),
    ],
)
def test_a_step_has_the_mean_gradient_of_its_micro_batches(name, rows_of_group, tiny, monkeypatch):
    """In two groups of two, of which one is half empty, all together, or each alone, since it has more rows."""
    monkeypatch.setattr("slmrec_jax.methods.micro_batches.GROUP_ROWS", rows_of_group)
    monkeypatch.setattr("slmrec_jax.encoding.sparse.MANY", rows_of_group // 2)
    made = setup(replace(SYSTEMS[name], micro_batches=3), tiny.with_modalities(("visual",)))
    gradient = jax.jit(jax.value_and_grad(made.loss, has_aux=True))
    state = made.init()
    for step in (0, made.steps_per_epoch - 1):
        batch = made.batch(step)
        assert batch.users.shape == (3, 40)
        (value, parts), gradients = gradient(state.params, made.inputs, batch)
        alone = [gradient(state.params, made.inputs, one) for one in separate(batch)]
        assert 1 <= len(alone) <= 3
        mean = jax.tree.map(lambda *each: sum(each) / len(each), *alone)
        np.testing.assert_allclose(value, mean[0][0], rtol=2e-6)
        assert parts.keys() == mean[0][1].keys()
        largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(mean[1]))
        for ours, theirs in zip(jax.tree.leaves(gradients), jax.tree.leaves(mean[1]), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=2e-6 * largest)


@pytest.mark.slow
def test_a_step_of_mmssl_has_the_mean_gradients_of_its_micro_batches(tiny):
    """The recommender's, without a game; and the discriminator's, whose update comes first and from one state."""
    config = replace(BASE, model="mmssl", micro_batches=3, mmssl=MMSSLConfig(heads=2, topk_rate=0.05))
    config = with_settings(config, {"optimizer.chain": ("sgd(1.0)",)})
    data = tiny.with_modalities(("visual", "acoustic"))
    alone = with_settings(config, {"mmssl.adversarial_weight": 0.0})
    for each, part in ((alone, lambda state: state.params), (config, discriminator_moments)):
        made = setup(each, data)
        step, state = jax.jit(made.step), made.init()
        batch = made.batch(0)
        after = part(step(state, made.inputs, batch)[0])
        separately = [part(step(state, made.inputs, one)[0]) for one in separate(batch)]
        assert len(separately) == 3
        mean = jax.tree.map(lambda *each: sum(each) / len(each), *separately)
        largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(mean))
        for ours, theirs in zip(jax.tree.leaves(after), jax.tree.leaves(mean), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=2e-6 * largest)


def discriminator_moments(state):
    """The first moments of the discriminator's Adam after one step: its gradient times a constant."""
    return state.discriminator_opt_state[0].mu


@pytest.mark.slow
def test_groups_share_what_does_not_depend_on_them(tiny, monkeypatch):
    """The loops over groups hold no product with the graph, so that there are as many as with one group."""

    def count(program):
        """The products of a program, and those of them that are in loops."""
        found = np.zeros(2, int)
        for equation in program.eqns:
            found += [equation.primitive.name == "bcsr_dot_general", 0]
            for inner in jaxprs_in_params(equation.params):
                products, in_loops = count(inner)
                found += [products, products if equation.primitive.name == "scan" else in_loops]
        return found

    def products(rows_of_group):
        monkeypatch.setattr("slmrec_jax.methods.micro_batches.GROUP_ROWS", rows_of_group)
        monkeypatch.setattr("slmrec_jax.encoding.sparse.MANY", rows_of_group // 2)
        one = tiny.with_modalities(("visual",))
        made = setup(replace(BASE, task="fd", micro_batches=3), one)
        state, batch = made.init(), made.batch(0)
        loss = jax.value_and_grad(lambda params: made.loss(params, made.inputs, batch)[0])
        return list(count(jax.make_jaxpr(loss)(state.params).jaxpr))

    together, in_groups = products(120), products(40)
    assert together[0] > 4
    assert in_groups == [together[0], 0]


def by_hand(params, context):
    """Rows under a map of one's own."""
    users, items = context.view.users, context.view.items
    own, drawn = users(context.batch.users), items(context.batch.negatives.reshape(-1))[:, None]
    each = jax.vmap(lambda ids: items(ids))(context.batch.items[:, None])[:, 0]
    scores = jnp.sum(own[:, None] * (each[:, None] - drawn), axis=-1)
    return slm.mean(jax.nn.softplus(-scores[:, 0]), context.batch.mask), {}


def of_the_batch(params, context):
    """A view that depends on the micro-batch, and rows within a branch that does."""
    key = jax.random.fold_in(context.key, context.batch.items[0])
    rows = context.encode(feature_dropout(0.5)[0], key).items(context.batch.items)
    first = jax.lax.cond(context.batch.users[0] % 2 == 0, lambda: rows, lambda: context.view.items(context.batch.items))
    return slm.mean(jnp.sum(rows * first, axis=1), context.batch.mask), {}


@pytest.mark.parametrize("loss", [by_hand, pytest.param(of_the_batch, marks=pytest.mark.slow)])
def test_losses_of_ones_own_see_one_micro_batch(loss, tiny):
    def method(config, spec):
        recipe = slm.slmrec_recipe(config, spec)
        terms = {"own": slm.Term(1.0, slm.Loss(loss, num_negatives=1))}
        return slm.gradient_method(recipe.model, terms, slm.make_optimizer(config.optimizer), spec)

    config = replace(BASE, task="none", micro_batches=2)
    made = setup(config, tiny.with_modalities(("visual",)), method=method)
    batch, state = made.batch(0), made.init()
    gradient = jax.jit(jax.value_and_grad(lambda params, batch: made.loss(params, made.inputs, batch)[0]))
    value, gradients = gradient(state.params, batch)
    alone = [gradient(state.params, one) for one in separate(batch)]
    assert len(alone) == 2
    np.testing.assert_allclose(value, (alone[0][0] + alone[1][0]) / 2, rtol=1e-5)
    for ours, *theirs in zip(*(jax.tree.leaves(of) for of in (gradients, alone[0][1], alone[1][1])), strict=True):
        np.testing.assert_allclose(ours, sum(theirs) / 2, atol=1e-6)
