"""Parts of the device run that show that it computes correctly: recorded values, the product, the same bits again."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import shapes
from device_part import Part, Skipped

from slmrec_jax import Config, devices
from slmrec_jax.encoding.sparse import PRODUCTS, matmul
from slmrec_jax.training.inputs import make_inputs
from slmrec_jax.training.setup import Setup
from slmrec_jax.training.timing import Steps, compiled_setup

TESTS = Path(__file__).parents[1] / "tests"
SEGMENT_STEPS = 20
"""The steps whose result must have the same bits."""
REPETITIONS = 3


def golden(part: Part) -> None:
    """Compare loss and gradients with recorded values of the published code, at two precisions of products."""
    sys.path.insert(0, str(TESTS))
    try:
        from golden import GOLDEN
        from golden_slmrec import Golden
    except ModuleNotFoundError as error:
        raise Skipped(f"{error.name} is not installed, which the recorded problems are read with") from None

    tasks = {"fac": GOLDEN / "slmrec_fac.npz", "fd": GOLDEN / "slmrec_fd.npz"}
    if not all(path.is_file() for path in tasks.values()):
        raise Skipped(f"there are no recorded values in {GOLDEN}; name their folder by SLMREC_GOLDEN")
    for precision in ("highest", "tensorfloat32"):
        for task, path in tasks.items():
            with part.guarded(task=task, precision=precision):
                errors = golden_errors(Golden(path), precision)
                part.row(task=task, precision=precision, **errors)
                goals = (1e-5, 1e-4) if precision == "highest" else (None, None)
                for name, goal in zip(("loss_error", "gradient_error"), goals, strict=True):
                    measured = f"golden {task}, {precision}: {name.replace('_', ' ')}"
                    part.finding(measured, errors[name], goal, "≤")


def golden_errors(problem: Any, precision: str) -> dict[str, Any]:
    """Return the relative error of the loss, and the largest of the gradients with its parameter's name."""
    from golden import distance

    from slmrec_jax.methods.gradient import objective

    model, terms, inputs = problem.problem(definition=False)
    run = jax.jit(
        jax.value_and_grad(objective(model, terms), has_aux=True), compiler_options=devices.compiler_options()
    )
    with jax.default_matmul_precision(precision):
        (loss, _), gradients = run(problem.tree("param:"), inputs, problem.batch())
    recorded = jax.tree.leaves(problem.tree("grad:"))
    largest = max(float(np.abs(values).max()) for values in recorded)
    errors = {}
    for (place, ours), values in zip(jax.tree_util.tree_leaves_with_path(gradients), recorded, strict=True):
        scale = float(np.abs(values).max())
        if scale > 1e-6 * largest:  # a gradient that is 0 apart from rounding has no scale of its own
            errors[jax.tree_util.keystr(place)] = float(np.abs(np.asarray(ours) - np.asarray(values)).max()) / scale
    worst = max(errors, key=lambda name: errors[name])
    loss_error = float(distance(loss, problem.arrays["loss"]))
    return {"loss_error": loss_error, "gradient_error": errors[worst], "gradient": worst}


def products(part: Part) -> None:
    """Compare each sparse product and its derivative with the definition in float64 on the host."""
    dataset, rng = part.dataset(shapes.PAPER, features=False), np.random.default_rng(0)
    operator = make_inputs(dataset).graph.adjacency
    users, items = dataset.train
    user_degrees, item_degrees = dataset.degrees()
    values = 1 / np.sqrt(user_degrees[users].astype(np.float64) * item_degrees[items])
    exact = scipy.sparse.csr_array((values, (users, items)), shape=(dataset.num_users, dataset.num_items))
    x = rng.standard_normal((dataset.num_items, Config().dim)).astype(np.float32)
    g = rng.standard_normal((dataset.num_users, Config().dim)).astype(np.float32)
    wanted = {"value": exact @ x.astype(np.float64), "derivative": exact.T @ g.astype(np.float64)}
    for name in PRODUCTS:
        with part.guarded(product=name):

            @jax.jit
            def both(operator, x, g, name=name):  # type: ignore[no-untyped-def]
                value, pull = jax.vjp(lambda x: matmul(operator, x, name), x)
                return {"value": value, "derivative": pull(g)[0]}

            found = both(operator, jnp.asarray(x), jnp.asarray(g))
            errors = {
                f"{kind}_error": float(np.abs(np.asarray(found[kind], np.float64) - rows).max() / np.abs(rows).max())
                for kind, rows in wanted.items()
            }
            part.row(product=name, **errors)
            part.finding(f"product {name}: largest error", max(errors.values()), 1e-5, "≤")


def segments(part: Part) -> None:
    """Take the same steps several times, in this process and in another, and compare the bits of the state."""
    for task in ("fac", "fd"):
        with part.guarded(task=task):
            setup, seconds = compiled_setup(replace(Config(), task=task), part.dataset())
            hashes = [state_hash(setup) for _ in range(REPETITIONS)]
            # What the other process compiles may differ, so it should not read the program of this one back.
            again = part.left > 30 + 2 * seconds
            hashes.append(hash_of_another_process(part.data, task, compiles=again))
            same = len(set(hashes)) == 1
            part.row(task=task, steps=SEGMENT_STEPS, hashes=hashes, same=same, other_process_compiled=again)
            part.finding(f"segment {task}: distinct states of {len(hashes)} runs", len(set(hashes)), 1, "≤")
        if not part.has_time(15 + 4 * seconds, "the same of FD"):
            return


def state_hash(setup: Setup) -> str:
    """Return a hash of everything that steps from the start of training hand to the next one."""
    steps = Steps(setup)
    steps(min(SEGMENT_STEPS, setup.steps_per_epoch))
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(steps.progress):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()[:16]


def hash_of_another_process(data: str, task: str, *, compiles: bool) -> str:
    """Return `state_hash` of a process that starts now; `compiles` if it may not read compiled programs back."""
    environment = dict(os.environ)
    if compiles:
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, __file__, data, task]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.split()[-1]


if __name__ == "__main__":
    print(state_hash(compiled_setup(replace(Config(), task=sys.argv[2]), shapes.dataset(sys.argv[1]))[0]))
