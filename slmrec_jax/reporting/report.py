"""Writes a report: one page, and beside it a folder with its pictures and tables as files."""

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

from slmrec_jax.durable import whole_file, whole_folder, writing
from slmrec_jax.errors import UserError, setting
from slmrec_jax.reporting.charts import save
from slmrec_jax.reporting.facts import Facts
from slmrec_jax.reporting.page import render
from slmrec_jax.reporting.sections import Picture, Section, sections, title
from slmrec_jax.reporting.tables import Table, to_csv, to_latex


def files_folder(page: Path) -> Path:
    """The folder beside a page."""
    return page.with_name(f"{page.stem}_files")


def check_free(page: Path) -> None:
    """Refuses what would be overwritten.

    Raises:
        UserError: the page or its folder is there already, or the page's name does not say that it is one.
    """
    if page.suffix != ".html":
        raise UserError(f"{setting('out', str(page))}: give a name that ends in .html")
    for path in (page, files_folder(page)):
        if path.exists() or path.is_symlink():
            raise UserError(f"{path} is there already: give another {setting('out')}, or remove it")


def write_report(facts: Facts, page: Path) -> None:
    """Writes the page and its folder, both or none.

    Raises:
        UserError: one of them is there already, or cannot be written.
    """
    check_free(page)
    said, files = sections(facts), files_folder(page)
    made_by = f"Made by slmrec_jax {importlib.metadata.version('slmrec-jax')}."
    text = render(title(facts), said, files.name, made_by)
    try:
        with writing(page, f"give another {setting('out')}"), whole_folder(files) as part:
            _write_files(said, part)
            with whole_file(page) as file:
                # A lone half of a surrogate pair in an id is no text; the others keep theirs.
                file.write(text.encode("utf-8", errors="backslashreplace"))
    except BaseException:  # the folder may have failed after the page
        page.unlink(missing_ok=True)
        raise


def _write_files(said: Sequence[Section], folder: Path) -> None:
    for section in said:
        for block in section.blocks:
            if isinstance(block, Picture):
                for suffix in ("png", "pdf"):
                    save(block.figure, folder / f"{block.name}.{suffix}")
            elif isinstance(block, Table):
                for suffix, written in (("csv", to_csv(block)), ("tex", to_latex(block))):
                    (folder / f"{block.name}.{suffix}").write_text(written, encoding="utf-8", errors="backslashreplace")
