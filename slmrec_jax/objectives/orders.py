"""Random orders for a pass: a permutation stored as an array, and one whose entries are computed on demand."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key, UInt32

from slmrec_jax.devices import on_cpu

ROUNDS = 6
"""The number of rounds of `permuted_places`. Each is two Feistel rounds; Luby and Rackoff (1988) require four Feistel
rounds."""

NUM_WORDS = 2 * ROUNDS
"""The number of random words that one permutation needs."""


def permutation(key: Key[Array, ""], count: int) -> Int[Array, " count"]:
    """Permute 0..count-1 with the same result as `jax.random.permutation`, in a third of the time on CPUs.

    The numbers are sorted by random words, in enough rounds that ties between words are unlikely to matter.
    """
    order = jnp.arange(count, dtype=jnp.int32)
    # XLA vectorises evenly divisible lengths. By default, a longer draw starts with the words of a shorter one.
    even = -(-count // 128) * 128
    for _ in range(math.ceil(3 * math.log(count) / math.log(2**32 - 1))):
        key, words_key = jax.random.split(key)
        order = order[stable_argsort(jax.random.bits(words_key, (even,))[:count])]
    return order


def stable_argsort(words: UInt32[Array, " count"]) -> Int[Array, " count"]:
    """Return the indices that sort words stably, like `jnp.argsort` but faster on CPUs.

    XLA's CPU backend sorts plain words several times as fast as words with a payload. Each word is then looked up among
    the sorted words. Equal words find the same place: the lowest index keeps it, and the others move on by one place
    until each has its own. This takes one pass per repetition of a word, so repetitions should be few.
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
    """Apply a random permutation of 0..count-1 to the given places without storing the permutation.

    It is a Feistel network on numbers l · b + r with l < a and r < b, where a · b is slightly larger than `count`. In
    each round, a hash of r is added to l modulo a, then a hash of l is added to r modulo b. The network is applied
    again to results of `count` or more until they are smaller (Black and Rogaway, "Ciphers with Arbitrary Finite
    Domains", 2002), which takes one or two more passes.

    Args:
        words: `NUM_WORDS` random words, which determine the permutation.
        places: Integers from 0 to `count` - 1.
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
    """Apply the finaliser of MurmurHash3 (Appleby, 2011): a bijection where each output bit depends on all bits."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
