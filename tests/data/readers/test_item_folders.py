"""A folder with one file for each item, as Ducho writes them, is a modality of a plain data set."""

import numpy as np
import pytest
from foreign_files import refusal

from slmrec_jax.data import load

LAYER = "visual_embeddings/torch/ResNet50/avgpool"
VALUES = {"b": [3.0, 4.5], "a": [0.5, -1.25]}


@pytest.fixture(params=["", "features"])
def shop(tmp_path, request):
    """A data set of three items, two of which have a vector, and the folder of these."""
    (tmp_path / "interactions.csv").write_text("user,item,split\nu,a,train\nu,b,valid\nv,c,train\nv,a,test\n")
    layer = tmp_path / request.param / LAYER
    layer.mkdir(parents=True)
    for item, vector in VALUES.items():
        np.save(layer / f"{item}.npy", np.array([vector], np.float32))
    return tmp_path, layer


def test_vectors_are_read_by_the_names_of_their_files(shop):
    data = load(shop[0])
    assert list(data.features) == ["visual"]
    feature = data.features["visual"]
    assert feature.values.tolist() == [VALUES["a"], VALUES["b"], [0, 0]]
    assert feature.present.tolist() == [True, True, False]
    assert feature.stored == "float32"
    assert data.notes == ("visual_embeddings: items without this feature: 1 of 3",)


def test_audio_is_acoustic_and_a_vector_need_not_be_in_a_row(shop):
    folder, layer = shop
    place = layer.parents[2].rename(layer.parents[2].with_name("audio_embeddings"))
    np.save(place / "torch/ResNet50/avgpool/c.npy", np.float32([1, 2]))
    data = load(folder)
    assert data.features["acoustic"].values[2].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        (
            "c",
            np.ones((2, 2), np.float32),
            "c.npy: an array of float32 of shape (2, 2); expected the vector of one item",
        ),
        ("c", np.ones(3, np.float32), "c.npy: 3 numbers, but 2 in a.npy; extract it again"),
        ("c", np.array(["x", "y"]), "not numbers"),
        ("c", np.zeros((0,), np.float32), "it holds no values"),
        (
            "../maxpool/a",
            np.ones(2, np.float32),
            "of several layers, 'torch/ResNet50/avgpool', 'torch/ResNet50/maxpool'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(shop, name, values, said):
    folder, layer = shop
    (layer / name).parent.mkdir(exist_ok=True)
    np.save(layer / f"{name}.npy", values)
    assert said in refusal(load, folder)


def test_an_empty_folder_is_refused(shop):
    folder, layer = shop
    for file in layer.iterdir():
        file.unlink()
    assert "visual_embeddings: it has no .npy file: fill or remove it" in refusal(load, folder)


def test_names_that_begin_with_a_dot_are_skipped(shop):
    folder, layer = shop
    (layer / ".ipynb_checkpoints").mkdir()
    (layer / ".ipynb_checkpoints" / "a-checkpoint.npy").write_bytes((layer / "a.npy").read_bytes())
    (layer / "._a.npy").write_bytes(b"\0\5\26\7")
    (layer.parent / "._avgpool.npy").write_bytes(b"\0\5\26\7")
    assert load(folder).features["visual"].present.tolist() == [True, True, False]
