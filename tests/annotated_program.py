"""Traces a step of every system, and trains one, with all annotations of the package checked.

    PYTHONPATH=.:tests python tests/annotated_program.py FOLDER

The tests check the annotations of the folders that compute on arrays. What makes and runs the steps is checked here:
its functions are made within others, and get their checks again whenever the outer one runs.
"""

import dataclasses
import sys

from jaxtyping import install_import_hook

with install_import_hook("slmrec_jax", "checking.checked"):
    import jax
    from methods.test_contract import BASE, CONFIGS

    from slmrec_jax import train
    from slmrec_jax.data import demo
    from slmrec_jax.training.setup import outline


def main(folder: str) -> None:
    columns = {"visual": 8, "acoustic": 6}
    dataset = demo(num_users=60, num_items=80, num_scenes=6, exposures=40, columns=columns).by_degree()
    for config in (*CONFIGS.values(), dataclasses.replace(BASE, task="fac", micro_batches=3)):
        made = outline(config, dataset)
        keys, progress = made.keys(), made.loop.shapes()
        drawn = jax.eval_shape(made.loop.order, made.inputs, keys, 0)
        jax.eval_shape(made.loop.run, progress, drawn, made.inputs, keys, 1)
        jax.eval_shape(made.embed, progress.state, made.inputs)
    train(dataclasses.replace(BASE, model="mf", epochs=2), dataset, out=folder)


if __name__ == "__main__":
    main(sys.argv[1])
