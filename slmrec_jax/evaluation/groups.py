"""Metrics by groups of users or items with similar numbers of training interactions, including cold ones."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from slmrec_jax.config.protocols import Side
from slmrec_jax.evaluation.metrics import means, measure
from slmrec_jax.evaluation.protocol import EvaluationPlan
from slmrec_jax.evaluation.ranking import rank
from slmrec_jax.evaluation.samples import half_widths
from slmrec_jax.types import Embeddings, Interactions

STARTS = (0, 1, 2, 5, 10, 20, 50, 100)
"""The smallest number of training interactions in each group."""


class Group(NamedTuple):
    """The evaluated users, or the held-out items, in one range of degrees (numbers of training interactions)."""

    label: str
    """A range such as `2-4`; `0` is the group of cold users or items."""
    num_nodes: int
    """The number of evaluated users, or of held-out items, in the group."""
    num_interactions: int
    """The number of held-out interactions of the group."""
    means: Mapping[str, float]
    """Metrics averaged over users with such interactions. For a group of items, only these items count as held out."""
    half_widths: Mapping[str, float] = {}
    """Half widths as in `Evaluation`. The sample is assumed to contain the same share of the group's users as of all
    users. Empty if all users of the split were ranked."""


class MeasuredGroup(NamedTuple):
    """A group with the metrics of its users."""

    group: Group
    per_user: Mapping[str, Float[np.ndarray, " users"]]
    """Values by metric, for the users with held-out interactions of the group, in ascending order of user id."""


def measure_by_degree(
    plan: EvaluationPlan, embeddings: Embeddings, train: Interactions, side: Side, starts: Sequence[int] = STARTS
) -> list[MeasuredGroup]:
    """Rank all candidates once, and measure each group of users or items. Empty groups are left out.

    Degrees are counted in `train`. `starts` are the smallest degrees of the groups, ascending from 0.

    Raises:
        UserError: Embeddings are NaN, infinite or so large that scores overflow.
    """
    return measure_ranked_by_degree(plan, rank(plan.ranking, embeddings).items, train, side, starts)


def measure_ranked_by_degree(
    plan: EvaluationPlan,
    ranked: Int[np.ndarray, "users ranks"],
    train: Interactions,
    side: Side,
    starts: Sequence[int] = STARTS,
) -> list[MeasuredGroup]:
    """Measure groups like `measure_by_degree`, from a result of `rank` for the users of the plan."""
    evaluated = np.isin(plan.held_out.users, plan.users)
    held_out = Interactions(plan.held_out.users[evaluated], plan.held_out.items[evaluated])
    ids = getattr(held_out, side)
    degrees = np.bincount(getattr(train, side), minlength=ids.max() + 1)
    group_of_pair = np.searchsorted(starts, degrees[ids], side="right") - 1
    groups = []
    for number in np.unique(group_of_pair).tolist():
        chosen = group_of_pair == number
        pairs = Interactions(held_out.users[chosen], held_out.items[chosen])
        rows = np.isin(plan.users, pairs.users)
        per_user = measure(ranked[rows], plan.users[rows], pairs, plan.cutoffs, ndcg=plan.ndcg)
        num_nodes = len(np.unique(ids[chosen]))
        widths = half_widths(per_user, plan.share)
        group = Group(_range_label(starts, number), num_nodes, len(pairs.users), means(per_user), widths)
        groups.append(MeasuredGroup(group, per_user))
    return groups


def _range_label(starts: Sequence[int], number: int) -> str:
    start = starts[number]
    if number + 1 == len(starts):
        return f"{start} or more"
    end = starts[number + 1] - 1
    return str(start) if start == end else f"{start}-{end}"
