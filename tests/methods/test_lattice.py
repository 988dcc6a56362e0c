"""LATTICE builds its graph in the first step of a pass, and reads it as a constant in the others."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from slmrec_jax import setup
from slmrec_jax.config import Config
from slmrec_jax.encoding.sparse import matmul
from slmrec_jax.models.lattice import learned_graph
from slmrec_jax.training.inputs import make_spec

pytestmark = [pytest.mark.usefixtures("optax_promotion"), pytest.mark.slow]

CONFIG = Config(dim=8, batch_size=150, num_layers=2, model="lattice")


@pytest.fixture(scope="module")
def made(tiny):
    with jax.numpy_dtype_promotion("standard"):
        return setup(CONFIG, tiny.with_modalities(("visual", "acoustic")))


def test_the_graph_is_built_once_a_pass(made):
    step, build = jax.jit(made.step), jax.jit(learned_graph(make_spec(CONFIG, made.dataset)))
    steps = made.steps_per_epoch
    assert steps >= 2
    state, eye = made.init(), jnp.eye(made.dataset.num_items)
    for place in range(steps + 1):
        before, state = state, step(state, made.inputs, made.batch(place))[0]
        first = place % steps == 0
        held = matmul(state.opt_state.graph, eye)
        if first:
            built = matmul(build(before.params["model"], made.inputs.cache), eye)
        np.testing.assert_allclose(held, built, atol=1e-6)


def test_the_next_step_builds_it_if_the_first_is_skipped(made):
    """As `--on-nan skip` does, which advances only the step count."""
    step, state = jax.jit(made.step), made.init()
    after, _ = step(state.replace(step=jnp.int32(1)), made.inputs, made.batch(1))
    assert np.any(after.opt_state.graph.matrix.weights)
    assert int(after.opt_state.built) == 0


def test_the_features_move_in_that_step_alone(made):
    """With Adam, which would otherwise move them on by momentum."""
    step = jax.jit(made.step)
    state, moved = made.init(), []
    for place in range(made.steps_per_epoch + 1):
        after = step(state, made.inputs, made.batch(place))[0]
        names = ("modalities", "weights", "user")
        pairs = ((state.params["model"][name], after.params["model"][name]) for name in names)
        moved.append([any(map(np.any, jax.tree.leaves(jax.tree.map(lambda a, b: a != b, *pair)))) for pair in pairs])
        state = after
    first, *others, next_first = moved
    assert first == next_first == [True, True, True]
    assert others == [[False, False, True]] * (made.steps_per_epoch - 1)


def test_adam_counts_the_steps_of_the_graph_alone(made):
    """Its bias correction belongs to the steps that had a gradient, as in PyTorch."""
    step, state, moved = jax.jit(made.step), made.init(), []
    for place in range(made.steps_per_epoch + 1):
        counts = {part: _count(state, part) for part in ("graph", "rest")}
        state = step(state, made.inputs, made.batch(place))[0]
        moved.append({part: _count(state, part) - count for part, count in counts.items()})
    once = {"graph": 1, "rest": 1}
    assert moved == [once, *[{"graph": 0, "rest": 1}] * (made.steps_per_epoch - 1), once]


def _count(state, part):
    return int(optax.tree.get(state.opt_state.opt_state.inner_states[part], "count"))
