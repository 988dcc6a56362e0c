"""Every command of docs/guide.md, in its order and as it is written."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from slmrec_jax.commands.main import COMMANDS, main
from slmrec_jax.commands.parsing import parse

GUIDE = (Path(__file__).parents[1] / "docs" / "guide.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
LINES = [line for language, block in BLOCKS if not language for line in block.splitlines()]
(SCRIPT,) = (block for language, block in BLOCKS if language == "python")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The reader's empty folder, with the script of the guide saved."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "make_shop.py").write_text(SCRIPT)
    return tmp_path


def follow(line):
    """Do what a line says, which must succeed."""
    program, *arguments = shlex.split(line)
    if program == "python":
        runpy.run_path(*arguments)
    else:
        assert program == "slmrec-jax"
        assert main(arguments) == 0, line


def test_the_data_are_made_and_all_commands_are_understood(folder, capsys):
    assert [shlex.split(line)[:2] for line in LINES] == [
        ["python", "make_shop.py"],
        ["slmrec-jax", "data"],
        ["slmrec-jax", "train"],
        ["slmrec-jax", "train"],
        ["slmrec-jax", "report"],
        ["slmrec-jax", "recommend"],
        ["slmrec-jax", "export"],
        ["slmrec-jax", "recommend"],
    ]
    follow(LINES[0])
    follow(LINES[1])
    assert "not divided" not in capsys.readouterr().out
    for line in LINES[2:]:
        _, name, *arguments = shlex.split(line)
        parse(COMMANDS[name][0], "slmrec-jax", arguments)


@pytest.mark.slow
@pytest.mark.usefixtures("optax_promotion")
def test_the_guide_works_as_it_is_written(folder, capsys):
    said = {}
    for line in LINES:
        follow(line)
        said[line] = capsys.readouterr().out
    from_run, from_export = (re.findall(r"dress-\d+", text) for line, text in said.items() if "recommend" in line)
    assert from_run[:5] == from_export  # user-7 comes first
    assert len(from_run) == 10
    page = (folder / "report.html").read_text()
    assert "dress-3" in page
    assert "Differences" in page
    assert (folder / "report_files" / "metrics.tex").exists()
