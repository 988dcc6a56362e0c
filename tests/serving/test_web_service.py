"""The web service of the documentation answers as the package does, and takes a new export without a restart."""

import importlib.util
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from slmrec_jax import data
from slmrec_jax.serving.exports import write_export
from slmrec_jax.serving.served import recommend, served_of, with_new_users
from slmrec_jax.types import Embeddings, Interactions

EXAMPLE = Path(__file__).parents[2] / "examples" / "web_service.py"


def served(seed):
    rng = np.random.default_rng(seed)
    known = Interactions(np.arange(5, dtype=np.int32), np.arange(5, dtype=np.int32))
    none = Interactions(np.zeros(0, np.int32), np.zeros(0, np.int32))
    names = np.array(["u0", "u 1", "<b>", "u/3", "u4"])
    dataset = data.make_dataset("shop", known, none, none, num_users=5, num_items=9, user_ids=names)
    return served_of(dataset, Embeddings(*(rng.normal(size=(rows, 3)) for rows in (5, 9))), "dot")


@pytest.fixture
def service():
    for name in ("fastapi", "httpx", "onnx", "onnxruntime"):
        pytest.importorskip(name)
    spec = importlib.util.spec_from_file_location("web_service", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_answers_are_those_of_the_package_and_of_the_current_export(service, tmp_path):
    from fastapi.testclient import TestClient

    made = [served(seed) for seed in range(2)]
    for place, each in enumerate(made):
        write_export(each, tmp_path / str(place), onnx=True)
    link = tmp_path / "current"
    link.symlink_to("0")
    client = TestClient(service.make_app(link))
    for place, each in enumerate(made):
        link.unlink()
        link.symlink_to(str(place))
        expected = recommend(each, ["u 1"], 4)
        found = client.get("/users/u 1", params={"k": 4}).json()
        assert [line["item"] for line in found] == expected.items[0].tolist()
        assert [line["score"] for line in found] == pytest.approx(expected.scores[0].tolist(), rel=1e-5)
        ids = each.item_ids[[2, 5]].tolist()
        expected = recommend(with_new_users(each, ids), None, 9).items[0, :7].tolist()
        found = client.post("/history", json={"items": [str(ids[0]), ids[1], "unknown"], "k": 9}).json()
        assert [line["item"] for line in found] == expected
    link.unlink()
    link.symlink_to("nowhere")
    assert client.get("/users/u 1", params={"k": 4}).json() == [
        {"item": item, "score": pytest.approx(score, rel=1e-5)}
        for item, score in zip(*(column[0].tolist() for column in recommend(made[1], ["u 1"], 4)[1:3]), strict=True)
    ]
    for user in made[1].user_ids:
        assert client.get(f"/users/{quote(user, safe='')}").status_code == 200
    assert client.get("/users/nobody").status_code == 404
    assert client.post("/history", json={"items": ["unknown"]}).status_code == 404
    for wrong in ({"items": []}, {"items": ["1"], "k": 0}, {"items": ["1"] * 1001}):
        assert client.post("/history", json=wrong).status_code == 422
