"""The commands `slmrec-jax data …`: look at a data set, bring it into the package's own format, make the demo."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.text import Text

from slmrec_jax import data, figures
from slmrec_jax.config import Source, source_of
from slmrec_jax.data.inspect import findings, inspection
from slmrec_jax.data.split import split_dataset
from slmrec_jax.durable import writing
from slmrec_jax.errors import UserError, escaped

_PICTURES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class _Folder(Source):
    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PATH")] = field()  # no default here
    """`demo`, or the folder of a data set."""


@dataclass(frozen=True)
class Inspect(_Folder):
    """Show what a data set holds, and what is odd in it."""

    plot: Path | None = None
    """A picture to write: degrees, norms and what is missing."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON."""


@dataclass(frozen=True)
class Convert(_Folder):
    """Write a data set in the format of this program, which is read fastest."""

    out: tyro.conf.Positional[Path] = field(kw_only=True)
    """The folder to make."""


@dataclass(frozen=True)
class Make:
    """Write the demo data as a folder."""

    what: tyro.conf.Positional[Literal["demo"]]
    """Which data set."""
    out: tyro.conf.Positional[Path]
    """The folder to make."""


def inspect(flags: Inspect) -> int:
    """Prints a line a fact, then a line an oddity."""
    if flags.plot is not None and flags.plot.suffix not in _PICTURES:
        raise UserError(f"--plot {flags.plot}: give a name that ends in {', '.join(_PICTURES)}")
    source = source_of(flags)
    given, format = data.read_source(source)
    divided = isinstance(given, data.Dataset) or flags.split is not None
    # What is not divided can be looked at all the same: all of it is in train.
    whole = given if isinstance(given, data.Dataset) else given.dataset
    dataset = split_dataset(given, source.split, source.split_seed) if divided else whole
    found = inspection.inspect_dataset(dataset)
    if flags.plot is not None:
        _draw(dataset, flags.plot)
    if flags.json:
        print(json.dumps({"format": format, "divided": divided, **findings.as_data(found)}))
        return 0
    console = Console(highlight=False)
    lines = {"data set": found.name, "format": format, **findings.facts(found)}
    width = max(map(len, lines))
    for what, line in lines.items():
        console.print(Text.assemble((f"{what:<{width}}  ", "bold"), escaped(line)), soft_wrap=True)
    choices = " | ".join(data.SPLIT_METHODS)
    odd = [] if divided else [f"not divided into training, validation and test: choose --split {choices}"]
    for line in odd + findings.oddities(found):
        console.print(Text.assemble(("! ", "bold red"), escaped(line)), soft_wrap=True)
    return 0


def convert(flags: Convert) -> int:
    """Writes the folder and says what it holds."""
    return _write(data.load_source(source_of(flags)), flags.out)


def make(flags: Make) -> int:
    """Writes the demo data."""
    return _write(data.load(flags.what), flags.out)


def _write(dataset: data.Dataset, folder: Path) -> int:
    data.write_store(dataset, folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{escaped(folder)}: {escaped(dataset.name)}, {size / 2**20:.1f} MiB, fingerprint {dataset.fingerprint[:12]}")
    return 0


def _draw(dataset: data.Dataset, path: Path) -> None:
    users, items = dataset.degrees()
    vectors = {name: feature for name, feature in dataset.features.items() if isinstance(feature, data.Feature)}
    missing = {
        name: inspection.count_missing(feature, dataset.num_items) / dataset.num_items
        for name, feature in dataset.features.items()
    }
    norms = {name: inspection.norms(feature) for name, feature in vectors.items()}
    with writing(path, "give another --plot"):
        figures.draw_inspection({"users": users, "items": items}, norms, missing, path, dataset.name)
