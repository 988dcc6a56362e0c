"""Augmentations: pairs of views of the same batch, as pure functions of a key.

Both members of a pair are called with the same key: what they share (which two modalities are masked) they draw alike,
and what must differ depends on their place in the pair too.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Scalar, UInt32

from slmrec_jax.types import Augmentation, ModalityScale

Views: TypeAlias = tuple[Augmentation, Augmentation]


def feature_dropout(rate: float, mode: Literal["layer", "input"] = "layer") -> Views:
    """FD: drops single entries at random and scales the rest, so that the mean stays.

    SLMRec, Eq. 8. The published code drops after each propagation layer, users and items alike, and never layer 0
    (`"layer"`); the paper masks the items' input features (`"input"`).

    Args:
        rate: the share of entries that is dropped, in [0, 1).
        mode: where.
    """

    def inputs(view: int, key: Key[Array, ""], x: Mapping[str, Array]) -> Mapping[str, Array]:
        keys = jax.random.split(key, len(x))
        return {name: dropout(key, rows, rate, view) for key, (name, rows) in zip(keys, x.items(), strict=True)}

    if mode == "layer":
        return _pair(lambda view: Augmentation(layer=lambda key, site, x: dropout(key, x, rate, view)))
    return _pair(lambda view: Augmentation(inputs=lambda key, x: inputs(view, key, x)))


def feature_masking(
    mode: Literal["swapped", "clean"] = "swapped", granularity: Literal["batch", "item"] = "batch"
) -> Views:
    """FM: each view masks one modality of the items; the two are distinct, drawn in each step, `id` among them.

    SLMRec, section III-C. Users keep their rows. The published code draws once a batch and mixes the two chains: a
    view takes layer 0 from one mask and layers 1..L from the other (`"swapped"`); the paper's text has a mask a view
    (`"clean"`).

    Args:
        mode: how masks and layers meet; per item they never mix.
        granularity: one draw for all items, or one for each item.
    """
    if granularity == "item":
        return _pair(lambda view: Augmentation(inputs=lambda key, x: _mask_items(view, key, x)))

    def draw(view: int, key: Key[Array, ""], names: tuple[str, ...]) -> ModalityScale:
        drawn = two_distinct(key, len(names))
        return (
            masked(names, propagated=drawn[1 - view], layer0=drawn[view])
            if mode == "swapped"
            else masked(names, propagated=drawn[view])
        )

    return _pair(lambda view: Augmentation(modality=lambda key, names: draw(view, key, names)))


def masked(names: tuple[str, ...], propagated: Int[Array, ""], layer0: Int[Array, ""] | None = None) -> ModalityScale:
    """The factors that mask the modality at an index: in what is propagated, and in layer 0 if that is another."""

    def factors(index: Array) -> dict[str, Scalar]:
        return {name: jnp.where(index == place, 0.0, 1.0) for place, name in enumerate(names)}

    return ModalityScale(factors(propagated), None if layer0 is None else factors(layer0))


def both(first: Views, second: Views) -> Views:
    """Two augmentations of different stages at once (FD+FM).

    Raises:
        ValueError: both work on the same stage.
    """
    return _merge(first[0], second[0]), _merge(first[1], second[1])


@partial(jax.jit, static_argnames=("rate", "view"))  # traced once for all places of a shape
def dropout(key: Key[Array, ""], x: Float[Array, "..."], rate: float, view: int = 0) -> Float[Array, "..."]:
    """Inverted dropout: each entry is dropped with probability `rate`, the rest is divided by 1 - rate.

    Args:
        key: what is drawn is a function of it and of the view.
        x: anything.
        rate: in [0, 1).
        view: 0 or 1: two independent draws of one key.
    """
    if rate == 0.0:
        return x
    kept = min(round((1.0 - rate) * 2**32), 2**32 - 1)  # a rate below 2^-33 would round to a word that there is not
    return jnp.where(_random_words(key, x.shape, view) < jnp.uint32(kept), x / (1.0 - rate), 0.0)


def two_distinct(key: Key[Array, ""], count: int, shape: tuple[int, ...] = ()) -> Int[Array, "two ..."]:
    """Two different indices below `count`, each ordered pair equally likely."""
    first_key, step_key = jax.random.split(key)
    first = jax.random.randint(first_key, shape, 0, count, jnp.int32)
    step = jax.random.randint(step_key, shape, 1, count, jnp.int32)
    return jnp.stack([first, (first + step) % count])


def _mask_items(view: int, key: Key[Array, ""], x: Mapping[str, Array]) -> Mapping[str, Array]:
    num_items = next(iter(x.values())).shape[0]
    drawn = two_distinct(key, len(x), (num_items,))[view]

    def kept(place: int) -> Bool[Array, "items 1"]:
        return (drawn != place)[:, None]

    return {name: jnp.where(kept(place), rows, 0.0) for place, (name, rows) in enumerate(x.items())}


def _random_words(key: Key[Array, ""], shape: tuple[int, ...], view: int) -> UInt32[Array, "..."]:
    """Words of a counter-based generator, each a function of the key, the view and its place.

    JAX's own generator takes twenty rounds a word, which would cost more than the propagation whose result is dropped
    here, and a program with many of its draws takes long to compile and to load. Two rounds of a hash, keyed by the
    key's own words, decide well enough what is kept, fuse with the decision, and are the same on every device. One word
    for each decision is ten times as fast on CPUs as four decisions a word, which would take an index apart for each
    entry.
    """
    first, second = jax.random.key_data(key)[:2]
    second = second + jnp.uint32(view) * jnp.uint32(0x9E3779B9)
    place = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    return _scramble(_scramble(place ^ first) + second)


def _scramble(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """MurmurHash3's finaliser (Appleby, 2011): a bijection of words in which each bit depends on all."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def _pair(make: Callable[[int], Augmentation]) -> Views:
    return make(0), make(1)


def _merge(first: Augmentation, second: Augmentation) -> Augmentation:
    clash = [name for name, a, b in zip(Augmentation._fields, first, second, strict=True) if a and b]
    if clash:
        raise ValueError(
            f"two augmentations of the stage {clash[0]!r} cannot be had at once: give one function for both"
        )
    return Augmentation(first.modality or second.modality, first.inputs or second.inputs, first.layer or second.layer)
