"""The interactions and negatives of each step, drawn on the device from PRNG keys."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree, UInt32

from slmrec_jax.encoding.graph import Graph, first_in_row
from slmrec_jax.objectives.orders import NUM_WORDS, permutation, permuted_places, stable_argsort

LARGEST_ORDER = 2**22
"""The number of interactions up to which a pass's order is stored as one array. Above it, each step computes its own
part."""

BatchRows: TypeAlias = tuple[Int[Array, "*batches batch"], Int[Array, "*batches batch"], Bool[Array, "*batches batch"]]
"""`(users, items, mask)`, where the mask is true for real rows."""


class Sizes(NamedTuple):
    """The numbers that determine how many interactions a step has."""

    batch: int
    """The number of rows of a batch or micro-batch, or fewer if there are fewer interactions."""
    micro_batches: int = 1
    """The number of batches in a step. If it is more than one, the arrays of a step have a leading axis of this
    size."""

    def shape(self, rows: int) -> tuple[int, ...]:
        """Return the shape of a step's ids for batches of `rows` rows."""
        return (rows,) if self.micro_batches == 1 else (self.micro_batches, rows)


class Sampling(NamedTuple):
    """A scheme by which a pass visits the training interactions."""

    num_batches: Callable[[int, int], int]
    """`(num_interactions, batch_size) -> num_batches` of a pass."""
    order: Callable[[Key[Array, ""], Graph, Sizes], PyTree]
    """`(key, graph, sizes) -> drawn`: the random draws at the start of a pass, with a leading axis of steps."""
    rows: Callable[[PyTree, Key[Array, ""], Graph, Sizes], BatchRows]
    """`(drawn, key, graph, sizes) -> rows` of a step, given the step's part of `drawn` and the step's key."""

    def num_steps(self, num_interactions: int, sizes: Sizes) -> int:
        """Return the number of steps of a pass.

        In the last step, some micro-batches may hold no interactions; the scheme `users` fills all of them.
        """
        return math.ceil(self.num_batches(num_interactions, sizes.batch) / sizes.micro_batches)


Draw: TypeAlias = Callable[
    [Int[Array, " batch"], Int[Array, " batch"], Key[Array, ""], int], Int[Array, "batch negatives"]
]
"""`(users, items, key, count) -> negatives`, `count` per interaction."""


def batches_of_interactions(num_interactions: int, batch_size: int) -> int:
    """Return the number of batches that hold every interaction once. The last batch may be short."""
    return math.ceil(num_interactions / batch_size)


def permuted(
    key: Key[Array, ""], graph: Graph, sizes: Sizes
) -> tuple[Int[Array, "steps *batches batch"], Bool[Array, "steps *batches batch"]]:
    """Divide all interactions, in random order, into steps. The last step is padded with masked rows."""
    num_interactions = graph.num_interactions
    shape = _shape(graph, sizes)
    steps = math.ceil(num_interactions / math.prod(shape))
    place = jnp.arange(steps * math.prod(shape))
    rows = permutation(key, num_interactions)[place % num_interactions]
    return rows.reshape(steps, *shape), (place < num_interactions).reshape(steps, *shape)


def numbered(key: Key[Array, ""], graph: Graph, sizes: Sizes) -> tuple[Int[Array, " steps"], UInt32[Array, "steps _"]]:
    """Return each step's number and the words of a permutation, from which the step computes its part of the order.

    `permuted` needs arrays of the size of the data to sort random words; this function needs almost no memory.
    """
    steps = math.ceil(graph.num_interactions / math.prod(_shape(graph, sizes)))
    words = jax.random.bits(key, (NUM_WORDS,), jnp.uint32)
    return jnp.arange(steps), jnp.broadcast_to(words[None, :], (steps, NUM_WORDS))


def _shape(graph: Graph, sizes: Sizes) -> tuple[int, ...]:
    return sizes.shape(min(sizes.batch, graph.num_interactions))


def _order(key: Key[Array, ""], graph: Graph, sizes: Sizes) -> PyTree:
    draw = permuted if graph.num_interactions <= LARGEST_ORDER else numbered
    return draw(key, graph, sizes)


def _ordered_rows(drawn: PyTree, key: Key[Array, ""], graph: Graph, sizes: Sizes) -> BatchRows:
    if graph.num_interactions <= LARGEST_ORDER:
        rows, real = drawn
    else:
        step, words = drawn
        shape = _shape(graph, sizes)
        place = (step * math.prod(shape) + jnp.arange(math.prod(shape))).reshape(shape)
        real = place < graph.num_interactions
        rows = permuted_places(words, jnp.where(real, place, 0), graph.num_interactions)
    return graph.users_of(rows), graph.items_of(rows), real


def batches_of_users(num_interactions: int, batch_size: int) -> int:
    """Return the number of batches of distinct users in a pass of the published MMSSL."""
    return num_interactions // batch_size + 1


def distinct_users(drawn: PyTree, key: Key[Array, ""], graph: Graph, sizes: Sizes) -> BatchRows:
    """Draw distinct users with training items, uniformly, and one item for each user, as in MMSSL.

    If there are fewer such users than rows, the remaining rows are masked. Each micro-batch draws independently.
    """
    if sizes.micro_batches > 1:
        keys = jax.random.split(key, sizes.micro_batches)
        each: BatchRows = jax.lax.map(lambda key: distinct_users(drawn, key, graph, Sizes(sizes.batch)), keys)
        return each
    user_key, item_key = jax.random.split(key)
    offsets = graph.adjacency.matrix.offsets
    degrees = jnp.diff(offsets)
    # Floats in [0, 1) sort like their bits, and lower than the words of users without items.
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
    "interactions": Sampling(batches_of_interactions, _order, _ordered_rows),
    "users": Sampling(batches_of_users, _number_steps, distinct_users),
}
"""The sampling schemes by name; see `Method.sampling`."""


def uniform(graph: Graph) -> Draw:
    """Return a function that draws negatives uniformly from the items that a user has not interacted with.

    There is no rejection: q is uniform over the I - n items that are not the user's own, and the id of the q-th of
    these is q plus the number of the user's own items before it. A user who has interacted with every item gets the
    positive item, which contributes no gradient to a pairwise loss.
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
    """Return a function that draws negatives in proportion to popularity, without the user's own items.

    The computation is exact, in integers: on a line, item i occupies as many places as it has training interactions;
    the user's own items are cut out, and a place is drawn on the rest. A user for whom nothing is left gets the
    positive item.
    """
    own_items = graph.interactions[1]
    degrees = jnp.diff(graph.adjacency.transposed.offsets)
    ends = jnp.cumsum(degrees)
    starts = ends - degrees
    # The total length of own items before each entry of the graph. The sum may wrap around, but differences within a
    # user's row are at most the number of interactions, so they are correct.
    cut = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(degrees[own_items])])

    def draw(users: Array, items: Array, key: Key[Array, ""], count: int) -> Array:
        offsets = graph.adjacency.matrix.offsets
        before, after = cut[offsets[users, None]], cut[offsets[users + 1, None]]
        left = ends[-1] - (after - before)
        drawn = _places_below(left, key, count)
        # With own items cut out, the line before the own item at an entry has length: the item's start minus the cut.
        position = first_in_row(
            graph, users[:, None], drawn + 1, lambda entry: starts[own_items[entry]] - (cut[entry] - before)
        )
        found = jnp.searchsorted(ends, drawn + cut[position] - before, side="right").astype(jnp.int32)
        return jnp.where(left > 0, found, items[:, None])

    return draw


def _places_below(limits: Int[Array, "batch 1"], key: Key[Array, ""], count: int) -> Int[Array, "batch count"]:
    """Draw `count` integers from 0 up to, but excluding, each limit; 0 where the limit is not positive."""
    shape = (limits.shape[0], count)
    return jax.random.randint(key, shape, 0, jnp.broadcast_to(jnp.maximum(limits, 1), shape), jnp.int32)


NEGATIVES: Mapping[str, Callable[[Graph], Draw]] = {"uniform": uniform, "popular": popular}
