"""Item features in the form that models read."""

from collections.abc import Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from slmrec_jax.encoding import layers, vectors
from slmrec_jax.encoding.gathers import take
from slmrec_jax.encoding.matrices import Operator
from slmrec_jax.encoding.rows import memoized, projected
from slmrec_jax.encoding.sparse import matmul
from slmrec_jax.types import DenseFeature, Ids, Modality, Params, Rows

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


def init_trained(key: Key[Array, ""], modality: Modality, num_items: int, dim: int) -> Params:
    """Return the parameters of `trained`: an affine layer, and changes to the features that start at 0."""
    return layers.linear(key, width(modality), dim) | {"change": jnp.zeros((num_items, width(modality)))}


def trained(feature: DenseFeature, params: Params) -> Rows:
    """Return the rows (F + Δ) W + b of features that training changes; 0 for items without the modality.

    The features are parameters that start from the given ones in the published code of FREEDOM, LATTICE and others.
    Here Δ starts from 0, since parameters are drawn without the data: the gradient by Δ is that by F + Δ.

    Args:
        feature: F, as given.
        params: W, b and Δ, as `init_trained` makes them. Weight decay, if there is any, pulls F + Δ towards F.
    """
    given, kernel, change = projected(feature, params), params["kernel"], params["change"]

    def rows(ids: Ids) -> Array:
        changed: Array = given(ids) + take(feature.present, ids)[:, None] * (take(change, ids) @ kernel)
        return changed

    return memoized(rows)
