"""Evaluation of embeddings under a protocol, which defines users, candidates, masks and cut-offs."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, get_args

import jax
import numpy as np
from jaxtyping import Int

from slmrec_jax import processes
from slmrec_jax.config.protocols import DEFAULT_CUTOFFS, PROTOCOLS, Ndcg, Protocol, Split
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.errors import UserError, setting
from slmrec_jax.evaluation.interactions import contains_all, pairs_at, positions_of, presence
from slmrec_jax.evaluation.metrics import METRIC_NAMES, PerUser, means, measure
from slmrec_jax.evaluation.ranking import RankingPlan, plan_ranking, rank
from slmrec_jax.evaluation.samples import TEST_SEED, half_widths, sample_users
from slmrec_jax.types import Embeddings, Interactions


class EvaluationPlan(NamedTuple):
    """A prepared evaluation, made by `plan_evaluation` and valid for any embeddings of the same data."""

    users: Int[np.ndarray, " users"]
    """The users to evaluate, ascending."""
    ranking: RankingPlan
    held_out: Interactions
    cutoffs: tuple[int, ...]
    ndcg: Ndcg
    population: int
    """The number of users that the split has under the protocol; larger than the number of `users` if these are a
    sample."""

    @property
    def share(self) -> float:
        """The share of the population that is ranked."""
        return len(self.users) / self.population


class Plans(NamedTuple):
    """The evaluations of a run."""

    selecting: EvaluationPlan
    final: Mapping[str, EvaluationPlan]
    """The evaluations after training, by split."""


class Evaluation(NamedTuple):
    """The result of an evaluation: every metric at every cut-off."""

    means: Mapping[str, float]
    """Averages over `users` with equal weights, by key, such as `recall@20`."""
    per_user: PerUser
    users: Int[np.ndarray, " users"]
    """The user ids of the rows of `per_user`, ascending."""
    half_widths: Mapping[str, float]
    """The half widths of the 95 % intervals of the means of a sample (`samples.half_widths`); empty if all users of the
    split were ranked."""
    population: int
    """The number of users that the split has under the protocol."""


def plan_evaluation(
    dataset: Dataset,
    split: Split,
    protocol: Protocol,
    ks: Sequence[int] = (),
    *,
    users: int | None = None,
    seed: int = 0,
) -> EvaluationPlan:
    """Plan the evaluation of the users with held-out items in `split`.

    Besides the data's interactions, it needs memory proportional to the interactions of the evaluated users, one byte
    per user and item of the data set, and blocks of bounded size. `python benchmarks/bench_evaluate.py --plan 20000000`
    measures the memory; docs/scale.md has the figures.

    Args:
        dataset: The data.
        split: The split whose held-out items are to be found.
        protocol: The rules. Its own sample sizes are ignored here; `selecting_plan` and `final_plan` use them.
        ks: Cut-offs in addition to the protocol's. `within` limits both to the number of candidates.
        users: The number of users to sample. By default, or if there are no more, all users are evaluated.
        seed: The seed of the sample.

    Raises:
        UserError: There are no users to evaluate, or a cut-off chosen by the caller exceeds the number of candidates.
    """
    held_out = dataset.valid if split == "valid" else dataset.test
    candidates = None
    if protocol.candidates == "cold":
        candidates = cold_items(dataset)
        cold = presence(candidates, dataset.num_items)
        held_out = pairs_at(held_out, positions_of(cold, held_out.items))
    tested = np.flatnonzero(presence(held_out.users, dataset.num_users)).astype(np.int32)
    if protocol.drop_new_users:
        tested = tested[presence(dataset.train.users, dataset.num_users)[tested]]
    if len(tested) == 0:
        raise UserError(
            f"there are no users to evaluate under protocol {protocol.name}: no user"
            f"{' with training interactions' if protocol.drop_new_users else ''} has an interaction"
            f"{'' if candidates is None else ' with a cold item'} in the {split} split; hold some out, or choose a "
            f"protocol that does not need this split"
        )
    masks_valid = split == "test" and protocol.mask_valid_at_test
    known = [dataset.train, dataset.valid] if masks_valid else [dataset.train]
    protocol, ks = limit_cutoffs(protocol, ks, num_candidates(dataset, protocol))
    cutoffs = tuple(sorted({*protocol.cutoffs, *ks}))
    keys = [f"{metric}@{k}" for metric in METRIC_NAMES for k in cutoffs]
    if protocol.metric is not None and protocol.metric not in keys:
        raise UserError(
            f"{setting('eval.metric', protocol.metric)}: there is no metric of that name to select by; give one of "
            f"{', '.join(keys)}"
        )
    sample = sample_users(tested, users, seed)
    if len(sample) < len(tested):
        held_out = pairs_at(held_out, positions_of(presence(sample, dataset.num_users), held_out.users))
    ranking = plan_ranking(
        sample,
        known,
        dataset.num_items,
        cutoffs[-1],
        candidates=candidates,
        score=protocol.score,
        precision=protocol.precision,
    )
    return EvaluationPlan(sample, ranking, held_out, cutoffs, protocol.ndcg, len(tested))


def selecting_plan(dataset: Dataset, protocol: Protocol, ks: Sequence[int], seed: int) -> EvaluationPlan:
    """Plan the evaluation during training, for the same `protocol.users` users of its split in every epoch.

    Raises:
        UserError: As for `plan_evaluation`.
    """
    return plan_evaluation(dataset, protocol.split, protocol, ks, users=protocol.users, seed=seed)


def final_plan(dataset: Dataset, split: Split, protocol: Protocol, ks: Sequence[int], seed: int) -> EvaluationPlan:
    """Plan the evaluation of a split after training.

    On test, `protocol.test_users` users are ranked, by default all. The sample is the same for every seed, so that runs
    can be compared user by user. On validation, the sample is that of `selecting_plan`.

    Raises:
        UserError: As for `plan_evaluation`.
    """
    if split == "test":
        return plan_evaluation(dataset, split, protocol, ks, users=protocol.test_users, seed=TEST_SEED)
    return plan_evaluation(dataset, split, protocol, ks, users=protocol.users, seed=seed)


def plan_run(dataset: Dataset, protocol: Protocol, ks: Sequence[int], seed: int) -> Plans:
    """Plan all evaluations of a run. An empty split is left out, unless the protocol selects the best epoch with it.

    Raises:
        UserError: As for `plan_evaluation`.
    """
    splits = [split for split in get_args(Split) if split == protocol.split or len(getattr(dataset, split).users) > 0]
    final = {split: final_plan(dataset, split, protocol, ks, seed) for split in splits}
    same = protocol.split == "valid" or (protocol.users is None and protocol.test_users is None)
    return Plans(final[protocol.split] if same else selecting_plan(dataset, protocol, ks, seed), final)


def limit_cutoffs(protocol: Protocol, ks: Sequence[int], num_ranked: int) -> tuple[Protocol, tuple[int, ...]]:
    """Fit the cut-offs and the selecting metric to a small catalogue.

    Default values are adapted: cut-offs above the number of items are dropped, or replaced by that number if none is
    left, and the selecting metric moves to the largest remaining cut-off. Values that differ from `DEFAULT_CUTOFFS` and
    from the entry in `PROTOCOLS` were chosen by the caller and must fit.

    Raises:
        UserError: A cut-off chosen by the caller exceeds the number of items to rank.
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
    return np.flatnonzero(~presence(dataset.train.items, dataset.num_items))


def split_warnings(dataset: Dataset, split: Split, protocol: Protocol) -> list[str]:
    """Return warnings, each with its fix, about reasons why the metrics of a split are not meaningful."""
    held_out = dataset.valid if split == "valid" else dataset.test
    if contains_all(dataset.train, held_out):
        return [
            f"{split}: all {len(held_out.users)} interactions are also in train, where they are masked, so that every "
            f"metric is 0: keep each in one split, or split again with {setting('split')}"
        ]
    trained = presence(dataset.train.items, dataset.num_items)
    if protocol.candidates == "all" and len(positions_of(trained, held_out.items)) == 0:
        return [
            f"{split} holds only items without training interactions, which rank low among the others: "
            f"{setting('eval.candidates', 'cold')} ranks them among themselves"
        ]
    return []


def evaluate(plan: EvaluationPlan, embeddings: Embeddings) -> Evaluation:
    """Rank all candidates for the users of `plan`, and measure how well held-out items are found.

    If the embeddings are on a mesh of several processes, all processes must call this function; they share the work.

    Raises:
        UserError: Embeddings are NaN, infinite or so large that scores overflow.
    """
    ranked = rank(plan.ranking, embeddings).items
    shared = isinstance(embeddings.items, jax.Array) and not embeddings.items.is_fully_addressable
    return evaluate_ranked(plan, ranked, shared=shared)


def evaluate_ranked(
    plan: EvaluationPlan, ranked: Int[np.ndarray, "users ranks"], *, shared: bool = False
) -> Evaluation:
    """Measure a result of `rank` for the users of `plan`. If `shared`, all processes call this and share the work."""
    num_users = len(plan.users)
    own = processes.own_rows(num_users) if shared else slice(None)
    per_user = measure(ranked[own], plan.users[own], plan.held_out, plan.cutoffs, ndcg=plan.ndcg)
    if shared:
        per_user = {name: processes.gathered_rows(values, num_users) for name, values in per_user.items()}
    return Evaluation(means(per_user), per_user, plan.users, half_widths(per_user, plan.share), plan.population)
