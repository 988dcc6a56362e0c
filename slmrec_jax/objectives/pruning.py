"""Degree-sensitive pruning: a fixed number of interactions, drawn without replacement with unequal probabilities."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Scalar

from slmrec_jax.encoding.graph import Graph, kept_interactions
from slmrec_jax.objectives.augmentations import pair_words
from slmrec_jax.types import Augmentation


def degree_pruning(rate: float) -> Augmentation:
    """Make FREEDOM's pruning: keep ⌊E (1 - ρ)⌋ of E interactions, drawn with probability ∝ 1 / √(d_u d_i).

    They are drawn one after another without replacement. The remaining graph is normalised by its own degrees. Source:
    FREEDOM (Zhou and Shen, MM 2023).

    The draw is an exponential race, which has the same distribution (Efraimidis and Spirakis, 2006): interaction e
    finishes at T_e = -log(1 - U_e) √(d_u d_i), and the first to finish are kept. U_e is a function of the key and the
    pair, so interactions can be processed in any order. Interactions with equal T_e in float32 are kept or dropped
    together, so about one in 100 draws from a million interactions keeps one more than requested.

    Args:
        rate: ρ, in [0, 1). With 0, the graph is unchanged.
    """

    def edges(key: Key[Array, ""], graph: Graph, num_layers: int) -> Sequence[Graph]:
        if rate == 0.0:
            return [graph] * num_layers
        user_offsets = graph.adjacency.matrix.offsets
        user_degrees = user_offsets[1:] - user_offsets[:-1]

        def finish(users: Array, items: Array) -> Float[Array, "..."]:
            words = pair_words(key, 0, users, items)
            uniform = (words.astype(jnp.float32) + 0.5) * 2.0**-32
            degrees = user_degrees[users].astype(jnp.float32) * graph.item_degrees(items).astype(jnp.float32)
            return -jnp.log1p(-jnp.minimum(uniform, 1.0 - 2.0**-24)) * jnp.sqrt(degrees)

        last = end_of_race(finish(*graph.interactions), math.floor(graph.num_interactions * (1.0 - rate) + 1e-6))
        return [kept_interactions(graph, lambda users, items: finish(users, items) < last)] * num_layers

    return Augmentation(edges=edges)


def end_of_race(times: Float[Array, " interactions"], count: int) -> Scalar:
    """Return a time before which `count` of the given positive times lie, by bisection on their bits.

    The result is midway between two times, so that a time may differ in its last bit when it is recomputed. Positive
    floats and their bits have the same order, so 31 counting passes replace a sort.
    """
    bits = jax.lax.bitcast_convert_type(times, jnp.int32)

    def halve(_: Array, bounds: tuple[Int[Array, ""], Int[Array, ""]]) -> tuple[Array, Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        enough = jnp.sum(bits <= middle, dtype=jnp.int32) >= count
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    # The smallest bits such that enough times are not above them: the bits of the last time that is kept.
    kept, _ = jax.lax.fori_loop(0, 31, halve, (jnp.int32(0), jnp.int32(2**31 - 1)))
    following = jnp.min(jnp.where(bits > kept, bits, jnp.int32(2**31 - 1)))
    middle = kept + (following - kept + 1) // 2
    last: Scalar = jax.lax.bitcast_convert_type(middle, jnp.float32)
    return last
