"""Which interactions a step sees, and which negatives: all of it drawn on the device, by keys alone."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree, UInt32

from slmrec_jax.encoding.graph import Graph, first_in_row

Rows: TypeAlias = tuple[Int[Array, " batch"], Int[Array, " batch"], Bool[Array, " batch"]]
"""Users, items, and which rows are real."""


class Sampling(NamedTuple):
    """How an epoch walks through the training interactions."""

    num_steps: Callable[[int, int], int]
    """`(interactions, batch size) -> steps of an epoch`."""
    order: Callable[[Key[Array, ""], Graph, int], PyTree]
    """`(key, graph, batch size) -> what an epoch draws beforehand`, the leading axis its steps."""
    rows: Callable[[PyTree, Key[Array, ""], Graph, int], Rows]
    """`(a step's share of that, its key, graph, batch size) -> its rows`."""


Draw: TypeAlias = Callable[
    [Int[Array, " batch"], Int[Array, " batch"], Key[Array, ""], int], Int[Array, "batch negatives"]
]
"""`(users, items, key, count) -> negatives`."""


def steps_of_interactions(num_interactions: int, batch_size: int) -> int:
    """How many batches hold every interaction once; the last may be short."""
    return math.ceil(num_interactions / batch_size)


def permuted(
    key: Key[Array, ""], graph: Graph, batch_size: int
) -> tuple[Int[Array, "steps batch"], Bool[Array, "steps batch"]]:
    """All interactions in a random order, cut into batches, and which rows are real: the last batch is filled up."""
    num_interactions = graph.interactions[0].shape[0]
    size = min(batch_size, num_interactions)
    steps = steps_of_interactions(num_interactions, size)
    place = jnp.arange(steps * size)
    rows = permutation(key, num_interactions)[place % num_interactions]
    return rows.reshape(steps, size), (place < num_interactions).reshape(steps, size)


def permutation(key: Key[Array, ""], count: int) -> Int[Array, " count"]:
    """The numbers 0..count-1 in a random order: what `jax.random.permutation` returns, in a third of the time on CPUs.

    They are sorted by random words, so often that words which are equal, and leave their order, are unlikely to matter.
    """
    order = jnp.arange(count, dtype=jnp.int32)
    # XLA computes in vectors what divides evenly; the first words of more are those of fewer, as JAX draws by default.
    even = -(-count // 128) * 128
    for _ in range(math.ceil(3 * math.log(count) / math.log(2**32 - 1))):
        key, words_key = jax.random.split(key)
        order = order[stable_argsort(jax.random.bits(words_key, (even,))[:count])]
    return order


def stable_argsort(words: UInt32[Array, " count"]) -> Int[Array, " count"]:
    """Indices that sort the words, of equal ones the lower index first: `jnp.argsort`, made faster on CPUs.

    There XLA sorts words alone several times as fast as words with numbers beside them. Each word is then looked up
    among the sorted ones. Equal words find the same place, which the lowest index keeps; the others move one on, all
    at once, until each has its own: a pass for every further one that is equal, so that few should be.
    """
    if jax.default_backend() != "cpu":
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


def _interactions(drawn: PyTree, key: Key[Array, ""], graph: Graph, batch_size: int) -> Rows:
    (users, items), (rows, real) = graph.interactions, drawn
    return users[rows], items[rows], real


def _no_order(key: Key[Array, ""], graph: Graph, batch_size: int) -> Int[Array, " steps"]:
    return jnp.arange(steps_of_users(graph.interactions[0].shape[0], batch_size))


def steps_of_users(num_interactions: int, batch_size: int) -> int:
    """How many batches of distinct users the published MMSSL calls an epoch."""
    return num_interactions // batch_size + 1


def distinct_users(drawn: PyTree, key: Key[Array, ""], graph: Graph, batch_size: int) -> Rows:
    """Distinct users with training items, each equally likely, and one of their items each, as MMSSL samples.

    Where there are fewer such users than rows, the rows beyond are not real.
    """
    user_key, item_key = jax.random.split(key)
    offsets = graph.adjacency.matrix.offsets
    degrees = jnp.diff(offsets)
    # Numbers below 1 stand in the order of their bits, and before the words of those without items.
    numbers = jax.random.uniform(user_key, degrees.shape, jnp.float32).view(jnp.uint32)
    last = jnp.arange(len(degrees), dtype=jnp.uint32) + jnp.uint32(2**31)
    users = stable_argsort(jnp.where(degrees > 0, numbers, last))[: min(batch_size, graph.num_users)]
    rank = jax.random.randint(item_key, users.shape, 0, jnp.maximum(degrees[users], 1), jnp.int32)
    place = jnp.minimum(offsets[users] + rank, graph.num_interactions - 1)
    items = graph.adjacency.matrix.columns[place]
    return users, items, degrees[users] > 0


SAMPLINGS: Mapping[str, Sampling] = {
    "interactions": Sampling(steps_of_interactions, permuted, _interactions),
    "users": Sampling(steps_of_users, _no_order, distinct_users),
}
"""`interactions`: each stands in exactly one batch of an epoch. `users`: a batch is of distinct users."""


def uniform(graph: Graph) -> Draw:
    """Negatives that a user has not interacted with, each equally likely.

    No draw is rejected: q is uniform over the user's I - n other items, and the q-th of these is q plus the number of
    the user's own items before it. A user who has interacted with every item gets the positive item back, which
    contributes nothing to a pairwise loss.
    """

    def draw(users: Array, items: Array, key: Key[Array, ""], count: int) -> Array:
        offsets = graph.adjacency.matrix.offsets
        start, end = offsets[users, None], offsets[users + 1, None]
        others = graph.num_items - (end - start)
        shape = (users.shape[0], count)
        drawn = jax.random.randint(key, shape, 0, jnp.broadcast_to(jnp.maximum(others, 1), shape), jnp.int32)
        rows = jnp.broadcast_to(users[:, None], shape)
        position = first_in_row(graph, rows, drawn + 1, lambda entry, rank: graph.interactions[1][entry] - rank)
        return jnp.where(others > 0, drawn + position - start, items[:, None])

    return draw


def popular(graph: Graph) -> Draw:
    """Negatives that a user has not interacted with, each as likely as it has training interactions.

    Exact, in integers: on the line where item i takes as much room as it has interactions, the user's own items are
    cut out, and a place is drawn in what is left. A user for whom nothing is left gets the positive item back.
    """
    own_items = graph.interactions[1]
    degrees = jnp.diff(graph.adjacency.transposed.offsets)
    ends = jnp.cumsum(degrees)
    # Where the room of each item ends on the line.
    cut = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(degrees[own_items])])
    # The room of own items before each entry of the graph. The sum may wrap around; differences within a user's row,
    # at most the number of interactions, are right all the same.

    def draw(users: Array, items: Array, key: Key[Array, ""], count: int) -> Array:
        offsets = graph.adjacency.matrix.offsets
        start, end = offsets[users, None], offsets[users + 1, None]
        left = ends[-1] - (cut[end] - cut[start])
        shape = (users.shape[0], count)
        drawn = jax.random.randint(key, shape, 0, jnp.broadcast_to(jnp.maximum(left, 1), shape), jnp.int32)
        rows = jnp.broadcast_to(users[:, None], shape)
        first = jnp.broadcast_to(start, shape)

        def room_before(entry: Array, rank: Array) -> Array:
            """What is left of the line before the user's own item at this entry."""
            item = own_items[entry]
            return ends[item] - degrees[item] - (cut[entry] - cut[first])

        position = first_in_row(graph, rows, drawn + 1, room_before)
        found = jnp.searchsorted(ends, drawn + cut[position] - cut[first], side="right").astype(jnp.int32)
        return jnp.where(left > 0, found, items[:, None])

    return draw


NEGATIVES: Mapping[str, Callable[[Graph], Draw]] = {"uniform": uniform, "popular": popular}
