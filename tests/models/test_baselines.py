"""MF, VBPR and SimGCL: their equations in float64, and the initial tables of the first two."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from graphs import GRAPHS

from slmrec_jax.encoding.graph import build_graph
from slmrec_jax.models.mf import mf
from slmrec_jax.models.simgcl import simgcl
from slmrec_jax.models.vbpr import vbpr
from slmrec_jax.types import ALL, NO_AUGMENTATION, DenseFeature, Inputs, Interactions, Modality, Spec

SPEC = Spec(5, 7, 10, 4, {"visual": Modality(3), "textual": Modality(2)})


def given():
    rng = np.random.default_rng(0)
    features = {}
    for name, absent in (("visual", [2, 6]), ("textual", [3, 6])):  # item 6 has neither
        present = np.ones(7, np.float32)
        present[absent] = 0
        values = rng.normal(size=(7, SPEC.modalities[name].columns)).astype(np.float32) * present[:, None]
        features[name] = DenseFeature(jnp.asarray(values), jnp.asarray(present))
    return Inputs(None, features)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("variant", ["multimodal", "original"])
def test_vbpr_scores_by_its_equation(variant, normalized):
    model, inputs = vbpr(SPEC, variant=variant, normalize_features=normalized), given()
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), shapes)

    @jax.jit
    def scores(params, inputs):
        view = model.encode(params, model.prepare(inputs))(NO_AUGMENTATION, jax.random.key(0))
        return view.users(ALL) @ view.items(ALL).T

    found = scores(params, inputs)

    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    tables = [np.asarray(feature.values, np.float64) for feature in inputs.features.values()]
    if normalized:
        tables = [table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12) for table in tables]
    content = np.concatenate(tables, axis=1)
    some = np.max([np.asarray(feature.present) for feature in inputs.features.values()], axis=0)
    mapped = content @ exact["content"]["kernel"]
    if variant == "multimodal":
        mapped += some[:, None] * exact["content"]["bias"]
    ids, tastes = np.split(exact["user"], 2, axis=1)
    expected = ids @ exact["item"].T + tastes @ mapped.T
    if variant == "original":
        expected += exact["item_bias"] + content @ exact["content_bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert some.tolist() == [1, 1, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("model", ["mf", "vbpr"])
def test_initial_tables_are_those_of_the_authors(model):
    """Both have the deviation sqrt(2 / (rows + columns)); MF's tables are normal, with tails, VBPR's uniform."""
    large = Spec(400, 500, 1000, 64, SPEC.modalities)
    params = jax.jit((mf(large) if model == "mf" else vbpr(large)).init)(jax.random.key(0))
    for name, (rows, columns) in {"user": (400, 64 if model == "mf" else 128), "item": (500, 64)}.items():
        table = np.asarray(params[name])
        deviation = np.sqrt(2 / (rows + columns))
        assert table.shape == (rows, columns)
        assert table.std() == pytest.approx(deviation, rel=0.02)
        assert (np.abs(table).max() > 3 * deviation) == (model == "mf")
        assert model == "mf" or np.abs(table).max() <= np.sqrt(3) * deviation


def test_mf_of_a_new_item_has_no_bias_of_its_own():
    """The id row and the bias of an item without interactions are 0; only its content remains."""
    model, inputs = mf(SPEC, use="concat", item_bias=True), given()
    cold_items = jax.jit(lambda key, bias, features: model.cold_items(model.init(key) | {"item_bias": bias}, features))
    rows = np.asarray(cold_items(jax.random.key(0), jnp.full(7, 5.0), inputs.features))
    assert rows.shape == (7, 3 * 4 + 1)
    np.testing.assert_array_equal(rows[:, :4], np.zeros((7, 4)))
    np.testing.assert_array_equal(rows[:, -1], np.zeros(7))
    np.testing.assert_array_equal(rows[6], np.zeros(13))
    assert np.all(np.any(rows[:2, 4:12] != 0, axis=1))


@pytest.mark.parametrize("num_layers", [0, 1, 3])
@pytest.mark.parametrize("graph", ["random", "isolated"])
def test_simgcl_reads_out_every_layer_but_the_first(graph, num_layers):
    num_users, num_items, users, items = GRAPHS[graph]
    spec = Spec(num_users, num_items, len(users), 4, {})
    model = simgcl(spec, num_layers=num_layers)
    params = jax.jit(model.init)(jax.random.key(0))
    inputs = Inputs(build_graph(Interactions(users, items), num_users, num_items), {})
    view = jax.jit(
        lambda params, inputs: [
            rows(ALL) for rows in model.encode(params, model.prepare(inputs))(NO_AUGMENTATION, jax.random.key(0))[:2]
        ]
    )(params, inputs)
    p = reference.adjacency(num_users, num_items, users, items)
    layers = [np.concatenate([params["user"], params["item"]]).astype(np.float64)]
    for _ in range(num_layers):
        layers.append(p @ layers[-1])
    np.testing.assert_allclose(jnp.concatenate(view), np.mean(layers[1:] or layers, axis=0), rtol=1e-5, atol=1e-6)
