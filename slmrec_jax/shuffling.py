"""Cheap randomness: a hash of 32-bit words, and permutations computed from it, number by number, without sorting."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key, UInt32

ROUNDS = 8
"""Of the permutation; four are enough against anyone who sees some of its numbers (Luby and Rackoff, 1988)."""


def scramble(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """MurmurHash3's finaliser (Appleby, 2011): a bijection of words in which each bit hangs on all."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def permutation(key: Key[Array, ""], count: int) -> Int[Array, " count"]:
    """The numbers 0..count-1 in a random order that is a function of the key.

    A Feistel network on a rectangle that has hardly more places than there are numbers: in turn, rows move by what a
    hash says of their column, and columns by what it says of their row, which can be undone and hence is a bijection.
    Who lands on a place beyond the numbers moves on until it does not (cycle walking; Black and Rogaway, 2002). Sorting
    by random words, as `jax.random.permutation` does, takes ten times as long on a CPU. Of a handful of numbers every
    place is as likely as another, but not every order: of nine, say, even permutations alone are drawn.

    Args:
        key: of any kind.
        count: at least 1 and below 2^31.
    """
    columns = math.isqrt(count - 1) + 1
    rows = -(-count // columns)
    words = jax.random.bits(key, (ROUNDS,), jnp.uint32)

    def move(x: Array) -> Array:
        row, column = x // columns, x % columns
        for turn in range(0, ROUNDS, 2):
            row = _moved(row, column ^ words[turn], rows)
            column = _moved(column, row ^ words[turn + 1], columns)
        return row * columns + column

    def move_on(x: Array) -> Array:
        return jnp.where(x < count, x, move(x))

    start = move(jnp.arange(count, dtype=jnp.uint32))
    return jax.lax.while_loop(lambda x: jnp.any(x >= count), move_on, start).astype(jnp.int32)


def _moved(place: Array, word: Array, size: int) -> Array:
    """(place + hash) mod size, for sizes below 2^16: without a division, which no processor does with vectors."""
    moved = place + ((scramble(word) >> 16) * size >> 16)
    return jnp.where(moved < size, moved, moved - size)
