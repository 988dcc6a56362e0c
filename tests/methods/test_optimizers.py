import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from slmrec_jax.config import OptimizerConfig
from slmrec_jax.errors import UserError
from slmrec_jax.methods.optimizers import make_optimizer


def test_weight_decay_joins_the_gradient_before_the_moments():
    """PyTorch's Adam(weight_decay), which the published code uses: g + w θ goes through the moments."""
    rng = np.random.default_rng(0)
    theta, learning_rate, decay = rng.normal(size=5), 0.01, 0.1
    gradients = rng.normal(size=(4, 5))
    m, v, expected = np.zeros(5), np.zeros(5), theta.copy()
    for step, gradient in enumerate(gradients, 1):
        g = gradient + decay * expected
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        expected -= learning_rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    with jax.numpy_dtype_promotion("standard"):
        optimizer = make_optimizer(OptimizerConfig(learning_rate=learning_rate, weight_decay=decay))
        params = jnp.asarray(theta, jnp.float32)
        state = optimizer.init(params)
        for gradient in gradients:
            updates, state = optimizer.update(jnp.asarray(gradient, jnp.float32), state, params)
            params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params, expected, rtol=1e-5)


def test_an_optimizer_that_nothing_is_said_of_is_adam_at_a_thousandth_without_decay():
    """Adam's first step is the rate times the sign of the gradient, whatever the parameters are."""
    with jax.numpy_dtype_promotion("standard"):
        optimizer, params = make_optimizer(OptimizerConfig()), jnp.asarray([5.0, -7.0, 3.0])
        updates, _ = optimizer.update(jnp.asarray([1e-3, -1e-3, 0.0]), optimizer.init(params), params)
    np.testing.assert_allclose(updates, [-1e-3, 1e-3, 0.0], rtol=1e-3)


def test_a_chain_is_the_optax_chain_it_names():
    chain = ("clip_by_global_norm(0.5)", "adamw(cosine_decay_schedule(1e-2, decay_steps=10), b1=0.8)")
    theirs = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(optax.cosine_decay_schedule(1e-2, 10), b1=0.8))
    with jax.numpy_dtype_promotion("standard"):
        ours = make_optimizer(OptimizerConfig(chain=chain))
        params = jnp.arange(4.0)
        updates = [optimizer.update(params + 1, optimizer.init(params), params)[0] for optimizer in (ours, theirs)]
    np.testing.assert_array_equal(*updates)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("adam(", "not readable"),
        ("adam", "'adam' is not a literal or a call: write it like 'adam\\(1e-3\\)'$"),
        ("adam(x)", "'x' is not a literal or a call"),
        ("adam(1e-3/2)", "'0.001 / 2' is not a literal or a call"),
        ("chain(1)", "no attribute"),
        ("adamm(1e-3)", "no function 'adamm'"),
        ("__import__('os').system('true')", "no function"),
        ("adam(open('x'))", "no function 'open'"),
        ("adam(**{'b1': 0.1})", "write each argument out"),
        ("adam(wrong=1)", "unexpected keyword|missing"),
        ("cosine_decay_schedule(1e-3, 10)", "not a gradient transformation"),
        ("adam(1e-3); import os", "not readable"),
        ("adam('x')", "cannot take a step"),
        ("lbfgs()", "cannot take a step"),
    ],
)
def test_other_chains_are_refused_and_run_nothing(text, said):
    with pytest.raises(UserError, match=said) as raised:
        make_optimizer(OptimizerConfig(chain=(text,)))
    assert "\n" not in str(raised.value)


def test_an_error_of_optax_without_a_text_is_named(monkeypatch):
    def adam(rate):
        raise MemoryError

    monkeypatch.setattr(optax, "adam", adam)
    with pytest.raises(UserError, match=r"'adam\(1\)': MemoryError$"):
        make_optimizer(OptimizerConfig(chain=("adam(1)",)))
