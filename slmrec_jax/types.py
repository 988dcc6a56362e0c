"""The vocabulary of this package: arrays, batches, and the NamedTuples of pure functions that are its pluggable parts.

Nothing here computes. A model, an augmentation, a loss and a method are values of the types below. The trainer sees
only these types, so a new one needs no edit in the package (docs/extend.md has recipes).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, Scalar

if TYPE_CHECKING:  # ranking exported embeddings needs no Flax
    from flax.training.train_state import TrainState


class Distinct(NamedTuple):
    """The distinct users, or the distinct items, of a batch; padded to the length of the batch."""

    ids: Int[Array, " batch"]
    """In order of first appearance; padded by repeating the first."""
    counts: Float[Array, " batch"]
    """The number of real rows of the batch with each id; 0 for padding."""
    places: Int[Array, " batch"]
    """The index into `ids` of each row of the batch; for a padded row, that of a real one."""


Ids: TypeAlias = Int[Array, " rows"] | Distinct | slice
"""The rows to compute: an array of ids, the distinct ids of a batch, or `ALL`."""

ALL = slice(None)

ID = "id"
"""The name of the modality of ids in a view."""

Rows: TypeAlias = Callable[[Ids], Float[Array, "rows dim"]]
"""A table of which only the requested rows are computed."""

FrozenRows: TypeAlias = Literal["float32", "bfloat16"]
"""The number format of rows that training only reads."""

Params: TypeAlias = PyTree[Float[Array, "..."]]
Metrics: TypeAlias = Mapping[str, Scalar]


class Interactions(NamedTuple):
    """Pairs of a user and an item, on the host; both arrays are int32 and have the same length."""

    users: Int[np.ndarray, " interactions"]
    items: Int[np.ndarray, " interactions"]


class Inputs(NamedTuple):
    """The data that training only reads: one pytree of device arrays, always an argument of compiled code."""

    graph: Any
    """The training interactions: `slmrec_jax.encoding.graph.Graph`."""
    features: Mapping[str, PyTree]
    """The features of items, by modality: a `DenseFeature`, or for word ids the sparse operator of word means."""
    cache: PyTree = ()
    """The results that a model computed once from the features alone (`Model.prepare`). Those that depend on the graph
    are in `graph.derived`, so that they are never read with another graph."""


class DenseFeature(NamedTuple):
    """One modality's vectors: row i is `values[i]` as float32, times the i-th factor of each of `scales` in turn."""

    values: Float[Array, "items columns"]
    """float16, bfloat16 or float32; read them by `slmrec_jax.encoding.vectors`."""
    present: Float[Array, " items"]
    """1 for items that have this modality; 0 for the others, whose row of `values` is 0 too."""
    scales: tuple[Float[Array, " items"], ...] = ()
    """float32 factors that normalise rows of half precision, which therefore need no copy in float32."""


class Whole(NamedTuple):
    """Arrays that every device of a mesh holds whole, because each step reads all of their columns."""

    arrays: PyTree


class Modality(NamedTuple):
    """The part of a modality that the shapes of parameters depend on."""

    columns: int
    """The width of its vectors; for word ids, the size of the vocabulary."""
    words: bool = False
    """Whether the modality is given as word ids."""


class Spec(NamedTuple):
    """The sizes that parameters and costs depend on."""

    num_users: int
    num_items: int
    num_interactions: int
    dim: int
    modalities: Mapping[str, Modality]
    """In the order of the config, which fine-and-coarse spaces follow."""
    column_shares: int = 1
    """The number of devices among which a mesh divides the columns of tables."""
    popularity_hit_rate: float | None = None
    """As `Dataset.popularity_hit_rate`; `None` if it is not known."""


class Batch(NamedTuple):
    """The training interactions of one step.

    The last batch of an epoch is padded to the common length. A padded row repeats a real one, has `mask` false, and
    counts in no mean and in no denominator.

    With micro-batches all but the key have another axis in front, of M batches; at the end of an epoch some of them may
    have no real rows. Losses always get one micro-batch.
    """

    users: Int[Array, " batch"]
    items: Int[Array, " batch"]
    mask: Bool[Array, " batch"]
    negatives: Int[Array, "batch negatives"]
    """Items that the user has not interacted with; their number is the largest `Loss.num_negatives`."""
    key: Key[Array, ""]
    """The randomness of this step, a function of the seed and the step alone."""


class ModalityScale(NamedTuple):
    """Factors on whole modalities of the items, by name. A modality that is not named has factor 1; 0 masks it."""

    propagated: Mapping[str, Scalar]
    """The factor of a modality's layer-0 item rows before they are propagated."""
    layer0: Mapping[str, Scalar] | None = None
    """The factor of layer 0 in the read-out, if it differs (feature masking in the reference code)."""


class Site(NamedTuple):
    """The place of a table of rows in the encoder."""

    layer: int
    """1..L."""
    modality: str
    side: Literal["users", "items"]


LayerStage: TypeAlias = Callable[[Key[Array, ""], Site, Float[Array, "rows dim"]], Float[Array, "rows dim"]]


class Augmentation(NamedTuple):
    """Changes to the encoder's input or layers that make one view of the data; `None` disables a stage."""

    modality: Callable[[Key[Array, ""], tuple[str, ...]], ModalityScale] | None = None
    """`(key, names) -> factors` of whole modalities. Costs no graph product."""
    inputs: (
        Callable[[Key[Array, ""], Mapping[str, Float[Array, "items dim"]]], Mapping[str, Float[Array, "items dim"]]]
        | None
    ) = None
    """`(key, {name: layer-0 item rows}) -> same`, before propagation."""
    edges: Callable[[Key[Array, ""], Any, int], Sequence[Any]] | None = None
    """`(key, graph, num_layers) -> graphs`: the graph of each layer 1..L, which all modalities share. What was
    propagated in advance does not hold there."""
    layer: LayerStage | None = None
    """`(key, site, x) -> x`: the rows of one side in one modality after each propagation layer 1..L. The result is read
    out and feeds the next layer. Every site has its own key."""


NO_AUGMENTATION = Augmentation()


class View(NamedTuple):
    """The output of one pass of the encoder. Each entry computes only the requested rows."""

    users: Rows
    """Fused user rows. The score of an item is the inner product of its row with the user's."""
    items: Rows
    """Fused item rows."""
    user_modalities: Mapping[str, Rows]
    """Propagated rows of each modality before fusion: `id` first, then in the order of the spec."""
    item_modalities: Mapping[str, Rows]
    """The same of the items."""


Encode: TypeAlias = Callable[[Augmentation, Key[Array, ""]], View]


class Model(NamedTuple):
    """An encoder of users and items."""

    init: Callable[[Key[Array, ""]], Params]
    """`key -> params`."""
    encode: Callable[[Params, Inputs], Encode]
    """`(params, inputs) -> encode`. Views made by one `encode` share what their augmentations do not change."""
    prepare: Callable[[Inputs], Inputs] = lambda inputs: inputs
    """Runs once before training and fills `Inputs.cache` and `Graph.derived`. It must be traceable: memory is estimated
    from its shapes before anything is allocated."""
    cold_items: Callable[[Params, Mapping[str, PyTree]], Float[Array, "items dim"]] | None = None
    """`(params, features) -> rows` of items without interactions, from their features (as in `Inputs.features`); they
    are ranked like the rows of `View.items`. `None` if items have only ids."""
    by_columns: bool = True
    """Whether each column of a table is computed from the same column of others, up to the rows of a batch. A mesh then
    divides tables by columns; otherwise every device holds them whole."""


class Context(NamedTuple):
    """Everything that a loss may read besides its own parameters."""

    view: View
    """Users and items without augmentation, but for that of the system, if it has one (`gradient_method`)."""
    batch: Batch
    """The step's interactions; `batch.mask` is false for padded rows."""
    users: Distinct
    """The batch's distinct users, for work that each user needs only once."""
    items: Distinct
    """The batch's distinct items."""
    encode: Encode
    """Makes further views, such as augmented ones."""
    inputs: Inputs
    """The graph and the features."""
    model_params: Params
    """The parameters of the model."""
    key: Key[Array, ""]
    """The randomness of this loss in this step."""


class Loss(NamedTuple):
    """A term of the training objective: a mean over the batch's real rows."""

    apply: Callable[[Params, Context], tuple[Scalar, Metrics]]
    """`(params, context) -> (value, metrics)`, with the loss's own parameters."""
    init: Callable[[Key[Array, ""], Spec], Params] = lambda key, spec: {}
    """`(key, spec) -> params`: the loss's own parameters; none by default."""
    num_negatives: int = 0
    """The number of sampled negatives that it needs for each interaction."""
    in_batch: bool = False
    """Whether it compares each row with the others of the batch, so that a batch of one row has loss 0."""


class Term(NamedTuple):
    """A loss and its weight in the objective. A term of weight 0 is not compiled."""

    weight: float
    """The factor of the loss in the objective."""
    loss: Loss
    """The loss."""


class Embeddings(NamedTuple):
    """The tables that rank: the score of item i for user u is the inner product of their rows."""

    users: Float[Array, "users dim"]
    items: Float[Array, "items dim"]


class Work(NamedTuple):
    """The work of a training step, in multiply-adds of dense products."""

    step: float
    """Once for all micro-batches: propagation and updates of whole tables."""
    batch: float
    """For each micro-batch: its rows and losses."""


class Method(NamedTuple):
    """A way to train a system: its state, one step, and the embeddings that rank."""

    init: Callable[[Key[Array, ""]], "TrainState"]
    """Parameters, optimizer state and the int32 step 0."""
    step: Callable[["TrainState", Inputs, Batch], tuple["TrainState", Metrics]]
    """`(state, inputs, batch) -> (state, metrics)`: one training step; `metrics["loss"]` is the objective."""
    embed: Callable[["TrainState", Inputs], Embeddings]
    """`(state, inputs) -> embeddings`: the tables that rank."""
    prepare: Callable[[Inputs], Inputs] = lambda inputs: inputs
    """As `Model.prepare`."""
    loss: Callable[[Params, Inputs, Batch], tuple[Scalar, Metrics]] | None = None
    """`(params, inputs, batch) -> (value, metrics)`: the objective that a step descends, if it is one function of
    `state.params`."""
    num_negatives: int = 0
    """The number of negatives that each interaction of a batch needs."""
    in_batch: tuple[str, ...] = ()
    """The losses whose negatives are the other rows of the batch (`Loss.in_batch`)."""
    sampling: Literal["interactions", "users"] = "interactions"
    """`interactions`: each one is in exactly one batch of an epoch. `users`: a batch has distinct users with one
    interaction each."""
    notes: tuple[str, ...] = ()
    """Decisions made while the method was built, for the log."""
    cold_items: Callable[["TrainState", Mapping[str, PyTree]], Float[Array, "items dim"]] | None = None
    """As `Model.cold_items`, for `Embeddings.items`."""
    by_columns: bool = True
    """As `Model.by_columns`."""
    micro_batches: bool = False
    """Whether `step` takes batches with an axis of micro-batches in front (`Batch`)."""
    work: Work | None = None
    """By which `auto` micro-batches are chosen; by default, propagation is taken to be nearly all of a step."""
