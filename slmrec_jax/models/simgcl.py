"""SimGCL (Yu et al., SIGIR 2022): LightGCN with a contrastive loss between two noisy views."""

from jaxtyping import Array, Float, Key

from slmrec_jax.config import Config
from slmrec_jax.encoding.rows import memoized, rows_of
from slmrec_jax.models.lightgcn import lightgcn
from slmrec_jax.models.recipe import Recipe
from slmrec_jax.objectives import losses
from slmrec_jax.objectives.augmentations import embedding_noise
from slmrec_jax.types import ID, Augmentation, Encode, Inputs, Model, Params, Rows, Spec, Term, View


def simgcl(spec: Spec, *, num_layers: int = 3, definition: bool = False) -> Model:
    """Make the encoder Z = (1 / L) Σ_{l=1..L} P^l [E_u; E_i]: LightGCN's read-out without layer 0.

    Tables are normal with standard deviation 0.1, like LightGCN's. The authors' Xavier-uniform tables are so small that
    BPR learns slowly next to InfoNCE, whose gradient grows as rows shrink.

    Args:
        spec: The sizes of the data.
        num_layers: L. If it is 0, the rows are layer 0.
        definition: Whether to propagate with `hop_by_definition`, for comparison.
    """
    encoder = lightgcn(spec, num_layers=num_layers, definition=definition)

    def propagated(rows: Rows, table: Float[Array, "nodes dim"]) -> Rows:
        if num_layers == 0:
            return rows
        own = rows_of(table)
        return memoized(lambda ids: ((num_layers + 1) * rows(ids) - own(ids)) / num_layers)

    def encode(params: Params, inputs: Inputs) -> Encode:
        encode_all = encoder.encode(params, inputs)

        def view(augmentation: Augmentation, key: Key[Array, ""]) -> View:
            of_all = encode_all(augmentation, key)
            users, items = propagated(of_all.users, params["user"]), propagated(of_all.items, params["item"])
            return View(users, items, {ID: users}, {ID: items})

        return view

    return encoder._replace(encode=encode)


def simgcl_recipe(config: Config, spec: Spec) -> Recipe:
    """Make SimGCL: BPR, the L2 of the layer-0 rows that a batch uses, and InfoNCE between two noisy views.

    The InfoNCE term is a mean over the batch's distinct users plus a mean over its distinct items. The negatives are
    the other distinct users or items of the batch.
    """
    options = config.simgcl
    model = simgcl(spec, num_layers=config.num_layers, definition=config.propagation == "definition")
    views = embedding_noise(options.noise)
    terms = {
        "bpr": Term(1.0, losses.bpr(num_negatives=config.bpr_negatives)),
        "l2": Term(options.l2, losses.embedding_l2("layer0")),
        "ssl": Term(options.weight, losses.view_agreement(views, options.temperature, among="distinct")),
    }
    return Recipe(model, terms)
