"""Rules for selecting the best epoch and for evaluation, named after the tools that use them."""

from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple, TypeAlias

from slmrec_jax.forms import at_least, not_empty

ProtocolName = Literal["strict", "slmrec", "mmrec", "mmssl", "lightgcn"]
Split: TypeAlias = Literal["valid", "test"]
Score: TypeAlias = Literal["dot", "sigmoid"]
Ndcg: TypeAlias = Literal["standard", "found"]
RankingPrecision: TypeAlias = Literal["float32", "bfloat16"]
Candidates: TypeAlias = Literal["all", "cold"]
Side: TypeAlias = Literal["users", "items"]

Cutoffs: TypeAlias = Annotated[tuple[Annotated[int, at_least(1)], ...], not_empty("cut-off")]

DEFAULT_CUTOFFS = (10, 20, 50)
"""The cut-offs that are measured by default, in addition to the protocol's own."""


class Protocol(NamedTuple):
    """The evaluation rules that must agree for the results of two tools to be comparable. Epochs count from 1."""

    name: ProtocolName
    """The protocol in `PROTOCOLS` that these rules are, possibly changed by single `--eval.*` flags."""
    split: Split
    """The split that is evaluated during training. Selecting on "test" gives overly optimistic results."""
    metric: str | None
    """The metric whose mean selects the best epoch; `None` keeps the last epoch."""
    patience: Annotated[int, at_least(0)] | None
    """Training stops at the first evaluated epoch that is more than this many epochs after the best one; `None`
    disables early stopping."""
    cutoffs: Cutoffs = (10, 20)
    """Cut-offs K of every metric."""
    evaluate_every: Annotated[int, at_least(1)] = 1
    """Epochs 1, 1 + n, 1 + 2n, … are evaluated."""
    first_epoch_counts: bool = True
    """Whether epoch 1 can be the best one."""
    round_digits: Annotated[int, at_least(0)] | None = None
    """Number of decimals to which `metric` is rounded before epochs are compared; a tie is not an improvement."""
    stale_embeddings: bool = False
    """Whether an epoch is evaluated with the embeddings from before the update of its last step."""
    mask_valid_at_test: bool = False
    """Whether validation items are excluded from the candidates at test. Training items always are."""
    drop_new_users: bool = False
    """Whether users without training interactions are excluded."""
    score: Score = "dot"
    ndcg: Ndcg = "standard"
    candidates: Candidates = "all"
    """Items that are ranked and count as held out: all, or only those without training interactions (cold start). Among
    all items, cold ones rank low, because training raises the scores of the others."""
    users: Annotated[int, at_least(1)] | None = None
    """Number of users that are ranked in each evaluation during training: a sample that depends on the seed and is the
    same in every epoch. By default, or if there are no more, all."""
    test_users: Annotated[int, at_least(1)] | None = None
    """Number of users that are ranked in the test of the best epoch: a sample that is the same for every seed; all by
    default."""
    precision: RankingPrecision = "float32"
    """Precision of the scores. "bfloat16" finds four times as many items as the largest cut-off in bfloat16, and ranks
    these in float32."""


PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("strict", "valid", "recall@20", patience=20, mask_valid_at_test=True),
        # SLMRec's published code uses a single held-out file for both selection and reporting.
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
        # MMSSL's code since March 2023; it selected on test before. Its NDCG depends on the largest cut-off.
        Protocol("mmssl", "valid", "recall@20", patience=7, cutoffs=(10, 20, 50), ndcg="found"),
        # LightGCN's code has no validation. It ranks sigmoids, which differ from inner products only in saturated ties.
        Protocol("lightgcn", "test", None, patience=None, cutoffs=(20,), evaluate_every=10),
    )
}
