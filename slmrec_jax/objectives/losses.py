"""Losses: terms of a training objective as pure functions, each the mean over the batch's real rows."""

from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, Scalar

from slmrec_jax.encoding import layers
from slmrec_jax.encoding.graph import interactions_among
from slmrec_jax.encoding.rows import rows_of
from slmrec_jax.objectives.augmentations import Views
from slmrec_jax.objectives.softmax import cross_entropy, inbatch_cross_entropy, self_cross_entropy
from slmrec_jax.types import Batch, Context, Distinct, Loss, Metrics, Params, Rows, Spec, View


def info_nce(
    temperature: float,
    negatives: Literal["inbatch", "sampled"] = "inbatch",
    num_negatives: int = 64,
    mask_false_negatives: bool = False,
) -> Loss:
    """SLMRec's main loss, Eq. 12-13: the cross-entropy of a user's item among negatives, by cosine / temperature.

    Args:
        temperature: τ > 0.
        negatives: `"inbatch"` takes the other items of the batch, as the published code does; `"sampled"` draws items
            that the user has not interacted with, as the paper says (its k is not given). The positive item stands in
            the denominator either way.
        num_negatives: k, for sampled negatives.
        mask_false_negatives: leaves items that the user has interacted with out of the in-batch negatives; the
            published code keeps them.
    """

    def inbatch(params: Params, view: View, batch: Batch, context: Context) -> tuple[Scalar, Metrics]:
        if not mask_false_negatives:
            users = layers.normalize(view.users(context.users.ids))
            items = layers.normalize(view.items(context.items.ids))
            return inbatch_cross_entropy(users / temperature, items, context.users, context.items, batch.mask), {}
        users, items = layers.normalize(view.users(batch.users)), layers.normalize(view.items(batch.items))
        known = interactions_among(context.inputs.graph, batch.users, batch.items)
        return cross_entropy(users @ items.T / temperature, batch.mask, batch.mask[None, :] & ~known), {}

    def sampled(params: Params, view: View, batch: Batch, context: Context) -> tuple[Scalar, Metrics]:
        users = layers.normalize(view.users(batch.users))
        positives = layers.normalize(view.items(batch.items))
        drawn = layers.normalize(view.items(batch.negatives.reshape(-1))).reshape(*batch.negatives.shape, -1)
        positive = jnp.sum(users * positives, axis=-1, keepdims=True)
        scores = jnp.concatenate([positive, jnp.einsum("bd,bkd->bk", users, drawn)], axis=1) / temperature
        return layers.mean(jax.nn.logsumexp(scores, axis=1) - scores[:, 0], batch.mask), {}

    if negatives == "sampled":
        return Loss(sampled, num_negatives=num_negatives)
    return Loss(inbatch, in_batch=True)


def bpr(score: Literal["dot", "cosine"] = "dot", num_negatives: int = 1) -> Loss:
    """Bayesian personalised ranking: the mean of softplus(y_uj - y_ui) over positives i and their negatives j.

    Args:
        score: y is the inner product, or the cosine (a variant that SLMRec's published code keeps).
        num_negatives: how many a positive has.
    """
    side = (lambda x: x) if score == "dot" else layers.normalize

    def apply(params: Params, view: View, batch: Batch, context: Context) -> tuple[Scalar, Metrics]:
        users = side(view.users(batch.users))
        positive = jnp.sum(users * side(view.items(batch.items)), axis=-1, keepdims=True)
        drawn = side(view.items(batch.negatives.reshape(-1))).reshape(*batch.negatives.shape, -1)
        negative = jnp.einsum("bd,bkd->bk", users, drawn)
        return layers.mean(jnp.mean(jax.nn.softplus(negative - positive), axis=1), batch.mask), {}

    return Loss(apply, num_negatives=num_negatives)


def embedding_l2(rows: Literal["layer0", "view"] = "layer0", norm: Literal["squared", "frobenius"] = "squared") -> Loss:
    """A penalty on the size of the rows of a batch's users u, positives i and negatives j (the mean over a positive's).

    Args:
        rows: of the tables `user` and `item` (LightGCN), or of the view's channel `id`, which is what ranks but for
            biases (MF, VBPR); biases are not penalised.
        norm: `"squared"` is ½ (|e_u|² + |e_i|² + |e_j|²), the mean over the batch (LightGCN's authors);
            `"frobenius"` is (‖E_u‖_F + ‖E_i‖_F + ‖E_j‖_F) / batch, not squared (MMRec toolbox).
    """

    def apply(params: Params, view: View, batch: Batch, context: Context) -> tuple[Scalar, Metrics]:
        users = rows_of(context.params["user"]) if rows == "layer0" else view.user_modalities["id"]
        items = rows_of(context.params["item"]) if rows == "layer0" else view.item_modalities["id"]
        touched = users(batch.users), items(batch.items), items(batch.negatives.reshape(-1))
        of_users, of_items, of_negatives = (jnp.sum(jnp.square(x), axis=1) for x in touched)
        squares = jnp.stack([of_users, of_items, jnp.mean(of_negatives.reshape(batch.negatives.shape), axis=1)])
        if norm == "squared":
            return layers.mean(0.5 * jnp.sum(squares, axis=0), batch.mask), {}
        of_tables = jnp.sum(jnp.where(batch.mask[None, :], squares, 0.0), axis=1)
        return jnp.sum(jnp.sqrt(of_tables)) / jnp.sum(batch.mask, dtype=squares.dtype), {}

    return Loss(apply, num_negatives=1)


def view_agreement(
    views: Views,
    temperature: float,
    entities: Literal["both", "items"] = "both",
    contrast_on: Literal["fused", "modality"] = "fused",
) -> Loss:
    """SLMRec's FD and FM tasks, Eq. 9: a row must know itself in the other view, among the batch's rows.

    Args:
        views: the pair of augmentations.
        temperature: τ_ssl > 0, of cosines.
        entities: users and items, summed, as the published code has it, or items alone, as in the paper's equations.
        contrast_on: the fused rows (published code), or each modality's rows before fusion, summed (the paper's text).
    """

    def apply(params: Params, view: View, batch: Batch, context: Context) -> tuple[Scalar, Metrics]:
        first, second = (context.encode(augmentation, context.key) for augmentation in views)

        def agreement(a: Rows, b: Rows, of: Distinct) -> Scalar:
            x, y = layers.normalize(a(of.ids)), layers.normalize(b(of.ids))
            return self_cross_entropy(x / temperature, y, of.counts)

        def total(a: Mapping[str, Rows], b: Mapping[str, Rows], of: Distinct) -> Scalar:
            return jnp.sum(jnp.stack([agreement(a[name], b[name], of) for name in a]))

        if contrast_on == "modality":
            items = total(first.item_modalities, second.item_modalities, context.items)
        else:
            items = agreement(first.items, second.items, context.items)
        if entities == "items":
            return items, {}
        if contrast_on == "modality":
            users = total(first.user_modalities, second.user_modalities, context.users)
        else:
            users = agreement(first.users, second.users, context.users)
        return users + items, {"users": users, "items": items}

    return Loss(apply, in_batch=True)


def fine_and_coarse(temperature: float, similarity: Literal["dot", "cosine"] = "dot") -> Loss:
    """SLMRec's FAC task: modalities meet one after another in ever coarser spaces, on the batch's items.

    Level k takes the id rows, which went through the levels before, and the rows of the k-th modality, each through
    an affine head without activation, and asks each item to know itself across the two. Levels one and two have `dim`
    columns, later ones dim / 2 (the published code's widths; it has three levels at most).

    Args:
        temperature: τ_ssl > 0.
        similarity: raw inner products, as in the published code, or cosines, as the paper defines sim().
    """

    def init(key: Key[Array, ""], spec: Spec) -> Params:
        names = tuple(spec.modalities)
        widths = [spec.dim, *(spec.dim if level < 2 else spec.dim // 2 for level in range(len(names)))]
        keys = jax.random.split(key, (len(names), 2))
        return {
            name: {
                "id": layers.linear(keys[level, 0], widths[level], widths[level + 1]),
                "modality": layers.linear(keys[level, 1], spec.dim, widths[level + 1]),
            }
            for level, name in enumerate(names)
        }

    def apply(params: Params, view: View, batch: Batch, context: Context) -> tuple[Scalar, Metrics]:
        side = (lambda x: x) if similarity == "dot" else layers.normalize
        items = context.items
        chained = view.item_modalities["id"](items.ids)
        levels = {}
        for name in (name for name in view.item_modalities if name in params):
            chained = layers.affine(params[name]["id"], chained)
            entering = layers.affine(params[name]["modality"], view.item_modalities[name](items.ids))
            levels[name] = self_cross_entropy(side(chained) / temperature, side(entering), items.counts)
        return jnp.sum(jnp.stack(list(levels.values()))), levels

    return Loss(apply, init, in_batch=True)
