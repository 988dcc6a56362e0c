"""Rankings by chunks and blocks, against a plain float64 definition."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from slmrec_jax.devices import Target, compiling_for
from slmrec_jax.errors import UserError
from slmrec_jax.evaluation import ranking, scoring, search, tiles
from slmrec_jax.evaluation.ranking import WAYS, plan_ranking
from slmrec_jax.evaluation.search import by_numpy, by_xla
from slmrec_jax.top_k import Scored, block_width
from slmrec_jax.types import Embeddings, Interactions

NOTHING = Interactions(np.empty(0, np.int32), np.empty(0, np.int32))


def rank(plan, embeddings):
    """Rank in every way, and check that all agree, in scores to the rounding of sums."""
    found = {name: ranking.rank(plan, embeddings, name) for name in WAYS}
    for other in found.values():
        np.testing.assert_array_equal(other.items, found["device"].items)
        np.testing.assert_allclose(other.scores, found["device"].scores, rtol=1e-6)
    return found["host"]


def small_integers(num_users, num_items, dim=3, seed=0):
    """Embeddings whose scores are exact in any order of summation, and tie often."""
    draw = np.random.default_rng(seed)
    return Embeddings(*(draw.integers(-2, 3, (rows, dim)).astype(np.float32) for rows in (num_users, num_items)))


def some_pairs(num_users, num_items, share, seed=1):
    """Each pair with probability `share`, in random order."""
    draw = np.random.default_rng(seed)
    pairs = draw.permutation(np.argwhere(draw.random((num_users, num_items)) < share)).astype(np.int32)
    return Interactions(pairs[:, 0], pairs[:, 1])


def as_set(*known):
    return {(int(user), int(item)) for pairs in known for user, item in zip(*pairs, strict=True)}


def ids(count):
    return np.arange(count, dtype=np.int32)


@settings(max_examples=8, derandomize=True, deadline=None)
@given(
    num_users=st.integers(1, 9),
    num_items=st.integers(1, 12),
    dim=st.sampled_from([1, 4]),
    k=st.integers(1, 12),
    share=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    chunk_users=st.integers(1, 9),
    precision=st.sampled_from(["float32", "bfloat16"]),
    seed=st.integers(0, 99),
)
def test_equals_the_definition_ties_included(num_users, num_items, dim, k, share, chunk_users, precision, seed):
    k = min(k, num_items)
    table = small_integers(num_users, num_items, dim, seed)
    known = [some_pairs(num_users, num_items, share, seed), some_pairs(num_users, num_items, 0.1, seed + 1)]
    max_bytes = 4 * num_items * chunk_users
    plan = plan_ranking(ids(num_users), known, num_items, k, precision=precision, max_bytes=max_bytes)
    expected = reference.ranking(*table, range(num_users), as_set(*known), k)
    ranked = rank(plan, table)
    assert ranked.items.dtype == np.int32
    np.testing.assert_array_equal(ranked.items, expected)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_equals_the_definition_on_real_values_and_returns_the_scores(precision):
    draw = np.random.default_rng(3)
    table = Embeddings(*(draw.normal(size=(rows, 16)).astype(np.float32) for rows in (40, 300)))
    known = some_pairs(40, 300, 0.05)
    ranked = rank(plan_ranking(ids(40), [known], 300, 20, precision=precision), table)
    np.testing.assert_array_equal(ranked.items, reference.ranking(*table, range(40), as_set(known), 20))
    expected = np.take_along_axis(table.users @ table.items.T, ranked.items, axis=1)
    np.testing.assert_allclose(ranked.scores, expected, rtol=1e-5, atol=1e-5)


def test_saturated_sigmoids_tie():
    scores = np.array([[10, 20, 40, 17, 18, 16, -20, 0]], np.float32)
    table = Embeddings(np.ones((1, 1), np.float32), scores.T)
    by_sigmoid = rank(plan_ranking(ids(1), [], 8, 8, score="sigmoid"), table)
    assert by_sigmoid.items.tolist() == [[1, 2, 3, 4, 5, 0, 7, 6]]
    np.testing.assert_array_equal(by_sigmoid.items, reference.ranking(*table, [0], [], 8, sigmoid=True))
    assert rank(plan_ranking(ids(1), [], 8, 8), table).items.tolist() == [[2, 1, 4, 3, 5, 0, 7, 6]]


def test_what_bfloat16_finds_is_ranked_by_float32():
    """Items that it cannot tell apart, of which it finds the first."""
    scores = np.array([[1.0, 1.0 + 2**-10, 1.0 + 2**-9, 0.5, 1.5, 1.0 + 2**-11]], np.float32)
    table = Embeddings(np.ones((1, 1), np.float32), scores.T)
    plan = plan_ranking(ids(1), [], 6, 2, precision="bfloat16")
    assert plan.chunk.k == 6
    assert rank(plan, table).items.tolist() == [[4, 2]]
    rounded = ranking.factors(plan, Embeddings(*map(jnp.asarray, table)))
    assert ranking.WAYS["device"](plan, rounded)[0].tolist() == [[4, 0, 1, 2, 5, 3]]


@pytest.mark.parametrize(("num_items", "k"), [(300, 3), (300, 5), (20, 10)])
def test_equal_items_tie_when_they_are_ranked_again(num_items, k):
    """The sums of some places, such as the last ones of a vector, could be rounded otherwise."""
    draw = np.random.default_rng(0)
    users, item = draw.normal(size=(40, 64)).astype(np.float32), draw.normal(size=(1, 64)).astype(np.float32)
    table = Embeddings(users, np.repeat(item, num_items, axis=0))
    ranked = rank(plan_ranking(ids(40), [], num_items, k, precision="bfloat16"), table)
    np.testing.assert_array_equal(ranked.items, np.tile(ids(k), (40, 1)))


def test_sigmoids_are_not_ranked_in_bfloat16():
    with pytest.raises(UserError, match=r"eval\.precision='bfloat16' ranks inner products: .*eval\.score='sigmoid'"):
        plan_ranking(ids(1), [], 6, 2, precision="bfloat16", score="sigmoid")


def test_negative_zero_ties_with_zero():
    table = Embeddings(np.zeros((1, 1), np.float32), np.array([[-1], [1], [-1], [1]], np.float32))
    assert rank(plan_ranking(ids(1), [], 4, 4), table).items.tolist() == [[0, 1, 2, 3]]


def test_negative_scores_and_both_zeros_are_in_order():
    scores = np.array([[-0.0, -3.0, 0.0, 2.0, -1.0, 0.0, -0.0, 5.0]], np.float32).repeat(2, axis=0)
    for width in (1, 2):
        scored = Scored(jnp.asarray(scores), jnp.asarray(scores.reshape(2, -1, width).max(axis=2)))
        for find in (by_numpy, by_xla):
            columns, _ = find(scored, 4)
            assert columns.tolist() == [[7, 3, 0, 2]] * 2


def test_a_user_who_knows_every_item_gets_none():
    table = small_integers(3, 5)
    known = Interactions(np.repeat(np.int32(1), 5), ids(5))
    ranked = rank(plan_ranking(ids(3), [known], 5, 4), table)
    assert ranked.items[1].tolist() == [-1] * 4
    assert ranked.scores[1].tolist() == [-np.inf] * 4
    np.testing.assert_array_equal(ranked.items, reference.ranking(*table, range(3), as_set(known), 4))


def test_nothing_known():
    table = small_integers(4, 7)
    expected = reference.ranking(*table, range(4), [], 7)
    for known in ([], [NOTHING]):
        np.testing.assert_array_equal(rank(plan_ranking(ids(4), known, 7, 7), table).items, expected)


def test_one_user_one_item():
    table = small_integers(1, 1)
    assert rank(plan_ranking(ids(1), [], 1, 1), table).items.tolist() == [[0]]
    assert rank(plan_ranking(ids(1), [Interactions(ids(1), ids(1))], 1, 1), table).items.tolist() == [[-1]]


def test_results_have_the_order_of_the_users():
    table = small_integers(6, 9)
    known = some_pairs(6, 9, 0.4)
    asked = np.array([5, 0, 0, 3], np.int32)
    ranked = rank(plan_ranking(asked, [known], 9, 9, max_bytes=3 * 4 * 9), table)
    np.testing.assert_array_equal(ranked.items, reference.ranking(*table, asked.tolist(), as_set(known), 9))


def test_an_empty_list_of_users():
    assert rank(plan_ranking(ids(0), [some_pairs(3, 4, 0.5)], 4, 2), small_integers(3, 4)).items.shape == (0, 2)


@pytest.mark.parametrize("chunk_users", [1, 2, 4, 5, 11, 100])
def test_chunks_change_nothing(chunk_users):
    table = small_integers(11, 30)
    known = some_pairs(11, 30, 0.3)
    whole = rank(plan_ranking(ids(11), [known], 30, 10), table)
    chunked = rank(plan_ranking(ids(11), [known], 30, 10, max_bytes=4 * 30 * chunk_users), table)
    np.testing.assert_array_equal(chunked.items, whole.items)
    np.testing.assert_array_equal(chunked.scores, whole.scores)


def test_one_program_of_each_way_serves_all_chunks_and_epochs(monkeypatch):
    traces = []
    scores = scoring._scores
    monkeypatch.setattr(scoring, "_scores", lambda *args: traces.append(1) or scores(*args))
    plan = plan_ranking(ids(23), [some_pairs(23, 37, 0.2)], 37, 5, max_bytes=4 * 37 * 4)
    assert len(plan.first_pairs) == 6  # the last one padded
    for epoch in range(3):
        rank(plan, small_integers(23, 37, dim=5, seed=epoch))
        assert len(traces) == len(WAYS)


@pytest.mark.parametrize(("score", "blocks"), [("dot", 1), ("sigmoid", 2)])
def test_memory_stays_under_the_bound(score, blocks):
    bound = 2**19
    plan = plan_ranking(ids(500), [some_pairs(500, 2000, 0.01)], 2000, 10, score=score, max_bytes=bound)
    rows, width = plan.tiles.chunks * plan.chunk.rows, plan.chunk.width
    assert plan.tiles.columns == 2000
    table = jax.tree.map(jnp.asarray, small_integers(500, 2000, dim=8))
    buffer = jnp.empty((rows, 2000))
    scored = tiles.score_into.lower(
        buffer, table.users, table.items.T, plan.queries, np.int32(0), plan.first_pairs[0], np.int32(0), plan.chunk
    ).compile()
    searched = search._compiled_top_k.lower(Scored(buffer, jnp.empty((rows, 2000 // width))), 10).compile()
    assert rows > 1
    assert buffer.nbytes <= bound
    assert scored.memory_analysis().alias_size_in_bytes == buffer.nbytes  # the scores overwrite the buffer
    assert buffer.nbytes + scored.memory_analysis().temp_size_in_bytes <= 1.1 * blocks * bound
    assert searched.memory_analysis().temp_size_in_bytes <= bound / 4


@pytest.mark.parametrize(("k", "spread"), [(20, 1000), (20, 1), (100, 1000), (400, 1000), (2000, 1000)])
def test_the_search_on_the_host_takes_little_beside_the_scores(k, spread):
    width = block_width(2000, k)
    scores = np.random.default_rng(0).integers(0, spread, (300, 2000)).astype(np.float32)
    scored = Scored(jnp.asarray(scores), jnp.asarray(scores.reshape(300, -1, width).max(axis=2)))
    search.by_numpy(scored, k)  # warm up: later calls neither load nor compile
    tracemalloc.start()
    found = search.by_numpy(scored, k)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most <= 0.5 * scores.nbytes + sum(array.nbytes for array in found)


def test_the_platform_selects_the_way(monkeypatch):
    ways = []
    for name in WAYS:
        monkeypatch.setitem(
            WAYS, name, lambda *arguments, name=name, way=WAYS[name]: ways.append(name) or way(*arguments)
        )
    for backend in ("cpu", "gpu"):
        with compiling_for(backend):
            ranking.rank(plan_ranking(ids(2), [], 5, 2), small_integers(2, 5))
    assert ways == ["host", "device"]


def test_chunks_are_sized_by_the_memory_of_the_device():
    known = [some_pairs(64, 500, 0.02)]
    with compiling_for(Target("gpu", memory_bytes=ranking.CHUNK_SHARE * 500 * 4 * 20)):
        plan = plan_ranking(ids(64), known, 500, 5)
    assert plan.chunk.rows == 16  # four chunks of at most 20 users
    with compiling_for("gpu"):
        assert plan_ranking(ids(64), known, 500, 5).chunk.rows == 64
    table = small_integers(64, 500)
    np.testing.assert_array_equal(
        ranking.rank(plan, table, "device").items, reference.ranking(*table, range(64), as_set(*known), 5)
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("side", ["users", "items"])
def test_refuses_scores_without_order(value, side):
    table = small_integers(4, 6)
    getattr(table, side)[2, 1] = value
    if value == 1e30:  # finite, yet its products are not
        table.users[0] = table.items[0] = value
    with pytest.raises(UserError, match="NaN"):
        rank(plan_ranking(ids(4), [], 6, 2), table)


@pytest.mark.parametrize("k", [0, 7])
def test_refuses_k_outside_the_items(k):
    with pytest.raises(UserError, match=f"k is {k}: give 1 to 6, the number of items to rank"):
        plan_ranking(ids(4), [], 6, k)


def test_refuses_another_table_of_items():
    with pytest.raises(ValueError, match="ranks 5 items"):
        rank(plan_ranking(ids(4), [], 5, 2), small_integers(4, 6))


@pytest.mark.parametrize(("num_columns", "k"), [(64, 1), (64, 3), (96, 5), (640, 20), (640, 50), (60, 60)])
@pytest.mark.parametrize("spread", [1, 3, 1000])
def test_the_best_of_blocks_are_the_best_of_all_ties_included(num_columns, k, spread):
    rng = np.random.default_rng(num_columns + k + spread)
    scores = rng.integers(0, spread, (37, num_columns)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.3] = -np.inf
    scores[3] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(scores, order, axis=1)
    for width in (1, 2, 4):
        if num_columns // width < k:
            continue
        scored = Scored(jnp.asarray(scores), jnp.asarray(scores.reshape(37, -1, width).max(axis=2)))
        for find in (by_numpy, by_xla):
            columns, found = find(scored, k)
            np.testing.assert_array_equal(columns, np.where(best == -np.inf, -1, order))
            np.testing.assert_array_equal(found, best)


@pytest.mark.parametrize("width", [search.NARROW, 2 * search.NARROW])
@pytest.mark.parametrize(("spread", "k"), [(1000, 1), (1000, 5), (50, 5), (50, 20)])
def test_the_search_on_the_host_is_the_definition_ties_included(width, spread, k, monkeypatch):
    """The host search runs itself and does not hand over to XLA."""
    monkeypatch.setattr(search, "by_xla", None)  # a call to it would fail
    rng = np.random.default_rng(width + spread + k)
    scores = rng.integers(-spread // 2, spread // 2, (37, 40 * width)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.3] = -np.inf
    scores[3], scores[4, 2:] = -np.inf, -np.inf  # users with fewer than k candidates
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(scores, order, axis=1)
    assert spread == 1000 or np.any(best[:, 1:] == best[:, :-1])  # there are ties among the best
    scored = Scored(jnp.asarray(scores), jnp.asarray(scores.reshape(37, -1, width).max(axis=2)))
    columns, found = search.by_numpy(scored, k)
    np.testing.assert_array_equal(columns, np.where(best == -np.inf, -1, order))
    np.testing.assert_array_equal(found, best)


@pytest.mark.parametrize(("width", "spread"), [(search.NARROW // 2, 1000), (search.NARROW, 1)])
def test_the_search_on_the_host_hands_over_narrow_blocks_and_many_ties(width, spread, monkeypatch):
    handed = []
    monkeypatch.setattr(search, "by_xla", lambda scored, k, find=search.by_xla: handed.append(k) or find(scored, k))
    scores = np.random.default_rng(0).integers(0, spread, (7, 40 * width)).astype(np.float32)
    search.by_numpy(Scored(jnp.asarray(scores), jnp.asarray(scores.reshape(7, -1, width).max(axis=2))), 5)
    assert handed == [5]


def test_large_catalogues_are_ranked_by_blocks():
    rng = np.random.default_rng(0)
    users, items = rng.integers(-2, 3, (30, 3)).astype(np.float32), rng.integers(-2, 3, (1003, 3)).astype(np.float32)
    known = Interactions(np.arange(30, dtype=np.int32), np.full(30, 1002, np.int32))
    plan = plan_ranking(np.arange(30), [known], 1003, 10)
    assert plan.chunk.width == 8
    found = rank(plan, Embeddings(users, items))
    scores = users @ items.T
    scores[:, 1002] = -np.inf
    np.testing.assert_array_equal(found.items, np.argsort(-scores, axis=1, kind="stable")[:, :10])


@pytest.mark.parametrize("k", [1, 5, 40, 203])
@pytest.mark.parametrize("order", ["mixed", "rising", "equal"])
@pytest.mark.parametrize("score", ["dot", "sigmoid"])
def test_tiles_of_items_change_nothing(k, order, score, monkeypatch):
    """Items that come in the order of their scores leave every candidate of a tile, and equal ones leave none."""
    monkeypatch.setattr(tiles, "LEAST_TILE_COLUMNS", 1)
    monkeypatch.setattr(tiles, "LEAST_COLUMNS_OF_K", 2)
    table = small_integers(30, 203)
    if order != "mixed":
        table.users[:, 1:] = 0
        table.users[:, 0] = 1
        table.items[:, 0] = np.arange(203) if order == "rising" else 0
    known = some_pairs(30, 203, 0.2)
    plan = plan_ranking(ids(30), [known], 203, k, score=score, max_bytes=4 * 203 * 2)
    assert plan.tiles.columns < 203 or k == 203
    expected = reference.ranking(*table, range(30), as_set(known), k, sigmoid=score == "sigmoid")
    np.testing.assert_array_equal(rank(plan, table).items, expected)


@pytest.mark.parametrize("dim", [3, 17, 64])
def test_equal_items_in_different_tiles_tie(dim, monkeypatch):
    monkeypatch.setattr(tiles, "LEAST_TILE_COLUMNS", 64)
    monkeypatch.setattr(tiles, "LEAST_COLUMNS_OF_K", 1)
    draw = np.random.default_rng(dim)
    items = np.tile(draw.normal(size=(37, dim)), (60, 1)).astype(np.float32)
    users = draw.normal(size=(100, dim)).astype(np.float32)
    plan = plan_ranking(ids(100), [], len(items), 60, max_bytes=4 * 4 * len(items))
    assert plan.tiles.columns < len(items) / 10
    found = ranking.rank(plan, Embeddings(users, items), "host")
    best = np.argmax(users @ items[:37].T, axis=1)
    np.testing.assert_array_equal(found.items, best[:, None] + 37 * np.arange(60))
    assert (found.scores == found.scores[:, :1]).all()


def test_few_columns_and_many_pairs_are_divided_among_tiles(monkeypatch):
    monkeypatch.setattr(tiles, "LEAST_TILE_COLUMNS", 8)
    monkeypatch.setattr(tiles, "LEAST_COLUMNS_OF_K", 2)
    known = Interactions(np.repeat(ids(6), 100), np.tile(ids(100), 6))  # all items, so that every tile is empty
    plan = plan_ranking(ids(6), [known], 100, 3, max_bytes=4 * 100)
    assert len(plan.first_pairs) > plan.tiles.chunks or plan.tiles.columns < 100
    assert (rank(plan, small_integers(6, 100)).items == -1).all()


@pytest.mark.parametrize(("num_users", "num_items", "k"), [(36_638, 71_494, 50), (1000, 1_000_000, 50), (3, 10**7, 20)])
def test_tiles_have_the_bound_of_a_chunk(num_users, num_items, k):
    bound = ranking.MAX_CHUNK_BYTES
    rows = max(1, min(bound // (4 * num_items), num_users))
    num_chunks = -(-num_users // rows)
    chunks, columns = tiles.divide_chunks(num_chunks, rows, num_items, k, bound)
    assert 4 * rows * chunks * columns <= 1.01 * bound or chunks == 1
    assert chunks * rows <= max(tiles.TILE_ROWS, rows)
    assert columns >= min(num_items, tiles.LEAST_TILE_COLUMNS)


def test_an_exception_in_a_chunk_is_raised(monkeypatch):
    plan = plan_ranking(ids(12), [NOTHING], 9, 3, max_bytes=4 * 9 * 2)
    calls = []

    def third_fails(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise MemoryError("of a chunk")
        return original(*arguments)

    original = tiles.score_into
    monkeypatch.setattr(tiles, "score_into", third_fails)
    with pytest.raises(MemoryError, match="of a chunk"):
        rank(plan, small_integers(12, 9))
