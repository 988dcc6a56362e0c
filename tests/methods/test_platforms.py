"""What is compiled for GPUs and TPUs computes what the CPU's code computes; it runs here, on the CPU."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from slmrec_jax import setup
from slmrec_jax.config import Config, MMGCNConfig, MMSSLConfig, SGLConfig, with_settings, with_system
from slmrec_jax.devices import compiling_for

pytestmark = pytest.mark.usefixtures("optax_promotion")

BASE = Config(dim=8, batch_size=64, num_layers=2)
CONFIGS = {
    "fac": with_system(dataclasses.replace(BASE, task="fac"), "slmrec"),
    "fac, 3 micro-batches": dataclasses.replace(BASE, micro_batches=3, batch_size=20),
    "paper fm, 2 micro-batches": with_system(dataclasses.replace(BASE, task="fm", micro_batches=2), "slmrec:paper"),
    "fd+fm": with_system(dataclasses.replace(BASE, task="fd+fm"), "slmrec"),
    "lattice": with_settings(dataclasses.replace(BASE, model="lattice"), {"optimizer.chain": ("sgd(1.0)",)}),
    "sgl": dataclasses.replace(BASE, model="sgl", sgl=SGLConfig(among="all")),
    "lightgcn": dataclasses.replace(BASE, model="lightgcn"),
    "vbpr": with_system(BASE, "vbpr:original"),
    "mf": with_system(BASE, "mf:concat"),
    "mmgcn": dataclasses.replace(BASE, model="mmgcn", mmgcn=MMGCNConfig(latent_dim=12)),
    "mmssl": dataclasses.replace(BASE, model="mmssl", mmssl=MMSSLConfig(heads=2, topk_rate=0.05)),
}
CASES = [f"{name} gpu" for name in CONFIGS] + ["fac tpu"]
"""A TPU differs from a GPU only in the blocks of `segment_sums`."""

QUICK = ("mf gpu",)


ONE_MODALITY = ("fac", "fac, 3 micro-batches", "paper fm, 2 micro-batches", "vbpr")
"""Systems that compute the same of each modality; `fd+fm` compares SLMRec with two."""


def modalities_of(system):
    """As few as its parts need, since programs of more compile longer."""
    return ("visual",) if system in ONE_MODALITY else ("visual", "acoustic")


def first_step(config, dataset, platform):
    """Return the metrics of the first step with the gradients, and the program's text."""
    with compiling_for(platform):
        made = setup(config, dataset)
        state, batch = made.init(), made.batch(0)

        def computed(state, inputs, batch):
            if made.method.loss is None:
                after, metrics = made.step(state, inputs, batch)
                return metrics, after.params if config.optimizer.chain else ()  # Adam divides rounding by its own size
            return jax.value_and_grad(made.loss, has_aux=True)(state.params, inputs, batch)

        lowered = jax.jit(computed).lower(state, made.inputs, batch)
        return lowered.compile()(state, made.inputs, batch), lowered.as_text()


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case in QUICK else pytest.mark.slow) for case in CASES]
)
def test_a_step_is_that_of_the_cpu_and_adds_in_a_fixed_order(case, tiny):
    system, platform = case.rsplit(maxsplit=1)
    data = tiny.with_modalities(modalities_of(system))
    found, text = first_step(CONFIGS[system], data, platform)
    expected, _ = first_step(CONFIGS[system], data, "cpu")
    largest = max(float(np.abs(of).max(initial=0.0)) for of in jax.tree.leaves(expected))
    for ours, defined in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        scale = max(float(np.abs(defined).max(initial=0.0)), 1e-3 * largest)  # some gradients are 0 but for rounding
        np.testing.assert_allclose(ours, defined, rtol=1e-4, atol=1e-4 * scale)
    # A scatter writes to places that are known to differ, or takes sums or extremes of integers, in any order.
    scatters = re.findall(r'"stablehlo.scatter"(.*?)\}\) : \(tensor<(?:\d+x)*(\w+)>', text, re.DOTALL)
    assert scatters
    for scatter, kind in scatters:
        if "unique_indices = true" not in scatter:
            assert kind.startswith("i"), (kind, scatter)
            assert re.search("stablehlo.(minimum|maximum|add)", scatter), scatter
