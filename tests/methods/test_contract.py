"""One contract suite for every system, task and route: what the trainer relies on."""

import dataclasses
import math
import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import pytest
from flax.training.train_state import TrainState

from slmrec_jax import setup
from slmrec_jax.config import (
    Config,
    LightGCNConfig,
    MFConfig,
    MMGCNConfig,
    MMSSLConfig,
    SGLConfig,
    SLMRecConfig,
    with_settings,
    with_system,
)
from slmrec_jax.encoding.graph import build_graph
from slmrec_jax.training.inputs import make_inputs
from slmrec_jax.training.loop import Progress, epoch
from slmrec_jax.training.setup import Setup
from slmrec_jax.types import Embeddings, Inputs, Interactions

pytestmark = pytest.mark.usefixtures("optax_promotion")

BASE = Config(dim=8, batch_size=64, num_layers=2)
CONFIGS = {
    **{name: dataclasses.replace(BASE, model=name) for name in ("mf", "lightgcn", "vbpr", "mmgcn")},
    "freedom": dataclasses.replace(BASE, model="freedom"),
    "item graph": dataclasses.replace(BASE, task="ed", slmrec=SLMRecConfig(item_graph=0.3, graph_neighbours=4)),
    **{name: dataclasses.replace(BASE, model=name) for name in ("bm3", "lattice", "mgcn")},
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
    "sgl": dataclasses.replace(BASE, model="sgl", sgl=SGLConfig("rw", 0.3, among="all")),
    "simgcl": dataclasses.replace(BASE, model="simgcl"),
    "node dropout": with_settings(BASE, {"task": "fac+nd", "slmrec.popularity_correction": 0.5}),
    "task alone": dataclasses.replace(BASE, main_weight=0.0),
    "definition": dataclasses.replace(BASE, propagation="definition", task="fd+fm"),
    "chains": dataclasses.replace(BASE, propagation="chains", task="fm"),
    **{
        f"reference {task}": with_system(dataclasses.replace(BASE, task=task), "slmrec:reference")
        for task in ("fac", "fd+fm", "none")
    },
    "paper": with_system(dataclasses.replace(BASE, task="fac+fd+fm"), "slmrec:paper"),
}
QUICK = ("mf concat", "lightgcn", "vbpr", "reference fac")
"""Those that compile in about a second, and SLMRec; all others are slow tests."""


class Case(NamedTuple):
    """A system whose functions are traced and compiled once for all tests."""

    setup: Setup
    epoch: jax.stages.Lowered
    """A function of a progress, inputs and keys."""
    start: Progress
    embed: Callable[[TrainState, Inputs], Embeddings]


def named(names):
    return [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in names]


@pytest.fixture(scope="module")
def two(tiny):
    """Two modalities, whose programs compile faster than those of three."""
    return tiny.with_modalities(("visual", "acoustic"))


@pytest.fixture(scope="module")
def cases():
    """The cases made so far, in whatever order the tests run."""
    return {}


@pytest.fixture(params=named(CONFIGS))
def case(request, two, cases):
    if request.param not in cases:
        made = setup(CONFIGS[request.param], two)
        lowered = jax.jit(partial(epoch, made.loop)).lower(made.loop.shapes(), made.inputs, made.keys())
        cases[request.param] = Case(made, lowered, jax.jit(made.loop.init)(made.keys()), jax.jit(made.embed))
    return cases[request.param]


def test_an_epoch(case):
    """An epoch moves every parameter and stays finite, the same key gives the same bits, and training can go on."""
    made, keys, start = case.setup, case.setup.keys(), case.start
    run = case.epoch.compile()
    once, again = run(start, made.inputs, keys), run(start, made.inputs, keys)
    jax.tree.map(np.testing.assert_array_equal, once, again)
    after = run(once, made.inputs, keys)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((once, after)))
    moved = [
        np.any(a != b) for a, b in zip(*(jax.tree.leaves(each.state.params) for each in (start, after)), strict=True)
    ]
    assert all(moved)

    embeddings = case.embed(after.state, made.inputs)
    assert np.isfinite(embeddings.users).all()
    assert embeddings.users.shape[1] == embeddings.items.shape[1]


def test_the_program_holds_no_data(case):
    """Graph, features and tables are arguments. The compiler would fold constants, which takes time and memory."""
    constants = re.findall(r"stablehlo.constant dense<(?:\[|\"0x).*> : tensor<([\dx]+)x\w+>", case.epoch.as_text())
    # Threefry's four rotations appear wherever something is drawn.
    assert sum(math.prod(int(length) for length in shape.split("x")) for shape in constants if shape != "4") <= 64


EAGER = ("bm3", "vbpr", "reference fac")


@pytest.mark.slow
@pytest.mark.parametrize("case", named(EAGER), indirect=True)
def test_a_step_is_the_same_compiled_and_eager(case):
    made = case.setup
    state, batch = made.init(), made.batch(0)
    eager, eager_metrics = made.step(state, made.inputs, batch)
    compiled, metrics = jax.jit(made.step)(state, made.inputs, batch)
    for name in metrics:
        np.testing.assert_allclose(metrics[name], eager_metrics[name], rtol=1e-5)
    # Adam's first step is the sign of the gradient, which rounding can flip where the gradient is nearly zero.
    moved = [
        np.mean(np.abs(np.asarray(a) - np.asarray(b)) > 1e-5)
        for a, b in zip(jax.tree.leaves(eager.params), jax.tree.leaves(compiled.params), strict=True)
    ]
    assert max(moved) < 0.02
    assert int(compiled.step) == 1


OTHER = (
    *(
        "freedom",
        "bm3",
        "lattice",
        "mgcn",
        "mf concat",
        "lightgcn",
        "lightgcn fused",
        "vbpr original",
        "mmgcn",
        "mmssl",
    ),
    "mmssl published",
    "item graph",
    "chains",
)


@pytest.mark.parametrize("case", named(OTHER), indirect=True)
def test_embeddings_follow_the_graph_that_is_passed(case, two):
    """Nothing computed from the prepared graph reaches another one, even when both are arguments of one program."""
    made = case.setup
    half = Interactions(*(ids[::2] for ids in two.train))
    graph = build_graph(half, two.num_users, two.num_items)
    expected = made.method.prepare(make_inputs(two)._replace(graph=graph))
    state, embed = case.start.state, case.embed
    found, as_prepared = embed(state, made.inputs._replace(graph=graph)), embed(state, made.inputs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, embed(state, expected))
    differ = any(np.any(a != b) for a, b in zip(found, as_prepared, strict=True))
    assert differ == (made.config.model not in ("mf", "vbpr"))
