"""A method of the caller's own that cannot be trained is refused in one line, before or at its first step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import slmrec_jax as slm
from slmrec_jax.config import OptimizerConfig
from slmrec_jax.types import Embeddings

CONFIG = slm.Config(model="mf", dim=8, epochs=1, batch_size=64)
pytestmark = pytest.mark.usefixtures("optax_promotion")


def short(embeddings):
    return Embeddings(embeddings.users[:5], embeddings.items)


def narrow(embeddings):
    return Embeddings(embeddings.users, embeddings.items[:, :4])


def halves(embeddings):
    return jax.tree.map(lambda x: x.astype(jnp.bfloat16), embeddings)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (short, r"float32 of shape \(5, 8\) and float32 of shape \(80, 8\): return float32 of shape \(60, d\) for the"),
        (narrow, r"float32 of shape \(60, 8\) and float32 of shape \(80, 4\): return float32"),
        (halves, r"bfloat16 of shape \(60, 8\) and bfloat16 of shape \(80, 8\): return float32"),
        (lambda made: Embeddings(made.users, None), r"of type Embeddings: return"),
        (tuple, r"of type tuple: return slmrec_jax.types.Embeddings\(users, items\)"),
    ],
)
def test_embeddings_that_cannot_be_ranked(tiny, tmp_path, change, line):
    def make(config, spec):
        made = slm.make_method(config, spec)
        return made._replace(embed=lambda state, inputs: change(made.embed(state, inputs)))

    with pytest.raises(slm.UserError, match=f"the method's embed returns .*{line}"):
        slm.train(CONFIG, tiny, out=tmp_path / "run", method=make)
    assert not (tmp_path / "run").exists()


def test_a_state_that_no_checkpoint_can_hold(tiny, tmp_path):
    config = slm.Config(model="mf", dim=8, optimizer=OptimizerConfig(chain=("add_noise(0.01, 0.55, 0)", "sgd(0.1)")))
    with pytest.raises(slm.UserError, match=r"the state holds a PRNG key, .*rng_key, which no checkpoint can hold"):
        slm.train(config, tiny, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_state_that_does_not_count_its_steps(tiny, tmp_path):
    def make(config, spec):
        made = slm.make_method(config, spec)

        def step(state, inputs, batch):
            after, metrics = made.step(state, inputs, batch)
            return after.replace(step=state.step), metrics

        return made._replace(step=step)

    with pytest.raises(slm.UserError, match=r"the step count of the method's state is 0 after \d+ step"):
        slm.train(CONFIG, tiny, out=tmp_path / "run", method=make)


@pytest.mark.parametrize("made", [None, "mf"])
def test_what_is_no_method(tiny, made):
    with pytest.raises(slm.UserError, match=f"what the argument `method` returns is {made!r}.*: give a Method"):
        slm.setup(CONFIG, tiny, method=lambda config, spec: made)


def test_arrays_of_64_bits(tiny):
    with jax.enable_x64(True), pytest.raises(slm.UserError, match="jax_enable_x64 is on, but training computes in 32"):
        slm.setup(CONFIG, tiny)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"terms": {"own": slm.bpr()}}, r"terms\['own'\] is Loss.*: give slm.Term\(weight, loss\)"),
        ({"terms": {"own": slm.Term(1.0, len)}}, r"the loss of terms\['own'\] is .*: give slm.Loss\(function\)"),
        ({"terms": {"own": slm.Term("1", slm.bpr())}}, r"the weight of terms\['own'\] is '1', of type str: give a fin"),
        (
            {"terms": {"own": slm.Term(float("nan"), slm.bpr())}},
            r"the weight of terms\['own'\] is nan, of type float: give",
        ),
        ({"terms": slm.bpr()}, "terms is Loss.*: give a mapping"),
        (
            {"optimizer": "adam"},
            r"optimizer is 'adam', of type str: give a transformation of optax, such as optax.adam",
        ),
        ({"model": None}, "model is None, of type NoneType: give a Model"),
    ],
)
def test_arguments_of_gradient_method(tiny, wrong, line):
    def make(config, spec):
        recipe = slm.make_recipe(config, spec)
        given = {"model": recipe.model, "terms": recipe.terms, "optimizer": optax.adam(1e-2), "spec": spec}
        return slm.gradient_method(**{**given, **wrong})

    with pytest.raises(slm.UserError, match=line):
        slm.setup(CONFIG, tiny, method=make)


def test_any_scalar_is_a_weight_and_what_steps_is_an_optimizer(tiny):
    def make(config, spec):
        recipe = slm.make_recipe(config, spec)
        terms = {name: slm.Term(weight, slm.bpr()) for name, weight in {"a": jnp.float32(0.5), "b": True}.items()}
        return slm.gradient_method(recipe.model, terms, optax.MultiSteps(optax.adam(1e-2), 2), spec)

    made = slm.setup(CONFIG, tiny, method=make)
    state, metrics = made.step(made.init(), made.inputs, made.batch(0))
    np.testing.assert_allclose(metrics["loss"], 1.5 * metrics["a"], rtol=1e-6)
    assert int(state.step) == 1
