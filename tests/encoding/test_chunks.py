"""Sums of segments by chunks of fixed width are the sums of their entries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slmrec_jax.encoding import chunks
from slmrec_jax.encoding.chunks import CHUNK, DIRECT, chunk_sizes, largest_sizes, make_chunks, segment_sums

LENGTHS = {
    "short": [0, 1, DIRECT - 1, DIRECT, 0],
    "one more than is summed at once": [0, DIRECT + 1, 0, 3],
    "full chunks": [DIRECT + CHUNK, 1, DIRECT + 2 * CHUNK],
    "one more than a chunk": [2, DIRECT + CHUNK + 1, 0, DIRECT + CHUNK - 1],
    "two rounds": [DIRECT * CHUNK + DIRECT + 1, 5, 0, 700],
    "three rounds": [1, DIRECT + CHUNK * (DIRECT + CHUNK * DIRECT) + 7, 90],
    "one": [1],
    "none": [0, 0, 0],
}


@pytest.fixture(params=LENGTHS)
def lengths(request):
    return np.array(LENGTHS[request.param])


def offsets_of(lengths):
    return jnp.asarray(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def sums_of(lengths, rows, sizes, slots=None):
    offsets = offsets_of(lengths)

    @jax.jit
    def sums(offsets, rows):
        return segment_sums(offsets, make_chunks(offsets, sizes), lambda entries: rows[entries], slots)

    return sums(offsets, rows)


@pytest.mark.parametrize("slots", [None, 64])
@pytest.mark.parametrize("exact", [True, False])
def test_sums_are_those_of_the_entries(lengths, exact, slots):
    """Whole numbers, whose sums are exact in any order."""
    total = int(lengths.sum())
    rows = np.random.default_rng(0).integers(-9, 9, (total + 1, 3)).astype(np.float32)
    rows[total] = np.nan  # never read into a sum
    expected = np.stack([part.sum(axis=0) for part in np.split(rows[:total], np.cumsum(lengths))[: len(lengths)]])
    found = sums_of(lengths, jnp.asarray(rows), chunk_sizes(lengths) if exact else largest_sizes(total), slots)
    np.testing.assert_array_equal(found, expected)


def test_sizes_of_lengths_are_exact_and_never_above_the_largest(lengths):
    exact, largest = chunk_sizes(lengths), largest_sizes(int(lengths.sum()))
    assert len(exact) <= len(largest)
    for own, limit in zip(exact, largest, strict=False):
        assert own <= limit
    if exact:
        num_long, num_chunks = exact[0]
        rest = lengths[lengths > DIRECT] - DIRECT
        assert (num_long, num_chunks) == (len(rest), sum(-(-each // CHUNK) for each in rest))


def test_a_search_in_a_loop_finds_what_comparing_finds(lengths, monkeypatch):
    rows = jnp.asarray(np.random.default_rng(1).normal(size=(int(lengths.sum()) + 1, 2)).astype(np.float32))
    compared = sums_of(lengths, rows, chunk_sizes(lengths))
    monkeypatch.setattr(chunks, "FEW_PAIRS", 0)
    np.testing.assert_array_equal(sums_of(lengths, rows, chunk_sizes(lengths)), compared)


def test_few_kernels_whatever_the_lengths():
    """The number of gathers grows with the number of rounds alone."""
    lengths = np.arange(200)
    rows = np.zeros((lengths.sum(), 2), np.float32)
    made = jax.eval_shape(lambda offsets: make_chunks(offsets, chunk_sizes(lengths)), offsets_of(lengths))
    traced = jax.make_jaxpr(lambda offsets, made, rows: segment_sums(offsets, made, lambda entries: rows[entries]))(
        offsets_of(lengths), made, rows
    )
    assert str(traced).count("gather[") <= 5
    assert "scatter" not in str(traced)


@pytest.mark.parametrize("name", ["one more than is summed at once", "two rounds"])
def test_many_segments_are_divided_as_few_are_and_without_a_scatter_or_a_loop(name, monkeypatch):
    lengths = np.array(LENGTHS[name])
    offsets = offsets_of(lengths)
    sizes = largest_sizes(int(lengths.sum()))
    few = jax.jit(lambda offsets: make_chunks(offsets, sizes))(offsets)
    monkeypatch.setattr(chunks, "FEW_PAIRS", 0)
    program = jax.jit(lambda offsets: make_chunks(offsets, sizes)).lower(offsets)
    assert not {"scatter", "while"} & set(program.as_text().replace("stablehlo.", " ").replace('"', " ").split())
    for one, other in zip(jax.tree.leaves(program.compile()(offsets)), jax.tree.leaves(few), strict=True):
        np.testing.assert_array_equal(one, other)
