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
    """Return FREEDOM's pruning: ⌊E (1 - ρ)⌋ of E interactions are kept, with probability ∝ 1 / √(d_u d_i).

    They are drawn one after the other without replacement; the graph of those kept is normalised by its own degrees.
    Source: FREEDOM (Zhou and Shen, MM 2023).

    The draw is an exponential race: interaction e finishes at T_e = -log(1 - U_e) √(d_u d_i), and the first are kept,
    which has the same distribution (Efraimidis and Spirakis, 2006). U_e is a function of the key and the pair, so that
    interactions can be raced in any order. Interactions that finish at the same time in float32 are kept or dropped
    together, which is one more than asked for in about one of 100 draws from a million interactions.

    Args:
        rate: ρ, in [0, 1). With 0 the graph is left as it is.
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
    """Return a time before which `count` of these positive times lie, by bisection on their bits.

    It lies midway to the next one, so that a time that is computed again may differ in its last bit. Bits of positive
    floats have the order of their values: 31 passes that count replace a sort.
    """
    bits = jax.lax.bitcast_convert_type(times, jnp.int32)

    def halve(_: Array, bounds: tuple[Int[Array, ""], Int[Array, ""]]) -> tuple[Array, Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        enough = jnp.sum(bits <= middle, dtype=jnp.int32) >= count
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    # The smallest bits below or at which enough times lie: those of the last one that is kept.
    kept, _ = jax.lax.fori_loop(0, 31, halve, (jnp.int32(0), jnp.int32(2**31 - 1)))
    following = jnp.min(jnp.where(bits > kept, bits, jnp.int32(2**31 - 1)))
    middle = kept + (following - kept + 1) // 2
    last: Scalar = jax.lax.bitcast_convert_type(middle, jnp.float32)
    return last
