"""Every route through the encoder equals the plain definition, in value and gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import scipy.sparse
from graphs import GRAPHS

from slmrec_jax.encoding.graph import build_graph
from slmrec_jax.encoding.matrices import Operator, operator
from slmrec_jax.errors import UserError
from slmrec_jax.models.slmrec import slmrec
from slmrec_jax.objectives.augmentations import (
    both,
    edge_dropout,
    feature_dropout,
    feature_masking,
    masked,
    node_dropout,
)
from slmrec_jax.types import ALL, NO_AUGMENTATION, Augmentation, DenseFeature, Inputs, Interactions, Modality, Spec

DIM = 4
MODALITIES = {"visual": Modality(6), "acoustic": Modality(3), "words": Modality(9, words=True)}
AUGMENTATIONS = {
    "clean": NO_AUGMENTATION,
    "masking": feature_masking("clean")[0],
    "masking swapped": feature_masking("swapped")[1],
    "masking per item": feature_masking("clean", "item")[0],
    "dropout in layers": feature_dropout(0.4)[0],
    "dropout of inputs": feature_dropout(0.4, "input")[1],
    "edge dropout by layers, dropout and masking": both(
        both(edge_dropout(0.4, "layer"), feature_masking("swapped")), feature_dropout(0.4)
    )[1],
    "edge dropout by layers": edge_dropout(0.4, "layer")[0],
    "node dropout of masked inputs": both(node_dropout(0.3), feature_masking("clean", "item"))[1],
    "dropout and masking": both(feature_masking("swapped"), feature_dropout(0.4))[0],
}


def problem(name, modalities=MODALITIES):
    num_users, num_items, users, items = GRAPHS[name]
    rng = np.random.default_rng(0)
    features = {}
    for modality, (columns, words) in modalities.items():
        if words:
            means = (rng.random((num_items, columns)) < 0.3).astype(np.float32)
            means /= np.maximum(means.sum(1, keepdims=True), 1)
            features[modality] = operator(scipy.sparse.csr_array(means))
        else:
            present = (rng.random(num_items) < 0.8).astype(np.float32)
            values = rng.normal(size=(num_items, columns)).astype(np.float32) * present[:, None]
            features[modality] = DenseFeature(jnp.asarray(values), jnp.asarray(present))
    graph = build_graph(Interactions(users, items), num_users, num_items)
    return Spec(num_users, num_items, len(users), DIM, modalities), Inputs(graph, features)


def params_of(model):
    """Return parameters of the right shapes. No value is 0, so that every bias counts."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, jax.random.key(1))
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(scale=0.3, size=x.shape), jnp.float32), shapes)


def clean_view(model, params, inputs):
    """Encode without augmentations from inputs that are not prepared."""
    return model.encode(params, model.prepare(inputs))(NO_AUGMENTATION, jax.random.key(0))


def outputs(model, params, inputs, augmentation, ids):
    """Return every table of a view, at some rows and at all."""
    view = model.encode(params, inputs)(augmentation, jax.random.key(3))
    user_ids, item_ids = ids
    tables = []
    for rows, wanted in ((view.users, user_ids), (view.items, item_ids)):
        tables += [rows(wanted), rows(ALL)]
    for name in view.user_modalities:
        tables += [view.user_modalities[name](user_ids), view.user_modalities[name](ALL)]
        tables += [view.item_modalities[name](item_ids), view.item_modalities[name](ALL)]
    return tables


def compare(one, other, spec, inputs, augmentation):
    params = params_of(one)
    ids = (jnp.array([0, spec.num_users - 1, 0]), jnp.array([spec.num_items - 1, 0, 0]))
    weights = np.random.default_rng(0).normal(size=100).astype(np.float32)

    def value_and_grad(model):
        def of(params, inputs):
            tables = outputs(model, params, model.prepare(inputs), augmentation, ids)
            return sum(w * jnp.sum(jnp.sin(t)) for w, t in zip(weights, tables, strict=False)), tables

        return jax.jit(jax.value_and_grad(of, has_aux=True))(params, inputs)

    ours, theirs = value_and_grad(one), value_and_grad(other)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, theirs)


THREE_LAYERS = ("clean", "masking swapped", "edge dropout by layers, dropout and masking")

PAIRS = [
    # With the tests of options and modalities below, one is quick; other augmentations are slow tests.
    ("isolated", "masking swapped"),
    *(pytest.param("random", name, marks=pytest.mark.slow) for name in AUGMENTATIONS if name != "masking swapped"),
]


@pytest.mark.parametrize(("graph", "augmentation"), PAIRS)
def test_chains_are_the_definition(graph, augmentation):
    spec, inputs = problem(graph)
    # A middle layer differs from the last where augmentations choose graphs by layer, or scale rows.
    options = {} if augmentation in THREE_LAYERS else {"num_layers": 2}
    one, other = slmrec(spec, cached=("visual", "words"), **options), slmrec(spec, definition=True, **options)
    compare(one, other, spec, inputs, AUGMENTATIONS[augmentation])


OPTIONS = [
    {"fusion": "mean", "words": "trainable"},
    {"fusion": "sum", "user_table": "per_modality"},
    pytest.param({"user_table": "per_modality", "words": "trainable", "num_layers": 2}, marks=pytest.mark.slow),
    {"normalize_features": False, "num_layers": 1},
    {"num_layers": 0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(str(value) for value in options.values()))
def test_chains_are_the_definition_under_every_option(options):
    spec, inputs = problem("random", {name: MODALITIES[name] for name in ("visual", "words")})
    one, other = slmrec(spec, cached=("visual",), **options), slmrec(spec, definition=True, **options)
    compare(one, other, spec, inputs, AUGMENTATIONS["masking swapped"])


FIVE = pytest.param({f"m{i}": Modality(2 + i) for i in range(5)}, marks=pytest.mark.slow)


@pytest.mark.parametrize("modalities", [{}, {"anything": Modality(2)}, FIVE])
def test_any_number_of_modalities(modalities):
    spec, inputs = problem("random", modalities)
    compare(slmrec(spec, cached=tuple(modalities)), slmrec(spec, definition=True), spec, inputs, NO_AUGMENTATION)


def test_the_definition_is_the_equation():
    spec, inputs = problem("random", {"visual": Modality(6)})
    model = slmrec(spec, definition=True)
    params = params_of(model)

    @jax.jit
    def tables(params, inputs):
        view = clean_view(model, params, inputs)
        return view.users(ALL), view.items(ALL)

    found = tables(params, inputs)
    params = jax.tree.map(np.float64, params)
    p = reference.adjacency(*GRAPHS["random"])
    feature = inputs.features["visual"]
    norm = np.maximum(np.linalg.norm(feature.values, axis=1, keepdims=True), 1e-12)
    projection = params["projection"]["visual"]
    visual = feature.values / norm @ projection["kernel"] + np.asarray(feature.present)[:, None] * projection["bias"]
    z = [reference.read_out(p, np.concatenate([params["user"], items]), 3) for items in (params["item"], visual)]
    fused = np.concatenate(z, axis=1)
    users, items = (
        half @ params[name]["kernel"] + params[name]["bias"]
        for half, name in ((fused[: spec.num_users], "fusion_user"), (fused[spec.num_users :], "fusion_item"))
    )
    for ours, expected in zip(found, (users, items), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("definition", [False, True])
def test_a_masked_modality_has_no_gradient(definition):
    spec, inputs = problem("random")
    model = slmrec(spec, cached=("visual",), definition=definition)
    hide = Augmentation(modality=lambda key, names: masked(names, propagated=jnp.int32(names.index("visual"))))

    def total(params, inputs):
        view = model.encode(params, model.prepare(inputs))(hide, jax.random.key(0))
        return jnp.sum(view.users(ALL) ** 2) + jnp.sum(view.items(ALL) ** 2)

    gradient = jax.jit(jax.grad(total))(params_of(model), inputs)["projection"]
    assert not any(np.any(x) for x in jax.tree.leaves(gradient["visual"]))
    assert all(np.any(x) for x in jax.tree.leaves(gradient["acoustic"]))


def test_without_augmentations_only_propagated_features_are_kept():
    """The rows are the same, and a view that needs the features themselves says so."""
    spec, inputs = problem("random")
    lean, whole = (slmrec(spec, cached=("visual",), augmented=augmented) for augmented in (False, True))
    params, ids = params_of(whole), (jnp.array([2, 0]), jnp.array([1]))

    @jax.jit
    def prepared_and_tables(params, inputs):
        prepared = [model.prepare(inputs) for model in (lean, whole)]
        views = zip((lean, whole), prepared, strict=True)
        return prepared, [outputs(model, params, given, NO_AUGMENTATION, ids) for model, given in views]

    (prepared, with_features), tables = prepared_and_tables(params, inputs)
    assert set(prepared.cache) == {"acoustic", "words"}
    assert "visual" in with_features.cache
    for ours, theirs in zip(*tables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(UserError, match="the features of visual were not kept"):
        lean.encode(params, prepared)(AUGMENTATIONS["dropout of inputs"], jax.random.key(0))


def test_changed_graph_values_reach_cached_chains_in_value_and_derivative():
    """The graph's values are an argument of the compiled function, as where they are learned."""
    spec, inputs = problem("random")
    cached, plain = slmrec(spec, cached=("visual", "acoustic")), slmrec(spec)
    params, ids = params_of(cached), jnp.array([2, 0, 5])

    def total(values, model, prepared):
        graph = prepared.graph
        matrix = graph.adjacency.matrix._replace(values=values)
        order = jnp.argsort(matrix.columns, stable=True)
        adjacency = Operator(matrix, graph.adjacency.transposed._replace(values=values[order]))
        inputs = prepared._replace(graph=graph._replace(adjacency=adjacency))
        view = model.encode(params, inputs)(NO_AUGMENTATION, jax.random.key(0))
        return jnp.sum(view.users(ids) ** 2) + jnp.sum(view.items(ids) ** 2)

    values = inputs.graph.adjacency.matrix.values
    prepared = [jax.jit(model.prepare)(inputs) for model in (cached, plain)]
    assert set(prepared[0].graph.derived) == {"visual", "acoustic"}
    programs = [jax.jit(jax.value_and_grad(partial(total, model=model))) for model in (cached, plain)]
    for at in (values, 2 * values):
        found, expected = (program(at, prepared=given) for program, given in zip(programs, prepared, strict=True))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)
        assert np.any(found[1])


def test_another_graph_is_refused_if_features_were_not_kept():
    spec, inputs = problem("random")
    lean = slmrec(spec, cached=("visual",), augmented=False)
    prepared, params = jax.jit(lean.prepare)(inputs), params_of(lean)
    other = prepared._replace(graph=build_graph(Interactions(*inputs.graph.interactions), *spec[:2]))
    for wrap in (lambda f: f, jax.jit):
        encode = wrap(lambda inputs: lean.encode(params, inputs)(NO_AUGMENTATION, jax.random.key(0)).users(ALL))
        with pytest.raises(UserError, match=r"visual were not kept.*prepare the inputs with that graph"):
            encode(other)


def test_half_precision_rounds_frozen_rows_and_nothing_else():
    spec, inputs = problem("random", {"visual": Modality(6)})
    models = [slmrec(spec, cached=("visual",), frozen_rows=held_as) for held_as in ("float32", "bfloat16")]

    @jax.jit
    def tables(params, inputs):
        views = [clean_view(model, params, inputs) for model in models]
        sides = [side for view in views for side in (view.user_modalities, view.item_modalities)]
        return [{name: side[name](ALL) for name in side} for side in sides]

    full_users, full_items, half_users, half_items = tables(params_of(models[0]), inputs)
    for full, half in ((full_users, half_users), (full_items, half_items)):
        np.testing.assert_array_equal(half["id"], full["id"])
        assert half["visual"].dtype == jnp.float32
        np.testing.assert_allclose(half["visual"], full["visual"], atol=0.02)
        assert np.any(half["visual"] != full["visual"])


@pytest.mark.parametrize("definition", [False, True])
def test_every_site_of_every_layer_has_a_key_of_its_own(definition):
    spec, inputs = problem("random")
    model = slmrec(spec, cached=("visual",), definition=definition)
    seen = {}

    def record(key, site, x):
        seen[site] = jax.random.key_data(key)
        assert x.shape == (spec.num_users if site.side == "users" else spec.num_items, DIM)
        return x

    def record_inputs(key, x):
        seen.update(enumerate(jax.random.key_data(jax.random.split(key, len(x)))))
        return x

    augmentation = Augmentation(inputs=record_inputs, layer=record)

    @jax.jit
    def keys(params, inputs):
        model.encode(params, model.prepare(inputs))(augmentation, jax.random.key(0))
        return jnp.stack(list(seen.values()))

    drawn = keys(params_of(model), inputs)
    assert len(drawn) == 3 * 4 * 2 + 4
    assert len(np.unique(drawn, axis=0)) == len(drawn)


def test_an_item_without_a_modality_has_no_row_of_its_own_there():
    spec, inputs = problem("isolated", {"visual": Modality(6)})
    feature = inputs.features["visual"]
    values, present = np.array(feature.values), np.array(feature.present)
    values[7] = present[7] = 0.0
    inputs = inputs._replace(features={"visual": DenseFeature(jnp.asarray(values), jnp.asarray(present))})
    model = slmrec(spec, cached=("visual",))

    @jax.jit
    def rows(params, inputs):
        return {name: table(ALL) for name, table in clean_view(model, params, inputs).item_modalities.items()}

    found = rows(params_of(model), inputs)
    np.testing.assert_array_equal(found["visual"][7], np.zeros(DIM))  # no neighbours either
    assert np.any(found["id"][7])


def test_frozen_words_do_not_depend_on_the_seed_and_are_not_trained():
    spec, inputs = problem("random")
    model = slmrec(spec)
    assert jax.eval_shape(model.init, jax.random.key(0))["words"] == {}
    prepare = jax.jit(model.prepare)
    one, other = (prepare(inputs).cache["words"].arrays.values for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_initial_tables_are_xavier_uniform():
    spec, _ = problem("random")
    params = jax.jit(slmrec(spec).init)(jax.random.key(1))
    for table in (params["user"], params["item"]):
        bound = np.sqrt(6 / (table.shape[0] + DIM))
        assert 0.9 * bound < np.abs(table).max() <= bound
