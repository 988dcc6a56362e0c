"""Checks of a method and of what it makes, most of them before its first step."""

import jax
import jax.numpy as jnp
import numpy as np

from slmrec_jax.data.dataset import Dataset
from slmrec_jax.errors import UserError, shown
from slmrec_jax.training.loop import Progress
from slmrec_jax.types import Embeddings, Inputs, Method


def check_32_bits() -> None:
    """Check that JAX defaults to 32-bit types, which the graph and the compiled programs assume.

    Raises:
        UserError: `jax_enable_x64` is on.
    """
    if jax.dtypes.canonicalize_dtype(np.float64) == np.float64:
        raise UserError("jax_enable_x64 is on, but training computes in 32 bits: turn it off")


def check_method(method: Method, progress: Progress, inputs: Inputs, dataset: Dataset) -> None:
    """Check a method's metrics, state and embeddings by their shapes; `progress` and `inputs` may be shapes.

    Raises:
        UserError: There is no metric `loss`, the state cannot be saved, or the embeddings cannot be ranked.
    """
    if "loss" not in progress.means.values:
        raise UserError(
            f"the method's step has the metrics {', '.join(progress.means.values)}: return the total as `loss` too"
        )
    _check_state(progress)
    _check_embeddings(jax.eval_shape(method.embed, progress.state, inputs), dataset)


def check_step(progress: Progress, step: int) -> None:
    """Check that the state counts the steps taken, since each step's batch depends on that number.

    Raises:
        UserError: It does not.
    """
    if int(progress.state.step) != step:
        raise UserError(
            f"the step count of the method's state is {int(progress.state.step)} after {step} steps: let `step` "
            "return state.replace(step=state.step + 1, …)"
        )


def _check_state(progress: Progress) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(progress.state):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise UserError(
                f"the state holds a PRNG key, {jax.tree_util.keystr(path)}, which no checkpoint can hold: keep "
                "jax.random.key_data(key) instead, or leave out what needs it, such as optax.add_noise"
            )


def _check_embeddings(made: object, dataset: Dataset) -> None:
    if not isinstance(made, Embeddings) or not all(isinstance(each, jax.ShapeDtypeStruct) for each in made):
        raise UserError(f"the method's embed returns {shown(made)}: return slmrec_jax.types.Embeddings(users, items)")
    users, items = made
    width = users.shape[1:] if users.ndim == 2 else (None,)
    shapes = (dataset.num_users, *width), (dataset.num_items, *width)
    if (users.shape, items.shape) != shapes or {users.dtype, items.dtype} != {jnp.dtype(jnp.float32)}:
        found = " and ".join(f"{each.dtype} of shape {each.shape}" for each in made)
        raise UserError(
            f"the method's embed returns {found}: return float32 of shape ({dataset.num_users}, d) for the users and "
            f"({dataset.num_items}, d) for the items"
        )
