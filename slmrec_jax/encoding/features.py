"""Item features in the form that models read."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from slmrec_jax.encoding import layers, vectors
from slmrec_jax.encoding.gathers import take
from slmrec_jax.encoding.matrices import Operator
from slmrec_jax.encoding.rows import memoized, projected
from slmrec_jax.encoding.sparse import matmul
from slmrec_jax.types import DenseFeature, Ids, Modality, Params, Rows, Spec

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


def init_trained(keys: Sequence[Key[Array, ""]], spec: Spec) -> Params:
    """Return the parameters of `trained` for each modality: an affine layer, and changes of the features, which are 0.

    There is a key for each modality.
    """
    return {
        name: layers.linear(key, width(modality), spec.dim) | {"change": jnp.zeros((spec.num_items, width(modality)))}
        for key, (name, modality) in zip(keys, spec.modalities.items(), strict=True)
    }


def trained(given: Mapping[str, DenseFeature], params: Params, spec: Spec) -> dict[str, Rows]:
    """Return the rows (F + Δ) W + b of features that training changes; 0 for items without the modality.

    The features are parameters that start from the given ones in the published code of FREEDOM, LATTICE and others.
    Here Δ starts from 0, since parameters are drawn without the data: the gradient by Δ is that by F + Δ.

    Args:
        given: F of each modality.
        params: W, b and Δ, as `init_trained` makes them. Weight decay, if there is any, pulls F + Δ towards F.
        spec: Its modalities, in whose order the rows are: compiled code sorts the names of inputs.
    """

    def changed(feature: DenseFeature, params: Params) -> Rows:
        unchanged, kernel, change = projected(feature, params), params["kernel"], params["change"]

        def rows(ids: Ids) -> Array:
            total: Array = unchanged(ids) + take(feature.present, ids)[:, None] * (take(change, ids) @ kernel)
            return total

        return memoized(rows)

    return {name: changed(given[name], params[name]) for name in spec.modalities}
