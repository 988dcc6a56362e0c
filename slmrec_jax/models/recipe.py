"""Recipes, which hold the parts of a system that gradient descent needs, and helpers that several systems share."""

from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Array, Key

from slmrec_jax.config import Config
from slmrec_jax.encoding import features, propagation
from slmrec_jax.errors import UserError, setting
from slmrec_jax.types import ID, NO_AUGMENTATION, Augmentation, Encode, Model, Spec, Term, View, Work


class Recipe(NamedTuple):
    """The parts of a system that gradient descent needs."""

    model: Model
    terms: Mapping[str, Term]
    notes: tuple[str, ...] = ()
    """Log lines about decisions made while the recipe was built."""
    work: Work | None = None
    """See `Method.work`."""
    augmentation: Augmentation = NO_AUGMENTATION
    """The augmentation of the view that the losses read. The view used for ranking has none."""


def single_view(view: View) -> Encode:
    """Make the `Encode` of a system without augmented views: it returns the view, or raises a `UserError`."""

    def encode(augmentation: Augmentation, key: Key[Array, ""]) -> View:
        if augmentation != NO_AUGMENTATION:
            raise UserError(
                "this system makes no augmented views: leave out the loss or the augmentation that needs them"
            )
        return view

    return encode


def check_modalities(spec: Spec, what: str) -> None:
    """Raise a `UserError` if the data have no modality or one is called `id`. `what` is the setting that needs one."""
    if not spec.modalities:
        raise UserError(
            f"{what} needs a modality, but the data have none: give features, or use {setting('model', 'lightgcn')}"
        )
    check_names(spec)


def check_names(spec: Spec) -> None:
    """Raise a `UserError` if a modality is called `id`, the name of the items' own rows in a view."""
    if ID in spec.modalities:
        raise UserError(f"a modality is called {ID!r}, the name of the items' own rows: rename the modality")


def cached_modalities(config: Config, spec: Spec, words: str) -> tuple[list[str], tuple[str, ...]]:
    """Return the modalities whose features are propagated once in advance, and a log line about each frozen modality.

    Args:
        config: Every choice.
        spec: The sizes of the data.
        words: Whether word vectors are `"frozen"` or `"trainable"`.
    """
    cached, reasons = [], []
    for name, modality in spec.modalities.items():
        if config.propagation == "definition" or (modality.words and words == "trainable"):
            continue
        once, reason = propagation.choose_chain(
            spec,
            features.width(modality),
            num_layers=config.num_layers,
            batch_size=config.batch_size * config.num_micro_batches,
            held_as=config.frozen_rows,
        )
        if config.propagation == "chains":
            once, reason = True, "as configured"
        if once:
            cached.append(name)
        reasons.append(f"{name}: {'propagated once' if once else 'projected in each step'} ({reason})")
    return cached, tuple(reasons)
