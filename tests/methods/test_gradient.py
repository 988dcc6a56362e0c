"""Errors in one's own loss name the loss."""

import jax
import jax.numpy as jnp
import pytest

import slmrec_jax as slm
from slmrec_jax.errors import Diverged

pytestmark = pytest.mark.usefixtures("optax_promotion")

CONFIG = slm.Config(model="mf", dim=4, batch_size=512, epochs=1, ks=(5,))


def with_loss(apply, name="own"):
    """Return what makes matrix factorisation with a loss of one's own."""

    def make_method(config, spec):
        def init(key):
            user_key, item_key = jax.random.split(key)
            return {
                "user": slm.xavier_uniform(user_key, spec.num_users, spec.dim),
                "item": slm.xavier_uniform(item_key, spec.num_items, spec.dim),
            }

        def encode(params, inputs):
            users, items = slm.rows_of(params["user"]), slm.rows_of(params["item"])
            return lambda augmentation, key: slm.View(users, items, {}, {})

        terms = {name: slm.Term(1.0, slm.Loss(apply))}
        return slm.gradient_method(slm.Model(init, encode), terms, slm.make_optimizer(config.optimizer), spec)

    return make_method


def scores(context):
    users, items = context.view.users(context.batch.users), context.view.items(context.batch.items)
    return jnp.sum(users * items, axis=1)


@pytest.mark.parametrize(
    ("apply", "expected"),
    [
        (lambda params, context: (scores(context), {}), r"the loss 'own': an array of float32 of shape \(\d+,\)"),
        (lambda params, context: (jnp.int32(1), {}), r"the loss 'own': an array of int32 of shape \(\)"),
        (lambda params, context: ("low", {}), "the loss 'own': 'low', of type str; return one float"),
        (lambda params, context: (jnp.float32(0), {"m": None}), "the loss 'own', metric 'm': None, of type NoneType"),
        (lambda params, context: jnp.mean(scores(context)), "the loss 'own' returns .*: return the loss and a mapping"),
        (
            lambda params, context: (jnp.mean(scores(context)), {"each": scores(context)}),
            r"the loss 'own', metric 'each': an array of float32 of shape \(\d+,\)",
        ),
    ],
)
def test_what_a_loss_returns_is_checked(tiny, apply, expected):
    made = slm.setup(CONFIG, tiny, method=with_loss(apply))
    with pytest.raises(slm.UserError, match=expected):
        made.loss(made.init().params, made.inputs, made.batch(0))


def test_a_run_with_a_wrong_loss_writes_nothing(tiny, tmp_path):
    with pytest.raises(slm.UserError, match="the loss 'own'"):
        slm.train(CONFIG, tiny, out=tmp_path / "run", method=with_loss(lambda params, context: (scores(context), {})))
    assert not (tmp_path / "run").exists()


def test_an_exception_in_a_loss_names_it(tiny):
    def wrong_shapes(params, context):
        return jnp.mean(context.view.users(context.batch.users) @ jnp.ones((7, 7))), {}

    made = slm.setup(CONFIG, tiny, method=with_loss(wrong_shapes))
    with pytest.raises(TypeError) as raised:
        made.loss(made.init().params, made.inputs, made.batch(0))
    assert "in the loss 'own'" in raised.value.__notes__


def test_a_loss_that_is_not_finite_is_named(tiny, tmp_path):
    def logarithm(params, context):
        return jnp.mean(jnp.log(scores(context))), {}

    with pytest.raises(Diverged, match=r"own not finite in epoch 1, step 1, whose batch has users .* and items"):
        slm.train(CONFIG, tiny, out=tmp_path / "run", method=with_loss(logarithm))


@pytest.mark.parametrize("name", ["loss", "own/part"])
def test_a_term_whose_name_cannot_be_logged_is_refused(tiny, name):
    with pytest.raises(ValueError, match=f"a term is called '{name}'"):
        slm.setup(CONFIG, tiny, method=with_loss(lambda params, context: (jnp.mean(scores(context)), {}), name))


def test_a_method_without_a_total_is_refused(tiny, tmp_path):
    def without_total(config, spec):
        method = slm.make_method(config, spec)

        def step(state, inputs, batch):
            after, metrics = method.step(state, inputs, batch)
            return after, {"mine": metrics["loss"]}

        return method._replace(step=step)

    with pytest.raises(slm.UserError, match="has the metrics mine: return the total as `loss` too"):
        slm.train(CONFIG, tiny, out=tmp_path / "run", method=without_total)


def test_the_view_and_the_losses_draw_independently(tiny):
    """All keys of a step differ, also those that an encoder splits from the key of its view."""
    seen = []

    def loss(params, context):
        seen.append(context.key)
        return jnp.mean(scores(context)), {}

    def make_method(config, spec):
        def encode(params, inputs):
            def view(augmentation, key):
                seen.extend([key, *jax.random.split(key, 5)])
                return slm.View(slm.rows_of(params["user"]), slm.rows_of(params["item"]), {}, {})

            return view

        def init(key):
            return {"user": jnp.ones((spec.num_users, spec.dim)), "item": jnp.ones((spec.num_items, spec.dim))}

        terms = {name: slm.Term(1.0, slm.Loss(loss)) for name in ("a", "b", "c", "d", "e")}
        return slm.gradient_method(slm.Model(init, encode), terms, slm.make_optimizer(config.optimizer), spec)

    made = slm.setup(CONFIG, tiny, method=make_method)
    batch, params = made.batch(0), made.init().params
    seen.clear()
    made.loss(params, made.inputs, batch)
    keys = {tuple(jax.random.key_data(key).tolist()) for key in seen}
    assert len(seen) == len(keys) == 11
