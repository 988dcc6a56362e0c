"""A small web service on an export: recommendations for users, and for lists of items, without JAX or this package.

    slmrec-jax export RUN exports/monday --onnx && ln -s monday exports/current
    EXPORT=exports/current uvicorn --app-dir examples web_service:app

Needs fastapi, uvicorn, onnxruntime, numpy and pyarrow. A new export is taken as soon as the link points to it.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pyarrow.parquet
from fastapi import FastAPI, HTTPException, Query
from pydantic import BaseModel, Field

MOST_ITEMS = 1000
"""The longest history and the longest answer."""


class Export(NamedTuple):
    """An export in memory."""

    folder: Path
    user_rows: dict[str, int]
    item_rows: dict[str, int]
    item_ids: list[Any]
    users: onnxruntime.InferenceSession
    history: onnxruntime.InferenceSession


class History(BaseModel):
    """The items of a visitor who is not a user of the training data."""

    items: list[str | int] = Field(min_length=1, max_length=MOST_ITEMS)
    k: int = Field(default=10, ge=1, le=MOST_ITEMS)


def read(folder: Path) -> Export:
    """Read an export. Ids are compared as text, since addresses are text."""
    ids = {
        side: pyarrow.parquet.read_table(folder / f"{side}.parquet", columns=["id"])["id"].to_pylist()
        for side in ("users", "items")
    }
    user_rows, item_rows = ({str(name): row for row, name in enumerate(of)} for of in ids.values())
    models = (onnxruntime.InferenceSession(str(folder / name)) for name in ("users.onnx", "history.onnx"))
    return Export(folder, user_rows, item_rows, ids["items"], *models)


def make_app(link: Path) -> FastAPI:
    """Return the service of the export that a link points to, or of a folder."""
    app, held = FastAPI(title="recommendations"), [read(link.resolve())]

    def current() -> Export:
        target = link.resolve()
        if held[0].folder != target and (target / "meta.json").is_file():
            held[0] = read(target)
        return held[0]

    def answer(export: Export, model: onnxruntime.InferenceSession, asked: dict[str, Any]) -> list[dict[str, Any]]:
        items, scores = (found[0].tolist() for found in model.run(["items", "scores"], asked))
        ranked = zip(items, scores, strict=True)
        return [{"item": export.item_ids[row], "score": score} for row, score in ranked if score > -np.inf]

    @app.get("/users/{user:path}")  # an id may have a slash
    def for_user(user: str, k: int = Query(default=10, ge=1, le=MOST_ITEMS)) -> list[dict[str, Any]]:
        export = current()
        if user not in export.user_rows:
            raise HTTPException(404, "there is no such user: post a history of items to /history")
        return answer(export, export.users, {"users": np.array([export.user_rows[user]]), "k": np.array([k])})

    @app.post("/history")
    def for_history(history: History) -> list[dict[str, Any]]:
        export = current()
        # Items that are newer than the export have no row yet.
        rows = sorted({export.item_rows[str(item)] for item in history.items if str(item) in export.item_rows})
        if not rows:
            raise HTTPException(404, "there is none of these items")
        return answer(export, export.history, {"history": np.array([rows]), "k": np.array([history.k])})

    return app


if "EXPORT" in os.environ:
    app = make_app(Path(os.environ["EXPORT"]))
