"""The files of a report: a page, and a folder with its pictures and tables."""

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

from slmrec_jax.durable import whole_file, whole_folder, writing
from slmrec_jax.errors import UserError, setting
from slmrec_jax.reporting.charts import save_figure
from slmrec_jax.reporting.facts import Facts
from slmrec_jax.reporting.page import Picture, Section, render
from slmrec_jax.reporting.paper import write_results
from slmrec_jax.reporting.sections import report_sections, report_summary, report_title
from slmrec_jax.reporting.tables import ReportTable, to_csv, to_latex


def files_folder(page: Path) -> Path:
    """Return the folder of a page's files."""
    return page.with_name(f"{page.stem}_files")


def check_page_is_new(page: Path, argument: str = "out") -> None:
    """Reject a page whose name does not end in .html, or that exists, or whose folder exists."""
    if page.suffix != ".html":
        raise UserError(f"{setting(argument, str(page))}: give a name that ends in .html")
    for path in (page, files_folder(page)):
        if path.exists() or path.is_symlink():
            raise UserError(f"{path} already exists: give another {setting(argument)}, or remove it")


def write_report(facts: Facts, page: Path) -> None:
    """Write the page and its folder, or neither, with a `UserError` that gives the reason."""
    check_page_is_new(page)
    sections, files = report_sections(facts), files_folder(page)
    made_by = f"Made by slmrec_jax {importlib.metadata.version('slmrec-jax')}."
    text = render(report_title(facts), report_summary(facts), sections, files.name, made_by)
    try:
        with writing(page, f"give another {setting('out')}"), whole_folder(files) as part:
            _write_tables_and_figures(sections, part)
            write_results(facts.measurements, part, curves=False)  # the page has its own pictures of them
            with whole_file(page) as file:
                # An id may contain an unpaired surrogate, which UTF-8 cannot encode.
                file.write(text.encode("utf-8", errors="backslashreplace"))
    except BaseException:  # moving the folder may fail after the page is written
        page.unlink(missing_ok=True)
        raise


def _write_tables_and_figures(sections: Sequence[Section], folder: Path) -> None:
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Picture):
                for suffix in ("png", "pdf"):
                    save_figure(block.figure, folder / f"{block.name}.{suffix}")
            elif isinstance(block, ReportTable):
                for suffix, text in (("csv", to_csv(block)), ("tex", to_latex(block))):
                    (folder / f"{block.name}.{suffix}").write_text(text, encoding="utf-8", errors="backslashreplace")
