import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slmrec_jax.shuffling import permutation


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 9, 64, 65, 1000, 59_541])
def test_every_number_stands_once(count):
    for seed in range(3):
        found = permutation(jax.random.key(seed), count)
        assert found.dtype == jnp.int32
        np.testing.assert_array_equal(np.sort(found), np.arange(count))


def test_it_is_a_function_of_the_key_and_many_at_a_time():
    keys = jax.random.split(jax.random.key(1), 4)
    together = jax.vmap(lambda key: permutation(key, 50))(keys)
    for key, of_key in zip(keys, together, strict=True):
        np.testing.assert_array_equal(permutation(key, 50), of_key)
    assert len({tuple(of_key.tolist()) for of_key in together}) == 4


@pytest.mark.parametrize("count", [12, 100])
def test_every_number_is_as_likely_at_every_place(count):
    keys = jax.random.split(jax.random.key(0), 200 * count)
    drawn = np.asarray(jax.vmap(lambda key: permutation(key, count))(keys))
    seen = np.zeros((count, count))
    np.add.at(seen, (np.broadcast_to(np.arange(count), drawn.shape), drawn), 1)
    statistic = ((seen - 200) ** 2 / 200).sum()
    freedom = (count - 1) ** 2
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)


def test_all_orders_of_few_numbers_are_drawn_alike():
    keys = jax.random.split(jax.random.key(2), 24 * 400)
    drawn = np.asarray(jax.vmap(lambda key: permutation(key, 4))(keys))
    counts = [np.all(drawn == order, axis=1).sum() for order in itertools.permutations(range(4))]
    assert min(counts) > 400 - 5 * np.sqrt(400)
    assert max(counts) < 400 + 5 * np.sqrt(400)


def test_neighbours_do_not_stay_together():
    drawn = np.asarray(permutation(jax.random.key(3), 100_000)).astype(np.int64)
    for step in (1, 2, 317):  # 317 columns
        apart = np.abs(drawn[step:] - drawn[:-step])
        assert abs(apart.mean() - 100_000 / 3) < 5 * 100_000 * np.sqrt(1 / 18) / np.sqrt(len(apart)) * 2
        assert (apart == step).sum() < 20
