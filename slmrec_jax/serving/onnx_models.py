"""ONNX models that score with an export's tables, for runtimes without Python, JAX or this package.

users.onnx      users (rows of users.parquet), k -> items (rows of items.parquet), scores; known items are left out
history.onnx    history (rows of items.parquet, padded by -1), k -> items, scores; those of the history are left out
known.safetensors   offsets, items: the known items of each user, which `users.onnx` reads

Both models are small, since they read the embeddings from `embeddings.safetensors` in the same folder. No other module
imports onnx.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import scipy.sparse
from onnx import TensorProto, helper

from slmrec_jax.config.protocols import Score
from slmrec_jax.data.own_files import write_tensors
from slmrec_jax.types import Interactions

USERS_FILE, HISTORY_FILE, KNOWN_FILE = "users.onnx", "history.onnx", "known.safetensors"

_OPSET = 18
_TYPES = {"F32": TensorProto.FLOAT, "I32": TensorProto.INT32, "I64": TensorProto.INT64}


def write_onnx_models(folder: Path, vectors: str, known: Interactions, num_users: int, score: Score) -> None:
    """Write both models and the file of known items to a folder.

    Args:
        folder: The folder of the export, which already has the file of vectors.
        vectors: The name of the file with the float32 tensors `users` and `items`.
        known: Distinct interactions, whose items are not recommended again.
        num_users: The number of users.
        score: The score, as in ranking.
    """
    ones = np.ones(len(known.users), np.int8)
    by_user = scipy.sparse.csr_array((ones, known), shape=(num_users, int(known.items.max(initial=0)) + 1))
    lists = {"offsets": by_user.indptr.astype(np.int64), "items": by_user.indices.astype(np.int32)}
    write_tensors(lists, folder / KNOWN_FILE)
    tables, lists_of = _tensors_of(folder / vectors), _tensors_of(folder / KNOWN_FILE)
    known_tensors = [_external(lists_of, name, KNOWN_FILE, f"known_{name}") for name in lists]
    items, users = (_external(tables, side, vectors, f"{side}_table") for side in ("items", "users"))
    num_items = int(items.dims[0])
    _save(folder / USERS_FILE, "users", ["batch"], _for_users(), [items, users, *known_tensors], num_items, score)
    _save(folder / HISTORY_FILE, "history", ["batch", "length"], _for_histories(), [items], num_items, score)


def _for_users() -> list[onnx.NodeProto]:
    """Return the nodes from `users` to `rows` and to `excluded`: each user's known items, padded with `num_items`."""
    return [
        _node("Gather", ["users_table", "users"], "rows"),
        _node("Gather", ["known_offsets", "users"], "starts"),
        _node("Add", ["users", "one"], "following"),
        _node("Gather", ["known_offsets", "following"], "ends"),
        _node("Sub", ["ends", "starts"], "lengths"),
        _node("ReduceMax", ["lengths"], "longest", keepdims=0),
        _node("Range", ["zero", "longest", "one"], "steps"),
        _node("Unsqueeze", ["starts", "axis_1"], "first"),
        _node("Unsqueeze", ["lengths", "axis_1"], "counts"),
        _node("Less", ["steps", "counts"], "is_known"),
        _node("Add", ["first", "steps"], "places"),
        _node("Where", ["is_known", "places", "zero"], "safe_places"),
        _node("Gather", ["known_items", "safe_places"], "found"),
        _node("Cast", ["found"], "found_items", to=TensorProto.INT64),
        _node("Where", ["is_known", "found_items", "num_items"], "excluded"),
    ]


def _for_histories() -> list[onnx.NodeProto]:
    """Return the nodes from `history` to `rows`, the mean of its items' rows, and to `excluded`."""
    return [
        _node("GreaterOrEqual", ["history", "zero"], "is_item"),
        _node("Where", ["is_item", "history", "zero"], "safe_items"),
        _node("Gather", ["items_table", "safe_items"], "item_rows"),
        _node("Cast", ["is_item"], "weights", to=TensorProto.FLOAT),
        _node("Unsqueeze", ["weights", "axis_2"], "weights_of_rows"),
        _node("Mul", ["item_rows", "weights_of_rows"], "weighted"),
        _node("ReduceSum", ["weighted", "axis_1"], "sums", keepdims=0),
        _node("ReduceSum", ["weights", "axis_1"], "totals", keepdims=1),
        _node("Max", ["totals", "one_float"], "divisors"),
        _node("Div", ["sums", "divisors"], "rows"),
        _node("Where", ["is_item", "history", "num_items"], "excluded"),
    ]


def _ranked(score: Score) -> list[onnx.NodeProto]:
    """Return the nodes from `rows` and `excluded` to the best items. An extra last column absorbs the padding."""
    # Computed by definition, since runtimes approximate the operator `Sigmoid`.
    sigmoid = [
        _node("Neg", ["products"], "negative"),
        _node("Exp", ["negative"], "exponential"),
        _node("Add", ["exponential", "one_float"], "denominator"),
        _node("Reciprocal", ["denominator"], "sigmoids"),
    ]
    return [
        _node("Gemm", ["rows", "items_table"], "products", transB=1),
        *(sigmoid if score == "sigmoid" else []),
        _node("Pad", ["sigmoids" if score == "sigmoid" else "products", "one_column"], "padded"),
        _node("Shape", ["excluded"], "shape_of_excluded"),
        _node("Expand", ["minus_infinity", "shape_of_excluded"], "none"),
        _node("ScatterElements", ["padded", "excluded", "none"], "masked", axis=1),
        _node("Slice", ["masked", "axis_0", "num_items_list", "axis_1"], "candidates"),
        _node("Min", ["k", "num_items_list"], "count"),
        helper.make_node("TopK", ["candidates", "count"], ["scores", "items"], axis=1),
    ]


def _save(
    file: Path,
    asked: str,
    axes: Sequence[str],
    nodes: list[onnx.NodeProto],
    tensors: list[TensorProto],
    num_items: int,
    score: Score,
) -> None:
    whole = {"zero": 0, "one": 1, "num_items": num_items, "num_items_list": [num_items]}
    whole |= {"axis_0": [0], "axis_1": [1], "axis_2": [2], "one_column": [0, 0, 0, 1]}
    constants: dict[str, Any] = {name: np.asarray(value, np.int64) for name, value in whole.items()}
    constants |= {"one_float": np.float32(1), "minus_infinity": np.float32(-np.inf)}
    nodes = [*nodes, *_ranked(score)]
    read = {name for node in nodes for name in node.input}
    used = {name: np.asarray(value) for name, value in constants.items() if name in read}
    graph = helper.make_graph(
        nodes,
        asked,
        [
            helper.make_tensor_value_info(asked, TensorProto.INT64, axes),
            helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
        ],
        [
            helper.make_tensor_value_info("items", TensorProto.INT64, ["batch", "best"]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", "best"]),
        ],
        [*tensors, *(onnx.numpy_helper.from_array(value, name) for name, value in used.items())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=9)
    file.write_bytes(model.SerializeToString())


def _node(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], **attributes)


def _tensors_of(file: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of a safetensors file, with offsets from the beginning of the file."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
    return {
        name: entry | {"offset": 8 + length + entry["data_offsets"][0]}
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _external(entries: dict[str, dict[str, Any]], name: str, file: str, called: str) -> TensorProto:
    """Return a tensor whose values are in a file next to the model."""
    entry = entries[name]
    start, end = entry["data_offsets"]
    tensor = TensorProto(name=called, data_type=_TYPES[entry["dtype"]], dims=entry["shape"])
    if start == end:  # an empty tensor cannot be stored externally
        tensor.raw_data = b""
        return tensor
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", file), ("offset", entry["offset"]), ("length", end - start)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
