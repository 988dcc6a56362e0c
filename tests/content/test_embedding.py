"""Texts and pictures become vectors under raw ids: which, how a stopped run goes on, and what is refused."""

import itertools
import json
import sys

import numpy as np
import pytest
import safetensors
from small_models import HALF, TABLE, picture_model, picture_vector, text_model, text_vector

from slmrec_jax import data
from slmrec_jax.commands.main import main
from slmrec_jax.content import embedding, models
from slmrec_jax.content.catalogue import read_catalogue
from slmrec_jax.content.unfinished import held
from slmrec_jax.data.own_files import write_tensors
from slmrec_jax.data.readers.feature_tables import read_vectors
from slmrec_jax.errors import UserError

for module in ("onnxruntime", "onnx", "tokenizers"):
    pytest.importorskip(module, reason="needs the packages of the extra embed, and onnx to make models")

TITLES = ["Red dress", "blue shoe", "red summer dress", "", "a hat", "blue dress", "red"]
COLOURS = [(250, 10, 0), (0, 0, 200), (200, 50, 50), (0, 0, 0), (9, 99, 199), (10, 20, 30), (255, 255, 255)]


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Seven items, of whom one has no title and another no picture; the working folder is the one above."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "shop"
    (folder / "images").mkdir(parents=True)
    rows = [f"dress-{item},{title},{'summer' * (item == 1)}" for item, title in enumerate(TITLES)]
    (folder / "items.csv").write_text("\n".join(["item,title,season", *rows]))
    pairs = [f"u{user},dress-{(3 * user + place) % 7}" for user in range(4) for place in range(3)]
    (folder / "interactions.csv").write_text("\n".join(["user,item", *pairs]))
    for item, colour in enumerate(COLOURS):
        if item != 5:
            Image.new("RGB", (8, 5), colour).save(folder / "images" / f"dress-{item}.png")
    return folder


@pytest.mark.parametrize("tokens", ["tokens", 2, 9])
def test_models_may_take_texts_of_one_length(tmp_path, tokens):
    encoder = models.open_encoder("text", text_model(tmp_path, tokens=tokens), models.Options())
    texts = ["red summer dress", "blue"]
    cut = [" ".join(text.split()[:tokens]) if tokens == 2 else text for text in texts]
    assert np.allclose(encoder.encode(texts), [text_vector(text) for text in cut])


def test_a_link_to_no_picture_does_not_end_the_run(shop, capsys):
    picture_model(shop / "eyes.onnx", **HALF)
    (shop / "images" / "dress-5.png").symlink_to("nowhere.png")
    embed("shop/items.csv", "--images", "shop/images", "--model", "shop/eyes.onnx", "--out", "shop/features")
    assert "! item dress-5: shop/images/dress-5.png: a link to a file that does not exist" in capsys.readouterr().err


@pytest.fixture
def refused(capsys):
    """A function that runs `data embed`, which must be refused, and returns the one line."""

    def run(*arguments):
        capsys.readouterr()
        assert main(["data", "embed", *map(str, arguments)]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        return said.err.removeprefix("slmrec-jax: ").rstrip("\n")

    return run


def embed(*arguments):
    assert main(["data", "embed", *map(str, arguments)]) == 0


def test_texts_and_pictures_become_vectors_that_the_shop_has(shop, capsys):
    text_model(shop / "words"), picture_model(shop / "eyes.onnx", **HALF)
    (shop / "images" / "dress-4.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    made = ("--text-model", "shop/words", "--image-model", "shop/eyes.onnx", "--batch-size", 2)
    embed("shop/items.csv", "--text", "title,season", "--images", "shop/images", *made, "--out", "shop/features")
    said = capsys.readouterr()
    assert "6 of 7 items, 4 columns by words" in said.out
    assert "5 of 7 items, 5 columns by eyes" in said.out
    assert "! item dress-4: shop/images/dress-4.png: not a readable picture" in said.err
    assert "! item dress-5: there is no file dress-5.jpg or similar; it counts as missing" in said.err
    embed("shop/items.csv", "--text", "title,season", "--images", "shop/images", *made, "--out", "shop/features")
    assert "! further items without a vector: 1; the run that made the file printed why" in capsys.readouterr().err
    dataset = data.load(shop, split="mmrec")
    items = dataset.item_ids.tolist()
    texts, pictures = dataset.features["textual"], dataset.features["visual"]
    assert texts.values.dtype == pictures.values.dtype == np.float16
    for place, item in enumerate(items):
        row = int(item.removeprefix("dress-"))
        assert texts.present[place] == bool(TITLES[row])
        assert pictures.present[place] == (row not in (4, 5))
        if TITLES[row]:
            text = TITLES[row] + ". summer" * (row == 1)
            assert np.array_equal(texts.values[place], text_vector(text).astype(np.float16))
        if pictures.present[place]:
            assert np.allclose(pictures.values[place], picture_vector(COLOURS[row]), rtol=2e-3, atol=2e-3)
    assert any(
        note.startswith("text.safetensors: made from title, season by words (SHA-256 ") for note in dataset.notes
    )
    assert main(["data", "inspect", "shop"]) == 0
    assert "made from pictures by eyes (SHA-256 " in capsys.readouterr().out
    assert not list((shop / "features").glob(".*"))


def test_texts_and_pictures_without_vectors_get_a_line_whose_command_works(shop, capsys):
    text_model(shop / "words"), picture_model(shop / "eyes.onnx", **HALF)
    made = "make them with slmrec-jax data embed shop/items.csv {} --model MODEL --out shop/features"
    lines = [
        f"items.csv: no vectors for the column 'title'; {made.format('--text title')}",
        f"images/: pictures without vectors; {made.format('--images shop/images')}",
    ]
    assert set(lines) <= set(data.load("shop", split="mmrec").notes)
    assert main(["data", "inspect", "shop"]) == 0
    said = capsys.readouterr().out
    assert all(line in said for line in lines)
    for line, model in zip(lines, ("shop/words", "shop/eyes.onnx"), strict=True):
        command = line.partition("slmrec-jax ")[2].replace("MODEL", model)
        assert main(command.split()) == 0
    dataset = data.load("shop", split="mmrec")
    assert list(dataset.features) == ["visual", "textual"]
    assert not [note for note in dataset.notes if "vectors for" in note or "without vectors" in note]


def test_pictures_without_a_table_of_items_need_one(shop):
    (shop / "items.csv").unlink()
    (note,) = (note for note in data.load(shop, split="mmrec").notes if "without vectors" in note)
    assert note.startswith("images/: pictures without vectors; list the items in items.csv, in a column item, and make")


def made_of(shop, encode=None, batch_size=2):
    """The arguments of `embedding.embed` for the titles; `encode` gets the encoder's own function and the texts."""
    text_model(shop / "words")
    encoder = models.open_encoder("text", shop / "words", models.Options(batch_size=batch_size))
    if encode is not None:
        own = encoder.encode
        encoder = encoder._replace(encode=lambda texts: encode(own, texts))
    inputs = embedding.text_inputs(read_catalogue(shop / "items.csv", ["title"], None), ["title"])
    return inputs, encoder


def stopping_after(batches):
    calls = itertools.count()

    def encode(own, texts):
        if next(calls) == batches:
            raise KeyboardInterrupt
        return own(texts)

    return encode


@pytest.mark.parametrize("damage", ["none", "rows", "log", "line", "content"])
def test_a_stopped_run_goes_on_and_gives_the_same_bytes(shop, damage):
    whole, again = (embedding.check_place("text", shop / name) for name in ("whole", "again"))
    embedding.embed(*made_of(shop), whole)
    with pytest.raises(KeyboardInterrupt):
        embedding.embed(*made_of(shop, stopping_after(2)), again)
    assert not again.exists()
    (part,) = (shop / "again").iterdir()
    if damage == "rows":
        (part / "rows").write_bytes((part / "rows").read_bytes()[:-3])
    elif damage == "log":
        (part / "log").write_text((part / "log").read_text()[:-9])
    elif damage == "line":
        (part / "log").write_text("[1]\n" + (part / "log").read_text())
    elif damage == "content":
        (part / "rows").write_bytes(b"\x01" + (part / "rows").read_bytes()[1:])
    seen = []
    made = embedding.embed(*made_of(shop, lambda own, texts: seen.append(texts) or own(texts)), again)
    assert made.resumed == {"none": 4, "rows": 2, "log": 2, "line": 0, "content": 0}[damage]
    assert sum(map(len, seen)) == 6 - made.resumed
    assert again.read_bytes() == whole.read_bytes()
    assert [file.name for file in (shop / "again").iterdir()] == ["text.safetensors"]


def test_another_batch_size_begins_from_scratch(shop):
    file = embedding.check_place("text", shop / "features")
    with pytest.raises(KeyboardInterrupt):
        embedding.embed(*made_of(shop, stopping_after(2)), file)
    assert embedding.embed(*made_of(shop, batch_size=3), file).resumed == 0


def test_two_processes_do_not_make_the_same_file(shop):
    inputs, encoder = made_of(shop)
    file = embedding.check_place("text", shop / "features")
    with (
        held(file.with_name(".text.safetensors.part"), "plan"),
        pytest.raises(UserError, match="another process is making these vectors"),
    ):
        embedding.embed(inputs, encoder, file)


def test_what_is_complete_stays_and_another_model_needs_overwrite(shop, capsys, refused):
    text_model(shop / "words")
    command = ["shop/items.csv", "--text", "title", "--model", "shop/words", "--out", "shop/features"]
    embed(*command)
    before = (shop / "features" / "text.safetensors").stat()
    assert "further items without a vector" not in capsys.readouterr().err
    embed(*command)
    said = capsys.readouterr()
    assert "6 of 7 items (6 were already done)" in said.out
    assert (shop / "features" / "text.safetensors").stat().st_mtime_ns == before.st_mtime_ns
    text_model(shop / "words", rows=2 * TABLE)
    assert "by another model or with other settings; give --overwrite, or another --out" in refused(*command)
    embed(*command, "--overwrite")
    vectors = read_vectors(shop / "features" / "text.safetensors", None)
    assert np.array_equal(vectors.values[0], text_vector(TITLES[0], 2 * TABLE).astype(np.float16))


def test_whole_numbers_are_stored_as_such_and_metadata_name_the_model(shop):
    (shop / "items.csv").write_text("movieId,title\n30,red\n4,blue\n")
    text_model(shop / "words")
    embed("shop/items.csv", "--text", "title", "--model", "shop/words", "--out", "shop/features", "--normalize")
    file = shop / "features" / "text.safetensors"
    with safetensors.safe_open(file, "np") as opened:
        metadata = opened.metadata()
        assert opened.get_tensor("item").tolist() == [30, 4]
        assert np.allclose(np.linalg.norm(opened.get_tensor("values").astype(float), axis=1), 1, atol=1e-3)
    assert metadata["model_sha256"] == models.digest_of(shop / "words" / "model.onnx")
    assert (metadata["model"], metadata["source"]) == ("words", "title")
    assert json.loads(metadata["settings"])["max_tokens"] == 6


def test_values_beyond_float16_are_refused_and_normalising_helps(shop, refused):
    text_model(shop / "words", rows=1e5 * TABLE)
    command = ["shop/items.csv", "--text", "title", "--model", "shop/words", "--out", "shop/features"]
    assert "item 'dress-0' has values that float16 cannot hold; --normalize divides" in refused(*command)
    embed(*command, "--normalize")


def test_rows_of_another_width_in_a_later_batch_are_refused(shop, monkeypatch):
    """Such an output depends on the length of the texts; its rows would be read back as others."""
    encoder = models.Encoder("model", "0", {"batch_size": 4}, lambda texts: np.ones((len(texts), len(texts))))
    catalogue = read_catalogue(shop / "items.csv", ["title"], None)
    with pytest.raises(UserError, match="the model returns 2 columns, but 4 in earlier batches"):
        embedding.embed(embedding.text_inputs(catalogue, ["title"]), encoder, shop / "text.safetensors")
    assert not (shop / "text.safetensors").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_undefined_is_refused(shop, value):
    encoder = models.Encoder("model", "0", {"batch_size": 4}, lambda texts: np.full((len(texts), 2), value))
    catalogue = read_catalogue(shop / "items.csv", ["title"], None)
    with pytest.raises(UserError, match="vector of item 'dress-0' is NaN or infinite"):
        embedding.embed(embedding.text_inputs(catalogue, ["title"]), encoder, shop / "text.safetensors")


def test_pictures_are_known_by_their_content_and_odd_names_are_no_files(shop, capsys):
    picture_model(shop / "eyes.onnx", **HALF)
    table = (shop / "items.csv").read_text().splitlines()
    names = ["image", "dress-0.png", f"data:image/png;base64 {'A' * 9000}", *[""] * 5]
    (shop / "items.csv").write_text("\n".join(f"{row},{name}" for row, name in zip(table, names, strict=True)))
    command = ["shop/items.csv", "--images", "shop/images", "--model", "shop/eyes.onnx", "--out", "shop/features"]
    embed(*command)
    assert "! item dress-1: there is no file data:image" in capsys.readouterr().err
    before = (shop / "features" / "image.safetensors").read_bytes()
    for file in (shop / "images").iterdir():
        file.touch()
    embed(*command)
    assert "dress-1" in capsys.readouterr().err  # a repeated command says again what is missing
    assert (shop / "features" / "image.safetensors").read_bytes() == before


def test_the_file_is_refused_where_the_modality_has_another(shop, refused):
    text_model(shop / "words")
    (shop / "features").mkdir()
    write_tensors({"values": np.ones((7, 2), np.float32)}, shop / "features" / "textual_feat.safetensors")
    command = ["shop/items.csv", "--text", "title", "--model", "shop/words", "--out", "shop/features"]
    assert "it already holds the textual features; remove it, or give another --out" in refused(*command)


REFUSALS = {
    "nothing to embed: give --text COLUMN,…, --images FOLDER, or both": [],
    "no model was given: give --model or --text-model": ["--text", "title"],
    "there is no column 'name'; it has 'item', 'title', 'season': choose": [
        "--text",
        "name",
        "--model",
        "words",
    ],
    "there is no such model; give an ONNX file or a local folder: nothing is": ["--text", "title", "--model", "none"],
    "no model found; expected model.onnx, onnx/model.onnx, or the config.json": [
        "--text",
        "title",
        "--model",
        "images",
    ],
    "items.csv: not a readable ONNX model": ["--text", "title", "--model", "items.csv"],
    "there is no tokenizer.json beside it; give the file with --tokenizer": ["--text", "title", "--model", "eyes.onnx"],
    "not a text model: its inputs are pixels tensor(float)": [
        *("--text", "title", "--model", "eyes.onnx", "--tokenizer", "words/tokenizer.json")
    ],
    "not a model of pictures: its inputs are input_ids": ["--images", "images", "--model", "words/model.onnx"],
    "give --mean and --std, three numbers each (ImageNet's are": ["--images", "images", "--model", "eyes.onnx"],
    "--images nowhere: there is no such folder": ["--images", "nowhere", "--model", "eyes.onnx"],
    "there is no output 'x'; give one of 'last_hidden_state' with --output": [
        *("--text", "title", "--model", "words", "--output", "x")
    ],
    "--model has no use": ["--text", "title", "--model", "words", "--text-model", "words"],
    "--text-model needs --text: give it": ["--images", "images", "--model", "eyes.onnx", "--text-model", "words"],
    "--std needs --images: give it": ["--text", "title", "--model", "words", "--std", "1", "1", "1"],
    "--batch-size is 0: give at least 1": ["--text", "title", "--model", "words", "--batch-size", "0"],
    "no item has a text that can be used; the first: there is no text": ["--text", "empty", "--model", "words"],
    "row 1 holds the names 'item', 'title', 'season'; give one of these with --item-column": [
        *("--text", "title", "--model", "words", "--item-column", "2")
    ],
    "name the column of raw ids with --item-column": ["--text", "title", "--model", "words", "--item-column", "sku"],
}


@pytest.mark.parametrize("said", REFUSALS)
def test_a_mistake_gets_one_line(shop, monkeypatch, refused, said):
    text_model(shop / "words"), picture_model(shop / "eyes.onnx")
    monkeypatch.chdir(shop)
    if "no item has a text" in said:
        (shop / "items.csv").write_text("item,empty\na, \nb,\n")
    line = refused("items.csv", *REFUSALS[said], "--out", "features")
    assert said in line
    assert "\n" not in line
    assert not list(shop.rglob("*.safetensors"))


@pytest.mark.parametrize(("module", "extra"), [("onnxruntime", "embed"), ("tokenizers", "embed")])
def test_what_is_not_installed_is_named_with_its_extra(shop, monkeypatch, refused, module, extra):
    text_model(shop / "words")
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None if name == module else name)
    line = refused("shop/items.csv", "--text", "title", "--model", "shop/words", "--out", "shop/features")
    assert line == f"this needs the package {module}, which is not installed: pip install 'slmrec-jax[{extra}]'"
