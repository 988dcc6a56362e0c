"""Small ONNX models of texts and of pictures, made by hand; their vectors are computed in NumPy too."""

import json

import numpy as np

WORDS = ["[PAD]", "[UNK]", "red", "blue", "dress", "shoe", "summer"]
TABLE = np.random.default_rng(0).normal(size=(len(WORDS), 4)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)


def save_model(file, nodes, inputs, outputs, weights, metadata=()):
    """Write an ONNX file with nodes of `(kind, inputs, outputs, attributes)`; ports are `(name, type, shape)`."""
    from onnx import TensorProto, helper, numpy_helper, save

    ports = [
        [helper.make_tensor_value_info(name, TensorProto.DataType.Value(kind), shape) for name, kind, shape in each]
        for each in (inputs, outputs)
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, before, after, **named) for kind, before, after, named in nodes],
        "graph",
        *ports,
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, dict(metadata))
    file.parent.mkdir(parents=True, exist_ok=True)
    save(model, file)
    return file


def text_model(folder, rows=TABLE, tokens="tokens"):
    """A model that looks up the row of each token, with its tokenizer beside it; `tokens` may be a fixed number."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))  # noqa: S106
    words.normalizer, words.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    words.enable_truncation(6)
    file = save_model(
        folder / "model.onnx",
        [("Gather", ["rows", "input_ids"], ["last_hidden_state"], {})],
        [("input_ids", "INT64", ["batch", tokens])],
        [("last_hidden_state", "FLOAT", ["batch", tokens, rows.shape[1]])],
        {"rows": rows},
    )
    words.save(str(folder / "tokenizer.json"))
    return file


def text_vector(text, rows=TABLE):
    """The mean row of the words of a text."""
    words = text.lower().replace(".", " . ").split()[:6]
    return rows[[WORDS.index(word) if word in WORDS else 1 for word in words]].mean(axis=0)


def picture_model(file, side=4, batch="batch", last=False, **metadata):
    """A model that multiplies the mean of each channel by `WEIGHTS`; `last` has the channels after the pixels."""
    pixels, shape = ([1, 2], [batch, side, side, 3]) if last else ([2, 3], [batch, 3, side, side])
    return save_model(
        file,
        [
            ("ReduceMean", ["pixels"], ["means"], {"axes": pixels, "keepdims": 0}),
            ("MatMul", ["means", "weights"], ["image_embeds"], {}),
        ],
        [("pixels", "FLOAT", shape)],
        [("means", "FLOAT", [batch, 3]), ("image_embeds", "FLOAT", [batch, 5])],
        {"weights": WEIGHTS},
        {name: json.dumps(value) for name, value in metadata.items()},
    )


HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def picture_vector(colour):
    """The vector of a picture of one colour, normalised by `HALF`."""
    return (np.array(colour) / 255 - 0.5) / 0.5 @ WEIGHTS.astype(np.float64)
