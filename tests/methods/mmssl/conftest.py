import jax.numpy as jnp
import numpy as np
import pytest
from graphs import GRAPHS
from mmssl_problem import NUM_ITEMS, NUM_USERS, SPEC

from slmrec_jax.encoding.graph import build_graph
from slmrec_jax.types import DenseFeature, Inputs, Interactions


@pytest.fixture(scope="package")
def graph():
    users, items = GRAPHS["random"][2:]
    return build_graph(Interactions(users, items), NUM_USERS, NUM_ITEMS)


@pytest.fixture(scope="package")
def given(graph):
    """The inputs before a method prepares them."""
    rng = np.random.default_rng(0)
    features = {
        name: DenseFeature(jnp.asarray(rng.normal(size=(NUM_ITEMS, m.columns)), jnp.float32), jnp.ones(NUM_ITEMS))
        for name, m in SPEC.modalities.items()
    }
    return Inputs(graph, features)
