"""Augmentations: pairs of views of the same batch, as pure functions of a PRNG key.

Both members of a pair are called with the same key, so that they agree on shared choices, such as the two modalities to
mask. Draws that must differ also depend on the member's position in the pair.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Scalar, UInt32

from slmrec_jax.encoding.graph import Graph, kept_interactions
from slmrec_jax.encoding.layers import normalize
from slmrec_jax.errors import UserError, check_choice, shown
from slmrec_jax.objectives.orders import scramble
from slmrec_jax.types import Augmentation, ModalityScale

Views: TypeAlias = tuple[Augmentation, Augmentation]


def feature_dropout(rate: float, mode: Literal["layer", "input"] = "layer") -> Views:
    """Make FD: drop single entries at random and scale the rest, which preserves the mean (SLMRec, Eq. 8).

    Args:
        rate: The share of entries to drop, in [0, 1).
        mode: `"layer"` drops entries of users and items after each propagation layer, but never in layer 0 (published
            code); `"input"` drops entries of the items' input features (paper).

    Raises:
        UserError: An argument is invalid; the message says what to give.
    """
    _check_rate(rate)
    check_choice("mode", mode, ("layer", "input"))

    def inputs(view: int, key: Key[Array, ""], x: Mapping[str, Array]) -> Mapping[str, Array]:
        keys = jax.random.split(key, len(x))
        return {name: dropout(key, rows, rate, view) for key, (name, rows) in zip(keys, x.items(), strict=True)}

    if mode == "layer":
        return _pair(lambda view: Augmentation(layer=lambda key, site, x: dropout(key, x, rate, view)))
    return _pair(lambda view: Augmentation(inputs=lambda key, x: inputs(view, key, x)))


def feature_masking(
    mode: Literal["swapped", "clean"] = "swapped", granularity: Literal["batch", "item"] = "batch"
) -> Views:
    """Make FM: each view masks one item modality. The two modalities differ and are drawn in each step.

    Source: SLMRec, section III-C. The masked modality may be `id`. User rows are not masked.

    Args:
        mode: `"swapped"` uses one view's mask for layer 0 and the other view's mask for layers 1..L (published code);
            `"clean"` uses one mask per view (paper). With masks per item, it is always `"clean"`.
        granularity: One draw for all items (`"batch"`), or one draw per item (`"item"`).

    Raises:
        UserError: An argument is invalid, or, when the view is made, the model has a single item modality.
    """
    check_choice("mode", mode, ("swapped", "clean"))
    check_choice("granularity", granularity, ("batch", "item"))
    if granularity == "item":
        return _pair(lambda view: Augmentation(inputs=lambda key, x: _mask_items(view, key, x)))

    def draw(view: int, key: Key[Array, ""], names: tuple[str, ...]) -> ModalityScale:
        drawn = two_distinct(key, len(names))
        if mode == "clean":
            return masked(names, propagated=drawn[view])
        return masked(names, propagated=drawn[1 - view], layer0=drawn[view])

    return _pair(lambda view: Augmentation(modality=lambda key, names: draw(view, key, names)))


def edge_dropout(rate: float, granularity: Literal["view", "layer"] = "view") -> Views:
    """Make ED: drop each interaction with a given probability, and normalise the rest by the remaining degrees.

    Source: SGL (Wu et al., SIGIR 2021); SLMRec names it as future work.

    Args:
        rate: The probability, in [0, 1).
        granularity: One draw for all layers of a view (ED), or one draw per layer (SGL's random walk, RW).

    Raises:
        UserError: An argument is invalid; the message says what to give.
    """
    _check_rate(rate)
    check_choice("granularity", granularity, ("view", "layer"))

    def draw(view: int, key: Key[Array, ""], graph: Graph) -> Graph:
        def keep(users: Array, items: Array) -> Array:
            return jnp.less(pair_words(key, view, users, items), jnp.uint32(_kept_words(rate)))

        return kept_interactions(graph, keep)

    def edges(view: int, key: Key[Array, ""], graph: Graph, num_layers: int) -> Sequence[Graph]:
        if granularity == "view":
            return [draw(view, key, graph)] * num_layers
        return [draw(view, jax.random.fold_in(key, layer), graph) for layer in range(num_layers)]

    return _pair(lambda view: Augmentation(edges=partial(edges, view)))


def node_dropout(rate: float) -> Views:
    """Make ND: each user and item loses all of its interactions with probability `rate` in [0, 1) (SGL).

    The remaining interactions are normalised by the remaining degrees.

    Raises:
        UserError: The rate is invalid; the message says what to give.
    """
    _check_rate(rate)

    def edges(view: int, key: Key[Array, ""], graph: Graph, num_layers: int) -> Sequence[Graph]:
        user_key, item_key = jax.random.split(key)

        def stays(key: Key[Array, ""], count: int) -> Array:
            return jnp.less(_random_words(key, (count,), view), jnp.uint32(_kept_words(rate)))

        users_stay, items_stay = stays(user_key, graph.num_users), stays(item_key, graph.num_items)
        return [kept_interactions(graph, lambda users, items: users_stay[users] & items_stay[items])] * num_layers

    return _pair(lambda view: Augmentation(edges=partial(edges, view)))


def embedding_noise(length: float) -> Views:
    """Make SimGCL's views: after each layer, add noise of a given length to each row x, in the orthant of x.

    The result is x + length · sign(x) · nrm(r), with entries of r uniform in [0, 1) (Yu et al., SIGIR 2022).
    """

    def add_noise(view: int, key: Key[Array, ""], x: Array) -> Array:
        drawn = _random_words(key, x.shape, view).astype(x.dtype) / 2.0**32
        return x + length * jnp.sign(x) * normalize(drawn)

    return _pair(lambda view: Augmentation(layer=lambda key, site, x: add_noise(view, key, x)))


def masked(names: tuple[str, ...], propagated: Int[Array, ""], layer0: Int[Array, ""] | None = None) -> ModalityScale:
    """Return the factors that mask one modality (by index) in propagation and, if given, another in layer 0."""

    def factors(index: Array) -> dict[str, Scalar]:
        return {name: jnp.where(index == place, 0.0, 1.0) for place, name in enumerate(names)}

    return ModalityScale(factors(propagated), None if layer0 is None else factors(layer0))


def both(first: Views, second: Views) -> Views:
    """Combine two augmentations that use different stages (such as FD+FM or FD+ED).

    Raises:
        ValueError: Both augmentations use the same stage.
    """
    clash = [stage for stage in Augmentation._fields if getattr(first[0], stage) and getattr(second[0], stage)]
    if clash:
        raise ValueError(f"two augmentations of the stage {clash[0]!r} cannot be combined: give one function for both")

    def merged(a: Augmentation, b: Augmentation) -> Augmentation:
        return Augmentation(a.modality or b.modality, a.inputs or b.inputs, a.edges or b.edges, a.layer or b.layer)

    return merged(first[0], second[0]), merged(first[1], second[1])


@partial(jax.jit, static_argnames=("rate", "view"))  # traced once per shape
def dropout(key: Key[Array, ""], x: Float[Array, "..."], rate: float, view: int = 0) -> Float[Array, "..."]:
    """Apply inverted dropout: drop each entry with probability `rate` in [0, 1), and divide the others by 1 - rate.

    `view`, 0 or 1, selects one of two independent draws with the same key.
    """
    if rate == 0.0:
        return x
    return jnp.where(_random_words(key, x.shape, view) < jnp.uint32(_kept_words(rate)), x / (1.0 - rate), 0.0)


def two_distinct(key: Key[Array, ""], count: int, shape: tuple[int, ...] = ()) -> Int[Array, "two ..."]:
    """Draw two different indices below `count`, with each ordered pair equally likely.

    Raises:
        UserError: There are no two indices, because a model whose modalities are masked has only one.
    """
    if count < 2:
        raise UserError("feature_masking needs two item modalities to choose from, but the model has one: leave it out")
    first_key, step_key = jax.random.split(key)
    first = jax.random.randint(first_key, shape, 0, count, jnp.int32)
    step = jax.random.randint(step_key, shape, 1, count, jnp.int32)
    return jnp.stack([first, (first + step) % count])


def pair_words(key: Key[Array, ""], view: int, users: Array, items: Array) -> UInt32[Array, "..."]:
    """Draw a random word for each user-item pair, independent of the order of the pairs."""
    first, second = _key_words(key, view)
    of_users = scramble(scramble(users.astype(jnp.uint32) ^ first) + second)
    return scramble(scramble(of_users + items.astype(jnp.uint32)) ^ second)


def _check_rate(rate: Any) -> None:
    if not (isinstance(rate, int | float | np.number) and 0 <= rate < 1):
        raise UserError(f"rate is {shown(rate)}: give a share of at least 0 and below 1")


def _key_words(key: Key[Array, ""], view: int) -> tuple[Array, Array]:
    """Return two words of a key that differ between the views of a pair."""
    first, second = jax.random.key_data(key)[:2]
    return first, second + jnp.uint32(view) * jnp.uint32(0x9E3779B9)


def _mask_items(view: int, key: Key[Array, ""], x: Mapping[str, Array]) -> Mapping[str, Array]:
    num_items = next(iter(x.values())).shape[0]
    drawn = two_distinct(key, len(x), (num_items,))[view][:, None]
    return {name: jnp.where(drawn != place, rows, 0.0) for place, (name, rows) in enumerate(x.items())}


def _kept_words(rate: float) -> int:
    """Return the threshold below which a word is kept, capped at the largest word for rates below 2^-33."""
    return min(round((1.0 - rate) * 2**32), 2**32 - 1)


def _random_words(key: Key[Array, ""], shape: tuple[int, ...], view: int) -> UInt32[Array, "..."]:
    """Draw words from a counter-based generator: each is a function of the key, the view and its index.

    JAX's own generator takes twenty rounds per word, which is more work than the propagation whose result is dropped
    here, and programs with many draws are slow to compile and to load. Two rounds of a hash, keyed with the words of
    the key, are random enough for dropout, fuse with the comparison, and give the same result on every device. On CPUs,
    one word per decision is ten times as fast as four decisions per word.
    """
    first, second = _key_words(key, view)
    place = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    return scramble(scramble(place ^ first) + second)


def _pair(make: Callable[[int], Augmentation]) -> Views:
    return make(0), make(1)
