"""Training on features of half precision takes the steps of training on the same numbers in float32.

To the bit where features are propagated once; where a step converts rows, XLA merges other operations of it.
"""

import dataclasses

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from slmrec_jax import Config, setup, train
from slmrec_jax.config import MMSSLConfig, with_system
from slmrec_jax.data import Feature, load, write_store
from slmrec_jax.data.new_items import missing_feature
from slmrec_jax.evaluation import protocol as evaluation
from slmrec_jax.studies.untrained import item_knn
from slmrec_jax.training import memory
from slmrec_jax.training.inputs import given_features, input_shapes, make_inputs
from slmrec_jax.training.memory import estimate, tree_bytes
from slmrec_jax.training.setup import compiled, outline

pytestmark = pytest.mark.usefixtures("optax_promotion")

BASE = Config(dim=8, batch_size=64, num_layers=2)
SYSTEMS = {
    "chains": dataclasses.replace(BASE, propagation="chains", task="fac"),
    "projected in each step": dataclasses.replace(BASE, propagation="definition", task="fd+fm", num_layers=1),
    "mf": with_system(BASE, "mf:concat"),
    "mf linear": with_system(BASE, "mf:linear"),
    "vbpr": dataclasses.replace(BASE, model="vbpr"),
    "vbpr original": with_system(BASE, "vbpr:original"),
    "freedom": dataclasses.replace(BASE, model="freedom"),
    "mmgcn": dataclasses.replace(BASE, model="mmgcn"),
    "mmssl": dataclasses.replace(BASE, model="mmssl", mmssl=MMSSLConfig(heads=2, topk_rate=0.05)),
}
QUICK = {"vbpr original"}
TYPES = {"float16": [np.float16], "bfloat16": [ml_dtypes.bfloat16], "both": [np.float16, ml_dtypes.bfloat16]}


def pair_of(tiny, types):
    """Return the data with modalities of these types in turn, and with the same numbers in float32."""
    half = {
        name: feature._replace(values=feature.values.astype(types[place % len(types)]))
        for place, (name, feature) in enumerate(tiny.features.items())
    }
    full = {name: feature._replace(values=feature.values.astype(np.float32)) for name, feature in half.items()}
    return [dataclasses.replace(tiny, features=features) for features in (half, full)]


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), one, other)


def after_two_steps(made):
    state, metrics = made.init(), []
    step = jax.jit(made.step)
    for number in range(2):
        state, found = step(state, made.inputs, made.batch(number))
        metrics.append(found)
    embeddings = jax.jit(made.embed)(state, made.inputs)
    given = made.dataset.features
    place = made.method.cold_items or (lambda state, features: ())
    cold = place(state, given_features(given, made.dataset.num_items, "masked", given))
    return state.params, metrics, embeddings, cold


@pytest.mark.parametrize("system", [pytest.param(s, marks=[] if s in QUICK else pytest.mark.slow) for s in SYSTEMS])
def test_steps_are_those_of_float32(tiny, system):
    types = TYPES["float16" if system.startswith("vbpr") else "both"]  # VBPR makes float32 of different types
    data = tiny.with_modalities(("visual", "acoustic"))
    half, full = (after_two_steps(setup(SYSTEMS[system], each)) for each in pair_of(data, types))
    if system == "chains":
        same(half, full)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), half, full)


@pytest.mark.slow
def test_a_run_from_the_store_is_that_of_the_data_in_memory(tiny, tmp_path):
    half, full = pair_of(tiny.with_modalities(("visual",)), TYPES["float16"])
    write_store(half, tmp_path / "kept")
    kept = load(str(tmp_path / "kept"))
    config = dataclasses.replace(SYSTEMS["chains"], epochs=2)
    runs = [train(config, each, out=tmp_path / name) for name, each in {"half": kept, "full": full}.items()]
    assert {feature.values.dtype.name for feature in kept.features.values()} == {"float16"}
    assert runs[0].dataset.features["visual"].values.dtype == np.float16
    same(*(run.embeddings for run in runs))
    assert runs[0].result["fingerprint"] == runs[1].result["fingerprint"]


@pytest.mark.parametrize("types", TYPES.values(), ids=TYPES)
@pytest.mark.parametrize("missing", ["masked", "zero", "mean"])
def test_inputs_have_the_bytes_that_were_forecast(tiny, types, missing):
    half, full = pair_of(tiny, types)
    shapes, made = input_shapes(half), make_inputs(half, missing)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == jax.tree.map(lambda x: (x.shape, x.dtype), made)
    values = sum(feature.values.size for feature in half.features.values())
    present = 4 * len(half.features) * half.num_items
    assert tree_bytes(made.features) == tree_bytes(shapes.features) == 2 * values + present
    assert tree_bytes(make_inputs(full).features) == 4 * values + present
    for name, feature in made.features.items():
        assert feature.values.dtype == half.features[name].values.dtype
        rows, there = np.asarray(feature.values, np.float32), half.features[name].present
        given = half.features[name].values.astype(np.float32)
        np.testing.assert_array_equal(rows[there], given[there])
        expected = given[there].mean(axis=0) if missing == "mean" else np.zeros(rows.shape[1])
        np.testing.assert_allclose(rows[~there], np.tile(expected, (int((~there).sum()), 1)), rtol=1e-2, atol=1e-6)


@pytest.mark.slow
def test_the_forecast_of_a_run_counts_half_features_once(tiny):
    """SLMRec reads the arrays that were given, with factors of rows beside them; nothing is made from them."""
    half, full = pair_of(tiny, TYPES["float16"])
    config = dataclasses.replace(SYSTEMS["projected in each step"], task="fd", dim=8)
    planned = compiled(outline(config, half))
    ranking = evaluation.plan_evaluation(half, "valid", evaluation.PROTOCOLS["strict"]).ranking
    found = estimate(planned, ranking)
    made = setup(config, half)
    assert found.features == tree_bytes(made.inputs.features) == 0
    assert found.precomputed == tree_bytes((made.inputs.cache, made.inputs.graph.derived))
    values = sum(feature.values.nbytes for feature in half.features.values())
    assert len(memory._passed_on(planned.method, input_shapes(half))) == 2 * len(half.features)
    assert len(memory._passed_on(planned.method, input_shapes(full))) == len(half.features)  # `present`
    assert found.precomputed == values + (4 + 4) * len(half.features) * half.num_items
    assert all(
        made.inputs.cache[name].arrays.values.dtype == jnp.float16 and len(made.inputs.cache[name].arrays.scales) == 1
        for name in half.features
    )


def test_rankings_by_content_are_those_of_float32(tiny):
    same(*(item_knn(BASE, each) for each in pair_of(tiny, TYPES["both"])))


def test_vbpr_keeps_half_precision_where_all_modalities_have_it(tiny):
    kept = {
        name: setup(SYSTEMS["vbpr"], pair_of(tiny, types)[0]).inputs.cache.values.dtype.name
        for name, types in TYPES.items()
    }
    assert kept == {"float16": "float16", "bfloat16": "bfloat16", "both": "float32"}


def test_a_modality_that_no_item_has_keeps_its_type():
    known = Feature(np.ones((3, 2), np.float16), np.ones(3, bool))
    assert missing_feature(known, 5).values.dtype == np.float16
