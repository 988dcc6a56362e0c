"""Every command of docs/guide.md, in its order and as it is written."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from slmrec_jax.commands.main import main

GUIDE = (Path(__file__).parents[1] / "docs" / "guide.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
COMMANDS = [line for language, block in BLOCKS if not language for line in block.splitlines()]
(SCRIPT,) = (block for language, block in BLOCKS if language == "python")


@pytest.mark.usefixtures("optax_promotion")
def test_the_guide_works_as_it_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "make_shop.py").write_text(SCRIPT)
    said = {}
    for line in COMMANDS:
        program, *arguments = shlex.split(line)
        if program == "python":
            runpy.run_path(*arguments)
        else:
            assert program == "slmrec-jax"
            assert main(arguments) == 0, line
        said[line] = capsys.readouterr().out
    assert [shlex.split(line)[:2] for line in said] == [
        ["python", "make_shop.py"],
        ["slmrec-jax", "data"],
        ["slmrec-jax", "train"],
        ["slmrec-jax", "train"],
        ["slmrec-jax", "report"],
        ["slmrec-jax", "recommend"],
        ["slmrec-jax", "export"],
        ["slmrec-jax", "recommend"],
    ]
    from_run, from_export = (re.findall(r"dress-\d+", text) for line, text in said.items() if "recommend" in line)
    assert from_run[:5] == from_export  # user-7 comes first
    assert len(from_run) == 10
    page = (tmp_path / "report.html").read_text()
    assert "dress-3" in page
    assert "Differences" in page
    assert (tmp_path / "report_files" / "metrics.tex").exists()
