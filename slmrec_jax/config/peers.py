"""The options of further graph-based and multimodal systems; the others are in `systems.py`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from slmrec_jax.forms import at_least, more_than, share


@dataclass(frozen=True)
class BM3Config:
    """BM3 (Zhou et al., WWW 2023)."""

    contrast_weight: Annotated[float, at_least(0)] = 2.0
    """Weight of the terms that compare a modality with the item's id row and with itself."""
    dropout_rate: Annotated[float, share()] = 0.3
    """Share of a target's entries that are dropped."""
    norm_weight: Annotated[float, at_least(0)] = 0.1
    """Weight of the Frobenius norms of all users' and all items' rows: norm_weight · (‖u‖ + ‖i‖) / items."""
    normalize_features: bool = False
    """Divide each feature row by its L2 norm; the published code does not."""


@dataclass(frozen=True)
class FREEDOMConfig:
    """FREEDOM (Zhou and Shen, MM 2023)."""

    item_layers: Annotated[int, at_least(1)] = 1
    """Propagation layers on the item graph."""
    neighbours: Annotated[int, at_least(1)] = 10
    """Number of nearest items in each modality that an item is connected to, including itself."""
    weights: tuple[Annotated[float, at_least(0)], ...] = ()
    """Weight of each modality in the item graph, in modality order; by default 0.1 for `visual`, with 0.9 shared by the
    others, as published."""
    prune_rate: Annotated[float, share()] = 0.8
    """Share of interactions that each training step drops; those of popular users and items are dropped more often."""
    content_weight: Annotated[float, at_least(0)] = 1e-3
    """Weight of BPR between users and the projected features of each modality."""


@dataclass(frozen=True)
class LATTICEConfig:
    """LATTICE with graph propagation of ids (Zhang et al., MM 2021)."""

    item_layers: Annotated[int, at_least(1)] = 1
    """Propagation layers on the item graph."""
    neighbours: Annotated[int, at_least(1)] = 10
    """Number of nearest items in each modality that an item is connected to, including itself."""
    original_share: Annotated[float, share()] = 0.9
    """Share of the item graph made from the given features; the rest is made from learned projections of them."""
    l2: Annotated[float, at_least(0)] = 1e-4
    """Weight of the batch's final rows in the loss, as for MF."""


@dataclass(frozen=True)
class MGCNConfig:
    """MGCN (Yu et al., ACM MM 2023)."""

    neighbours: Annotated[int, at_least(1)] = 10
    """Number of nearest items in each modality that an item is connected to, including itself."""
    item_layers: Annotated[int, at_least(1)] = 1
    """Number of propagation layers on the item graphs."""
    contrast_weight: Annotated[float, at_least(0)] = 0.01
    """Weight of the contrastive loss between the rows from modalities and the rows from ids."""
    contrast_temperature: Annotated[float, more_than(0)] = 0.2
    l2: Annotated[float, at_least(0)] = 1e-4
    """Weight of the batch's final rows in the loss, as for MF."""
    normalize_features: bool = False
    """Divide each feature row by its L2 norm before the projection; the published code does not."""


@dataclass(frozen=True)
class SGLConfig:
    """SGL (Wu et al., SIGIR 2021): LightGCN with a contrastive loss between two views of the graph."""

    augmentation: Literal["ed", "nd", "rw"] = "ed"
    """What a view drops: interactions (ED), users and items (ND), or different interactions in each layer (RW)."""
    rate: Annotated[float, share()] = 0.1
    """Share of interactions, or of users and items, that a view drops."""
    weight: Annotated[float, at_least(0)] = 0.01
    """Weight of the contrastive loss; the authors use 0.1."""
    temperature: Annotated[float, more_than(0)] = 0.2
    """Temperature of the contrastive loss."""
    among: Literal["distinct", "all"] = "distinct"
    """Whether the contrastive loss compares users and items with those of the batch, or with all (authors)."""
    l2: Annotated[float, at_least(0)] = 1e-3
    """Weight of the batch's layer-0 rows in the loss, as for LightGCN."""


@dataclass(frozen=True)
class SimGCLConfig:
    """SimGCL (Yu et al., SIGIR 2022): LightGCN with a contrastive loss between two views with noise in each layer."""

    noise: Annotated[float, at_least(0)] = 0.1
    """Norm of the noise that is added to each row after each layer."""
    weight: Annotated[float, at_least(0)] = 0.01
    """Weight of the contrastive loss; the authors use 0.5 or less."""
    temperature: Annotated[float, more_than(0)] = 0.2
    """Temperature of the contrastive loss."""
    l2: Annotated[float, at_least(0)] = 1e-3
    """Weight of the batch's layer-0 rows in the loss, as for LightGCN."""
