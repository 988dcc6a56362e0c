"""Rows for items that have no training interactions, from their features and what training learned."""

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from slmrec_jax.config import Config
from slmrec_jax.data.dataset import Dataset, Feature, Words
from slmrec_jax.errors import UserError, setting
from slmrec_jax.training.inputs import given_features
from slmrec_jax.training.setup import MakeMethod, outline
from slmrec_jax.training.storage.checkpoint import restore_state
from slmrec_jax.training.storage.folder import CHECKPOINTS


def cold_item_rows(
    config: Config,
    dataset: Dataset,
    folder: Path,
    epoch: int,
    features: Mapping[str, Feature | Words],
    count: int,
    method: MakeMethod,
) -> Float[Array, "items dim"]:
    """Compute the rows used to rank items without interactions at an epoch (`Model.cold_items`).

    Some protocols rank with the embeddings from before the epoch's last step; these rows use the state after it.

    `features` has an entry for each modality of the data set, with `count` items. `method` makes the method that was
    trained.

    Raises:
        UserError: The system ranks items by their ids, or the checkpoint is missing or of another method.
    """
    planned = outline(config, dataset, method=method)
    if planned.method.cold_items is None:
        raise UserError(
            f"{folder}: {setting('model', config.model)} ranks items by their ids and cannot place new ones: "
            f"train a system that ranks by features, such as {setting('model', 'slmrec')}"
        )
    state = restore_state(folder / CHECKPOINTS, epoch, jax.eval_shape(planned.method.init, jax.random.key(0)))
    return planned.method.cold_items(state, given_features(features, count, config.missing, dataset.features))


def features_of(dataset: Dataset, items: Int[np.ndarray, " items"]) -> dict[str, Feature | Words]:
    """Return the features of the given items."""
    places = np.full(dataset.num_items, -1, np.int32)
    places[items] = np.arange(len(items), dtype=np.int32)
    return {
        name: _words_of(feature, places)
        if isinstance(feature, Words)
        else Feature(feature.values[items], feature.present[items])
        for name, feature in dataset.features.items()
    }


def _words_of(words: Words, places: Int[np.ndarray, " items"]) -> Words:
    chosen = places[words.items] >= 0
    return Words(places[words.items[chosen]], words.words[chosen], words.num_words)
