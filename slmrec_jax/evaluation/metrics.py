"""Ranking metrics against the held-out items of each user, in float64 on the host.

For one user, T is the set of held-out items, n = |T|, and r_p is 1 if the item at position p = 1, 2, … is in T and 0
otherwise. All metrics are between 0 and 1.

A new metric needs its name in `METRIC_NAMES` and its values in `_measure_relevance`.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from slmrec_jax.config.protocols import Ndcg
from slmrec_jax.errors import UserError
from slmrec_jax.types import Interactions

METRIC_NAMES = ("recall", "ndcg", "precision", "hit", "map", "mrr")

_USERS_AT_ONCE = 2**15
"""The number of users measured at a time, so that memory does not grow with users × ranks."""

PerUser: TypeAlias = Mapping[str, Float[np.ndarray, " users"]]
"""Metrics of each user by key, such as `recall@20`."""


def measure(
    ranked: Int[np.ndarray, "users ranks"],
    users: Int[np.ndarray, " users"],
    held_out: Interactions,
    ks: Sequence[int],
    *,
    ndcg: Ndcg = "standard",
) -> PerUser:
    """Compute every metric at every cut-off K in `ks` for each user.

    * recall@K = Σ_{p≤K} r_p / n
    * ndcg@K = (Σ_{p≤K} r_p / log2(p+1)) / (Σ_{p≤min(K,m)} 1 / log2(p+1)). m = n if `ndcg` is "standard". If it
      is "found", m is the number of hits among the first max(ks) positions, as in LATTICE and MMSSL: values are higher
      and depend on the largest cut-off. Without hits both are 0.
    * precision@K = Σ_{p≤K} r_p / K
    * hit@K = 1 if any r_p with p ≤ K is 1, else 0
    * map@K = Σ_{p≤K} r_p · precision@p / min(K, n)
    * mrr@K = 1 / p of the first hit if p ≤ K, else 0

    Args:
        ranked: Item ids, best first, without repeats; -1 is an empty place, which is never a hit.
        users: The user of each row, with at least one held-out item.
        held_out: Pairs in any order. Repeated pairs count once, and pairs of other users are ignored.
        ks: Cut-offs, at least one.
        ndcg: The definition of the ideal ranking, `"standard"` or `"found"`.

    Raises:
        UserError: A cut-off is below 1 or longer than the ranking: change K.
        ValueError: A user has no held-out items, so the metrics are undefined.
    """
    ks = sorted(set(ks))
    depth = ranked.shape[1]
    if ks[0] < 1 or ks[-1] > depth:
        raise UserError(f"metrics at K = {ks[0]}..{ks[-1]}: give K from 1 to {depth}, the number of ranked items")
    pairs, stride = _sorted_pairs(held_out, ranked)
    names = [f"{name}@{k}" for name in METRIC_NAMES for k in ks]
    per_user = {name: np.empty(len(users)) for name in names}
    for start in range(0, len(users), _USERS_AT_ONCE):
        rows = slice(start, start + _USERS_AT_ONCE)
        relevance = _relevance(ranked[rows, : ks[-1]], users[rows], pairs, stride)
        for name, values in _measure_relevance(*relevance, ks, ndcg).items():
            per_user[name][rows] = values
    return per_user


def _measure_relevance(
    hits: Bool[np.ndarray, "users ranks"], num_held_out: Int[np.ndarray, " users"], ks: Sequence[int], ndcg: Ndcg
) -> PerUser:
    positions = np.arange(1, ks[-1] + 1)
    gains = 1 / np.log2(positions + 1)
    found = np.cumsum(hits, axis=1)
    dcg = np.cumsum(hits * gains, axis=1)
    precisions = np.cumsum(hits * found / positions, axis=1)
    reciprocal_rank = np.maximum.accumulate(hits / positions, axis=1)
    ideal_dcg = np.cumsum(gains)
    ideal_hits = num_held_out if ndcg == "standard" else np.maximum(found[:, -1], 1)
    return {
        **{f"recall@{k}": found[:, k - 1] / num_held_out for k in ks},
        **{f"ndcg@{k}": dcg[:, k - 1] / ideal_dcg[np.minimum(k, ideal_hits) - 1] for k in ks},
        **{f"precision@{k}": found[:, k - 1] / k for k in ks},
        **{f"hit@{k}": (found[:, k - 1] > 0).astype(np.float64) for k in ks},
        **{f"map@{k}": precisions[:, k - 1] / np.minimum(k, num_held_out) for k in ks},
        **{f"mrr@{k}": reciprocal_rank[:, k - 1] for k in ks},
    }


def means(per_user: PerUser) -> dict[str, float]:
    """Average over users with equal weights."""
    return {key: float(values.mean()) for key, values in per_user.items()}


def _sorted_pairs(
    held_out: Interactions, ranked: Int[np.ndarray, "users ranks"]
) -> tuple[Int[np.ndarray, " pairs"], np.int64]:
    """Encode each pair as one sortable number, stride × user + item; return these, ascending, and the stride."""
    stride = np.int64(1 + max(held_out.items.max(initial=0), ranked.max(initial=0)))
    return np.unique(held_out.users * stride + held_out.items), stride


def _relevance(
    ranked: Int[np.ndarray, "users ranks"],
    users: Int[np.ndarray, " users"],
    pairs: Int[np.ndarray, " pairs"],
    stride: np.int64,
) -> tuple[Bool[np.ndarray, "users ranks"], Int[np.ndarray, " users"]]:
    """Compute r_p and n of each user."""
    start, end = np.searchsorted(pairs, users * stride), np.searchsorted(pairs, (users + 1) * stride)
    if (start == end).any():
        raise ValueError(f"user {users[start == end][0]} has no held-out items")
    wanted = (users * stride)[:, None] + ranked
    nearest = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    return (pairs[nearest] == wanted) & (ranked >= 0), end - start
