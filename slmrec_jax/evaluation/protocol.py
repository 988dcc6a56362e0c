"""Evaluation of embeddings under a protocol: users, candidates, masks and cut-offs."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from slmrec_jax import processes
from slmrec_jax.config.protocols import DEFAULT_CUTOFFS, PROTOCOLS, Ndcg, Protocol, Split
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.errors import UserError, setting
from slmrec_jax.evaluation.metrics import METRIC_NAMES, PerUser, means, measure
from slmrec_jax.evaluation.ranking import RankingPlan, plan_ranking, rank
from slmrec_jax.types import Embeddings, Interactions


class EvaluationPlan(NamedTuple):
    """A prepared evaluation from `plan`; valid for any embeddings of the same data."""

    users: Int[np.ndarray, " users"]
    ranking: RankingPlan
    held_out: Interactions
    cutoffs: tuple[int, ...]
    ndcg: Ndcg


class Evaluation(NamedTuple):
    """Every metric at every cut-off."""

    means: Mapping[str, float]
    """By key, such as `recall@20`; averages over `users` with equal weights."""
    per_user: PerUser
    users: Int[np.ndarray, " users"]
    """The user ids of the rows of `per_user`, ascending."""


def plan(dataset: Dataset, split: Split, protocol: Protocol, ks: Sequence[int] = ()) -> EvaluationPlan:
    """Plan the evaluation of the users who have held-out items in `split`.

    `ks` are cut-offs in addition to the protocol's. `within` reduces both to the number of candidates.

    Raises:
        UserError: There are no users to evaluate, or a chosen cut-off exceeds the number of candidates.
    """
    held_out = dataset.valid if split == "valid" else dataset.test
    candidates = None
    if protocol.candidates == "cold":
        candidates = cold_items(dataset)
        chosen = np.isin(held_out.items, candidates)
        held_out = Interactions(held_out.users[chosen], held_out.items[chosen])
    users = np.unique(held_out.users)
    if protocol.drop_new_users:
        users = users[np.isin(users, dataset.train.users)]
    if len(users) == 0:
        raise UserError(
            f"there are no users to evaluate under protocol {protocol.name}: no user"
            f"{' with training interactions' if protocol.drop_new_users else ''} has an interaction"
            f"{'' if candidates is None else ' with a cold item'} in the {split} split; hold some out, or choose a "
            f"protocol that does not need this split"
        )
    masks_valid = split == "test" and protocol.mask_valid_at_test
    known = [dataset.train, dataset.valid] if masks_valid else [dataset.train]
    protocol, ks = within(protocol, ks, num_candidates(dataset, protocol))
    cutoffs = tuple(sorted({*protocol.cutoffs, *ks}))
    keys = [f"{metric}@{k}" for metric in METRIC_NAMES for k in cutoffs]
    if protocol.metric is not None and protocol.metric not in keys:
        raise UserError(f"there is no metric {protocol.metric!r} to select by; there are: {', '.join(keys)}")
    ranking = plan_ranking(users, known, dataset.num_items, cutoffs[-1], candidates=candidates, score=protocol.score)
    return EvaluationPlan(users, ranking, held_out, cutoffs, protocol.ndcg)


def within(protocol: Protocol, ks: Sequence[int], num_ranked: int) -> tuple[Protocol, tuple[int, ...]]:
    """Fit the cut-offs and the selecting metric to a small catalogue.

    Default values adapt: cut-offs beyond the number of items are dropped, or replaced by that number if none is left;
    the selecting metric moves to the largest remaining cut-off. Values that differ from `DEFAULT_CUTOFFS` and from
    the entry of `PROTOCOLS` were chosen by the caller and must fit.

    Raises:
        UserError: A chosen cut-off exceeds the number of items to rank.
    """
    default = PROTOCOLS.get(protocol.name)
    kept = []
    for name, cutoffs, usual in (
        ("eval.cutoffs", protocol.cutoffs, default and default.cutoffs),
        ("ks", tuple(ks), DEFAULT_CUTOFFS),
    ):
        beyond = [k for k in cutoffs if k > num_ranked]
        if beyond and cutoffs != usual:
            raise UserError(
                f"{setting(name)}: the cut-off {beyond[0]} is beyond the {num_ranked} items to rank: give at most "
                f"{num_ranked}"
            )
        left = tuple(k for k in cutoffs if k <= num_ranked)
        kept.append(left or (num_ranked,) if cutoffs else ())
    metric = protocol.metric
    if metric is not None and default is not None and metric == default.metric:
        name, _, k = metric.partition("@")
        if int(k) > num_ranked:
            metric = f"{name}@{max(kept[0] + kept[1])}"
    return protocol._replace(cutoffs=kept[0], metric=metric), kept[1]


def num_candidates(dataset: Dataset, protocol: Protocol) -> int:
    """Return the number of items to rank."""
    return len(cold_items(dataset)) if protocol.candidates == "cold" else dataset.num_items


def cold_items(dataset: Dataset) -> Int[np.ndarray, " items"]:
    """Return the items without training interactions, ascending."""
    return np.flatnonzero(np.bincount(dataset.train.items, minlength=dataset.num_items) == 0)


def doubts(dataset: Dataset, split: Split, protocol: Protocol) -> list[str]:
    """Return a warning and its fix for each reason why the metrics of a split mean little."""
    held_out = dataset.valid if split == "valid" else dataset.test
    pairs, known = (part.users * np.int64(dataset.num_items) + part.items for part in (held_out, dataset.train))
    if np.isin(pairs, known).all():
        return [
            f"{split}: all {len(pairs)} interactions are also in train, where they are masked, so that every metric "
            f"is 0: keep each in one split, or split again with {setting('split')}"
        ]
    if protocol.candidates == "all" and np.isin(held_out.items, cold_items(dataset)).all():
        return [
            f"{split} holds only items without training interactions, which rank low among the others: "
            f"{setting('eval.candidates', 'cold')} ranks them among themselves"
        ]
    return []


def evaluate(plan: EvaluationPlan, embeddings: Embeddings) -> Evaluation:
    """Rank all candidates for the users of `plan`, and measure how well their held-out items are found.

    For embeddings on a mesh of several processes, all of them must call this, and they share the measuring.

    Raises:
        UserError: Embeddings are NaN, infinite or so large that scores overflow.
    """
    ranked, num_users = rank(plan.ranking, embeddings).items, len(plan.users)
    shared = isinstance(embeddings.items, jax.Array) and not embeddings.items.is_fully_addressable
    own = processes.own_rows(num_users) if shared else slice(None)
    per_user = measure(ranked[own], plan.users[own], plan.held_out, plan.cutoffs, ndcg=plan.ndcg)
    if shared:
        per_user = {name: processes.all_rows(values, num_users) for name, values in per_user.items()}
    return Evaluation(means(per_user), per_user, plan.users)
