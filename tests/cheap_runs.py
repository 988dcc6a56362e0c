"""Cheap runs, for tests of what surrounds training: programs are compiled once, and pictures are empty."""

import io
import json
from contextlib import contextmanager

import jax
import pytest
from matplotlib.figure import Figure

from slmrec_jax.config import relevant
from slmrec_jax.training import run as run_module


@contextmanager
def cheap_runs():
    """Within the block, compile the programs of each config once, and draw nothing."""
    compile_steps, programs = run_module.compile_steps, {}

    def compile_once(method, inputs, config):
        settings = {name: value for name, value in relevant(config).items() if name not in ("epochs", "eval", "ks")}
        key = json.dumps(settings), str(jax.tree.map(lambda x: (x.shape, x.dtype), inputs))
        if key not in programs:
            programs[key] = compile_steps(method, inputs, config)
        return programs[key]

    with empty_pictures(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "compile_steps", compile_once)
        yield


@contextmanager
def empty_pictures():
    """Within the block, write every picture without drawing it."""

    def savefig(figure, target, **options):
        target.write("<svg></svg>" if isinstance(target, io.TextIOBase) else b"<svg></svg>")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", savefig)
        yield
