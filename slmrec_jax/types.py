"""The words of this package: arrays, batches, and the NamedTuples of pure functions that everything pluggable is.

Nothing here computes. A model, an augmentation, a loss and a method are values of the types below; the trainer sees
only these types, so that a new one needs no edit in the package (CONTRIBUTING.md has the recipes).
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, Scalar

if TYPE_CHECKING:  # ranking exported embeddings needs no Flax
    from flax.training.train_state import TrainState

Ids: TypeAlias = Int[Array, " rows"] | slice
"""Which rows are wanted: an array of ids, or `ALL`."""

ALL = slice(None)

Rows: TypeAlias = Callable[[Ids], Float[Array, "rows dim"]]
"""A table that is computed for the rows asked of it."""

FrozenRows: TypeAlias = Literal["float32", "bfloat16"]
"""How rows that training only reads may be held."""

Params: TypeAlias = PyTree[Float[Array, "..."]]
Metrics: TypeAlias = Mapping[str, Scalar]


class Interactions(NamedTuple):
    """Pairs of a user and an item, on the host; both arrays are int32 and equally long."""

    users: Int[np.ndarray, " interactions"]
    items: Int[np.ndarray, " interactions"]


class Numbering(NamedTuple):
    """Where the row of each user and each item of a data set stands in the tables."""

    users: Int[Array, " users"]
    items: Int[Array, " items"]


class Inputs(NamedTuple):
    """All that training reads and does not change: one pytree of device arrays, always an argument of compiled code."""

    graph: Any
    """The training interactions: `slmrec_jax.encoding.graph.Graph`."""
    features: Mapping[str, PyTree]
    """The features of items, by modality: `DenseFeature`, or for word ids the word means as a sparse operator."""
    cache: PyTree = ()
    """What a model computed once from the features alone (`Model.prepare`); what it computed from the graph is
    `graph.derived`, so that another graph comes without it."""
    numbering: Numbering | None = None
    """How ids in graph, features, batches and tables come from the data set's; `None`: they are the same. What brings
    tables of its own along must bring them into that order."""


class DenseFeature(NamedTuple):
    """One modality's vectors."""

    values: Float[Array, "items columns"]
    present: Float[Array, " items"]
    """1 where an item has this modality; where it has not, 0, and the row of `values` is 0 too."""


class Modality(NamedTuple):
    """What parameters must know of a modality."""

    columns: int
    """The width of its vectors; the size of the vocabulary for word ids."""
    words: bool = False


class Spec(NamedTuple):
    """The sizes that parameters and costs depend on."""

    num_users: int
    num_items: int
    num_interactions: int
    dim: int
    modalities: Mapping[str, Modality]
    """In the order of the config, which fine-and-coarse spaces follow."""


class Batch(NamedTuple):
    """One step's share of the training interactions, by the ids of the tables (`Inputs.numbering`).

    The last batch of an epoch is padded to the common length: a padded row repeats a real one, carries `mask` false,
    and takes part in no mean and in no denominator.
    """

    users: Int[Array, " batch"]
    items: Int[Array, " batch"]
    mask: Bool[Array, " batch"]
    negatives: Int[Array, "batch negatives"]
    """Items the user has not interacted with, as many as the losses ask for (`Loss.num_negatives`)."""
    key: Key[Array, ""]
    """The randomness of this step: a function of the seed and the step alone."""


class Distinct(NamedTuple):
    """The different ones among a batch's users, or among its items; as many places as the batch has rows."""

    ids: Int[Array, " batch"]
    """In the order in which they come up; after the last, the first stands again and again."""
    counts: Float[Array, " batch"]
    """How many real rows of the batch have each; 0 after the last."""
    places: Int[Array, " batch"]
    """Where the id of each row of the batch stands among these; a padded row's is that of a real one."""


class ModalityScale(NamedTuple):
    """Factors on whole modalities of the items, by name; a modality not named keeps 1, and 0 masks it."""

    propagated: Mapping[str, Scalar]
    """What a modality's layer-0 item rows are multiplied with before they go through the graph."""
    layer0: Mapping[str, Scalar] | None = None
    """The factor of layer 0 itself in the read-out, where it differs (the reference code's feature masking)."""


class Site(NamedTuple):
    """Where in the encoder a table of rows stands."""

    layer: int
    """1..L."""
    modality: str
    side: Literal["users", "items"]


LayerStage: TypeAlias = Callable[[Key[Array, ""], Site, Float[Array, "rows dim"]], Float[Array, "rows dim"]]


class Augmentation(NamedTuple):
    """Changes to the encoder's input or layers that make one view of the data. `None` switches a stage off."""

    modality: Callable[[Key[Array, ""], tuple[str, ...]], ModalityScale] | None = None
    """`(key, names) -> factors`: whole modalities. Costs no graph product."""
    inputs: (
        Callable[[Key[Array, ""], Mapping[str, Float[Array, "items dim"]]], Mapping[str, Float[Array, "items dim"]]]
        | None
    ) = None
    """`(key, {name: layer-0 item rows}) -> same`, before propagation."""
    layer: LayerStage | None = None
    """`(key, site, x) -> x`: the rows of one side in one modality after each propagation layer 1..L; the result is read
    out and feeds the next layer. Every site gets a key of its own."""


NO_AUGMENTATION = Augmentation()


class View(NamedTuple):
    """Users and items as one pass of the encoder sees them. Every entry computes the rows it is asked for."""

    users: Rows
    """The fused user rows, from which items are ranked."""
    items: Rows
    user_modalities: Mapping[str, Rows]
    """The propagated rows of each modality before fusion, `id` first, then in the order of the spec."""
    item_modalities: Mapping[str, Rows]


def as_given(inputs: Inputs) -> Inputs:
    """The `Model.prepare` of a model that computes nothing beforehand."""
    return inputs


Encode: TypeAlias = Callable[[Augmentation, Key[Array, ""]], View]


class Model(NamedTuple):
    """An encoder of users and items."""

    init: Callable[[Key[Array, ""]], Params]
    encode: Callable[[Params, Inputs], Encode]
    """`(params, inputs) -> encode`: views made by one `encode` share what their augmentations leave alone."""
    prepare: Callable[[Inputs], Inputs] = as_given
    """Runs once before training, and fills `Inputs.cache` and `Graph.derived`. JAX must be able to trace it: its result
    is looked at beforehand without values."""
    cold_items: Callable[[Params, Mapping[str, PyTree]], Float[Array, "items dim"]] | None = None
    """`(params, features) -> rows` of items that no one has interacted with, from their features (as in
    `Inputs.features`); they rank as the rows of `View.items` do. `None`: items are their ids alone."""


class Context(NamedTuple):
    """What a loss may use besides the clean view."""

    params: Params
    """The model's."""
    encode: Encode
    inputs: Inputs
    key: Key[Array, ""]
    users: Distinct
    """Of the batch. What is asked of each user once is asked of these."""
    items: Distinct


def no_params(key: Key[Array, ""], spec: Spec) -> Params:
    """The `Loss.init` of a loss without parameters of its own."""
    return {}


class Loss(NamedTuple):
    """A term of the training objective: the mean over the batch's real rows."""

    apply: Callable[[Params, View, Batch, Context], tuple[Scalar, Metrics]]
    """`(params, view, batch, context) -> (value, metrics)`."""
    init: Callable[[Key[Array, ""], Spec], Params] = no_params
    num_negatives: int = 0
    in_batch: bool = False
    """Whether it compares with the other rows of the batch: a batch of one row is then a loss of 0."""


class Term(NamedTuple):
    """A loss and its weight in the objective; weight 0 leaves the term out of the program."""

    weight: float
    loss: Loss


class Embeddings(NamedTuple):
    """What ranks: the score of item i for user u is the inner product of their rows."""

    users: Float[Array, "users dim"]
    items: Float[Array, "items dim"]


class Method(NamedTuple):
    """How a system trains: its state, one step of it, and what it ranks with."""

    init: Callable[[Key[Array, ""]], "TrainState"]
    """Parameters, optimizer state and the int32 step 0."""
    step: Callable[["TrainState", Inputs, Batch], tuple["TrainState", Metrics]]
    embed: Callable[["TrainState", Inputs], Embeddings]
    """Rows as in the tables; `numbering.embed` brings them into the data set's order."""
    prepare: Callable[[Inputs], Inputs] = as_given
    num_negatives: int = 0
    """How many negatives each interaction of a batch needs."""
    in_batch: tuple[str, ...] = ()
    """The losses whose negatives are the other rows of the batch (`Loss.in_batch`)."""
    sampling: Literal["interactions", "users"] = "interactions"
    """Whether a batch is of interactions, each once in an epoch, or of distinct users with one interaction each."""
    notes: tuple[str, ...] = ()
    """What was decided while it was made, for the log."""
    cold_items: Callable[["TrainState", Mapping[str, PyTree]], Float[Array, "items dim"]] | None = None
    """As `Model.cold_items`, for `Embeddings.items`."""
