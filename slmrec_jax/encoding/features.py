"""Item features in the form that models read."""

from collections.abc import Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from slmrec_jax.encoding import layers, vectors
from slmrec_jax.encoding.matrices import Operator
from slmrec_jax.encoding.sparse import matmul
from slmrec_jax.types import DenseFeature, Modality

WORD_DIM = 128
"""The width of a word vector, as in SLMRec's published code."""

DeviceFeature: TypeAlias = DenseFeature | Operator
"""Vectors, or for word ids the matrix (items × vocabulary) that maps word vectors to each item's mean."""


def width(modality: Modality) -> int:
    """Return the number of columns of a modality's vectors."""
    return WORD_DIM if modality.words else modality.columns


def frozen(feature: DeviceFeature, modality: Modality, *, normalized: bool) -> DenseFeature:
    """Return a modality that training does not change, ready to be projected; `normalized` divides rows by their norms.

    Word ids become the mean of random word vectors, as in SLMRec's published code, and are never normalised. Values of
    half precision stay as they are: factors beside them normalise the rows.
    """
    if isinstance(feature, Operator):
        # The key is fixed: these vectors belong to the data, and every seed must see the same ones.
        return word_means(feature, layers.xavier_normal(jax.random.key(0), modality.columns, WORD_DIM))
    if not normalized:
        return feature
    normal = feature._replace(scales=vectors.row_scales(feature.values))
    return normal if vectors.is_half(feature.values) else DenseFeature(vectors.scaled(normal), feature.present)


def frozen_features(
    features: Mapping[str, DeviceFeature], modalities: Mapping[str, Modality], *, normalized: bool
) -> dict[str, DenseFeature]:
    """Return `frozen` of every modality."""
    return {name: frozen(features[name], modality, normalized=normalized) for name, modality in modalities.items()}


def word_means(means: Operator, table: Float[Array, "words columns"]) -> DenseFeature:
    """Return each item's mean word vector; an item without words lacks the modality."""
    present = (jnp.diff(means.matrix.offsets) > 0).astype(jnp.float32)
    return DenseFeature(matmul(means, table), present)
