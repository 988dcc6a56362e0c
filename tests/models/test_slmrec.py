"""Every route through the encoder is the plain definition, in value and gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import scipy.sparse
from graphs import GRAPHS

from slmrec_jax.encoding.graph import build_graph
from slmrec_jax.encoding.sparse import Operator, operator
from slmrec_jax.errors import UserError
from slmrec_jax.models.slmrec import slmrec
from slmrec_jax.objectives.augmentations import both, feature_dropout, feature_masking, masked
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


def outputs(model, params, inputs, augmentation, ids):
    """Every table of a view, at some rows and at all."""
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
    params = jax.jit(one.init)(jax.random.key(1))
    ids = (jnp.array([0, spec.num_users - 1, 0]), jnp.array([spec.num_items - 1, 0, 0]))
    weights = [np.random.default_rng(i).normal() for i in range(100)]

    def value_and_grad(model):
        def of(params, prepared):
            tables = outputs(model, params, prepared, augmentation, ids)
            return sum(w * jnp.sum(jnp.sin(t)) for w, t in zip(weights, tables, strict=False)), tables

        # What is compared is what was traced; without its optimisations the compiler takes half the time.
        fast_to_compile = {"xla_backend_optimization_level": 0}
        compiled = jax.jit(jax.value_and_grad(of, has_aux=True), compiler_options=fast_to_compile)
        return compiled(params, jax.jit(model.prepare)(inputs))

    ours, theirs = value_and_grad(one), value_and_grad(other)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, theirs)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("graph", ["random", "isolated"])
def test_chains_are_the_definition(graph, augmentation):
    spec, inputs = problem(graph)
    one, other = slmrec(spec, cached=("visual", "words")), slmrec(spec, definition=True)
    compare(one, other, spec, inputs, AUGMENTATIONS[augmentation])


OPTIONS = [
    {"fusion": "mean", "words": "trainable"},
    {"fusion": "sum", "user_table": "per_modality"},
    {"user_table": "per_modality", "words": "trainable", "num_layers": 2},
    {"normalize_features": False, "num_layers": 1},
    {"num_layers": 0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(str(value) for value in options.values()))
def test_chains_are_the_definition_under_every_option(options):
    spec, inputs = problem("random")
    one, other = slmrec(spec, cached=("visual",), **options), slmrec(spec, definition=True, **options)
    compare(one, other, spec, inputs, AUGMENTATIONS["masking swapped"])


@pytest.mark.parametrize("modalities", [{}, {"anything": Modality(2)}, {f"m{i}": Modality(2 + i) for i in range(5)}])
def test_any_number_of_modalities(modalities):
    spec, inputs = problem("random", modalities)
    compare(slmrec(spec, cached=tuple(modalities)), slmrec(spec, definition=True), spec, inputs, NO_AUGMENTATION)


def test_the_definition_is_the_equation():
    spec, inputs = problem("random", {"visual": Modality(6)})
    model = slmrec(spec, definition=True)
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), model.init(jax.random.key(1)))
    view = model.encode(jax.tree.map(jnp.float32, params), model.prepare(inputs))(NO_AUGMENTATION, jax.random.key(0))
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
    np.testing.assert_allclose(view.users(ALL), users, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(view.items(ALL), items, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("definition", [False, True])
def test_a_masked_modality_has_no_gradient(definition):
    spec, inputs = problem("random")
    model = slmrec(spec, cached=("visual",), definition=definition)
    hide = Augmentation(modality=lambda key, names: masked(names, propagated=jnp.int32(names.index("visual"))))
    prepared, params = model.prepare(inputs), model.init(jax.random.key(1))

    def total(params):
        view = model.encode(params, prepared)(hide, jax.random.key(0))
        return jnp.sum(view.users(ALL) ** 2) + jnp.sum(view.items(ALL) ** 2)

    gradient = jax.grad(total)(params)["projection"]
    assert not any(np.any(x) for x in jax.tree.leaves(gradient["visual"]))
    assert all(np.any(x) for x in jax.tree.leaves(gradient["acoustic"]))


def test_without_augmentations_propagated_features_are_kept_in_that_form_alone():
    """The same rows with less memory; a view that needs the features says so."""
    spec, inputs = problem("random")
    lean, whole = (slmrec(spec, cached=("visual",), augmented=augmented) for augmented in (False, True))
    prepared = lean.prepare(inputs)
    assert set(prepared.cache) == {"acoustic", "words"}
    assert "visual" in whole.prepare(inputs).cache
    params, ids = whole.init(jax.random.key(1)), (jnp.array([2, 0]), jnp.array([1]))
    for ours, theirs in zip(
        outputs(lean, params, prepared, NO_AUGMENTATION, ids),
        outputs(whole, params, whole.prepare(inputs), NO_AUGMENTATION, ids),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(UserError, match="the features of visual were not kept"):
        lean.encode(params, prepared)(AUGMENTATIONS["dropout of inputs"], jax.random.key(0))


def test_a_changed_graph_reaches_what_was_propagated_beforehand_in_value_and_derivative():
    """Its values are an argument of the compiled function, as where they are learned."""
    spec, inputs = problem("random")
    cached, plain = slmrec(spec, cached=("visual", "acoustic")), slmrec(spec)
    params, ids = cached.init(jax.random.key(1)), jnp.array([2, 0, 5])

    def total(values, model, prepared):
        graph = prepared.graph
        matrix = graph.adjacency.matrix._replace(values=values)
        order = jnp.argsort(matrix.columns, stable=True)
        adjacency = Operator(matrix, graph.adjacency.transposed._replace(values=values[order]))
        inputs = prepared._replace(graph=graph._replace(adjacency=adjacency))
        view = model.encode(params, inputs)(NO_AUGMENTATION, jax.random.key(0))
        return jnp.sum(view.users(ids) ** 2) + jnp.sum(view.items(ids) ** 2)

    values = inputs.graph.adjacency.matrix.values
    assert set(cached.prepare(inputs).graph.derived) == {"visual", "acoustic"}
    for at in (values, 2 * values):
        found, expected = (
            jax.jit(jax.value_and_grad(partial(total, model=model)))(at, prepared=model.prepare(inputs))
            for model in (cached, plain)
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)
        assert np.any(found[1])


def test_another_graph_is_refused_where_its_features_were_not_kept():
    spec, inputs = problem("random")
    lean = slmrec(spec, cached=("visual",), augmented=False)
    prepared = lean.prepare(inputs)
    params = lean.init(jax.random.key(1))
    other = prepared._replace(graph=build_graph(Interactions(*inputs.graph.interactions), *spec[:2]))
    for wrap in (lambda f: f, jax.jit):
        encode = wrap(lambda inputs: lean.encode(params, inputs)(NO_AUGMENTATION, jax.random.key(0)).users(ALL))
        with pytest.raises(UserError, match=r"visual were not kept.*prepare the inputs with that graph"):
            encode(other)


def test_half_precision_rounds_what_is_frozen_and_nothing_else():
    spec, inputs = problem("random", {"visual": Modality(6)})
    views = {}
    for held_as in ("float32", "bfloat16"):
        model = slmrec(spec, cached=("visual",), frozen_rows=held_as)
        params = model.init(jax.random.key(1))
        views[held_as] = model.encode(params, model.prepare(inputs))(NO_AUGMENTATION, jax.random.key(0))
    for side in ("user_modalities", "item_modalities"):
        full, half = (getattr(views[held_as], side) for held_as in ("float32", "bfloat16"))
        np.testing.assert_array_equal(half["id"](ALL), full["id"](ALL))
        assert half["visual"](ALL).dtype == jnp.float32
        np.testing.assert_allclose(half["visual"](ALL), full["visual"](ALL), atol=0.02)
        assert np.any(half["visual"](ALL) != full["visual"](ALL))


@pytest.mark.parametrize("definition", [False, True])
def test_every_site_of_every_layer_has_a_key_of_its_own(definition):
    spec, inputs = problem("random")
    model = slmrec(spec, cached=("visual",), definition=definition)
    seen = {}

    def record(key, site, x):
        seen[site] = tuple(jax.random.key_data(key).tolist())
        assert x.shape == (spec.num_users if site.side == "users" else spec.num_items, DIM)
        return x

    def record_inputs(key, x):
        seen.update(enumerate(tuple(words) for words in jax.random.key_data(jax.random.split(key, len(x))).tolist()))
        return x

    augmentation = Augmentation(inputs=record_inputs, layer=record)
    model.encode(model.init(jax.random.key(1)), model.prepare(inputs))(augmentation, jax.random.key(0))
    assert len(seen) == 3 * 4 * 2 + 4
    assert len(set(seen.values())) == len(seen)


def test_an_item_without_a_modality_has_no_row_of_its_own_there():
    spec, inputs = problem("isolated", {"visual": Modality(6)})
    feature = inputs.features["visual"]
    present = feature.present.at[7].set(0.0)
    inputs = inputs._replace(features={"visual": DenseFeature(feature.values.at[7].set(0.0), present)})
    model = slmrec(spec, cached=("visual",))
    view = model.encode(model.init(jax.random.key(1)), model.prepare(inputs))(NO_AUGMENTATION, jax.random.key(0))
    rows = view.item_modalities["visual"](ALL)
    np.testing.assert_array_equal(rows[7], np.zeros(DIM))  # no neighbours either
    assert np.any(view.item_modalities["id"](ALL)[7])


def test_frozen_words_do_not_depend_on_the_seed_and_are_not_trained():
    spec, inputs = problem("random")
    model = slmrec(spec)
    assert model.init(jax.random.key(0))["words"] == {}
    one, other = (model.prepare(inputs).cache["words"].values for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_initial_tables_are_xavier_uniform():
    spec, _ = problem("random")
    params = slmrec(spec).init(jax.random.key(1))
    for table in (params["user"], params["item"]):
        bound = np.sqrt(6 / (table.shape[0] + DIM))
        assert 0.9 * bound < np.abs(table).max() <= bound
