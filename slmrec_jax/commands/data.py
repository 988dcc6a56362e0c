"""The commands `slmrec-jax data inspect`, `data convert` and `data make`."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from slmrec_jax.commands.sources import SourceFlags
from slmrec_jax.config import source_of
from slmrec_jax.durable import writing
from slmrec_jax.errors import UserError, escaped

if TYPE_CHECKING:
    from rich.console import Console

    from slmrec_jax.data import Dataset

_PICTURES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class DataFlags(SourceFlags):
    """The flags of a command that reads a data set."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PATH")] = field()  # no default here
    """`demo`, or the folder of a data set."""
    memory_limit: str | None = None
    """Memory limit for reading tables of interactions, such as `4GB`; by default half of the free memory. What does not
    fit is stored in a temporary folder."""


@dataclass(frozen=True)
class InspectFlags(DataFlags):
    """Show the content of a data set, and its oddities."""

    plot: Path | None = None
    """A picture file to write, with degrees, norms and missing features."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON."""


def run_inspect(flags: InspectFlags) -> None:
    """Print one line per fact, then one line per oddity."""
    from rich.console import Console

    from slmrec_jax import data
    from slmrec_jax.data.inspect import findings, inspection
    from slmrec_jax.data.readers.engine import limited_memory
    from slmrec_jax.data.split import split_dataset

    if flags.plot is not None and flags.plot.suffix not in _PICTURES:
        raise UserError(f"--plot {flags.plot}: give a name that ends in {', '.join(_PICTURES)}")
    source = source_of(flags)
    with limited_memory(flags.memory_limit):
        given, format = data.read_source(source)
        divided = isinstance(given, data.Dataset) or flags.split is not None
        # Data without splits can be inspected too: all interactions are in train.
        whole = given if isinstance(given, data.Dataset) else given.dataset
        dataset = split_dataset(given, source.split, source.split_seed) if divided else whole
    found = inspection.inspect_dataset(dataset)
    if flags.plot is not None:
        _plot(dataset, flags.plot)
    if flags.json:
        print(json.dumps({"format": format, "divided": divided, **findings.as_data(found)}))
        return
    console = Console(highlight=False)
    facts = {"data set": found.name, "format": format, **findings.facts(found)}
    _print_indented(console, "bold", facts.items())
    choices = " | ".join(data.SPLIT_METHODS)
    undivided = [] if divided else [f"not split into training, validation and test: choose --split {choices}"]
    _print_indented(console, "bold red", [("!", line) for line in undivided + findings.oddities(found)], gap=1)


def _print_indented(console: "Console", style: str, lines: Iterable[tuple[str, str]], gap: int = 2) -> None:
    """Print names and texts in two columns. Texts are wrapped on a terminal and stay on one line in a file."""
    from rich.table import Table
    from rich.text import Text

    rows = [(name, escaped(text)) for name, text in lines]
    if console.is_terminal:
        grid = Table.grid(padding=(0, gap, 0, 0))
        grid.add_column(style=style, overflow="fold")
        grid.add_column(overflow="fold")
        for name, text in rows:
            grid.add_row(Text(name), Text(text))
        console.print(grid)
        return
    width = max((len(name) for name, _ in rows), default=0) + gap
    for name, text in rows:
        console.print(Text.assemble((f"{name:<{width}}", style), text), soft_wrap=True)


@dataclass(frozen=True)
class ConvertFlags(DataFlags):
    """Write a data set in this program's format, which is fastest to read, or in the format of another tool."""

    out: tyro.conf.Positional[Path] = field(kw_only=True)
    """The folder to make."""
    to: Literal["slmrec", "mmrec", "recbole", "lightgcn", "plain"] = "slmrec"
    """The format to write; all except slmrec are for other tools."""


def run_convert(flags: ConvertFlags) -> None:
    """Write the folder and print its size."""
    from slmrec_jax import data
    from slmrec_jax.data.converting import write_format
    from slmrec_jax.data.readers.engine import limited_memory

    with limited_memory(flags.memory_limit):
        dataset = data.load_source(source_of(flags))
        if flags.to == "slmrec":
            data.write_store(dataset, flags.out)
            _print_written(dataset, flags.out)
            return
        written = write_format(dataset, flags.out, flags.to)
    _print_written(written.dataset, flags.out)
    for note in written.notes:
        print(f"! {escaped(note)}")
    if written.dataset.fingerprint != dataset.fingerprint:
        print(f"! with the omitted parts, the fingerprint is {dataset.fingerprint[:12]}")
    print("! times and ratings, if any, are not written: the interactions are already split")


@dataclass(frozen=True)
class MakeFlags:
    """Write the demo data as a folder."""

    name: tyro.conf.Positional[Literal["demo"]]
    """The data set."""
    out: tyro.conf.Positional[Path]
    """The folder to make."""


def run_make(flags: MakeFlags) -> None:
    """Write the folder and print its size."""
    from slmrec_jax import data

    dataset = data.load(flags.name)
    data.write_store(dataset, flags.out)
    _print_written(dataset, flags.out)


def _print_written(dataset: "Dataset", folder: Path) -> None:
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{escaped(folder)}: {escaped(dataset.name)}, {size / 2**20:.1f} MiB, fingerprint {dataset.fingerprint[:12]}")


def _plot(dataset: "Dataset", path: Path) -> None:
    from slmrec_jax import data, figures
    from slmrec_jax.data.inspect import inspection

    users, items = dataset.degrees()
    features, count = dataset.features.items(), dataset.num_items
    missing = {name: inspection.count_missing(feature, count) / count for name, feature in features}
    norms = {name: inspection.norms(feature) for name, feature in features if isinstance(feature, data.Feature)}
    with writing(path, "give another --plot"):
        figures.draw_inspection({"users": users, "items": items}, norms, missing, path, dataset.name)
