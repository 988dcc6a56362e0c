"""The command `slmrec-jax data embed`."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from slmrec_jax.errors import UserError, escaped

if TYPE_CHECKING:
    from collections.abc import Collection

    from slmrec_jax.content.embedding import Embedded
    from slmrec_jax.content.models import Options

_FAULTS_SHOWN = 20
_LINES = 10
"""The number of progress lines if there is no terminal."""


@dataclass(frozen=True)
class EmbedFlags:
    """Make vectors of the items' texts and pictures with a model."""

    items: tyro.conf.Positional[Path]
    """The table of items: CSV, TSV, Parquet or a folder of Hugging Face datasets, with a column item."""
    text: str | None = None
    """Columns of text, such as title,description."""
    images: Path | None = None
    """The folder of the items' pictures. The column image names an item's picture; without it, the file is named after
    the item."""
    out: Path = field(kw_only=True)
    """The folder for text.safetensors and image.safetensors, such as shop/features."""
    model: Path | None = None
    """An ONNX file, a folder with one, or for texts a local Hugging Face folder; nothing is downloaded."""
    text_model: Path | None = None
    """The model for texts, if pictures have a different one."""
    image_model: Path | None = None
    """The model for pictures, if texts have a different one."""
    output: str | None = None
    """The output of an ONNX model to use; by default a pooled one, recognised by its name, or the first."""
    pooling: Literal["mean", "first"] | None = None
    """How to pool the token rows of an ONNX model; by default as its folder specifies, or the mean."""
    tokenizer: Path | None = None
    """The tokenizer.json of an ONNX text model; by default the one next to it."""
    max_tokens: int | None = None
    """Number of tokens at which texts are cut; by default as the model's files specify."""
    size: int | None = None
    """Height and width of pictures; by default as the model's files specify."""
    mean: tuple[float, float, float] | None = None
    """Subtracted from red, green and blue between 0 and 1; by default as the model's files specify."""
    std: tuple[float, float, float] | None = None
    """Divides red, green and blue after that; by default as the model's files specify."""
    normalize: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Divide vectors by their norms."""
    batch_size: int = 32
    """Number of texts or pictures per batch."""
    item_column: str | None = None
    """The column of raw ids; by default the one with a known name."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace vectors that were made from other items or in a different way."""


def run_embed(flags: EmbedFlags) -> None:
    """Write the vectors, and print how many items have one and why others do not."""
    from slmrec_jax.content.catalogue import read_catalogue
    from slmrec_jax.content.embedding import check_place, embed, picture_inputs, text_inputs
    from slmrec_jax.content.models import Kind, open_encoder

    columns = [name.strip() for name in (flags.text or "").split(",") if name.strip()]
    models: dict[Kind, Path] = {}
    if columns:
        models["text"] = _model(flags, "text")
    if flags.images is not None:
        models["image"] = _model(flags, "image")
    if not models:
        raise UserError("nothing to embed: give --text COLUMN,…, --images FOLDER, or both")
    _check_used(flags, models)
    files = {kind: check_place(kind, flags.out) for kind in models}
    catalogue = read_catalogue(flags.items, columns, flags.item_column)
    inputs = [text_inputs(catalogue, columns)] if columns else []
    if flags.images is not None:
        inputs.append(picture_inputs(catalogue, flags.images))
    encoders = {kind: open_encoder(kind, path, _options(flags, kind)) for kind, path in models.items()}
    for each in inputs:
        encoder = encoders[each.kind]
        with _progress(each.kind) as told:
            made = embed(each, encoder, files[each.kind], overwrite=flags.overwrite, told=told)
        _show(made, encoder.name)


def _check_used(flags: EmbedFlags, models: "Collection[str]") -> None:
    """Reject text flags if no texts are requested, and picture flags if no pictures are."""
    for kind, asked, names in (
        ("text", "--text", ("text_model", "pooling", "tokenizer", "max_tokens")),
        ("image", "--images", ("image_model", "size", "mean", "std")),
    ):
        for name in names:
            if kind not in models and getattr(flags, name) is not None:
                raise UserError(f"--{name.replace('_', '-')} needs {asked}: give it, or leave this flag out")
    own = [getattr(flags, f"{kind}_model") for kind in models]
    if flags.model is not None and None not in own:
        given = " and ".join(f"--{kind}-model" for kind in models)
        raise UserError(f"--model has no use beside {given}: leave it out")


def _model(flags: EmbedFlags, kind: Literal["text", "image"]) -> Path:
    own = flags.text_model if kind == "text" else flags.image_model
    if own is None and flags.model is None:
        raise UserError(
            f"no model was given: give --model or --{kind}-model, an ONNX file"
            f"{' or a local Hugging Face folder' if kind == 'text' else ''}; nothing is downloaded"
        )
    return own or flags.model or Path()


def _options(flags: EmbedFlags, kind: Literal["text", "image"]) -> "Options":
    from slmrec_jax.content.models import Options

    of_text, of_image = kind == "text", kind == "image"
    return Options(
        output=flags.output,
        pooling=flags.pooling if of_text else None,
        tokenizer=flags.tokenizer if of_text else None,
        max_tokens=flags.max_tokens if of_text else None,
        size=flags.size if of_image else None,
        mean=flags.mean if of_image else None,
        std=flags.std if of_image else None,
        normalize=flags.normalize,
        batch_size=flags.batch_size,
    )


def _show(made: "Embedded", model: str) -> None:
    for item, reason in list(made.faults.items())[:_FAULTS_SHOWN]:
        print(f"! item {escaped(item)}: {escaped(reason)}; it counts as missing", file=sys.stderr)
    if (more := len(made.faults) - _FAULTS_SHOWN) > 0:
        print(f"! and {more} more items", file=sys.stderr)
    if (others := made.items - made.vectors - len(made.faults)) > 0:
        print(f"! further items without a vector: {others}; the run that made the file printed why", file=sys.stderr)
    count = f"{made.vectors} of {made.items} items"
    before = f" ({made.resumed} were already done)" if made.resumed else ""
    print(f"{escaped(made.file)}: {count}{before}, {made.columns} columns by {escaped(model)}")


@contextmanager
def _progress(kind: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that shows progress: a bar on a terminal, a few lines elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        yield _lines(kind)
        return
    columns = TextColumn(kind), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(compact=True)
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("")
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(kind: str) -> Callable[[int, int], None]:
    shown = 0

    def tell(done: int, total: int) -> None:
        nonlocal shown
        if done and done * _LINES // total > shown:
            shown = done * _LINES // total
            print(f"{kind}: {done} of {total}", file=sys.stderr)

    return tell
