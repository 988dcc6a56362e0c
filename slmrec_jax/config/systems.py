"""The options of each system and of the optimizer. Each field is a flag (`--slmrec.alpha 0.05`).

To add a model `dragon` to the package:

1. Write its encoder and its recipe (the encoder with its losses) in `slmrec_jax/models/dragon.py`.
2. Add the recipe to `RECIPES` in `slmrec_jax/models/__init__.py`.
3. Add its options, a class `DragonConfig`, to `peers.py`, and a field `dragon` to `Config` in `config.py`. Add its name
   to `ModelName` and its optimizer settings to `BASE` in this file.
4. Add one line to `CONFIGS` in `tests/methods/test_contract.py`, the suite that every system passes.

Flags, checks of types and ranges, `config.json` and resuming follow from the annotations. Presets, if it needs any, go
to `slmrec_jax/config/presets.py`. The tests in `tests/config/test_defaults.py` then list what is missing in
`docs/settings.md`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from slmrec_jax.forms import at_least, more_than, share

ModelName = Literal[
    "slmrec",
    "mf",
    "lightgcn",
    "vbpr",
    "mmgcn",
    "mmssl",
    "sgl",
    "simgcl",
    "freedom",
    "bm3",
    "lattice",
    "mgcn",
]

Settings: TypeAlias = Mapping[str, Any]
"""Settings by flag name, such as `{"slmrec.temperature": 0.2}`."""


@dataclass(frozen=True)
class SLMRecConfig:
    """SLMRec (Tao et al., IEEE TMM 2022), with every choice in which its paper and its published code differ."""

    alpha: Annotated[float, at_least(0)] = 0.1
    """Weight of the self-supervised task."""
    temperature: Annotated[float, more_than(0)] = 0.3
    """Temperature of the main loss; 0.2 in paper and code."""
    ssl_temperature: Annotated[float, more_than(0)] = 0.2
    """Temperature of the self-supervised task."""
    main_negatives: Literal["inbatch", "sampled"] = "inbatch"
    """Negatives of the main loss: the other items of the batch (code) or sampled items (paper)."""
    num_negatives: Annotated[int, at_least(1)] = 64
    """Number of sampled negatives per interaction; the paper does not give it."""
    mask_false_negatives: bool = False
    """Exclude the user's own training items from the in-batch negatives; neither paper nor code does."""
    popularity_correction: float | Literal["auto"] = "auto"
    """β: training subtracts β log d from the score of an item with d interactions, since in-batch negatives occur in
    proportion to their popularity. 1 suits data where popularity predicts well, 0 (code) other data; `auto` decides by
    the data."""
    fac_similarity: Literal["dot", "cosine"] = "dot"
    """FAC compares by inner product (code) or by cosine (paper)."""
    dropout_rate: Annotated[float, share()] = 0.3
    """FD: share of entries to drop."""
    fd_mode: Literal["layer", "input"] = "layer"
    """FD drops after each propagation layer (code) or in the items' input (paper)."""
    fm_mode: Literal["swapped", "clean"] = "swapped"
    """FM: use one mask for layer 0 and the other for the other layers (code), or one mask per view (paper)."""
    edge_rate: Annotated[float, share()] = 0.1
    """Share of interactions (ED, RW) or of users and items (ND) that a view drops."""
    fm_granularity: Literal["batch", "item"] = "batch"
    """FM masks one modality for all items of a step, or one per item; with `item`, masks are never swapped."""
    ssl_entities: Literal["both", "items"] = "both"
    """FD and FM contrast users and items (code) or only items (paper)."""
    contrast_on: Literal["fused", "modality"] = "fused"
    """FD and FM contrast the fused rows (code) or the rows of each modality (paper)."""
    fusion: Literal["concat", "mean", "sum"] = "concat"
    """How modalities are fused: an affine map of their concatenation (code), their mean or their sum."""
    user_table: Literal["shared", "per_modality"] = "shared"
    """One user table for all modalities (code) or one per modality."""
    normalize_features: bool = True
    """Divide each feature row by its L2 norm (code)."""
    words: Literal["frozen", "trainable"] = "frozen"
    """Word-id modalities: the mean of fixed random vectors (code) or of trained ones."""
    item_graph: Annotated[float, at_least(0)] = 0.0
    """Weight of the mean id row of each item's nearest items by features, which is added to its fused row (FREEDOM);
    neither paper nor code has it."""
    graph_neighbours: Annotated[int, at_least(1)] = 10
    """Number of nearest items in each modality that an item is connected to in this graph, including itself."""


@dataclass(frozen=True)
class MFConfig:
    """Matrix factorisation with BPR (Rendle et al., UAI 2009)."""

    features: Literal["none", "concat", "linear"] = "none"
    """Only ids (`none`); the id row concatenated with the projected row of each modality, as in the SLMRec paper's
    baseline, with user rows of the same width (`concat`); or an affine map of ids and features (`linear`)."""
    item_bias: bool = False
    """Give each item a bias."""
    l2: Annotated[float, at_least(0)] = 0.05
    """Weight of the batch's rows in the loss: l2 / 2 · (|p_u|² + |q_i|² + |q_j|²) / batch."""


@dataclass(frozen=True)
class LightGCNConfig:
    """LightGCN (He et al., SIGIR 2020) with BPR, on ids only, or with modalities as in the SLMRec paper's baseline."""

    features: Literal["none", "fused"] = "none"
    """Only ids, or SLMRec's encoder and fusion without its losses."""
    l2: Annotated[float, at_least(0)] = 1e-3
    """Weight of the batch's layer-0 rows in the loss: l2 / 2 · (|e_u|² + |e_i|² + |e_j|²) / batch; the authors use
    1e-4."""
    norm: Literal["squared", "frobenius"] = "squared"
    """Norm of the rows in that term: squared (the authors' code) or unsquared Frobenius (MMRec toolbox)."""
    init: Literal["normal", "xavier"] = "normal"
    """Initial values of the tables, for ids only: normal with standard deviation 0.1 (code) or Xavier-uniform
    (paper)."""
    score: Literal["dot", "cosine"] = "dot"
    """Score that BPR compares; SLMRec's published code has a cosine variant."""


@dataclass(frozen=True)
class VBPRConfig:
    """VBPR (He and McAuley, AAAI 2016) on the concatenated features."""

    variant: Literal["multimodal", "original"] = "multimodal"
    """The form in the SLMRec paper and MMRec, or the original with an item bias and a visual bias."""
    l2: Annotated[float, at_least(0)] = 0.1
    """Weight of the batch's rows in the loss, as for MF."""
    norm: Literal["squared", "frobenius"] = "squared"
    """Norm of the rows in that term: squared, or unsquared Frobenius (MMRec toolbox)."""
    normalize_features: bool = False
    """Divide each feature row by its L2 norm; the references do not."""


@dataclass(frozen=True)
class MMGCNConfig:
    """MMGCN (Wei et al., ACM MM 2019)."""

    tables: Literal["trained", "frozen"] = "trained"
    """Identity and preference tables: trained, as in the paper, or left random, as in the published code."""
    latent_dim: Annotated[int, at_least(1)] = 256
    """Number of columns to which the `projected` modalities and their preference tables are projected first."""
    projected: tuple[str, ...] = ("visual",)
    """Modalities that are projected first; the others keep their original columns."""
    l2: Annotated[float, at_least(0)] = 0.1
    """Weight of the mean squares of the batch's identity rows and of the projected modalities' preference tables."""
    normalize_features: bool = False
    """Divide each feature row by its L2 norm; the published code does not."""


@dataclass(frozen=True)
class MMSSLConfig:
    """MMSSL (Wei et al., WWW 2023) as in its paper, with weights chosen on validation.

    The preset `paper` has the weights of the paper's figures and code; `published` computes the same as the released
    code. Values that the paper does not give are ours: the sizes of the graphs, the discriminator's widths and number
    of users, and the weight of own scores.
    """

    attention: Literal["cross_modal", "collapsed"] = "cross_modal"
    """Attention across modalities, or the single map without attention weights that the code effectively computes."""
    heads: Annotated[int, at_least(1)] = 4
    graphs: Literal["all_users", "last_batches"] = "all_users"
    """Modality graphs: the best items of all users, or only of the users in the last batches (code), which mispairs
    users and items if there are several items per user, and has no edges most of the time."""
    topk_rate: Annotated[float, at_least(0)] = 1.5e-3
    """Share of all items that a user is connected to in a modality's graph; on small data the code rounds it to 0
    items, `all_users` never does."""
    refresh_every: Annotated[int, at_least(0)] = 0
    """Number of steps between rebuilds of the graphs; 0 rebuilds once per pass over the interactions."""
    similarity: Literal["cosine", "dot"] = "cosine"
    """Similarity of a user's and an item's modality rows: cosine, or inner product (code), which favours items with
    many interactions."""
    mask_training: bool = False
    """Set the scores of a user's training items to 0 wherever rows of similarities are compared (code)."""
    id_propagation: Literal["simultaneous", "sequential"] = "simultaneous"
    """LightGCN's layers, or rounds in which user ids never reach an item (code)."""
    id_layers: Annotated[int, at_least(0)] = 4
    """Number of propagation rounds of ids, instead of `num_layers`."""
    last_softmax: bool = False
    """Apply a softmax over the columns of the last round (code)."""
    sampling: Literal["interactions", "users"] = "interactions"
    """Each interaction once per pass, or batches of distinct users with one interaction each (code)."""
    view_weight: float = 0.0
    """Weight of the modality-aware id views in layer 0 of the ids."""
    feature_weight: float = 0.0
    """Weight of each modality's normalised rows in the final rows."""
    feature_dropout: Annotated[float, share()] = 0.2
    normalize_features: bool = False
    """Divide each feature row by its L2 norm; the published code does not."""
    l2: Annotated[float, at_least(0)] = 1e-3
    """Weight of the batch's final rows in the loss, as for MF."""
    feature_l2: Annotated[float, at_least(0)] = 1e-5
    """Weight of the modality rows of all nodes in the loss: feature_l2 / 2 · Σ_m (|F_u^m|² + |F_i^m|²) / items."""
    contrast_weight: Annotated[float, at_least(0)] = 0.01
    contrast_temperature: Annotated[float, at_least(0.025)] = 0.15
    """τ of the contrast. A smaller one than 0.025 could underflow, since a row's own similarity is left out."""
    adversarial_weight: Annotated[float, at_least(0)] = 1e-4
    """Weight of the generator's term; 0 disables the discriminator."""
    adversarial_users: Annotated[int, at_least(0)] = 128
    """Number of users of a batch that the discriminator sees, as far as memory allows; 0 means all."""
    discriminator_activation: Literal["leaky", "identity"] = "leaky"
    discriminator_output: Literal["linear", "sigmoid"] = "linear"
    """An unbounded score, or 100 times a sigmoid (code)."""
    discriminator_widths: Literal["capped", "full"] = "capped"
    """A quarter and an eighth of the number of items (code), or the same, capped at 256 and 128."""
    discriminator_dropout: tuple[Annotated[float, share()], Annotated[float, share()]] = (0.31, 0.5)
    discriminator_learning_rate: Annotated[float, more_than(0)] = 3e-4
    penalty_weight: Annotated[float, at_least(0)] = 0.3
    real_cooled: Literal["whole_logit", "noise_only"] = "whole_logit"
    """Part of the logits of the discriminator's real rows that the temperature divides."""
    real_temperature: Annotated[float, more_than(0)] = 0.005
    own_weight: Annotated[float, at_least(0)] = 0.1
    """Weight of the recommender's own scores in the discriminator's real rows; with the code's 100, little else
    remains."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam with coupled L2 (added to the gradient before the moments, as in PyTorch), or any optax chain."""

    learning_rate: Annotated[float, more_than(0)] | None = None
    """Learning rate; by default the model's own, listed in docs/settings.md."""
    weight_decay: Annotated[float, at_least(0)] | None = None
    """Coupled L2 on every parameter (MMSSL: decoupled, AdamW); by default the model's own."""
    chain: tuple[str, ...] = ()
    """Instead of the above: optax transformations in order, such as `"clip_by_global_norm(1.0)" "adamw(1e-3)"`."""


BASE: Mapping[ModelName, Settings] = {
    "slmrec": {"optimizer.learning_rate": 1e-3, "optimizer.weight_decay": 1e-3},
    "bm3": {"optimizer.learning_rate": 1e-3, "optimizer.weight_decay": 0.0},
    "freedom": {"optimizer.learning_rate": 1e-3, "optimizer.weight_decay": 0.0},
    "lattice": {"optimizer.learning_rate": 1e-3, "optimizer.weight_decay": 0.0},
    "mf": {"optimizer.learning_rate": 4e-3, "optimizer.weight_decay": 0.0},
    "lightgcn": {"optimizer.learning_rate": 4e-3, "optimizer.weight_decay": 0.0},
    "vbpr": {"optimizer.learning_rate": 4e-3, "optimizer.weight_decay": 0.0},
    "mgcn": {"optimizer.learning_rate": 3e-3, "optimizer.weight_decay": 0.0},
    "mmgcn": {"optimizer.learning_rate": 1e-4, "optimizer.weight_decay": 0.0},
    "mmssl": {"optimizer.learning_rate": 2.5e-3, "optimizer.weight_decay": 2.5e-3},
    "sgl": {"optimizer.learning_rate": 1e-3, "optimizer.weight_decay": 0.0},
    "simgcl": {"optimizer.learning_rate": 1e-3, "optimizer.weight_decay": 0.0},
}
"""Each model's base preset: the optimizer settings used if a config does not set them, chosen on validation like all
defaults."""
