"""The types that the parts of this package exchange: arrays, batches, and NamedTuples of pure functions.

This module computes nothing. A model, an augmentation, a loss and a method are each a value of a type below. The
trainer knows only these types, so adding a new one needs no edit in the package (recipes are in docs/extend.md).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, Scalar

if TYPE_CHECKING:  # ranking exported embeddings needs no Flax
    from flax.training.train_state import TrainState


class Distinct(NamedTuple):
    """The distinct users or the distinct items of a batch, padded to the batch size."""

    ids: Int[Array, " batch"]
    """Distinct ids in order of first appearance, padded by repeating the first."""
    counts: Float[Array, " batch"]
    """The number of unmasked batch rows with each id; 0 for padding."""
    places: Int[Array, " batch"]
    """For each batch row, its index into `ids`. A masked row has the index of a real row."""


Ids: TypeAlias = Int[Array, " rows"] | Distinct | slice
"""The rows to compute: an array of ids, the distinct ids of a batch, or `ALL`."""

ALL = slice(None)

ID = "id"
"""The name of the id modality in a view."""

Rows: TypeAlias = Callable[[Ids], Float[Array, "rows dim"]]
"""A table that is computed lazily: a call computes only the requested rows."""

FrozenRows: TypeAlias = Literal["float32", "bfloat16"]
"""The dtype of rows that training reads but never updates."""

Params: TypeAlias = PyTree[Float[Array, "..."]]
Metrics: TypeAlias = Mapping[str, Scalar]


class Interactions(NamedTuple):
    """User-item pairs on the host. Both arrays are int32 and have the same length."""

    users: Int[np.ndarray, " interactions"]
    items: Int[np.ndarray, " interactions"]


class Inputs(NamedTuple):
    """The read-only data of training: one pytree of device arrays, always an argument of compiled code."""

    graph: Any
    """The training interactions, as a `slmrec_jax.encoding.graph.Graph`."""
    features: Mapping[str, PyTree]
    """Item features by modality: a `DenseFeature`, or for word ids the sparse operator that averages word vectors."""
    cache: PyTree = ()
    """Results that a model computes once from the features alone (`Model.prepare`). Results that also depend on the
    graph are in `graph.derived`, so they can never be combined with a different graph."""


class DenseFeature(NamedTuple):
    """The vectors of one modality: row i is `values[i]` in float32, times `scale[i]` for each of `scales`."""

    values: Float[Array, "items columns"]
    """float16, bfloat16 or float32. Read them with the functions of `slmrec_jax.encoding.vectors`."""
    present: Float[Array, " items"]
    """1 for items that have this modality, 0 for the others; their rows of `values` are also 0."""
    scales: tuple[Float[Array, " items"], ...] = ()
    """float32 factors that normalise half-precision rows without making a float32 copy of them."""


class Whole(NamedTuple):
    """Arrays that are replicated on every device of a mesh, because each step reads all of their columns."""

    arrays: PyTree


class Modality(NamedTuple):
    """The properties of a modality that determine parameter shapes."""

    columns: int
    """The dimension of its vectors; for word ids, the vocabulary size."""
    words: bool = False
    """Whether the modality consists of word ids."""


class Spec(NamedTuple):
    """The sizes that determine parameter shapes and costs."""

    num_users: int
    num_items: int
    num_interactions: int
    dim: int
    modalities: Mapping[str, Modality]
    """The modalities in config order. Fine-and-coarse spaces follow this order."""
    column_shares: int = 1
    """The number of devices over which a mesh splits the columns of tables."""
    popularity_hit_rate: float | None = None
    """`Dataset.popularity_hit_rate`; `None` if unknown."""


class Batch(NamedTuple):
    """The training interactions of one step.

    The last batch of a pass over the interactions is padded to the batch size. A padded row has valid ids,
    though not always those of an interaction. Its `mask` is false, and it is excluded from every mean and every
    denominator.

    With M micro-batches, every field except `key` has a leading axis of size M; at the end of a pass some
    micro-batches may have no real rows. A loss always receives a single micro-batch.
    """

    users: Int[Array, " batch"]
    items: Int[Array, " batch"]
    mask: Bool[Array, " batch"]
    negatives: Int[Array, "batch negatives"]
    """Items that the user has not interacted with. The second axis is the largest `Loss.num_negatives`."""
    key: Key[Array, ""]
    """The PRNG key of this step. It depends only on the seed and the step."""


class ModalityScale(NamedTuple):
    """Factors that scale whole item modalities, by name. A missing name means factor 1; factor 0 masks the modality."""

    propagated: Mapping[str, Scalar]
    """The factors of the layer-0 item rows before propagation."""
    layer0: Mapping[str, Scalar] | None = None
    """The factors of layer 0 in the read-out, if they differ (feature masking in the reference code)."""


class Site(NamedTuple):
    """The position of a table of rows in the encoder."""

    layer: int
    """The propagation layer, 1..L."""
    modality: str
    side: Literal["users", "items"]


LayerStage: TypeAlias = Callable[[Key[Array, ""], Site, Float[Array, "rows dim"]], Float[Array, "rows dim"]]


class Augmentation(NamedTuple):
    """Changes to the encoder's inputs or layers that produce one view of the data. `None` disables a stage."""

    modality: Callable[[Key[Array, ""], tuple[str, ...]], ModalityScale] | None = None
    """`(key, names) -> factors` that scale whole modalities. Needs no extra graph product."""
    inputs: (
        Callable[[Key[Array, ""], Mapping[str, Float[Array, "items dim"]]], Mapping[str, Float[Array, "items dim"]]]
        | None
    ) = None
    """`(key, {name: layer-0 item rows}) -> same`, before propagation."""
    edges: Callable[[Key[Array, ""], Any, int], Sequence[Any]] | None = None
    """`(key, graph, num_layers) -> graphs`: one graph per layer 1..L, shared by all modalities. Results that were
    propagated in advance are not valid for these graphs."""
    layer: LayerStage | None = None
    """`(key, site, x) -> x`, applied after each propagation layer 1..L to the rows of one side and one modality. The
    result is read out and is the input of the next layer. Each site has its own key."""


NO_AUGMENTATION = Augmentation()


class View(NamedTuple):
    """The output of one encoder pass. Each entry computes only the requested rows."""

    users: Rows
    """Fused user rows. The score of an item is the inner product of its row and the user's row."""
    items: Rows
    """Fused item rows."""
    user_modalities: Mapping[str, Rows]
    """User rows by name. SLMRec's encoder has the propagated rows before fusion: `id` first, then the modalities in
    spec order. Other models say which names they have: MMGCN has no `id`, and MGCN has `id` and `side`."""
    item_modalities: Mapping[str, Rows]
    """Item rows by the same names, in the same order."""


Encode: TypeAlias = Callable[[Augmentation, Key[Array, ""]], View]


class Model(NamedTuple):
    """An encoder of users and items."""

    init: Callable[[Key[Array, ""]], Params]
    """`key -> params`."""
    encode: Callable[[Params, Inputs], Encode]
    """`(params, inputs) -> encode`. Views made by the same `encode` share the computations that their augmentations
    leave unchanged."""
    prepare: Callable[[Inputs], Inputs] = lambda inputs: inputs
    """Runs once before training and fills `Inputs.cache` and `Graph.derived`. It must be traceable by JAX, because
    memory is estimated from its output shapes before anything is allocated."""
    cold_items: Callable[[Params, Mapping[str, PyTree]], Float[Array, "items dim"]] | None = None
    """`(params, features) -> rows` for items without interactions, computed from their features (in the form of
    `Inputs.features`) and ranked like the rows of `View.items`. `None` if items have only ids."""
    by_columns: bool = True
    """Whether each column of a table depends only on the same column of other tables, except for computations on the
    rows of a batch. If so, a mesh shards tables by columns; otherwise every device holds whole tables."""


class Context(NamedTuple):
    """Everything that a loss may read besides its own parameters."""

    view: View
    """The users and items without augmentation, apart from the system's own augmentation if it has one
    (`gradient_method`)."""
    batch: Batch
    """The interactions of this step; `batch.mask` is false for padded rows."""
    users: Distinct
    """The distinct users of the batch, for computations needed only once per user."""
    items: Distinct
    """The distinct items of the batch."""
    encode: Encode
    """Makes further views, such as augmented ones."""
    inputs: Inputs
    """The graph and the features."""
    model_params: Params
    """The parameters of the model."""
    key: Key[Array, ""]
    """The PRNG key of this loss in this step."""
    negatives: Int[Array, " flat"]
    """`batch.negatives` as one axis. Losses that read this array share the gather of its rows."""


class Loss(NamedTuple):
    """A term of the training objective, averaged over the unmasked rows of the batch."""

    apply: Callable[[Params, Context], tuple[Scalar, Metrics]]
    """`(params, context) -> (value, metrics)`, where `params` are the loss's own parameters."""
    init: Callable[[Key[Array, ""], Spec], Params] = lambda key, spec: {}
    """`(key, spec) -> params`: initialises the loss's own parameters. By default it has none."""
    num_negatives: int = 0
    """The number of sampled negatives needed for each interaction."""
    in_batch: bool = False
    """Whether the loss contrasts each row with the other rows of the batch, so that a batch of one row has loss 0."""


class Term(NamedTuple):
    """A loss and its weight in the objective. A term with weight 0 is not compiled."""

    weight: float
    """The weight of the loss in the objective."""
    loss: Loss
    """The loss."""


class Embeddings(NamedTuple):
    """The tables used for ranking: the score of item i for user u is the inner product of their rows."""

    users: Float[Array, "users dim"]
    items: Float[Array, "items dim"]


class Work(NamedTuple):
    """The work of a training step, in any unit, since only the ratio of the two counts."""

    step: float
    """Work done once per step, for all micro-batches together: propagation and updates of whole tables."""
    batch: float
    """Work done for each micro-batch: its rows and losses."""


class Method(NamedTuple):
    """A training procedure: its initial state, one step, and the embeddings used for ranking."""

    init: Callable[[Key[Array, ""]], "TrainState"]
    """`key -> state`: the parameters, the optimizer state and an int32 step of 0."""
    step: Callable[["TrainState", Inputs, Batch], tuple["TrainState", Metrics]]
    """`(state, inputs, batch) -> (state, metrics)`: one training step, which adds 1 to `state.step`; `metrics["loss"]`
    is the objective."""
    embed: Callable[["TrainState", Inputs], Embeddings]
    """`(state, inputs) -> embeddings`: the float32 tables used for ranking."""
    prepare: Callable[[Inputs], Inputs] = lambda inputs: inputs
    """See `Model.prepare`."""
    loss: Callable[[Params, Inputs, Batch], tuple[Scalar, Metrics]] | None = None
    """`(params, inputs, batch) -> (value, metrics)`: the objective that a step minimises, if it is a single function of
    `state.params`; otherwise `None`."""
    num_negatives: int = 0
    """The number of sampled negatives needed for each interaction of a batch."""
    in_batch: tuple[str, ...] = ()
    """The names of the losses whose negatives are the other rows of the batch (`Loss.in_batch`)."""
    sampling: Literal["interactions", "users"] = "interactions"
    """`interactions`: each interaction is in exactly one batch of a pass. `users`: a batch has distinct users, each
    with one interaction."""
    notes: tuple[str, ...] = ()
    """Log lines about decisions made while the method was built."""
    cold_items: Callable[["TrainState", Mapping[str, PyTree]], Float[Array, "items dim"]] | None = None
    """See `Model.cold_items`; the rows are ranked like those of `Embeddings.items`."""
    by_columns: bool = True
    """See `Model.by_columns`."""
    micro_batches: bool = False
    """Whether `step` accepts batches with a leading micro-batch axis (see `Batch`)."""
    work: Work | None = None
    """The cost model used to choose `auto` micro-batches. `None` assumes that propagation is nearly all of a step."""
