"""Rules for selecting the best epoch and for evaluation, named after the tools that follow them."""

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
"""The K that are measured besides a protocol's own, unless others are asked for."""


class Protocol(NamedTuple):
    """The decisions that make figures of two tools comparable, or not. Epochs count from 0."""

    name: ProtocolName
    """The protocol of `PROTOCOLS` that these rules are, or that single `--eval.*` flags changed."""
    split: Split
    """The split that is measured during training. Selecting on "test" reports figures that are too good."""
    metric: str | None
    """The key by whose mean the best epoch is chosen; `None` keeps the last epoch."""
    patience: Annotated[int, at_least(0)] | None
    """Training stops at the first evaluated epoch that is more than this many epochs after the best one, or after the
    start if there is none; `None`: never."""
    cutoffs: Cutoffs = (10, 20)
    """The K of every metric."""
    evaluate_every: Annotated[int, at_least(1)] = 1
    """Epochs 0, n, 2n, … are evaluated."""
    first_epoch_counts: bool = True
    """Whether epoch 0 can be the best one."""
    round_digits: Annotated[int, at_least(0)] | None = None
    """Number of decimals to which `metric` is rounded before two epochs are compared; a tie is no improvement."""
    stale_embeddings: bool = False
    """Whether an epoch is judged by the embeddings that its last step computed, before that step's update."""
    mask_valid_at_test: bool = False
    """Whether validation items are left out of the candidates at test. Training items always are."""
    drop_new_users: bool = False
    """Whether users without training interactions are left out."""
    score: Score = "dot"
    ndcg: Ndcg = "standard"
    candidates: Candidates = "all"
    """Items that are ranked and count as held out: all, or only those without training interactions (cold start), which
    rank low among the others, because training has raised the scores of those."""
    users: Annotated[int, at_least(1)] | None = None
    """Users that are ranked in each evaluation during training: a sample that the seed decides, the same in every
    epoch. All by default, and if there are no more."""
    test_users: Annotated[int, at_least(1)] | None = None
    """Users that are ranked in the test of the best epoch: a sample that is the same for every seed; all by default."""
    precision: RankingPrecision = "float32"
    """The type of scores. "bfloat16" finds four times as many items as the largest cut-off in that type, and ranks
    these in float32."""


PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("strict", "valid", "recall@20", patience=20, mask_valid_at_test=True),
        # SLMRec's published code has one held-out file, on which it selects and which it reports.
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
        # MMSSL's code since March 2023; before, it selected on test. Its NDCG depends on the largest cut-off.
        Protocol("mmssl", "valid", "recall@20", patience=7, cutoffs=(10, 20, 50), ndcg="found"),
        # LightGCN's code has no validation. It ranks sigmoids: inner products differ in saturated ties alone.
        Protocol("lightgcn", "test", None, patience=None, cutoffs=(20,), evaluate_every=10),
    )
}
