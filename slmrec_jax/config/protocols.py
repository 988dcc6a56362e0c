"""How a run selects its best epoch and what its evaluation leaves out, by the name of the tool that does it so."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

Split: TypeAlias = Literal["valid", "test"]
Score: TypeAlias = Literal["dot", "sigmoid"]
Ndcg: TypeAlias = Literal["standard", "found"]
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
