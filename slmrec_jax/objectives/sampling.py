"""The interactions and negatives of each step, drawn on the device from keys."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree, UInt32

from slmrec_jax.config import Config
from slmrec_jax.devices import on_cpu
from slmrec_jax.encoding.graph import Graph, first_in_row

BatchRows: TypeAlias = tuple[Int[Array, "*batches batch"], Int[Array, "*batches batch"], Bool[Array, "*batches batch"]]
"""`(users, items, which rows are real)`."""


class Sizes(NamedTuple):
    """The number of interactions of a step."""

    batch: int
    """Rows of a batch, or of a micro-batch; there are fewer if there are fewer interactions."""
    micro_batches: int = 1
    """Batches in a step; with more than one, arrays of a step start with an axis of them."""

    def shape(self, rows: int) -> tuple[int, ...]:
        """Return the shape of a step's ids, given the rows of a batch."""
        return (rows,) if self.micro_batches == 1 else (self.micro_batches, rows)


def sizes_of(config: Config) -> Sizes:
    """Return the sizes of a config; `auto` micro-batches count as one until they are chosen."""
    chosen = config.micro_batches
    return Sizes(config.batch_size, 1 if chosen == "auto" else chosen)


class Sampling(NamedTuple):
    """A way for an epoch to visit the training interactions."""

    num_batches: Callable[[int, int], int]
    """`(interactions, batch size) -> batches of an epoch`."""
    order: Callable[[Key[Array, ""], Graph, Sizes], PyTree]
    """`(key, graph, sizes) -> drawn`: what an epoch draws at its start, with a leading axis of steps."""
    rows: Callable[[PyTree, Key[Array, ""], Graph, Sizes], BatchRows]
    """`(a step's part of drawn, its key, graph, sizes) -> rows`."""

    def num_steps(self, num_interactions: int, sizes: Sizes) -> int:
        """Return the number of steps of an epoch; the last may have fewer micro-batches."""
        return math.ceil(self.num_batches(num_interactions, sizes.batch) / sizes.micro_batches)


Draw: TypeAlias = Callable[
    [Int[Array, " batch"], Int[Array, " batch"], Key[Array, ""], int], Int[Array, "batch negatives"]
]
"""`(users, items, key, count) -> negatives`."""


def batches_of_interactions(num_interactions: int, batch_size: int) -> int:
    """Return the number of batches that hold every interaction once; the last may be short."""
    return math.ceil(num_interactions / batch_size)


def permuted(
    key: Key[Array, ""], graph: Graph, sizes: Sizes
) -> tuple[Int[Array, "steps *batches batch"], Bool[Array, "steps *batches batch"]]:
    """Divide all interactions, in random order, into steps; the last one is padded with rows that are not real."""
    num_interactions = graph.num_interactions
    shape = sizes.shape(min(sizes.batch, num_interactions))
    steps = math.ceil(num_interactions / math.prod(shape))
    place = jnp.arange(steps * math.prod(shape))
    rows = permutation(key, num_interactions)[place % num_interactions]
    return rows.reshape(steps, *shape), (place < num_interactions).reshape(steps, *shape)


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


def _permuted_rows(drawn: PyTree, key: Key[Array, ""], graph: Graph, sizes: Sizes) -> BatchRows:
    (users, items), (rows, real) = graph.interactions, drawn
    return users[rows], items[rows], real


def batches_of_users(num_interactions: int, batch_size: int) -> int:
    """Return the number of batches of distinct users in an epoch of the published MMSSL."""
    return num_interactions // batch_size + 1


def distinct_users(drawn: PyTree, key: Key[Array, ""], graph: Graph, sizes: Sizes) -> BatchRows:
    """Draw distinct users with training items, each equally likely, and one item for each, as MMSSL does.

    If there are fewer such users than rows, the remaining rows are not real. Each micro-batch draws its own.
    """
    if sizes.micro_batches > 1:
        keys = jax.random.split(key, sizes.micro_batches)
        each: BatchRows = jax.lax.map(lambda key: distinct_users(drawn, key, graph, Sizes(sizes.batch)), keys)
        return each
    user_key, item_key = jax.random.split(key)
    offsets = graph.adjacency.matrix.offsets
    degrees = jnp.diff(offsets)
    # Floats in [0, 1) sort like their bits, and before the words of users without items.
    numbers = jax.random.uniform(user_key, degrees.shape, jnp.float32).view(jnp.uint32)
    last = jnp.arange(len(degrees), dtype=jnp.uint32) + jnp.uint32(2**31)
    users = stable_argsort(jnp.where(degrees > 0, numbers, last))[: min(sizes.batch, graph.num_users)]
    rank = jax.random.randint(item_key, users.shape, 0, jnp.maximum(degrees[users], 1), jnp.int32)
    place = jnp.minimum(offsets[users] + rank, graph.num_interactions - 1)
    items = graph.adjacency.matrix.columns[place]
    return users, items, degrees[users] > 0


def _number_steps(key: Key[Array, ""], graph: Graph, sizes: Sizes) -> Int[Array, " steps"]:
    return jnp.arange(SAMPLINGS["users"].num_steps(graph.num_interactions, sizes))


SAMPLINGS: Mapping[str, Sampling] = {
    "interactions": Sampling(batches_of_interactions, permuted, _permuted_rows),
    "users": Sampling(batches_of_users, _number_steps, distinct_users),
}
"""By name; see `Method.sampling`."""


def uniform(graph: Graph) -> Draw:
    """Draw negatives uniformly from the items that a user has not interacted with.

    No draw is rejected: q is uniform over the user's I - n other items, and the q-th of these is q plus the number of
    the user's own items before it. A user who has interacted with every item gets the positive item, which contributes
    nothing to a pairwise loss.
    """
    own_items = graph.interactions[1]

    def draw(users: Array, items: Array, key: Key[Array, ""], count: int) -> Array:
        offsets = graph.adjacency.matrix.offsets
        start, end = offsets[users, None], offsets[users + 1, None]
        others = graph.num_items - (end - start)
        drawn = _places_below(others, key, count)
        position = first_in_row(graph, users[:, None], drawn + 1, lambda entry: own_items[entry] - (entry - start))
        return jnp.where(others > 0, drawn + position - start, items[:, None])

    return draw


def popular(graph: Graph) -> Draw:
    """Draw negatives in proportion to their training interactions from the items a user has not interacted with.

    Exact, in integers: item i occupies as much of a line as it has interactions, the user's own items are cut out, and
    a place is drawn on the rest. A user for whom nothing is left gets the positive item.
    """
    own_items = graph.interactions[1]
    degrees = jnp.diff(graph.adjacency.transposed.offsets)
    ends = jnp.cumsum(degrees)
    starts = ends - degrees
    # The length of own items before each entry of the graph. The sum may wrap around, but differences within a user's
    # row are at most the number of interactions, so they are right.
    cut = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(degrees[own_items])])

    def draw(users: Array, items: Array, key: Key[Array, ""], count: int) -> Array:
        offsets = graph.adjacency.matrix.offsets
        before, after = cut[offsets[users, None]], cut[offsets[users + 1, None]]
        left = ends[-1] - (after - before)
        drawn = _places_below(left, key, count)
        # Without own items, the line before the own item at an entry is as long as the item's start minus the cut.
        position = first_in_row(
            graph, users[:, None], drawn + 1, lambda entry: starts[own_items[entry]] - (cut[entry] - before)
        )
        found = jnp.searchsorted(ends, drawn + cut[position] - before, side="right").astype(jnp.int32)
        return jnp.where(left > 0, found, items[:, None])

    return draw


def _places_below(limits: Int[Array, "batch 1"], key: Key[Array, ""], count: int) -> Int[Array, "batch count"]:
    """Draw `count` places from 0 to each limit; 0 where the limit is not positive."""
    shape = (limits.shape[0], count)
    return jax.random.randint(key, shape, 0, jnp.broadcast_to(jnp.maximum(limits, 1), shape), jnp.int32)


NEGATIVES: Mapping[str, Callable[[Graph], Draw]] = {"uniform": uniform, "popular": popular}
