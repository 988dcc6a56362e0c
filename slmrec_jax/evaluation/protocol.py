"""What an evaluation measures and leaves out, and how the best epoch is chosen: `strict`, or as other tools do it."""

import typing
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from slmrec_jax.config.protocols import DEFAULT_CUTOFFS, PROTOCOLS, Ndcg, Protocol, Split
from slmrec_jax.errors import UserError, setting
from slmrec_jax.evaluation.metrics import METRICS, PerUser, means, measure
from slmrec_jax.evaluation.ranking import RankingPlan, prepare, rank
from slmrec_jax.types import Embeddings, Interactions


@typing.runtime_checkable
class Splits(typing.Protocol):
    """What an evaluation needs of a data set."""

    @property
    def num_items(self) -> int: ...
    @property
    def train(self) -> Interactions: ...
    @property
    def valid(self) -> Interactions: ...
    @property
    def test(self) -> Interactions: ...


class EvaluationPlan(NamedTuple):
    """An evaluation made ready by `plan`; keep it to evaluate again after the next epoch."""

    users: Int[np.ndarray, " users"]
    ranking: RankingPlan
    held_out: Interactions
    cutoffs: tuple[int, ...]
    ndcg: Ndcg


class Evaluation(NamedTuple):
    """Every metric at every cut-off."""

    means: Mapping[str, float]
    """By key, such as `recall@20`; over `users`, each with the same weight."""
    per_user: Mapping[str, Float[np.ndarray, " users"]]
    users: Int[np.ndarray, " users"]
    """The ids that the rows of `per_user` belong to, ascending."""


def plan(dataset: Splits, split: Split, protocol: Protocol, ks: Sequence[int] = ()) -> EvaluationPlan:
    """Plan the evaluation of the users who have held-out items in `split`, among all items that are candidates.

    Args:
        dataset: The splits.
        split: Which one is held out.
        protocol: What is masked and how metrics are defined.
        ks: Cut-offs besides the protocol's own. What `within` leaves out of both is not measured.

    Raises:
        UserError: There is no one to evaluate, or a cut-off that was asked for exceeds the number of candidates.
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
            f"no one can be evaluated under protocol {protocol.name}: no user"
            f"{' with training interactions' if protocol.drop_new_users else ''} has an interaction"
            f"{'' if candidates is None else ' with a cold item'} in the {split} split; hold some out, or choose a "
            f"protocol that does not need this split"
        )
    masks_valid = split == "test" and protocol.mask_valid_at_test
    known = [dataset.train, dataset.valid] if masks_valid else [dataset.train]
    protocol, ks = within(protocol, ks, num_candidates(dataset, protocol))
    cutoffs = tuple(sorted({*protocol.cutoffs, *ks}))
    keys = [f"{metric}@{k}" for metric in METRICS for k in cutoffs]
    if protocol.metric is not None and protocol.metric not in keys:
        raise UserError(f"there is no metric {protocol.metric!r} to select by; there are: {', '.join(keys)}")
    ranking = prepare(users, known, dataset.num_items, cutoffs[-1], candidates=candidates, score=protocol.score)
    return EvaluationPlan(users, ranking, held_out, cutoffs, protocol.ndcg)


def within(protocol: Protocol, ks: Sequence[int], num_ranked: int) -> tuple[Protocol, tuple[int, ...]]:
    """Fit the cut-offs, and the metric that selects, to a small catalogue.

    Defaults adapt: cut-offs beyond the items are left out, and where all of them are, all items are the cut-off. A
    metric at a cut-off that was left out is taken at the largest that is left. Defaults are `DEFAULT_CUTOFFS` and what
    `PROTOCOLS` says under the protocol's name; all else was asked for.

    Raises:
        UserError: A cut-off that was asked for exceeds the number of items to rank.
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


def num_candidates(dataset: Splits, protocol: Protocol) -> int:
    """How many items are ranked."""
    return len(cold_items(dataset)) if protocol.candidates == "cold" else dataset.num_items


def cold_items(dataset: Splits) -> Int[np.ndarray, " items"]:
    """The items without training interactions, ascending."""
    return np.flatnonzero(np.bincount(dataset.train.items, minlength=dataset.num_items) == 0)


def doubts(dataset: Splits, split: Split, protocol: Protocol) -> list[str]:
    """Say what makes the figures of a split say little, and how to fix it; a line each."""
    held_out = dataset.valid if split == "valid" else dataset.test
    pairs, known = (part.users * np.int64(dataset.num_items) + part.items for part in (held_out, dataset.train))
    if np.isin(pairs, known).all():
        return [
            f"{split}: all {len(pairs)} interactions stand in train too, where they are masked, so that every metric "
            f"is 0: keep each in one split, or divide again by {setting('split')}"
        ]
    if protocol.candidates == "all" and np.isin(held_out.items, cold_items(dataset)).all():
        return [
            f"{split} holds items without training interactions alone, which find little among the others: "
            f"{setting('eval.candidates', 'cold')} ranks them among themselves"
        ]
    return []


def evaluate(plan: EvaluationPlan, embeddings: Embeddings) -> Evaluation:
    """Ranks all candidates for the users of `plan` and measures how well their held-out items are found.

    Raises:
        UserError: Embeddings are NaN, infinite or so large that scores overflow.
    """
    ranked = rank(plan.ranking, embeddings).items
    per_user: PerUser = measure(ranked, plan.users, plan.held_out, plan.cutoffs, ndcg=plan.ndcg)
    return Evaluation(means(per_user), per_user, plan.users)
