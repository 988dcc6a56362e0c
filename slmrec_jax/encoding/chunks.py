"""Segment sums in a fixed order, with gathers of fixed width: the sparse product on accelerators.

A segment is a run of consecutive entries, such as a row of a sparse matrix. Its first `DIRECT` entries are summed at
once, and the others in chunks of `CHUNK` entries. The chunk sums of a segment form a new segment, which is summed in
the same way. On a GPU, a gather of fixed width and its sum are one kernel without atomic additions. Slots beyond the
end of a segment read its last entry again, which is in cache.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Optional

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from slmrec_jax.devices import platform

DIRECT = 8
"""The number of entries of each segment that are summed at once. In recommendation graphs, half of the rows have
fewer."""

CHUNK = 32
"""The number of entries of a chunk. A row of ten thousand entries takes two rounds of chunks."""

TPU_SLOTS = 2**15
"""The number of rows read at a time on TPUs, whose compiler writes them to memory. A GPU adds them in registers."""

FEW_PAIRS = 2**22
"""The number of pairs up to which all pairs are compared at once. Above it, values are sorted."""

RoundSizes = Sequence[tuple[int, int]]
"""For each round, the number of long segments and the number of their chunks."""


class Chunks(NamedTuple):
    """The entries of long segments beyond the first `DIRECT`. The arrays may be longer than needed."""

    place: Int[Array, " segments"]
    """The index of each long segment among the long ones. Other segments have the index of the last place, which has no
    chunks."""
    starts: Int[Array, " chunks"]
    """The first entry of each chunk; `ends` has the entry after its last."""
    ends: Int[Array, " chunks"]
    offsets: Int[Array, " places_plus_one"]
    """The chunks of each long segment are those from `offsets[place]` up to `offsets[place + 1]`."""
    rest: Optional["Chunks"]
    """The chunks of the segments that the chunk sums form; `None` if no such segment is long."""


def chunk_sizes(lengths: Int[np.ndarray, " segments"]) -> RoundSizes:
    """Return the sizes needed for segments of the given lengths."""
    sizes = []
    while (long := lengths[lengths > DIRECT]).size:
        lengths = -(-(long - DIRECT) // CHUNK)
        sizes.append((len(long), int(lengths.sum())))
    return sizes


def largest_sizes(num_entries: int) -> RoundSizes:
    """Return sizes that suffice for any segments with `num_entries` entries in total."""
    sizes = []
    while (num_entries := num_entries // (DIRECT + 1)) > 0:
        sizes.append((num_entries, num_entries))
    return sizes


def make_chunks(offsets: Int[Array, " segments_plus_one"], sizes: RoundSizes) -> Chunks | None:
    """Divide segments into chunks. The function can be traced; the output shapes depend only on `sizes`.

    Args:
        offsets: Segment s consists of the entries from `offsets[s]` up to `offsets[s + 1]`.
        sizes: The result of `chunk_sizes` or `largest_sizes`.
    """
    if not sizes:
        return None
    (num_long, num_chunks), *others = sizes
    starts, ends = offsets[:-1], offsets[1:]
    long = ends - starts > DIRECT
    places = jnp.cumsum(long)
    # The last place represents all short segments. Unused places have no chunks either.
    place = jnp.arange(num_long + 1)
    used = (place < num_long) & (place < places[-1])
    which = jnp.where(used, _first_at_least(places, place + 1), 0)
    begins = jnp.where(used, starts[which] + DIRECT, 0)
    lengths = jnp.where(used, ends[which] - begins, 0)
    of_chunks = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(-(-lengths // CHUNK))])
    chunk = jnp.arange(num_chunks)
    owner = jnp.clip(_first_at_least(of_chunks, chunk + 1) - 1, 0, num_long)
    chunk_starts = begins[owner] + CHUNK * (chunk - of_chunks[owner])
    filled = chunk < of_chunks[-1]
    chunk_ends = jnp.minimum(chunk_starts + CHUNK, begins[owner] + lengths[owner])
    return Chunks(
        place=jnp.where(long, places - 1, num_long).astype(jnp.int32),
        starts=jnp.where(filled, chunk_starts, 0).astype(jnp.int32),
        ends=jnp.where(filled, chunk_ends, 0).astype(jnp.int32),
        offsets=of_chunks.astype(jnp.int32),
        rest=make_chunks(of_chunks, others),
    )


def _first_at_least(ascending: Int[Array, " places"], values: Int[Array, " values"]) -> Int[Array, " values"]:
    """Return the index of the first element that is at least each value. The values are ascending, too.

    A binary search would be a loop of small kernels, and JAX's search by sorting uses a scatter.
    """
    if len(ascending) * len(values) <= FEW_PAIRS:
        return jnp.searchsorted(ascending, values, method="compare_all").astype(jnp.int32)
    # In the merged order, with a value before equal elements, the position of a value is its index plus the number of
    # values before it.
    order = jnp.argsort(jnp.concatenate([values, ascending]), stable=True)
    return (jnp.argsort(order)[: len(values)] - jnp.arange(len(values))).astype(jnp.int32)


def slots_at_a_time() -> int | None:
    """Return the number of rows that the platform reads at a time in `segment_sums`; `None` means all."""
    return TPU_SLOTS if platform() == "tpu" else None


def segment_sums(
    offsets: Int[Array, " segments_plus_one"],
    chunks: Chunks | None,
    read: Callable[[Array], Array],
    slots: int | None = None,
) -> Float[Array, "segments dim"]:
    """Return the sum of each segment's entries.

    Args:
        offsets: See `make_chunks`.
        chunks: The result of `make_chunks` for these offsets.
        read: Returns the rows of the given entries, an array of any shape.
        slots: The number of rows to read at a time (`slots_at_a_time`).
    """
    direct = _sums(offsets[:-1], offsets[1:], DIRECT, read, slots)
    if chunks is None:
        return direct
    of_chunks = _sums(chunks.starts, chunks.ends, CHUNK, read, slots)
    return direct + segment_sums(chunks.offsets, chunks.rest, lambda entries: of_chunks[entries], slots)[chunks.place]


def _sums(
    starts: Int[Array, " segments"],
    ends: Int[Array, " segments"],
    width: int,
    read: Callable[[Array], Array],
    slots: int | None,
) -> Float[Array, "segments dim"]:
    """Sum at most `width` entries from each start."""

    def block(bounds: tuple[Array, Array]) -> Array:
        starts, ends = bounds
        entries = starts[:, None] + jnp.arange(width)[None, :]
        rows = read(jnp.clip(entries, 0, jnp.maximum(ends[:, None] - 1, 0)))
        # Rows that must not be added may hold any values, even NaN.
        return jnp.sum(jnp.where((entries < ends[:, None])[..., None], rows, 0), axis=1)

    count, block_rows = starts.shape[0], max(1, (slots or 0) // width)
    if slots is None or count <= block_rows:
        return block((starts, ends))
    num_blocks = -(-count // block_rows)
    padding = (0, num_blocks * block_rows - count)
    bounds = tuple(jnp.pad(of, padding).reshape(num_blocks, block_rows) for of in (starts, ends))
    sums: Array = jax.lax.map(block, bounds)
    return sums.reshape(-1, sums.shape[-1])[:count]
