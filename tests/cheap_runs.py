"""Cheap runs, for tests of what surrounds training: programs are compiled once, and pictures are empty."""

import io
import json
from contextlib import contextmanager

import jax
import pytest
from matplotlib.figure import Figure

from slmrec_jax.config import relevant
from slmrec_jax.training import train as train_module


@contextmanager
def cheap_runs():
    """Within the block, compile the programs of each config once, and draw nothing.

    Methods of a test's own need configs that differ, since only the config tells their programs apart.
    """
    compiled, programs = train_module.compiled, {}

    def compile_once(planned):
        found = relevant(planned.config)
        settings = {name: value for name, value in found.items() if name not in ("epochs", "eval", "ks", "seed")}
        shapes = str(jax.tree.leaves((planned.inputs, planned.loop.shapes())))
        key = json.dumps(settings), shapes
        if key not in programs:
            programs[key] = compiled(planned).loop
        return planned._replace(loop=programs[key])

    with empty_pictures(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "compiled", compile_once)
        yield


@contextmanager
def empty_pictures():
    """Within the block, write every picture without drawing it."""

    def savefig(figure, target, **options):
        target.write("<svg></svg>" if isinstance(target, io.TextIOBase) else b"<svg></svg>")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", savefig)
        yield
