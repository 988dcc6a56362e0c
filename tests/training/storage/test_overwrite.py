"""A run in place of another: only a run is deleted, and only when the new one can start."""

import dataclasses
import shutil

import jax
import pytest

from slmrec_jax import Config, UserError, load_run, train
from slmrec_jax.data import write_store
from slmrec_jax.training.storage import folder as folder_module

pytestmark = pytest.mark.usefixtures("cheap_runs", "optax_promotion")

CONFIG = Config(model="mf", dim=4, batch_size=64, epochs=2, ks=(5,))


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    with jax.numpy_dtype_promotion("standard"):
        return train(CONFIG, tiny, out=tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def stored(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shop"
    write_store(tiny, folder)
    return str(folder.resolve())


def refusal(call, *arguments, **named):
    with pytest.raises(UserError) as raised:
        call(*arguments, **named)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.slow
def test_a_run_is_deleted_only_when_the_new_one_is_ready(finished, stored, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    (folder / "notes.txt").write_text("mine")
    before = sorted(path.name for path in folder.rglob("*"))
    other = dataclasses.replace(CONFIG, epochs=1, data=stored)
    assert "overwrite=True deletes it" in refusal(train, other, out=folder)
    assert "no modality 'smell'" in refusal(
        train, dataclasses.replace(other, modalities=("smell",)), out=folder, overwrite=True
    )
    assert "give one" in refusal(train, other, out=folder, overwrite=True, resume=True)
    inside = dataclasses.replace(other, data=str(folder / "data"))
    assert "is part of the run" in refusal(train, inside, out=folder, overwrite=True)
    assert sorted(path.name for path in folder.rglob("*")) == before
    run = train(other, out=folder, overwrite=True)
    assert len(run.history) == 1
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["1"]
    assert not (folder / "data").exists()  # which the other run had, since its data set was made in memory
    assert (folder / "notes.txt").read_text() == "mine"
    train(other, out=tmp_path / "new", overwrite=True)


def test_what_is_no_run_is_never_deleted(tiny, tmp_path):
    project = tmp_path / "project"
    (project / "data").mkdir(parents=True)
    (project / "data" / "precious.csv").write_text("mine")
    assert "holds no run" in refusal(train, CONFIG, tiny, out=project)
    assert "holds no run" in refusal(train, CONFIG, tiny, out=project, overwrite=True)
    (project / "config.json").write_text('{"my": "project"}')
    assert "config.json" in refusal(train, CONFIG, tiny, out=project, overwrite=True)
    assert (project / "data" / "precious.csv").read_text() == "mine"


def test_a_run_stays_until_the_data_of_the_new_one_are_written(finished, tiny, tmp_path, monkeypatch):
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    before = sorted(path.name for path in folder.rglob("*"))

    def full(dataset, place):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_module, "write_store", full)
    assert "No space left" in refusal(train, CONFIG, tiny, out=folder, overwrite=True)
    assert sorted(path.name for path in folder.rglob("*")) == before


@pytest.mark.slow
def test_a_run_may_overwrite_itself_from_within(finished, tiny, tmp_path, monkeypatch):
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    monkeypatch.chdir(folder)
    train(dataclasses.replace(CONFIG, epochs=1), tiny, out=".", overwrite=True)
    assert load_run(folder).result["epochs"] == 1
