"""Random orders of an epoch: a permutation as an array, and one whose places are computed when they are needed."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key, UInt32

from slmrec_jax.devices import on_cpu

ROUNDS = 6
"""Rounds of `permuted_places`. Each is two rounds of Feistel; Luby and Rackoff (1988) need four of these."""

NUM_WORDS = 2 * ROUNDS
"""The words that one permutation takes."""


def permutation(key: Key[Array, ""], count: int) -> Int[Array, " count"]:
    """Permute 0..count-1 like `jax.random.permutation`, to the same result, in a third of the time on CPUs.

    The numbers are sorted by random words, often enough that ties between words are unlikely to matter.
    """
    order = jnp.arange(count, dtype=jnp.int32)
    # XLA vectorises lengths that divide evenly; by default, the first words of a longer draw are those of a shorter.
    even = -(-count // 128) * 128
    for _ in range(math.ceil(3 * math.log(count) / math.log(2**32 - 1))):
        key, words_key = jax.random.split(key)
        order = order[stable_argsort(jax.random.bits(words_key, (even,))[:count])]
    return order


def stable_argsort(words: UInt32[Array, " count"]) -> Int[Array, " count"]:
    """Sort words stably and return indices, like `jnp.argsort` but faster on CPUs.

    XLA's CPU backend sorts words alone several times as fast as words with a payload. Each word is then looked up among
    the sorted ones. Equal words find the same place, which the lowest index keeps; the others move on by one place
    until each has its own. This takes a pass for each repetition of a word, so repetitions should be few.
    """
    if not on_cpu():
        return jnp.argsort(words).astype(jnp.int32)
    count = words.shape[0]
    index = jnp.arange(count, dtype=jnp.int32)

    def keepers(places: Array) -> Array:
        return jnp.full(count, count, jnp.int32).at[places].min(index)

    def move_on(found: tuple[Array, Array]) -> tuple[Array, Array]:
        places, kept = found
        places = jnp.where(kept[places] == index, places, places + 1)
        return places, keepers(places)

    first = jnp.searchsorted(jnp.sort(words), words).astype(jnp.int32)
    _, kept = jax.lax.while_loop(lambda found: jnp.any(found[1] == count), move_on, (first, keepers(first)))
    return kept


def permuted_places(words: UInt32[Array, " words"], places: Int[Array, "..."], count: int) -> Int[Array, "..."]:
    """Return where a random permutation of 0..count-1 puts each of these places, without an array of that size.

    A Feistel network on numbers l · b + r with l < a and r < b, where a b is hardly more than `count`: in each round l
    moves by a hash of r, around in a circle, then r by a hash of l. A place beyond `count` moves on until it is below
    (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002), which takes another pass or two.

    Args:
        words: `NUM_WORDS` random words, which determine the permutation.
        places: From 0 to `count` - 1.
        count: At most 2^30.
    """
    a = math.isqrt(count - 1) + 1
    b = -(-count // a)

    def moved(x: Array, limit: int, by: Array, word: Array) -> Array:
        step: Array = scramble(scramble(by ^ word) + word) % jnp.uint32(limit)
        return jnp.remainder(x + step, jnp.uint32(limit))

    def permute(places: Array) -> Array:
        left, right = places // jnp.uint32(b), places % jnp.uint32(b)
        for number in range(ROUNDS):
            left = moved(left, a, right, words[2 * number])
            right = moved(right, b, left, words[2 * number + 1])
        return jnp.add(left * jnp.uint32(b), right)

    def move_on(places: Array) -> Array:
        return jnp.where(places < count, places, permute(places))

    first = permute(places.astype(jnp.uint32))
    found: Array = jax.lax.while_loop(lambda places: jnp.any(places >= count), move_on, first)
    return found.astype(jnp.int32)


def scramble(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """Apply the finaliser of MurmurHash3 (Appleby, 2011): a bijection of words in which each bit depends on all."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
