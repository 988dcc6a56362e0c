"""The results of several systems for a paper: Markdown, LaTeX and CSV tables, users as Parquet, and curves."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from slmrec_jax.durable import whole_file
from slmrec_jax.reporting.charts import loss_curves, save_figure, selection_curves
from slmrec_jax.reporting.tables import booktabs, escape_latex, without_formula
from slmrec_jax.reporting.user_table import write_users
from slmrec_jax.studies.measurements import (
    CATALOGUE,
    FEW_BELOW,
    Measurements,
    SystemScore,
    cutoff_of,
    is_lower_better,
    scores_of,
)
from slmrec_jax.studies.significance import LEVEL

RESULTS_MD, RESULTS_CSV, RESULTS_TEX = "results.md", "results.csv", "results.tex"
USERS, CURVES = "users.parquet", "curves.png"

_DECIMALS = {"novelty": 2, "popularity": 1}
"""The decimals of metrics that are not between 0 and 1. Others have four."""

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$])")


class Part(NamedTuple):
    """One of the tables of the results: some metrics of all systems."""

    name: str
    """The name of its files in a report."""
    title: str
    metrics: Sequence[str]
    notes: Sequence[str]
    """Sentences about its metrics."""


class _Format(NamedTuple):
    """The notation of a format for texts and marks."""

    bold: str
    underline: str
    dagger: str
    deviation: str
    arrows: tuple[str, str]
    """The marks for "higher is better" and "lower is better"."""
    test: str
    """The name of the test and the level."""


_MARKS = _Format(
    "**{}**", "<u>{}</u>", "†", "±", ("↑", "↓"), f"paired two-sided t-test over users, Holm's correction, p < {LEVEL}"
)
_LATEX_MARKS = _Format(
    r"\textbf{{{}}}",
    r"\underline{{{}}}",
    r"$^\dagger$",
    r"$\pm$",
    (r"$\uparrow$", r"$\downarrow$"),
    f"paired two-sided $t$-test over users, Holm's correction, $p < {LEVEL}$",
)


def write_results(measurements: Measurements, folder: Path, *, curves: bool = True) -> None:
    """Write all result files to a folder, each atomically.

    `curves.png` needs a trained system; without one, or if `curves` is false, an existing `curves.png` is removed.

    Raises:
        OSError: A file cannot be written.
        UserError: A file is a symbolic link.
    """
    scores = scores_of(measurements)
    texts = {
        RESULTS_MD: results_markdown(measurements, scores),
        RESULTS_CSV: results_csv(scores),
        RESULTS_TEX: results_latex(measurements, scores),
    }
    for name, text in texts.items():
        with whole_file(folder / name) as file:
            # A name may contain an unpaired surrogate, which UTF-8 cannot encode.
            file.write(text.encode("utf-8", errors="backslashreplace"))
    write_users(measurements.systems, folder / USERS)
    histories = measurements.histories if curves else {}
    if histories:
        selects = any(record["selected"] for seeds in histories.values() for each in seeds for record in each)
        save_figure(selection_curves(histories) if selects else loss_curves(histories), folder / CURVES)
    else:
        (folder / CURVES).unlink(missing_ok=True)


def results_csv(scores: Sequence[SystemScore]) -> str:
    """Return one line per system and metric, with numbers in full precision; undefined values are empty.

    Names that a spreadsheet would read as formulas get a leading apostrophe, since names are untrusted.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(SystemScore._fields)
    for score in scores:
        writer.writerow([without_formula(score.system), *score[1:]])
    return text.getvalue()


def results_markdown(measurements: Measurements, scores: Sequence[SystemScore]) -> str:
    """Return the result tables as GitHub Markdown, each below its caption."""
    tables = []
    for part in result_parts(measurements, scores):
        found = _scores_of_part(part, scores)
        head = ["system", *(f"{metric}{_arrow(metric, part, _MARKS)}" for metric in part.metrics)]
        rows = [
            [_escape_markdown(system), *(_cell(found[system, key], _MARKS, found) for key in part.metrics)]
            for system in measurements.systems
        ]
        lines = [f"**{part.title}**: {_escape_markdown(measurements.title)}. {_legend(part, found, _MARKS)}", ""]
        lines += [f"| {' | '.join(row)} |" for row in (head, ["---"] + ["---:"] * len(part.metrics), *rows)]
        tables.append("\n".join(lines) + "\n")
    return "\n".join(tables)


def results_latex(measurements: Measurements, scores: Sequence[SystemScore]) -> str:
    """Return the result tables in LaTeX, for the package booktabs, with all names escaped."""
    tables = []
    for part in result_parts(measurements, scores):
        found = _scores_of_part(part, scores)
        caption = f"{part.title}: {escape_latex(measurements.title)}. {_legend(part, found, _LATEX_MARKS)}"
        head = ["system", *(f"{escape_latex(key)}{_arrow(key, part, _LATEX_MARKS)}" for key in part.metrics)]
        rows = [
            [escape_latex(system), *(_cell(found[system, key], _LATEX_MARKS, found) for key in part.metrics)]
            for system in measurements.systems
        ]
        tables.append(booktabs(caption, "l" + "r" * len(part.metrics), head, rows))
    return "% Needs \\usepackage{booktabs}.\n" + "\n".join(tables)


def result_parts(measurements: Measurements, scores: Sequence[SystemScore]) -> list[Part]:
    """Return the tables of the scores: accuracy, beyond accuracy, and few or many interactions."""
    there = dict.fromkeys(score.metric for score in scores)
    main, cutoff = measurements.main, cutoff_of(measurements.main)
    of_catalogue = [key for key in (f"{name}@{cutoff}" for name in CATALOGUE) if key in there]
    beyond = [
        "Coverage: share of the catalogue that is in any list. Gini: inequality of the items' exposure, 0 if all are "
        "in equally many lists. Novelty: mean self-information of the recommended items in bits. Popularity: their "
        "mean number of training interactions. Coverage and Gini are of all lists together and are not tested."
    ]
    by_degree = [
        f"Users, or held-out items, with fewer than {FEW_BELOW} training interactions and with {FEW_BELOW} or more; "
        "means over the users who have such held-out items."
    ]
    of_groups = [key for key in there if key.startswith(f"{main} ")]
    parts = [
        Part("accuracy", "Accuracy", [key for key in measurements.metrics if key in there], []),
        Part("beyond", "Beyond accuracy", of_catalogue, beyond),
        Part("few-many", "Few and many training interactions", of_groups, by_degree),
    ]
    return [part for part in parts if part.metrics]


def figure_text(metric: str, value: float) -> str:
    """Format a value with the decimals of its metric."""
    return f"{value:.{_DECIMALS.get(metric.partition('@')[0], 4)}f}"


def _scores_of_part(part: Part, scores: Sequence[SystemScore]) -> dict[tuple[str, str], SystemScore]:
    return {(score.system, score.metric): score for score in scores if score.metric in part.metrics}


def _cell(score: SystemScore, marks: _Format, found: Mapping[tuple[str, str], SystemScore]) -> str:
    text = figure_text(score.metric, score.mean)
    if score.deviation is not None:
        text += f" {marks.deviation} {figure_text(score.metric, score.deviation)}"
    if _has_several_systems(found) and score.rank in (1, 2):
        text = (marks.bold if score.rank == 1 else marks.underline).format(text)
    return text + marks.dagger if _is_shown(score) else text


def _legend(part: Part, found: Mapping[tuple[str, str], SystemScore], marks: _Format) -> str:
    sentences = [*part.notes]
    if any(score.deviation is not None for score in found.values()):
        sentences.append(f"Mean {marks.deviation} standard deviation over seeds.")
    if any(score.rank is None for score in found.values()):
        sentences.append("The systems cannot be compared, so none is marked.")
    elif _has_several_systems(found):
        sentences.append("The best is bold, the second best underlined.")
    if any(map(_is_shown, found.values())):
        sentences.append(f"{marks.dagger}: differs from the best ({marks.test}).")
    return " ".join(sentences)


def _escape_markdown(text: str) -> str:
    """Escape a text for a cell. Line breaks, which would end the row, become spaces."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _is_shown(score: SystemScore) -> bool:
    return score.p_value is not None and score.p_value < LEVEL


def _has_several_systems(found: Mapping[tuple[str, str], SystemScore]) -> bool:
    return len({system for system, _ in found}) > 1


def _arrow(metric: str, part: Part, marks: _Format) -> str:
    """Return the mark of a metric's better direction, in tables that mix both directions."""
    directions = {is_lower_better(key) for key in part.metrics}
    return f" {marks.arrows[is_lower_better(metric)]}" if len(directions) > 1 else ""
