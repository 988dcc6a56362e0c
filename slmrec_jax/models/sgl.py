"""SGL (Wu et al., SIGIR 2021): LightGCN with a contrastive loss between two augmented views of the graph."""

from slmrec_jax.config import Config
from slmrec_jax.models.lightgcn import lightgcn
from slmrec_jax.models.recipe import Recipe
from slmrec_jax.objectives import losses
from slmrec_jax.objectives.augmentations import edge_dropout, node_dropout
from slmrec_jax.types import Spec, Term


def sgl_recipe(config: Config, spec: Spec) -> Recipe:
    """Make SGL: LightGCN's encoder and losses, and InfoNCE between two augmented views of the graph.

    The InfoNCE term is a mean over the batch's distinct users plus a mean over its distinct items. As in the authors'
    code, each view is normalised by its own degrees, and the negatives can be all users or items (`sgl.among`).

    Tables are normal with standard deviation 0.1, like LightGCN's. With the authors' Xavier-uniform tables and a weight
    of 0.1, BPR hardly learns in the first thirty epochs on TikTok, since the gradient of InfoNCE grows as rows shrink.
    """
    options = config.sgl
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
