"""Several micro-batches in a step: the mean of their losses and gradients, for every system and task."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slmrec_jax import setup
from slmrec_jax.config import Config, with_system
from slmrec_jax.types import Batch

pytestmark = pytest.mark.usefixtures("optax_promotion")

BASE = Config(dim=8, batch_size=40, num_layers=2)
SYSTEMS = {
    "slmrec": dataclasses.replace(BASE, task="none"),
    "fac": BASE,
    "fd": dataclasses.replace(BASE, task="fd"),
    "fm": dataclasses.replace(BASE, task="fm"),
    "fd+fm": dataclasses.replace(BASE, task="fd+fm"),
    "paper fd": with_system(dataclasses.replace(BASE, task="fd"), "slmrec:paper"),
    "paper fm": with_system(dataclasses.replace(BASE, task="fm"), "slmrec:paper"),
    "sampled": dataclasses.replace(BASE, slmrec=dataclasses.replace(BASE.slmrec, main_negatives="sampled")),
    "masked": dataclasses.replace(BASE, slmrec=dataclasses.replace(BASE.slmrec, mask_false_negatives=True)),
    "chains": dataclasses.replace(BASE, propagation="chains", task="none"),
    "mf": dataclasses.replace(BASE, model="mf", bpr_negatives=3),
    "lightgcn": dataclasses.replace(BASE, model="lightgcn"),
    "lightgcn fused": with_system(BASE, "lightgcn:fused"),
    "vbpr": dataclasses.replace(BASE, model="vbpr"),
    "vbpr:original": with_system(BASE, "vbpr:original"),
    "mmgcn": dataclasses.replace(BASE, model="mmgcn"),
}
QUICK = ("fac", "fd", "masked", "lightgcn", "mmgcn")


def separate(batch: Batch) -> list[Batch]:
    """The micro-batches that have real rows, as batches of their own."""
    each = [Batch(*(x[m] for x in batch[:-1]), key=batch.key) for m in range(len(batch.users))]
    return [one for one in each if one.mask.any()]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in SYSTEMS]
)
@pytest.mark.parametrize("platform", ["cpu"])
def test_a_step_has_the_mean_gradient_of_its_micro_batches(name, platform, tiny):
    made = setup(dataclasses.replace(SYSTEMS[name], micro_batches=3), tiny.with_modalities(("visual", "acoustic")))
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
