"""Which file is an item's picture, how it is read, and how it becomes the input of a model."""

import json

import numpy as np
import pytest
from small_models import HALF, picture_model, picture_vector

from slmrec_jax.content import models
from slmrec_jax.content.catalogue import Catalogue
from slmrec_jax.content.pictures import Preparation, Unusable, find_pictures, load_picture, prepare
from slmrec_jax.errors import UserError

for module in ("onnxruntime", "onnx"):
    pytest.importorskip(module, reason="needs the packages of the extra embed, and onnx to make models")

PLAIN = Preparation(2, (2, 2), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def picture(colour=(10, 20, 30), size=(6, 5)):
    from PIL import Image

    return Image.new("RGB", size, colour)


def encoder(file, **options):
    return models.open_encoder("image", file, models.Options(**options))


COLOURS = [(250, 10, 0), (0, 0, 200), (9, 99, 199)]


@pytest.mark.parametrize("form", [{}, {"last": True}, {"batch": 2}, {"batch": 1}, {"side": "side"}])
def test_models_of_all_forms_give_the_same_vectors(tmp_path, form):
    file = picture_model(tmp_path / "eyes.onnx", **form, **HALF)
    found = encoder(file, size=4 if form.get("side") else None).encode([picture(colour) for colour in COLOURS])
    assert np.allclose(found, [picture_vector(colour) for colour in COLOURS], atol=1e-5)


def test_the_file_beside_a_model_says_how_pictures_are_prepared_and_settings_win(tmp_path):
    file = picture_model(tmp_path / "eyes" / "onnx" / "model.onnx", side="side")
    stored = {"size": {"shortest_edge": 6}, "crop_size": {"height": 4, "width": 4}, "resample": 2, **HALF}
    (tmp_path / "eyes" / "preprocessor_config.json").write_text(json.dumps(stored))
    made = encoder(tmp_path / "eyes")
    assert made.name == "eyes"
    assert [made.settings[name] for name in ("resize", "crop", "resample")] == [6, (4, 4), 2]
    assert np.allclose(made.encode([picture(COLOURS[0])]), picture_vector(COLOURS[0]), atol=1e-5)
    settings = encoder(file, size=3, mean=(0.0, 0.0, 0.0)).settings
    assert (settings["resize"], settings["crop"], settings["mean"]) == (3, (3, 3), (0.0, 0.0, 0.0))


def test_a_file_beside_a_model_that_holds_no_object_is_refused(tmp_path):
    file = picture_model(tmp_path / "eyes" / "model.onnx", **HALF)
    (tmp_path / "eyes" / "preprocessor_config.json").write_text("[1]")
    with pytest.raises(UserError, match=r"preprocessor_config.json: found a list; expected an object"):
        encoder(file)


def test_an_output_may_be_chosen(tmp_path):
    file = picture_model(tmp_path / "eyes.onnx", image_mean=[0, 0, 0], image_std=[1, 1, 1])
    assert np.allclose(encoder(file, output="means").encode([picture((51, 102, 255))]), [0.2, 0.4, 1.0])


def test_a_picture_is_resized_by_its_shorter_side_and_cut_at_its_centre():
    from PIL import Image

    colours = np.repeat(np.repeat(np.arange(4, dtype=np.uint8)[None, :] * 50, 2, axis=0)[..., None], 3, axis=2)
    wide = Image.fromarray(colours)
    assert np.allclose(prepare(wide, PLAIN)[:, :, 0] * 255, [[50, 100], [50, 100]])
    stretched = prepare(wide.resize((8, 2), 0), PLAIN._replace(resize=(2, 4), crop=(2, 4), resample=0))
    assert np.allclose(stretched[:, :, 0] * 255, [[0, 50, 100, 150]] * 2)


def test_pictures_are_found_by_their_column_or_by_their_items_name(tmp_path):
    images, outside = tmp_path / "shop" / "images", tmp_path / "outside.png"
    images.mkdir(parents=True)
    for file in (images / "a.png", images / "b.png", images / "b.JPG", images / "7.webp", images / "x y.png", outside):
        picture().save(file)
    names = ["", "", "", "images/a.png", "x y.png", "../../outside.png", "https://shop/a.png", "none.png"]
    ids = np.array(["a", "b", "7", "c", "d", "e", "f", "g"])
    found = find_pictures(Catalogue(tmp_path / "shop" / "items.csv", ids, {"image": names}), images)
    assert found[:1] + found[2:5] == [images / "a.png", images / "7.webp", images / "a.png", images / "x y.png"]
    assert found[1] == "b.JPG and b.png both exist"
    assert found[5] == "there is no file ../../outside.png"
    assert found[6] == "https://shop/a.png is a web address, and nothing is downloaded"
    assert found[7] == "there is no file none.png"
    assert find_pictures(Catalogue(tmp_path / "items.csv", np.array([7, 8]), {}), images)[0] == images / "7.webp"


def test_transparent_parts_are_white_and_pictures_stand_upright(tmp_path):
    from PIL import Image

    clear = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    clear.putpixel((0, 0), (10, 20, 30, 255))
    clear.save(tmp_path / "clear.png")
    assert np.asarray(load_picture(tmp_path / "clear.png")).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    turned = Image.Exif()
    turned[0x0112] = 6
    picture(size=(6, 4)).save(tmp_path / "turned.jpg", exif=turned)
    assert load_picture(tmp_path / "turned.jpg").size == (4, 6)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.png", lambda whole: whole[:-20]),
        ("empty.png", lambda whole: b""),
        ("text.jpg", lambda whole: b"no picture"),
        ("of_another_format.png", lambda whole: b"P6\n1 1\n255\n\x01\x02\x03"),
    ],
)
def test_a_damaged_picture_is_unusable(tmp_path, name, content):
    picture(size=(40, 40)).save(tmp_path / "whole.png")
    (tmp_path / name).write_bytes(content((tmp_path / "whole.png").read_bytes()))
    with pytest.raises(Unusable, match=f"{name}: not a readable picture"):
        load_picture(tmp_path / name)


def test_a_picture_that_is_vast_unpacked_is_unusable(tmp_path, monkeypatch):
    from PIL import Image

    picture(size=(40, 40)).save(tmp_path / "vast.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Unusable, match="1600 pixels"):
        load_picture(tmp_path / "vast.png")


def test_a_folder_in_place_of_a_picture_is_unusable(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(Unusable, match="not a regular file but a folder"):
        load_picture(tmp_path / "a.png")
