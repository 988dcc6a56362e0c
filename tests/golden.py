"""The recorded values of the published implementations, and what all parity tests do with them."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slmrec_jax.encoding.graph import build_graph
from slmrec_jax.types import DenseFeature, Inputs, Interactions, Modality, Spec

GOLDEN = Path(os.environ.get("SLMREC_GOLDEN", Path(__file__).parents[2] / "shared" / "golden"))


def files(pattern, quick=None):
    """Return the recorded problems as parameters, or one that is skipped with the reason.

    Problems other than `quick`, if given, are slow tests.
    """
    found = sorted(GOLDEN.glob(pattern))
    missing = pytest.param(None, marks=pytest.mark.skip(reason=f"no {pattern} in {GOLDEN} (SLMREC_GOLDEN)"))
    slow = {path for path in found if quick is not None and path.stem not in quick}
    marks = {path: [pytest.mark.slow] if path in slow else [] for path in found}
    return [pytest.param(path, id=path.stem, marks=marks[path]) for path in found] or [missing]


def recorded(path):
    """Return the arrays of a recorded problem."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def routes(fast):
    """Return the values of a model's option `definition`. The definition, equal by other tests, is a slow test."""
    return [pytest.param(False, id=fast), pytest.param(True, id="definition", marks=pytest.mark.slow)]


def problem(arrays, names):
    """Return the sizes and inputs of a recorded problem, with the features of these names in this order."""
    num_users, num_items = (int(arrays[name]) for name in ("num_users", "num_items"))
    features = {name: DenseFeature(jnp.asarray(arrays[f"feature_{name}"]), jnp.ones(num_items)) for name in names}
    modalities = {name: Modality(feature.values.shape[1]) for name, feature in features.items()}
    dim = int(arrays["dim"]) if "dim" in arrays else arrays["user_embedding"].shape[1]
    edges = Interactions(arrays["edges_user"], arrays["edges_item"])
    spec = Spec(num_users, num_items, len(edges.users), dim, modalities)
    return spec, Inputs(build_graph(edges, num_users, num_items), features)


def distance(ours, theirs):
    """Return the largest difference, relative to the largest value."""
    return np.max(np.abs(np.asarray(ours) - theirs)) / np.max(np.abs(theirs))


def assert_same_gradients(ours, theirs):
    """Compare to 1e-4 of each array's largest value; one that is 0 apart from rounding has the scale of the others."""
    largest = max(np.abs(x).max() for x in jax.tree.leaves(theirs))
    pairs = zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree_util.tree_leaves_with_path(theirs), strict=True)
    for (place, mine), (other_place, reference) in pairs:
        assert place == other_place
        scale = max(np.abs(reference).max(), 1e-6 * largest)
        assert np.abs(mine - reference).max() / scale <= (1e-4 if scale > 1e-6 * largest else 1.0), place
