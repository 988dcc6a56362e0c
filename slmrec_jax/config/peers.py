"""The options of graph-based and multimodal systems that neither SLMRec's paper nor MMSSL's is about (`systems.py`)."""

from dataclasses import dataclass
from typing import Annotated, Literal

from slmrec_jax.forms import at_least, more_than, share


@dataclass(frozen=True)
class BM3Config:
    """BM3 (Zhou et al., WWW 2023)."""

    contrast_weight: Annotated[float, at_least(0)] = 2.0
    """Weight of the terms that pair a modality with the item and with itself."""
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
    """Propagation layers on the graph of items."""
    neighbours: Annotated[int, at_least(1)] = 10
    """Nearest items that each item is joined with in a modality, itself among them."""
    weights: tuple[Annotated[float, at_least(0)], ...] = ()
    """Weight of each modality in the graph of items, in their order; by default 0.1 for `visual`, and the others share
    0.9, as published."""
    prune_rate: Annotated[float, share()] = 0.8
    """Share of interactions that each training step leaves out, those of popular users and items first."""
    content_weight: Annotated[float, at_least(0)] = 1e-3
    """Weight of BPR between users and the projected features of each modality."""


@dataclass(frozen=True)
class LATTICEConfig:
    """LATTICE over LightGCN (Zhang et al., MM 2021)."""

    item_layers: Annotated[int, at_least(1)] = 1
    """Propagation layers on the graph of items."""
    neighbours: Annotated[int, at_least(1)] = 10
    """Nearest items that each item is joined with in a modality, itself among them."""
    original_share: Annotated[float, share()] = 0.9
    """Share of the graph by the features as they are given; the rest is by projected ones, which training learns."""
    l2: Annotated[float, at_least(0)] = 1e-4
    """Weight of the batch's final rows in the loss, as for MF."""


@dataclass(frozen=True)
class MGCNConfig:
    """MGCN (Yu et al., ACM MM 2023)."""

    neighbours: Annotated[int, at_least(1)] = 10
    """Number of nearest items, by each modality, that an item is joined with; it is one of them."""
    item_layers: Annotated[int, at_least(1)] = 1
    """Number of propagation layers on the item graphs."""
    contrast_weight: Annotated[float, at_least(0)] = 0.01
    """Weight of the contrast of what modalities add to a row with the row of ids."""
    contrast_temperature: Annotated[float, more_than(0)] = 0.2
    l2: Annotated[float, at_least(0)] = 1e-4
    """Weight of the batch's final rows in the loss, as for MF."""
    normalize_features: bool = False
    """Divide each feature row by its L2 norm before it is mapped; the published code does not."""


@dataclass(frozen=True)
class SGLConfig:
    """SGL (Wu et al., SIGIR 2021): LightGCN, and agreement of two views of the graph."""

    augmentation: Literal["ed", "nd", "rw"] = "ed"
    """Leave out interactions (ED), users and items (ND), or other interactions in each layer (RW)."""
    rate: Annotated[float, share()] = 0.1
    """Share of interactions, or of users and items, that a view leaves out."""
    weight: Annotated[float, at_least(0)] = 0.01
    """Weight of the agreement; the authors take 0.1."""
    temperature: Annotated[float, more_than(0)] = 0.2
    """Temperature of the agreement."""
    among: Literal["distinct", "all"] = "distinct"
    """The agreement tells each of the batch's users and items from the others of the batch, or from all (authors)."""
    l2: Annotated[float, at_least(0)] = 1e-3
    """Weight of the batch's layer-0 rows in the loss, as for LightGCN."""


@dataclass(frozen=True)
class SimGCLConfig:
    """SimGCL (Yu et al., SIGIR 2022): LightGCN, and agreement of two views with noise in each layer."""

    noise: Annotated[float, at_least(0)] = 0.1
    """Length of the noise that is added to each row after each layer."""
    weight: Annotated[float, at_least(0)] = 0.01
    """Weight of the agreement; the authors take 0.5 and less."""
    temperature: Annotated[float, more_than(0)] = 0.2
    """Temperature of the agreement."""
    l2: Annotated[float, at_least(0)] = 1e-3
    """Weight of the batch's layer-0 rows in the loss, as for LightGCN."""
