"""MMSSL's parts, and each switch on which its paper and its published code differ."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graphs import GRAPHS

from slmrec_jax.config import PRESETS, Config, MMSSLConfig, OptimizerConfig, check_config, with_preset
from slmrec_jax.encoding.graph import build_graph
from slmrec_jax.errors import UserError
from slmrec_jax.methods import make_method
from slmrec_jax.methods.mmssl import game as adversarial
from slmrec_jax.methods.mmssl import graphs as modality_graphs
from slmrec_jax.methods.mmssl.discriminator import batch_norm, discriminator, gradient_penalty, real_rows
from slmrec_jax.methods.mmssl.game import COPIES, MAX_ADVERSARIAL_BYTES, choose_seats, discriminator_loss
from slmrec_jax.methods.mmssl.graph_updates import all_users, last_batches, mispaired
from slmrec_jax.methods.mmssl.graphs import (
    aggregate_items,
    aggregate_users,
    empty_graph,
    interaction_graph,
    interaction_rows,
    nearest_items,
    pad_graph,
)
from slmrec_jax.methods.mmssl.method import cross_view
from slmrec_jax.methods.mmssl.recommender import (
    Encoded,
    collapsed_attention,
    cross_modal_attention,
    mmssl,
    no_dropout,
    propagate_ids,
    similarity_rows,
)
from slmrec_jax.objectives.sampling import uniform
from slmrec_jax.training.inputs import make_inputs, make_spec
from slmrec_jax.training.loop import Progress, make_keys, no_steps
from slmrec_jax.training.storage import checkpoint
from slmrec_jax.types import Batch, DenseFeature, Inputs, Interactions, Modality, Spec

NUM_USERS, NUM_ITEMS, DIM = 23, 31, 8
SPEC = Spec(NUM_USERS, NUM_ITEMS, 150, DIM, {"visual": Modality(5), "textual": Modality(3)})
SMALL = Config(model="mmssl", dim=DIM, batch_size=32, mmssl=MMSSLConfig(heads=2))
PUBLISHED = with_preset(SMALL, "published")
SWITCHES = {flag.removeprefix("mmssl."): value for flag, value in PRESETS["mmssl"]["published"].items()}
LEARNING_RATE = SWITCHES.pop("optimizer.learning_rate")


@pytest.fixture(scope="module")
def graph():
    users, items = GRAPHS["random"][2:]
    return build_graph(Interactions(users, items), NUM_USERS, NUM_ITEMS)


@pytest.fixture(scope="module")
def given(graph):
    rng = np.random.default_rng(0)
    features = {
        name: DenseFeature(jnp.asarray(rng.normal(size=(NUM_ITEMS, m.columns)), jnp.float32), jnp.ones(NUM_ITEMS))
        for name, m in SPEC.modalities.items()
    }
    return Inputs(graph, features)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def dense(graph):
    rows = np.zeros((graph.num_users, graph.num_items))
    rows[tuple(np.asarray(x) for x in graph.interactions)] = 1.0
    return rows


def some_rows(seed=0):
    """A pass that only has what graphs are made of."""
    users, items = ({name: normal(seed + n, size, DIM) for n, name in enumerate(SPEC.modalities)} for size in (23, 31))
    return Encoded(jnp.zeros((23, DIM)), jnp.zeros((31, DIM)), users, items, {}, {})


def some_batch(size=6, real=6):
    users = jnp.asarray([0, 3, 5, 7, 11, 13][:size], jnp.int32)
    return Batch(users, users, jnp.arange(size) < real, users[:, None], jax.random.key(0))


# --- graphs ---


def test_a_graph_divides_by_the_root_of_the_summing_sides_degree(graph):
    ones = dense(graph)
    ours, x, y = interaction_graph(graph), normal(0, NUM_ITEMS, DIM), normal(1, NUM_USERS, DIM)
    of_users, of_items = (
        np.where(d > 0, 1 / np.sqrt(np.maximum(d, 1)), 0)[:, None] for d in (ones.sum(1), ones.sum(0))
    )
    for made in (ours, pad_graph(ours, 170)):
        assert made.entries.matrix.columns.shape[0] == (170 if made is not ours else 150)
        np.testing.assert_allclose(aggregate_items(made, x), of_users * (ones @ np.asarray(x)), atol=1e-5)
        np.testing.assert_allclose(aggregate_users(made, y), of_items * (ones.T @ np.asarray(y)), atol=1e-5)
    none = empty_graph(NUM_USERS, NUM_ITEMS, 10)
    assert not np.any(aggregate_items(none, x))
    assert not np.any(aggregate_users(none, y))


def test_the_interactions_of_a_user_who_stands_twice(graph):
    ids = jnp.asarray([4, 2, 4, 22], jnp.int32)
    np.testing.assert_array_equal(interaction_rows(graph, ids), dense(graph)[np.asarray(ids)])


@pytest.mark.parametrize("mask_training", [False, True])
@pytest.mark.parametrize("chunk", [1, 5, 23])
def test_nearest_items_do_not_depend_on_chunks(graph, monkeypatch, mask_training, chunk):
    monkeypatch.setattr(modality_graphs, "MAX_SCORE_BYTES", 4 * NUM_ITEMS * chunk)
    users, items, ids = normal(0, NUM_USERS, DIM), normal(1, NUM_ITEMS, DIM), jnp.arange(NUM_USERS)
    scores = np.asarray(users) @ np.asarray(items).T * (1 - dense(graph) * mask_training)
    found = nearest_items(graph, users, items, ids, 4, mask_training=mask_training)
    np.testing.assert_array_equal(found, np.argsort(-scores, axis=1, kind="stable")[:, :4])


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_all_users_get_a_new_graph_when_it_is_due(graph, similarity):
    updates, encoded, old = all_users(SPEC, 2, 3, similarity=similarity, mask_training=False), some_rows(), {}
    old = {name: pad_graph(interaction_graph(graph), updates.capacity) for name in SPEC.modalities}
    update = jax.jit(lambda step: updates.update(step, old, (), graph, some_batch(), encoded, lambda: encoded)[0])
    for step in (0, 1, 3):
        jax.tree.map(np.testing.assert_array_equal, update(jnp.int32(step)), old)
    for name, made in update(jnp.int32(2)).items():
        scores = np.asarray(encoded.user_features[name]) @ np.asarray(encoded.item_features[name]).T
        if similarity == "cosine":
            scores = scores / np.linalg.norm(encoded.item_features[name], axis=1)[None, :]
        best = np.argsort(-scores, axis=1)[:, :2]
        expected = np.zeros((NUM_USERS, NUM_ITEMS))
        np.put_along_axis(expected, best, 1 / np.sqrt(2), axis=1)
        np.testing.assert_allclose(aggregate_items(made, jnp.eye(NUM_ITEMS)), expected, atol=1e-6)


def edges_of(graphs):
    """How many edges each modality's graph has."""
    return [int(np.sum(made.entries.matrix.values)) for made in graphs.values()]


@pytest.mark.parametrize(
    ("k", "every", "edges"),
    [
        (0, 1, [150, 0, 0, 0, 0, 0, 0, 0]),
        (1, 1, [150, 6, 0, 0, 0, 6, 0, 0]),
        (2, 2, [150, 150, 24, 24, 24, 24, 36, 36]),
    ],
)
def test_published_graphs_are_empty_most_of_the_time(graph, k, every, edges):
    """After steps 0, 1, .. of epochs of four; with T = 2 an epoch's third step has what was collected since."""
    updates = last_batches(SPEC, k, every, 4, 6, similarity="dot", mask_training=True)
    graphs, collected = (
        {n: pad_graph(interaction_graph(graph), updates.capacity) for n in SPEC.modalities},
        updates.init(),
    )
    update = jax.jit(lambda *state: updates.update(*state, graph, some_batch(), some_rows(), some_rows))
    for step, expected in enumerate(edges):
        graphs, collected = update(jnp.int32(step), graphs, collected)
        assert edges_of(graphs) == [expected] * 2, step


def test_padded_rows_give_no_edges(graph):
    updates = last_batches(SPEC, 1, 1, 4, 6, similarity="dot", mask_training=True)
    graphs, collected = (
        {n: empty_graph(NUM_USERS, NUM_ITEMS, updates.capacity) for n in SPEC.modalities},
        updates.init(),
    )
    for step in range(2):
        arguments = graph, some_batch(real=4), some_rows(), some_rows
        graphs, collected = updates.update(jnp.int32(step), graphs, collected, *arguments)
    assert edges_of(graphs) == [4, 4]


def test_the_published_edges_join_wrong_pairs():
    users, items = jnp.asarray([7, 8, 9]), jnp.asarray([[1, 2], [3, 4], [5, 6]])
    pairs = set(zip(*(np.asarray(x).tolist() for x in mispaired(users, items)), strict=True))
    assert pairs == {(7, 1), (8, 2), (9, 3), (7, 4), (8, 5), (9, 6)}
    pairs = set(zip(*(np.asarray(x).tolist() for x in mispaired(users, items[:, :1])), strict=True))
    assert pairs == {(7, 1), (8, 3), (9, 5)}


# --- the recommender ---


def test_attention_attends():
    heads, views = 2, normal(0, 3, 7, DIM)
    params = {name: normal(n, DIM, DIM) for n, name in enumerate(("query", "key", "value", "output"))}
    x = {name: np.asarray(views, np.float64) @ np.asarray(params[name]) for name in ("query", "key", "value")}
    expected = np.zeros((7, DIM))
    for node in range(7):
        for query in range(3):
            parts = []
            for head in (slice(0, 4), slice(4, 8)):
                scores = np.array([x["query"][query, node, head] @ x["key"][m, node, head] / 2 for m in range(3)])
                weights = np.exp(scores) / np.exp(scores).sum()
                parts.append(sum(w * x["value"][m, node, head] for m, w in enumerate(weights)))
            expected[node] += np.concatenate(parts) @ np.asarray(params["output"]) / 3
    np.testing.assert_allclose(cross_modal_attention(params, views, heads), expected, rtol=1e-4, atol=1e-4)
    gradients = jax.grad(lambda p: jnp.sum(jnp.square(cross_modal_attention(p, views, heads))))(params)
    assert all(np.any(np.abs(g) > 1e-3) for g in gradients.values())


def test_the_published_attention_is_one_map():
    views, params = normal(0, 3, 7, DIM), {"heads": normal(1, 4, DIM, DIM)}
    expected = np.asarray(views).mean(0) @ np.asarray(params["heads"]).sum(0)
    np.testing.assert_allclose(collapsed_attention(params, views), expected, rtol=1e-4, atol=1e-4)
    assert set(mmssl(SPEC, MMSSLConfig(attention="collapsed")).init(jax.random.key(0))["attention"]) == {"heads"}


def test_with_one_modality_nothing_is_weighed():
    alone = SPEC._replace(modalities={"visual": Modality(5)})
    assert set(mmssl(alone, MMSSLConfig()).init(jax.random.key(0))["attention"]) == {"value", "output"}
    assert set(mmssl(SPEC, MMSSLConfig()).init(jax.random.key(0))["attention"]) == {"query", "key", "value", "output"}


@pytest.mark.parametrize(("id_propagation", "reaches"), [("simultaneous", True), ("sequential", False)])
def test_user_ids_reach_items_or_not(given, id_propagation, reaches):
    model = mmssl(SPEC, MMSSLConfig(heads=2, id_propagation=id_propagation))
    inputs, params = model.prepare(given), model.init(jax.random.key(0))
    graphs = {name: empty_graph(NUM_USERS, NUM_ITEMS, 1) for name in SPEC.modalities}
    gradient = jax.grad(lambda p: jnp.sum(jnp.sin(model.encode(p, inputs, graphs, no_dropout).items)))(params)
    assert np.any(gradient["user"]) == reaches
    assert np.any(gradient["item"])


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("last_softmax", [False, True])
def test_layers_of_ids(sequential, last_softmax):
    a, users, items = np.asarray(normal(0, 3, 4)), normal(1, 3, 2), normal(2, 4, 2)
    found = propagate_ids(
        users, items, lambda x: a @ x, lambda x: a.T @ x, 2, sequential=sequential, last_softmax=last_softmax
    )

    def softmax(x):
        return np.exp(x) / np.exp(x).sum(1, keepdims=True) if last_softmax else x

    u0, i0 = np.asarray(users), np.asarray(items)
    u1 = a @ i0
    i1 = a.T @ (u1 if sequential else u0)
    u2 = softmax(a @ i1)
    i2 = softmax(a.T @ (u2 if sequential else u1))
    np.testing.assert_allclose(found[0], (u0 + u1 + u2) / 3, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], (i0 + i1 + i2) / 3, rtol=1e-4, atol=1e-5)


def test_similarity_rows_and_their_zeros(graph):
    users, items, ids = normal(0, 4, DIM), normal(1, NUM_ITEMS, DIM), jnp.arange(4)
    known = interaction_rows(graph, ids)
    for row in (similarity_rows(users, items, None), similarity_rows(users, items, 1.0 - known)):
        np.testing.assert_allclose(np.linalg.norm(row, axis=1), 1, rtol=1e-5)
    assert not np.any(np.asarray(row)[np.asarray(known) == 1])


# --- losses ---


def test_cross_view_is_its_definition_and_no_user_their_own_negative():
    z, h, tau = normal(0, 5, DIM), normal(1, 5, DIM), 0.3
    users, mask = jnp.asarray([4, 1, 4, 2, 0]), jnp.asarray([True, True, True, True, False])
    a, b = (np.asarray(x, np.float64) / np.linalg.norm(x, axis=1, keepdims=True) for x in (z, h))
    values = []
    for row in range(4):
        others = [c for c in range(4) if users[c] != users[row]]
        below = sum(np.exp(a[row] @ a[c] / tau) + np.exp(a[row] @ b[c] / tau) for c in others)
        positive = np.exp(a[row] @ b[row] / tau)
        values.append(-np.log(positive / (below + positive)))
    np.testing.assert_allclose(cross_view(z, h, users, mask, tau), np.mean(values), rtol=1e-5)


def test_without_edges_the_contrast_teaches_nothing():
    users, mask, h = jnp.arange(6), jnp.ones(6, bool), normal(0, 6, DIM)
    value, gradients = jax.value_and_grad(cross_view, argnums=1)(jnp.zeros((6, DIM)), h, users, mask, 0.5)
    np.testing.assert_allclose(value, math.log(11), rtol=1e-6)
    np.testing.assert_allclose(gradients, 0, atol=1e-7)
    assert np.any(jax.grad(cross_view, argnums=1)(normal(1, 6, DIM), h, users, mask, 0.5))


# --- the discriminator ---


def unchanged(layer, x):
    return x


@pytest.mark.parametrize(("activation", "affine"), [("identity", True), ("leaky", False)])
def test_the_published_discriminator_is_affine(activation, affine):
    net = discriminator(DIM, (6, 4), activation=activation)
    params = net.init(jax.random.key(0))
    a, b = normal(1, 5, DIM), normal(2, 5, DIM)
    score = lambda x: np.asarray(net.apply(params, x, unchanged, unchanged))  # noqa: E731
    assert np.allclose(score(a) + score(b), score(a + b) + score(0 * a), atol=1e-4) == affine


def test_the_published_score_lies_between_0_and_100():
    rows = 50.0 * normal(1, 200, DIM)
    found = {}
    for output in ("linear", "sigmoid"):
        net = discriminator(DIM, (6, 4), activation="identity", output=output)
        found[output] = np.asarray(net.apply(net.init(jax.random.key(0)), rows, unchanged, unchanged))
    assert found["sigmoid"].min() >= 0
    assert 50 < found["sigmoid"].max() <= 100
    assert found["linear"].min() < 0
    assert found["linear"].max() > 100


def test_batch_statistics_are_of_real_rows():
    mask, x = jnp.arange(8) < 5, normal(0, 8, 3)
    found = np.asarray(batch_norm(mask)(0, x))[:5]
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(found.std(0), 1, rtol=1e-3)
    np.testing.assert_array_equal(found, np.asarray(batch_norm(mask)(0, x.at[5:].set(jnp.nan)))[:5])


def test_the_gradient_penalty_of_a_linear_score():
    w, mask = jnp.asarray([3.0, 4.0, 0.0]), jnp.arange(6) < 4
    np.testing.assert_allclose(gradient_penalty(lambda x: x @ w, normal(0, 6, 3), mask), 16, rtol=1e-5)

    def of_scale(scale):
        return gradient_penalty(lambda x: scale * (x @ w), normal(0, 6, 3), mask)

    np.testing.assert_allclose(jax.grad(of_scale)(1.0), 40, rtol=1e-5)
    np.testing.assert_allclose(jax.grad(of_scale)(0.0), 0)  # no direction, and not NaN


def test_the_discriminator_descends_from_suggested_to_real():
    real, suggested, mask = normal(0, 6, 3), normal(1, 6, 3), jnp.arange(6) < 4
    score = lambda call: lambda rows: rows @ jnp.ones(3)  # noqa: E731
    loss, metrics = discriminator_loss(score, real, suggested, jnp.full((6, 1), 0.5), mask, 2.0)
    distance = np.asarray(real)[:4].sum(1).mean() - np.asarray(suggested)[:4].sum(1).mean()
    np.testing.assert_allclose(metrics["distance"], distance, rtol=1e-4)
    np.testing.assert_allclose(loss, 2 * (math.sqrt(3) - 1) ** 2 - distance, rtol=1e-4)


def test_the_penalty_is_taken_between_real_and_suggested_rows():
    """With D(x) = |x|² / 2 the gradient is the row itself, so that the penalty tells which rows were mixed, and how."""
    real, suggested, mask = normal(0, 6, 3), normal(1, 6, 3), jnp.arange(6) < 4
    shares = jnp.linspace(0.0, 1.0, 6)[:, None]
    _, metrics = discriminator_loss(
        lambda call: lambda rows: jnp.sum(jnp.square(rows), axis=1) / 2, real, suggested, shares, mask, 1.0
    )
    lengths = np.linalg.norm(shares * real + (1 - shares) * suggested, axis=1)[:4]
    np.testing.assert_allclose(metrics["penalty"], np.mean((lengths - 1) ** 2), rtol=1e-5)


@pytest.mark.usefixtures("optax_promotion")
def test_the_generator_raises_the_score_of_suggested_rows_and_the_discriminator_has_its_own_moments(given):
    """-mean D(q) of every modality; Adam with the betas of WGAN-GP, seen in its moments after one step."""
    options = MMSSLConfig(
        heads=2, adversarial_users=0, discriminator_dropout=(0.0, 0.0), discriminator_output="sigmoid"
    )
    game, _ = adversarial.adversarial_game(dataclasses.replace(SMALL, mmssl=options), SPEC)
    params, opt_state = game.init(jax.random.key(1))
    encoded = some_rows()._replace(users=normal(8, 23, DIM), items=normal(9, 31, DIM))
    batch, mask = some_batch(), jnp.ones(12, bool)
    rows = adversarial.suggested_rows(encoded, batch.users, None, "cosine")
    widths = params["hidden"][0]["scale"].shape[0], params["hidden"][1]["scale"].shape[0]
    scores = discriminator(NUM_ITEMS, widths, output="sigmoid").apply(
        params, rows, batch_norm(mask), lambda layer, x: x
    )
    terms = game.terms(params, encoded, given, batch, jax.random.key(2))
    assert terms["generator"] < -1
    np.testing.assert_allclose(terms["generator"], -jnp.mean(scores), rtol=1e-4)

    _, opt_state, _ = game.step(params, opt_state, encoded, given, batch, jax.random.key(3))
    moments = opt_state[0]  # (1 - b1) g and (1 - b2) g², where g is the first gradient
    mean, square = (np.asarray(each["output"]["kernel"]) for each in (moments.mu, moments.nu))
    np.testing.assert_allclose(square, 0.1 * (mean / 0.5) ** 2, rtol=1e-4)


def test_real_rows_are_interactions_or_own_scores():
    known = (normal(0, 4, 200) > 1.5).astype(jnp.float32)
    own = similarity_rows(normal(1, 4, DIM), normal(2, 200, DIM), 1.0 - known)
    drawn = jax.random.uniform(jax.random.key(3), known.shape)

    def likeness(options):
        rows = np.asarray(
            real_rows(
                known,
                own,
                drawn,
                temperature=0.005,
                cooled=options.real_cooled,
                own_weight=options.own_weight,
            )
        )
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
        clean = np.asarray(known) / np.linalg.norm(known, axis=1, keepdims=True)
        return (rows * clean).sum(1), (rows * np.asarray(own)).sum(1)

    with_known, with_own = likeness(PUBLISHED.mmssl)
    assert with_known.max() < 0.05
    assert with_own.min() > 0.99
    with_known, with_own = likeness(SMALL.mmssl)
    assert with_known.min() > 0.9
    assert with_own.max() < 0.5


def test_what_the_temperature_divides():
    known, nothing = jnp.asarray([[1.0, 0.0, 0.0]]), jnp.zeros((1, 3))
    rows = {
        cooled: np.asarray(
            real_rows(known, nothing, jnp.full((1, 3), 0.3), temperature=0.1, cooled=cooled, own_weight=0.0)
        )[0]
        for cooled in ("whole_logit", "noise_only")
    }
    np.testing.assert_allclose(rows["noise_only"][0] / rows["noise_only"][1], math.e, rtol=1e-4)
    np.testing.assert_allclose(rows["whole_logit"][0] / rows["whole_logit"][1], math.e**10, rtol=1e-4)


def test_how_many_users_the_discriminator_sees():
    sizes = {"batch_size": 1024, "num_modalities": 2}
    assert choose_seats(num_items=1000, wanted=0, **sizes).num_users == 1024
    assert choose_seats(num_items=1000, wanted=64, **sizes).num_users == 64
    assert choose_seats(num_items=1000, wanted=5000, **sizes).num_users == 1024
    few = choose_seats(num_items=10**6, wanted=0, **sizes)
    assert 2 <= few.num_users < 1024
    assert (
        4 * COPIES * few.num_users * 2 * 10**6 <= MAX_ADVERSARIAL_BYTES < 4 * COPIES * (few.num_users + 1) * 2 * 10**6
    )
    assert "all 1024 would take" in few.reason
    # Of a single row the statistics of a batch leave nothing.
    assert choose_seats(num_items=2**31 - 1, wanted=0, **sizes).num_users == 2


# --- the method ---


@pytest.fixture(scope="module")
def two(tiny):
    return tiny.with_modalities(("visual", "textual"))


def problem(config, dataset):
    method = make_method(config, make_spec(config, dataset))
    inputs = method.prepare(make_inputs(dataset))
    return method, inputs, jax.jit(method.init)(make_keys(0).init), jax.jit(method.step)


def batch_of(inputs, step, size=32, real=32, junk=0):
    rows = jax.random.permutation(jax.random.key(step), inputs.graph.num_interactions)[:size]
    rows = jnp.where(jnp.arange(size) < real, rows, junk)
    users, items = (x[rows] for x in inputs.graph.interactions)
    negatives = uniform(inputs.graph)(users, items, jax.random.key(step), 1)
    return Batch(users, items, jnp.arange(size) < real, negatives, jax.random.key(step))


@pytest.mark.usefixtures("optax_promotion")
def test_padded_rows_change_nothing(two):
    _method, inputs, state, step = problem(dataclasses.replace(SMALL, batch_size=16), two)
    one, other = (step(state, inputs, batch_of(inputs, 0, size=16, real=11, junk=junk)) for junk in (3, 200))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if jnp.issubdtype(a.dtype, jnp.floating):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("optax_promotion")
def test_published_steps_and_their_resumption(two, tmp_path):
    """k = 0: the third step has no graph, contrast is constant; and what is saved goes on to the same bits."""
    method, inputs, state, step = problem(PUBLISHED, two)
    assert method.sampling == "users"
    users = jnp.arange(32, dtype=jnp.int32)
    batch = batch_of(inputs, 0)._replace(users=users)
    contrasts = []
    for number in range(3):
        if number == 2:
            progress = Progress(state, no_steps(["loss"]))
            checkpoint.write(tmp_path, checkpoint.Checkpoint(checkpoint.Place(1), progress, checkpoint.Tally()))
            restored = checkpoint.restore_state(tmp_path, 1, state)
            jax.tree.map(np.testing.assert_array_equal, restored, state)
            again = step(restored, inputs, batch)
        state, metrics = step(state, inputs, batch)
        contrasts.append(float(metrics["contrast"]))
    jax.tree.map(np.testing.assert_array_equal, again, (state, metrics))
    constant = 2 * math.log(63)
    assert abs(contrasts[0] - constant) > 1e-2
    np.testing.assert_allclose(contrasts[2], constant, rtol=1e-6)
    assert edges_of(state.graphs) == [0] * 2


def test_a_graph_is_never_empty_as_it_is_meant(tiny):
    config = dataclasses.replace(SMALL, mmssl=MMSSLConfig(heads=2, topk_rate=0.0))
    method = make_method(config, make_spec(config, tiny))
    assert method.sampling == "interactions"
    assert "modality graphs: 1 items for every user" in method.notes[0]


@pytest.mark.usefixtures("optax_promotion")
def test_weight_0_leaves_a_term_out(tiny):
    config = dataclasses.replace(SMALL, mmssl=MMSSLConfig(heads=2, adversarial_weight=0.0, contrast_weight=0.0))
    method, inputs, state, _ = problem(config, tiny)
    assert state.discriminator == {}
    metrics = jax.eval_shape(method.step, state, inputs, batch_of(inputs, 0))[1]
    assert set(metrics) == {"loss", "bpr", "l2", "feature_l2"}
    assert "no discriminator" in method.notes[1]


def test_the_published_code_learns_at_its_own_rate_unless_another_is_given():
    assert PUBLISHED.optimizer.learning_rate == LEARNING_RATE == 5.5e-4
    given = dataclasses.replace(SMALL, optimizer=OptimizerConfig(learning_rate=0.01))
    assert with_preset(given, "published").optimizer == given.optimizer


OTHER = {
    **SWITCHES,
    "normalize_features": True,
    "contrast_weight": 0.5,
    "contrast_temperature": 0.2,
    "adversarial_weight": 1.0,
    "topk_rate": 0.1,
    "refresh_every": 3,
    "adversarial_users": 5,
}
"""For each switch a value that is not its default."""


def program(given, **switches):
    """What a run of these switches does first, as traced, and how its batches are drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adversarial, "MAX_WIDTHS", (4, 2))  # which these few items would not reach
        method = make_method(dataclasses.replace(SMALL, mmssl=dataclasses.replace(SMALL.mmssl, **switches)), SPEC)
    batch = Batch(*(jnp.arange(32) % 7,) * 2, jnp.ones(32, bool), jnp.zeros((32, 1), jnp.int32), jax.random.key(0))

    def start(inputs):
        return method.step(method.init(jax.random.key(0)), method.prepare(inputs), batch)

    return method.sampling, str(jax.make_jaxpr(start)(given))


@pytest.fixture(scope="module")
def by_default(given):
    with jax.numpy_dtype_promotion("standard"):
        return program(given)


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_reaches_the_program(given, by_default, switch):
    assert getattr(MMSSLConfig(), switch) != OTHER[switch]
    if switch == "graphs":  # those of the last batches need a period
        assert program(given, graphs=OTHER[switch], refresh_every=2) != program(given, refresh_every=2)
    else:
        assert program(given, **{switch: OTHER[switch]}) != by_default


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"feature_dropout": 1.0}, "mmssl.feature_dropout is 1"),
        ({"discriminator_dropout": (0.1, -1.0)}, "mmssl.discriminator_dropout is -1"),
        ({"contrast_temperature": 0.0}, "mmssl.contrast_temperature is 0"),
        ({"own_weight": -1.0}, "mmssl.own_weight is -1"),
    ],
)
def test_values_that_cannot_be_meant(change, named):
    with pytest.raises(UserError, match=named):
        check_config(Config(model="mmssl", mmssl=MMSSLConfig(**change)))
    check_config(Config(model="mmssl"))


def test_heads_divide_the_columns():
    with pytest.raises(UserError, match=r"mmssl\.heads=7 does not divide dim=64"):
        make_method(Config(model="mmssl", mmssl=MMSSLConfig(heads=7)), SPEC)


def test_it_needs_a_modality():
    with pytest.raises(UserError, match="needs a modality"):
        make_method(Config(model="mmssl"), SPEC._replace(modalities={}))
