"""What every part of the device run needs: its data, its time, and its report, which is written row by row."""

import functools
import importlib.util
import json
import math
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import shapes
from findings import Finding

from slmrec_jax.data.dataset import Dataset

REDUCED = {
    shapes.PAPER: {"num_users": 600, "num_items": 1200, "num_interactions": 8_000},
    shapes.PAPER_TIMES_TEN: {"num_users": 6_000, "num_items": 12_000, "num_interactions": 80_000},
}
"""The sizes of a reduced run. Features have the same columns."""

FEATURELESS: dict[str, int] = {}
"""The columns of data for products alone: large features take long to generate."""


class Skipped(Exception):
    """The part cannot run here; the message says why."""


@dataclass(eq=False)
class Part:
    """A part that runs now, with its report."""

    data: str
    """A real data set; the demo data in a reduced run."""
    reduced: bool
    until: float
    """When the part should end, by `time.monotonic`."""
    path: Path
    """The report."""
    report: dict[str, Any] = field(default_factory=lambda: {"status": "running", "rows": [], "findings": []})

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return self.until - time.monotonic()

    def row(self, **values: Any) -> None:
        """Report what was measured."""
        self.report["rows"].append(values)
        print(json.dumps(values), flush=True)
        self.write()

    def finding(self, measured: str, value: float, goal: float | None = None, way: Literal["≥", "≤"] = "≥") -> None:
        """Report a value of the final table. Goals are for an accelerator and the full sizes."""
        finding = Finding(measured, float(value), goal, way)
        judged = not self.reduced and goal is not None and math.isfinite(value)
        self.report["findings"].append(finding._asdict() | {"met": finding.met if judged else None})
        self.write()

    def note(self, text: str) -> None:
        """Report a sentence, such as what was left out and why."""
        self.report.setdefault("notes", []).append(text)
        print(text, flush=True)
        self.write()

    def has_time(self, seconds: float, wanted: str) -> bool:
        """Return whether the part has this many seconds left; report what is left out if not."""
        if self.left > seconds:
            return True
        self.note(f"{wanted} was left out: {max(self.left, 0):.0f} s were left, and it takes about {seconds:.0f}")
        return False

    @contextmanager
    def guarded(self, **about: Any) -> Iterator[None]:
        """Report an error within the block as a row, and go on after it."""
        try:
            yield
        except Exception as error:
            self.row(**about, error=line_of(error))
            traceback.print_exc()

    def write(self) -> None:
        """Write the report; a process that is killed meanwhile leaves the report before."""
        beside = self.path.with_suffix(".part")
        beside.write_text(json.dumps(self.report, indent=2) + "\n")
        os.replace(beside, self.path)

    @functools.cache  # noqa: B019 (a part lives as long as its process)
    def dataset(self, name: str = "", features: bool = True) -> Dataset:
        """Return a data set numbered by degree: the part's own, or a generated one by its name."""
        if not name:
            return shapes.dataset(self.data).by_degree()
        columns = None if features else FEATURELESS
        label, sizes = (f"{name} reduced", REDUCED[name]) if self.reduced else (name, shapes.SIZES[name])
        return shapes.power_law(label, **sizes, columns=columns).by_degree()


def has_torch() -> bool:
    """Return whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def need_torch() -> None:
    """Skip the part without PyTorch."""
    if not has_torch():
        raise Skipped("PyTorch is not installed, and this part compares with it")


def line_of(error: BaseException) -> str:
    """Return the type and the first line of an error."""
    text = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {text[0][:500]}"
