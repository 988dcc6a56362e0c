"""Parity of SLMRec with values of the published implementation, for every recorded problem."""

import jax
import jax.numpy as jnp
import pytest
from compilers import full_jit
from golden import assert_same_gradients, distance, files
from golden_slmrec import Golden

from slmrec_jax.methods.gradient import objective
from slmrec_jax.types import ALL, NO_AUGMENTATION


@pytest.mark.parametrize("path", files("slmrec_*.npz", quick=("slmrec_fac",)))
def test_slmrec(path):
    golden = Golden(path)
    model, terms, inputs = golden.problem()
    params, batch = golden.tree("param:"), golden.batch()

    @full_jit
    def everything(params, inputs, batch):
        view = model.encode(params["model"], inputs)(NO_AUGMENTATION, batch.key)
        embeddings = {"user_embedding": view.users(ALL), "item_embedding": view.items(ALL)}
        for channel in golden.channels:
            halves = view.user_modalities[channel](ALL), view.item_modalities[channel](ALL)
            embeddings[f"propagated_{channel[0]}"] = jnp.concatenate(halves)
        return jax.value_and_grad(objective(model, terms), has_aux=True)(params, inputs, batch), embeddings

    ((loss, metrics), gradients), embeddings = everything(params, inputs, batch)
    for name, ours in (("loss", loss), ("main_loss", metrics["main"]), ("ssl_loss", metrics["ssl"])):
        assert distance(ours, golden.arrays[name]) <= 1e-5, name
    for name, ours in embeddings.items():
        assert distance(ours, golden.arrays[name]) <= 1e-5, name

    # The bias of a FAC head on the modality's side moves all scores of a row by the same amount. Its gradient is 0
    # apart from rounding, in both implementations, and has no scale of its own.
    assert_same_gradients(gradients, golden.tree("grad:"))
