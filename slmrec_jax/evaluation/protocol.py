"""What an evaluation measures and leaves out, and how the best epoch is chosen: `strict`, or as other tools do it."""

import typing
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Int

from slmrec_jax.errors import UserError, setting
from slmrec_jax.evaluation.metrics import METRICS, Ndcg, PerUser, means, measure
from slmrec_jax.evaluation.ranking import RankingPlan, Score, prepare, rank
from slmrec_jax.types import Embeddings, Interactions

Split: TypeAlias = Literal["valid", "test"]
Candidates: TypeAlias = Literal["all", "cold"]

DEFAULT_CUTOFFS = (10, 20, 50)
"""The K that are measured besides a protocol's own, unless others are asked for."""


class Protocol(NamedTuple):
    """The decisions that make figures of two tools comparable, or not. Epochs count from 0."""

    name: str
    split: Split
    """What is measured during training. Selecting on "test" reports figures that are too good."""
    metric: str | None
    """The key by whose mean the best epoch is chosen; `None` keeps the last epoch."""
    patience: int | None
    """Training stops at the first evaluated epoch that is more than so many epochs after the best, or after the
    beginning where there is no best one yet; `None`: never."""
    cutoffs: tuple[int, ...] = (10, 20)
    """The K of every metric."""
    evaluate_every: int = 1
    """Epochs 0, n, 2n, … are evaluated."""
    first_epoch_counts: bool = True
    """Whether epoch 0 can be the best one."""
    round_digits: int | None = None
    """To how many decimals `metric` is rounded before two epochs are compared; an equal value is no improvement."""
    stale_embeddings: bool = False
    """Whether an epoch is judged by the vectors that its last step computed, before that step's update."""
    mask_valid_at_test: bool = False
    """Whether validation items are no candidates at test. Training items never are."""
    drop_new_users: bool = False
    """Whether users without training interactions are left out."""
    score: Score = "dot"
    ndcg: Ndcg = "standard"
    candidates: Candidates = "all"
    """What is ranked and counts as held out: all items, or those without training interactions alone (cold start),
    which stand no chance among the others, whose rows training has made to score high."""


PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("strict", "valid", "recall@20", patience=20, mask_valid_at_test=True),
        # The published code of SLMRec reads one held-out file, and both selects on it and reports it.
        Protocol(
            "slmrec",
            "test",
            "recall@10",
            patience=50,
            cutoffs=(10,),
            first_epoch_counts=False,
            stale_embeddings=True,
            score="sigmoid",
        ),
        Protocol("mmrec", "valid", "recall@20", patience=20, round_digits=4, drop_new_users=True),
        # Since March 2023; before, that code selected on test. Its NDCG depends on the largest cut-off.
        Protocol("mmssl", "valid", "recall@20", patience=7, cutoffs=(10, 20, 50), ndcg="found"),
        # Knows no validation. That code ranks sigmoids; inner products differ from them in saturated ties alone.
        Protocol("lightgcn", "test", None, patience=None, cutoffs=(20,), evaluate_every=10),
    )
}


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
