import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slmrec_jax.encoding.graph import build_graph
from slmrec_jax.encoding.sparse import matmul
from slmrec_jax.errors import UserError
from slmrec_jax.objectives.augmentations import (
    _random_words,
    both,
    dropout,
    edge_dropout,
    embedding_noise,
    feature_dropout,
    feature_masking,
    masked,
    node_dropout,
    two_distinct,
)
from slmrec_jax.types import Augmentation, Interactions, Site

NAMES = ("id", "visual", "acoustic")
KEY = jax.random.key(5)


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.9])
def test_dropout_drops_the_share_and_keeps_the_mean(rate):
    x = jnp.full((101, 999), 2.0)
    dropped = np.asarray(dropout(KEY, x, rate))
    kept = 1 - rate
    assert np.all((dropped == 0) | np.isclose(dropped, 2 / kept, rtol=1e-6))
    deviation = 5 * np.sqrt(kept * (1 - kept) / x.size)
    assert abs((dropped > 0).mean() - kept) <= deviation
    assert abs(dropped.mean() - 2.0) <= 2 * deviation / kept + 1e-5


@pytest.mark.parametrize("rate", [1e-300, 1e-12, 2.0**-33])
def test_a_rate_below_any_word_drops_next_to_nothing(rate):
    np.testing.assert_array_equal(dropout(KEY, jnp.ones((50, 20)), rate), np.ones((50, 20)))


def test_dropout_decides_for_each_entry_alone():
    kept = np.asarray(dropout(KEY, jnp.ones((4096, 64)), 0.5)) > 0
    flat = kept.reshape(-1)
    # Neither neighbours nor rows go together.
    for shift in (1, 2, 3, 4, 64, flat.size // 4, flat.size // 2):
        agree = (flat[shift:] == flat[:-shift]).mean()
        assert abs(agree - 0.5) < 5 * 0.5 / np.sqrt(flat.size - shift)


def test_keys_that_follow_one_another_decide_independently():
    first, *others = (np.asarray(dropout(jax.random.key(seed), jnp.ones(100_000), 0.5)) > 0 for seed in range(6))
    for other in others:
        assert abs((first == other).mean() - 0.5) < 5 * 0.5 / np.sqrt(first.size)


def test_the_views_of_a_key_decide_independently():
    first, second = (np.asarray(dropout(KEY, jnp.ones(100_000), 0.5, view)) > 0 for view in range(2))
    for shift in (0, 1, 2, 64):
        agree = (first[shift:] == second[: first.size - shift]).mean()
        assert abs(agree - 0.5) < 5 * 0.5 / np.sqrt(first.size - shift)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_dropout_takes_keys_of_any_kind_and_many_at_a_time(impl):
    keys = jax.random.split(jax.random.key(3, impl=impl), 3)
    together = jax.vmap(lambda key: dropout(key, jnp.ones((50, 40)), 0.5))(keys)
    for key, of_key in zip(keys, together, strict=True):
        np.testing.assert_array_equal(dropout(key, jnp.ones((50, 40)), 0.5), of_key)
    assert abs((np.asarray(together) > 0).mean() - 0.5) < 0.05
    assert len({np.asarray(of_key).tobytes() for of_key in together}) == 3


@pytest.mark.parametrize("shift", [0, 8, 16, 24])
def test_every_byte_is_as_likely_as_another(shift):
    drawn = (np.asarray(_random_words(KEY, (1_000_001,), 0)) >> shift) & 255
    counts = np.bincount(drawn, minlength=256)
    assert len(counts) == 256
    statistic = ((counts - drawn.size / 256) ** 2 / (drawn.size / 256)).sum()
    assert 150 < statistic < 380  # χ² of 255 degrees of freedom, beyond which one in a million lies


@pytest.mark.parametrize("mode", ["layer", "input"])
def test_the_views_of_feature_dropout_differ_from_each_other_and_from_key_to_key(mode):
    def drawn(augmentation, key):
        x = jnp.ones((6, 3, 8))
        if mode == "layer":
            return np.asarray(augmentation.layer(key, Site(1, "id", "users"), x[:, 0]))
        return np.concatenate(list(augmentation.inputs(key, dict.fromkeys(NAMES, x[:, 0])).values()))

    first, second = feature_dropout(0.5, mode)
    assert (drawn(first, KEY) != drawn(second, KEY)).any()
    assert (drawn(first, KEY) != drawn(first, jax.random.key(6))).any()
    np.testing.assert_array_equal(drawn(first, KEY), drawn(first, KEY))


def test_two_distinct_draws_every_ordered_pair_alike():
    pairs = np.asarray(two_distinct(KEY, 4, (24_000,)))
    assert (pairs[0] != pairs[1]).all()
    counts = np.bincount(pairs[0] * 4 + pairs[1], minlength=16).reshape(4, 4)
    assert not np.diag(counts).any()
    assert (abs(counts[~np.eye(4, dtype=bool)] - 2000) < 5 * np.sqrt(2000)).all()


@pytest.mark.parametrize("mode", ["clean", "swapped"])
def test_feature_masking_masks_one_modality_a_view(mode):
    first, second = (view.modality(KEY, NAMES) for view in feature_masking(mode))
    masks = [{name for name in NAMES if scale.propagated[name] == 0} for scale in (first, second)]
    assert [len(mask) for mask in masks] == [1, 1]
    assert masks[0] != masks[1]
    for scale, other in ((first, second), (second, first)):
        assert scale.layer0 == (None if mode == "clean" else other.propagated)


def test_feature_masking_per_item_masks_one_modality_of_each_item():
    x = {name: jnp.ones((400, 3)) for name in NAMES}
    first, second = (view.inputs(KEY, x) for view in feature_masking("clean", "item"))
    masks = [np.stack([np.asarray(view[name]) == 0 for name in NAMES], axis=1) for view in (first, second)]
    for mask in masks:
        assert (mask.all(-1) == mask.any(-1)).all()
        assert (mask.all(-1).sum(1) == 1).all()
    assert not (masks[0] & masks[1]).any()
    assert len(np.unique(masks[0].argmax(1))) == 3


def test_masked_names_the_modality_at_the_index():
    scale = masked(NAMES, propagated=jnp.int32(1), layer0=jnp.int32(2))
    assert [float(scale.propagated[name]) for name in NAMES] == [1, 0, 1]
    assert [float(scale.layer0[name]) for name in NAMES] == [1, 1, 0]


def test_both_has_the_stages_of_each():
    masking, dropping = feature_masking(), feature_dropout(0.3)
    for view, of_masking, of_dropping in zip(both(masking, dropping), masking, dropping, strict=True):
        assert view == Augmentation(modality=of_masking.modality, layer=of_dropping.layer)


def test_both_refuses_two_augmentations_of_one_stage():
    with pytest.raises(ValueError, match="'inputs'"):
        both(feature_masking("clean", "item"), feature_dropout(0.3, "input"))


def kept_pairs(view, full, num_layers):
    """Return what a view keeps in each layer, as arrays of users × items, from the matrix and from its transpose."""

    @jax.jit
    def both_ways(full):
        return [
            (matmul(graph.adjacency, jnp.eye(graph.num_items)), matmul(graph.adjacency.T, jnp.eye(graph.num_users)).T)
            for graph in view.edges(KEY, full, num_layers)
        ]

    kept = [[np.asarray(way) > 0 for way in of_layer] for of_layer in both_ways(full)]
    for one, other in kept:
        np.testing.assert_array_equal(one, other)
    return [one for one, _ in kept]


@pytest.fixture(scope="module")
def full():
    """All interactions of 60 users and 50 items."""
    users, items = np.divmod(np.arange(3000, dtype=np.int32), 50)
    return build_graph(Interactions(users.astype(np.int32), items.astype(np.int32)), 60, 50)


def test_edge_dropout_leaves_out_the_share_and_views_and_layers_differ(full):
    first, second = (kept_pairs(view, full, 3)[0] for view in edge_dropout(0.3))
    layers = kept_pairs(edge_dropout(0.3, "layer")[0], full, 3)
    deviation = 5 * np.sqrt(0.3 * 0.7 / full.num_interactions)
    for kept in (first, second, *layers):
        assert abs(kept.mean() - 0.7) < deviation
    # Independent: both keep a pair with probability .49.
    for one, other in ((first, second), (layers[0], layers[1]), (layers[1], layers[2])):
        assert abs((one & other).mean() - 0.49) < deviation
    one, *others = edge_dropout(0.3)[0].edges(KEY, full, 3)
    assert all(other is one for other in others)


def test_edge_dropout_with_rate_0_is_the_graph(full):
    (graph,) = edge_dropout(0.0)[0].edges(KEY, full, 1)
    np.testing.assert_allclose(graph.adjacency.matrix.weights, full.adjacency.matrix.weights, rtol=1e-6)


def test_node_dropout_leaves_out_all_interactions_of_a_node(full):
    views = [kept_pairs(view, full, 2)[1] for view in node_dropout(0.4)]
    for kept in views:
        users, items = kept.any(axis=1), kept.any(axis=0)
        np.testing.assert_array_equal(kept, users[:, None] & items[None, :])
        assert 20 < users.sum() < 52
        assert 15 < items.sum() < 44
    assert (views[0] != views[1]).any()


def test_noise_has_its_length_and_stays_in_the_orthant():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(100, 64)), jnp.float32)
    first, second = (view.layer(KEY, Site(1, "id", "users"), x) - x for view in embedding_noise(0.1))
    for noise in (first, second):
        np.testing.assert_allclose(jnp.linalg.norm(noise, axis=1), 0.1, rtol=1e-4)
        assert np.all(np.asarray(noise) * np.sign(x) >= -1e-7)
    assert np.abs(np.asarray(first - second)).mean() > 0.001
    still = embedding_noise(0.0)[0].layer(KEY, Site(1, "id", "users"), x)
    np.testing.assert_array_equal(still, x)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: feature_dropout(1.0), r"rate is 1\.0, of type float: give a share"),
        (lambda: edge_dropout(-0.5), r"rate is -0\.5"),
        (lambda: node_dropout(30.0), r"rate is 30\.0"),
        (lambda: feature_masking()[0].modality(KEY, ("id",)), "needs two item"),
        (lambda: feature_masking("clean", "item")[0].inputs(KEY, {"id": jnp.ones((3, 2))}), "needs two item"),
    ],
)
def test_values_are_checked(make, said):
    """Types are in test_boundary.py, since annotations are checked here."""
    with pytest.raises(UserError, match=said):
        make()
