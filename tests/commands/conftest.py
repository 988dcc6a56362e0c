"""One finished run of the cheapest model for all tests of commands."""

import contextlib
import io
import re
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from slmrec_jax import data
from slmrec_jax.commands.main import main
from slmrec_jax.serving.exports import write_export
from slmrec_jax.serving.served import served_of
from slmrec_jax.types import Embeddings, Interactions


class Finished(NamedTuple):
    """A run by the command `train`, and its output."""

    folder: Path
    out: str
    err: str


@pytest.fixture
def tiny_demo(tiny, monkeypatch):
    monkeypatch.setattr(data, "demo", lambda: tiny)


@pytest.fixture(scope="session")
def cheap():
    """Flags of the cheapest training."""
    return ["--model", "mf", "--dim", "4", "--batch-size", "128", "--epochs", "1"]


@pytest.fixture(scope="session")
def finished(tiny, cheap, tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands") / "run"
    with (
        pytest.MonkeyPatch.context() as patch,
        jax.numpy_dtype_promotion("standard"),
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        patch.setattr(data, "demo", lambda: tiny)
        assert main(["train", *cheap, "--out", str(folder)]) == 0
    return Finished(folder, out.getvalue(), err.getvalue())


@pytest.fixture
def refused(capsys):
    """A function that runs a command that must be refused, and returns the one line that the user gets."""

    def run(*arguments):
        capsys.readouterr()
        assert main(list(arguments)) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert re.fullmatch(r"slmrec-jax: [^\n]+\n", said.err), said.err
        return said.err

    return run


@pytest.fixture
def exported(tmp_path):
    """An exported folder; its ids hold commas, quotes, blanks and letters of other scripts."""
    users = np.array(["Doe, Jane", "u2", ' "x" ', "Жук", "u2 "])
    none, known = (Interactions(each, each + 1) for each in (np.zeros(0, np.int32), np.zeros(1, np.int32)))
    ids = {"user_ids": users, "item_ids": np.array(["商", "b"])}
    dataset = data.make_dataset("shop", known, none, none, num_users=5, num_items=2, **ids)
    write_export(served_of(dataset, Embeddings(np.ones((5, 1)), np.eye(2)[:, :1]), "dot"), tmp_path / "shop")
    return tmp_path / "shop"
