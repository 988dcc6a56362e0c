"""SGL: LightGCN that also learns to recognise each node in two views of the graph (Wu et al., SIGIR 2021)."""

from slmrec_jax.config import Config
from slmrec_jax.errors import UserError, setting
from slmrec_jax.models.lightgcn import lightgcn
from slmrec_jax.models.recipe import Recipe
from slmrec_jax.objectives import losses
from slmrec_jax.objectives.augmentations import edge_dropout, node_dropout
from slmrec_jax.types import Spec, Term


def sgl_recipe(config: Config, spec: Spec) -> Recipe:
    """Return SGL: LightGCN's encoder and losses, and the InfoNCE between two augmented views of the graph.

    The agreement is a mean over the batch's distinct users plus a mean over its distinct items. The authors' code tells
    them from all users or items (`sgl.among`), and normalises each view by its own degrees, as here.

    Tables are normal with deviation 0.1, as LightGCN's. With Xavier-uniform ones (the authors) and a weight of 0.1, BPR
    hardly learns in the first thirty epochs on TikTok, since the gradient of the agreement grows as rows shrink.

    Raises:
        UserError: Several micro-batches are to be compared with all users and items.
    """
    options = config.sgl
    if options.among == "all" and config.num_micro_batches > 1:
        raise UserError(
            f"{setting('sgl.among', 'all')} compares with every user and item, which several batches at a time have no "
            f"memory for: leave {setting('micro_batches')} out, or take {setting('sgl.among', 'distinct')}"
        )
    views = {
        "ed": edge_dropout(options.rate),
        "nd": node_dropout(options.rate),
        "rw": edge_dropout(options.rate, "layer"),
    }[options.augmentation]
    model = lightgcn(spec, num_layers=config.num_layers, definition=config.propagation == "definition")
    terms = {
        "bpr": Term(1.0, losses.bpr(num_negatives=config.bpr_negatives)),
        "l2": Term(options.l2, losses.embedding_l2("layer0")),
        "ssl": Term(options.weight, losses.view_agreement(views, options.temperature, among=options.among)),
    }
    return Recipe(model, terms)
