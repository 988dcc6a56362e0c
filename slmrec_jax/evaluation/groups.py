"""Metrics by how often users or items were met in training, down to those that never were."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from slmrec_jax.evaluation.metrics import means, measure
from slmrec_jax.evaluation.protocol import EvaluationPlan
from slmrec_jax.evaluation.ranking import rank
from slmrec_jax.types import Embeddings, Interactions

Side: TypeAlias = Literal["users", "items"]

STARTS = (0, 1, 2, 5, 10, 20, 50, 100)
"""The least training interactions of each group; the next one's are its end."""


class Group(NamedTuple):
    """The evaluated users, or the held-out items, with so many training interactions."""

    label: str
    """Such as `2-4`; `0` are the cold ones."""
    num_nodes: int
    """Evaluated users, or held-out items, of the group."""
    num_interactions: int
    """Held-out interactions of the group."""
    means: Mapping[str, float]
    """By metric, over the users who have such interactions; for items, as if nothing else had been held out."""


def evaluate_by_degree(
    plan: EvaluationPlan,
    embeddings: Embeddings,
    train: Interactions,
    side: Side,
    starts: Sequence[int] = STARTS,
) -> list[Group]:
    """Ranks once, among all candidates, and measures each group apart; groups with nothing held out are left out.

    Args:
        plan: what to evaluate.
        embeddings: what ranks.
        train: what degrees are counted in.
        side: whose degrees make the groups.
        starts: the least degree of each group, ascending from 0.

    Raises:
        UserError: Embeddings are NaN, infinite or so large that scores overflow.
    """
    ranked = rank(plan.ranking, embeddings).items
    num_items = plan.ranking.num_items
    num_users = 1 + max(int(plan.users.max()), int(plan.held_out.users.max()), int(train.users.max(initial=0)))
    counts = {
        "users": np.bincount(train.users, minlength=num_users),
        "items": np.bincount(train.items, minlength=num_items),
    }[side]
    evaluated = np.isin(plan.held_out.users, plan.users)
    ids = getattr(plan.held_out, side)
    of_pair = np.searchsorted(starts, counts[ids], side="right") - 1
    groups = []
    for number, start in enumerate(starts):
        chosen = evaluated & (of_pair == number)
        if chosen.any():
            held_out = Interactions(plan.held_out.users[chosen], plan.held_out.items[chosen])
            end = starts[number + 1] - 1 if number + 1 < len(starts) else None
            groups.append(_measure(plan, ranked, held_out, _label(start, end), len(np.unique(ids[chosen]))))
    return groups


def _measure(
    plan: EvaluationPlan,
    ranked: Int[np.ndarray, "users ranks"],
    held_out: Interactions,
    label: str,
    num_nodes: int,
) -> Group:
    rows: Bool[np.ndarray, " users"] = np.isin(plan.users, held_out.users)
    per_user: Mapping[str, Float[np.ndarray, " users"]] = measure(
        ranked[rows], plan.users[rows], held_out, plan.cutoffs, ndcg=plan.ndcg
    )
    return Group(label, num_nodes, len(held_out.users), means(per_user))


def _label(start: int, end: int | None) -> str:
    if end is None:
        return f"{start} or more"
    return str(start) if start == end else f"{start}-{end}"
