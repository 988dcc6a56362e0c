"""One suite that every system, task and route goes through: what the trainer relies on."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slmrec_jax.config import Config, LightGCNConfig, MFConfig, MMGCNConfig, MMSSLConfig, with_settings, with_system
from slmrec_jax.encoding.graph import build_graph
from slmrec_jax.methods import make_method
from slmrec_jax.objectives.sampling import uniform
from slmrec_jax.training.inputs import make_inputs, make_spec
from slmrec_jax.training.loop import make_epoch, make_keys
from slmrec_jax.types import Batch, Interactions

pytestmark = pytest.mark.usefixtures("optax_promotion")

BASE = Config(dim=8, batch_size=64, num_layers=2)
CONFIGS = {
    **{name: dataclasses.replace(BASE, model=name) for name in ("mf", "lightgcn", "vbpr", "mmgcn")},
    "mf concat": dataclasses.replace(
        BASE, model="mf", mf=MFConfig(features="concat", item_bias=True), bpr_negatives=3, negatives="popular"
    ),
    "mf linear": with_system(BASE, "mf:linear"),
    "lightgcn fused": dataclasses.replace(
        BASE, model="lightgcn", lightgcn=LightGCNConfig(features="fused", score="cosine", norm="frobenius")
    ),
    "vbpr original": with_system(BASE, "vbpr:original"),
    "mmgcn frozen": dataclasses.replace(BASE, model="mmgcn", mmgcn=MMGCNConfig(tables="frozen", latent_dim=12)),
    "mmssl": dataclasses.replace(BASE, model="mmssl", mmssl=MMSSLConfig(heads=2, topk_rate=0.05)),
    "mmssl published": with_settings(with_system(BASE, "mmssl:published"), {"mmssl.heads": 2, "mmssl.topk_rate": 0.03}),
    "task alone": dataclasses.replace(BASE, main_weight=0.0),
    "definition": dataclasses.replace(BASE, propagation="definition", task="fd+fm"),
    "chains": dataclasses.replace(BASE, propagation="chains", task="fm"),
    **{
        f"{preset} {task}": with_system(dataclasses.replace(BASE, task=task), f"slmrec:{preset}")
        for preset in ("reference", "paper")
        for task in ("fac", "fd", "fm", "fd+fm", "none")
    },
}


@pytest.fixture(params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


@pytest.fixture
def parts(config, tiny):
    method = make_method(config, make_spec(config, tiny))
    return method, method.prepare(make_inputs(tiny)), make_keys(0)


def test_an_epoch(config, parts):
    """Finite, every parameter moves, same key same bits, jit as eager, one trace, no big constants."""
    method, inputs, keys = parts
    state = jax.jit(method.init)(keys.init)
    traces = []

    def epoch(*arguments):
        traces.append(1)
        return make_epoch(method, config.batch_size)(*arguments)

    # What is tested is what was traced; without its optimisations the compiler takes half the time.
    compiled = jax.jit(epoch, compiler_options={"xla_backend_optimization_level": 0})
    once, again = compiled(state, inputs, keys), compiled(state, inputs, keys)
    jax.tree.map(np.testing.assert_array_equal, once, again)
    after = compiled(once.state, inputs, keys).state
    assert len(traces) == 1
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((once, after)))
    assert all(np.any(a != b) for a, b in zip(*(jax.tree.leaves(s.params) for s in (state, after)), strict=True))

    embeddings = jax.jit(method.embed)(after, inputs)
    assert np.isfinite(embeddings.users).all()
    assert embeddings.users.shape[1] == embeddings.items.shape[1]


@pytest.mark.parametrize("config", ["lightgcn", "mf concat", "vbpr", "reference fac", "paper fd+fm"], indirect=True)
def test_a_step_is_the_same_compiled_and_not(config, parts):
    method, inputs, keys = parts
    users, items = (x[:40] for x in inputs.graph.interactions)
    negatives = uniform(inputs.graph)(users, items, keys.order, method.num_negatives)
    batch = Batch(users, items, jnp.arange(40) < 33, negatives, keys.step)
    state = method.init(keys.init)
    (eager, eager_metrics), (compiled, metrics) = (f(state, inputs, batch) for f in (method.step, jax.jit(method.step)))
    for name in metrics:
        np.testing.assert_allclose(metrics[name], eager_metrics[name], rtol=1e-5)
    # Adam's first step is the gradient's sign, which rounding may turn where the gradient is nearly zero.
    moved = [
        np.mean(np.abs(np.asarray(a) - np.asarray(b)) > 1e-5)
        for a, b in zip(jax.tree.leaves(eager.params), jax.tree.leaves(compiled.params), strict=True)
    ]
    assert max(moved) < 0.02
    assert int(compiled.step) == 1


def test_the_program_holds_no_data(config, parts):
    """Graph, features and tables are arguments: as constants they would be folded at compile time."""
    method, inputs, keys = parts
    state = jax.eval_shape(method.init, keys.init)
    lowered = jax.jit(make_epoch(method, config.batch_size)).lower(state, inputs, keys)
    constants = re.findall(r"stablehlo.constant dense<(?:\[|\"0x).*> : tensor<([\dx]+)x\w+>", lowered.as_text())
    # Four numbers are threefry's rotations, as often as something is drawn.
    assert sum(math.prod(int(length) for length in shape.split("x")) for shape in constants if shape != "4") <= 64


@pytest.mark.parametrize(
    "config",
    ["mf concat", "lightgcn", "lightgcn fused", "vbpr original", "mmgcn", "mmssl", "mmssl published", "chains"],
    indirect=True,
)
def test_another_graph_than_was_prepared_is_what_ranks(config, parts, tiny):
    """What was computed from the first graph does not reach the second, compiled and with both as arguments."""
    method, inputs, keys = parts
    half = Interactions(*(ids[::2] for ids in tiny.train))
    graph = build_graph(half, tiny.num_users, tiny.num_items)
    expected = method.prepare(make_inputs(tiny)._replace(graph=graph))
    state = method.init(keys.init)
    embed = jax.jit(method.embed, compiler_options={"xla_backend_optimization_level": 0})
    found, as_prepared = embed(state, inputs._replace(graph=graph)), embed(state, inputs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, embed(state, expected))
    differ = any(np.any(a != b) for a, b in zip(found, as_prepared, strict=True))
    assert differ == (config.model not in ("mf", "vbpr"))
