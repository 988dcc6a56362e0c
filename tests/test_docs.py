"""Every block of code and every command of README.md and of the pages in docs/, in their order and as they are written.

Quick tests read all of them: commands must be understood and code must compile. Slow tests run them, page by page in an
empty folder, with small demo data, with stand-ins for packages that are no dependency, and without drawing pictures,
which `tests/reporting` draws. Commands on data of `PATH` run for an epoch or two on small data, and those of
experiments with made-up results of training. Only `make` and `pip`, which change the machine, are never run.
"""

import configparser
import dataclasses
import importlib
import os
import re
import runpy
import shlex
import subprocess
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import jax
import pytest
import tyro
from cheap_runs import empty_pictures
from packaging.requirements import Requirement

import slmrec_jax
from slmrec_jax import data
from slmrec_jax.commands.main import COMMANDS, main
from slmrec_jax.commands.parsing import parse
from slmrec_jax.data.synthetic import demo
from slmrec_jax.errors import UserError
from slmrec_jax.forms import field_names
from slmrec_jax.hardware.compilers import target_of

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = "../README.md"
PAGES = [README, *sorted(path.name for path in DOCS.glob("*.md"))]
WHOLE = (README, "index.md", "data.md", "concepts.md", "loop.md", "accelerators.md", "scale.md", "serving.md")
"""The pages that `test_a_page_works_as_it_is_written` runs."""
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHOWN = "text"
"""The language of blocks that are not run: output and equations."""
RECIPES = re.findall(r"## (Add an? [\w ]+)\n.*?```python\n(.*?)```", (DOCS / "extend.md").read_text(), re.DOTALL)
SHELL_SCRIPT = "bash"
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


class Block(NamedTuple):
    language: str
    text: str
    file: str | None
    """Under what name the page says to save it."""


def blocks(page):
    text, found, end = (DOCS / page).read_text(), [], 0
    for match in BLOCK.finditer(text):
        before = text[end : match.start()].rstrip().rpartition("\n\n")[2]
        saved = re.findall(r"[Ss]ave [^`]*as `([\w.]+)`[^`]*$", before)
        found.append(Block(match[1], match[2], saved[0] if saved and match[1] else None))
        end = match.end()
    return found


def lines_of(block):
    """The commands of a block, whose lines a backslash may continue."""
    return block.text.replace("\\\n", " ").splitlines()


def commands(page):
    return [line for block in blocks(page) if not block.language for line in lines_of(block)]


def recipes_of(page):
    """The code of blocks that are files for --config, which `test_a_recipe_trains` runs."""
    return {code for _, code in RECIPES} if page == "extend.md" else set()


def ours(line):
    """A line's command and its arguments; the command is `None` for `slmrec-jax` alone."""
    words = shlex.split(line)[1:]
    longest_first = sorted(COMMANDS, key=len, reverse=True)  # `bench` is a command, and so is `bench step`
    name = next((name for name in longest_first if words[: len(name.split())] == name.split()), None)
    return name, words[len(name.split()) :] if name else words


def is_too_long(line):
    return line.split()[0] in ("make", "pip") or "PATH" in line


def lacks_a_compiler(line):
    """Whether a line plans for a device whose compiler, an extra, is not installed."""
    name, arguments = ours(line) if line.startswith("slmrec-jax") else (None, [])
    if name != "plan" or "--on" not in arguments:
        return False
    try:
        target_of(arguments[arguments.index("--on") + 1])
    except slmrec_jax.UserError:
        return True
    return False


def check_is_understood(line):
    program, *arguments = shlex.split(line)
    if program == "slmrec-jax":
        name, arguments = ours(line)
        assert name or arguments in (["--help"], ["--version"]), line
        if name:
            with suppress(SystemExit):  # its help was asked for
                parse(COMMANDS[name][0], f"slmrec-jax {name}", arguments)
    elif program == "make":
        targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
        assert arguments[0] in targets, line
    elif program == "pip":
        assert arguments[0] == "install"
        check_can_be_installed(arguments[1])
    elif program == "python" and arguments[0].startswith("experiments/"):
        module = importlib.import_module(Path(arguments[0]).stem)
        flags = module.Flags if hasattr(module, "Flags") else module.table2.Flags
        tyro.cli(flags, args=arguments[1:])
    else:
        assert program == "python", line


def required(section, name):
    return [Requirement(line) for line in SETUP[section][name].split("\n") if line and not line.startswith("#")]


def check_can_be_installed(what):
    assert what.startswith(".")  # the clone, with extras
    assert set(re.findall(r"[\w-]+", what)) <= SETUP["options.extras_require"].keys()


@pytest.fixture
def experiments(monkeypatch):
    """Let the experiments be imported, as when their files are run."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if (ROOT / "experiments" / f"{name}.py").exists():
            del sys.modules[name]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The reader's empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def small_demo(monkeypatch):
    """Demo data with one modality: an encoder with more takes longer to compile."""
    small = demo(num_users=60, num_items=80, num_scenes=6, exposures=40, columns={"visual": 64})
    monkeypatch.setattr(data, "demo", lambda: small)


@pytest.fixture
def as_users_have_it():
    """JAX's promotion as it is by default, which the tests make strict."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


class Page:
    """Runs the blocks of a page in order; its Python code shares one namespace."""

    def __init__(self, name, capsys):
        self.name, self.capsys = name, capsys
        self.names = {"__name__": "__main__"}
        self.said = {}
        """What each command printed."""

    def run(self):
        recipes = recipes_of(self.name)
        for block in blocks(self.name):
            if block.file:
                Path(block.file).write_text(block.text)
            elif block.language == "python" and block.text not in recipes:
                exec(compile(block.text, self.name, "exec"), self.names)  # noqa: S102 (a page of this repository)
            elif not block.language:
                for line in lines_of(block):
                    self.follow(line)
        return self

    def follow(self, line):
        """Do what a line says, which must succeed."""
        if is_too_long(line) or lacks_a_compiler(line):
            return
        program, *arguments = shlex.split(line)
        self.capsys.readouterr()
        if program == "slmrec-jax":
            assert main(arguments) == 0, line
        elif arguments[0] == "-c":
            exec(arguments[1], {})  # noqa: S102
        else:
            runpy.run_path(*arguments)
        self.said[line] = self.capsys.readouterr().out


@pytest.fixture
def page(folder, small_demo, as_users_have_it, capsys, monkeypatch):
    """Return a function that runs a page."""
    monkeypatch.setattr("slmrec_jax.exploring.server.ExploreServer.serve_forever", lambda server: None)
    with empty_pictures():
        yield lambda name: Page(name, capsys).run()


@pytest.mark.usefixtures("experiments")
@pytest.mark.parametrize("name", PAGES)
def test_all_of_a_page_is_understood(name, folder):
    for block in blocks(name):
        if block.language == "python":
            compile(block.text, name, "exec")
        else:
            assert block.language in {"", "toml", SHELL_SCRIPT, SHOWN}, f"{name}: a block of {block.language}"
        if block.file:
            (folder / block.file).write_text(block.text)
        if block.file == "mine.toml":
            slmrec_jax.Config.load(block.file)
    (folder / "runs" / "mine").mkdir(parents=True)
    slmrec_jax.Config().save("runs/mine/config.json")
    for place in {"mine.py": RECIPES[0][1], "runs/tune/best.py": "def get_config(): ..."}.items():
        (folder / place[0]).parent.mkdir(parents=True, exist_ok=True)
        (folder / place[0]).write_text(place[1].replace("...", "import slmrec_jax; return slmrec_jax.Config()"))
    (folder / "experiments").symlink_to(ROOT / "experiments")
    for line in commands(name):
        check_is_understood(line)


INLINE = sorted(
    {
        (page, " ".join(code.split()))
        for page in PAGES
        for code in re.findall(r"(?<!`)`(slmrec-jax\s[^`]+)`", BLOCK.sub("", (DOCS / page).read_text()))
    }
)


@pytest.mark.parametrize(("page", "line"), INLINE)
def test_a_command_within_a_sentence_is_understood(page, line):
    name, _ = ours(line)
    assert name, line
    if "COMMAND" not in line:
        check_is_understood(line)


def test_the_api_page_has_the_whole_public_api():
    named = re.findall(r"^::: slmrec_jax\.(\w+)$", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(slmrec_jax.__all__)


@pytest.fixture
def hooks():
    return SimpleNamespace(**runpy.run_path(str(DOCS / "hooks.py")))


def test_every_part_of_the_public_api_is_described(hooks):
    for name in slmrec_jax.__all__:
        assert not list(hooks.undocumented(name, getattr(slmrec_jax, name)))


def test_what_is_not_described_is_named(hooks, tmp_path, monkeypatch):
    (tmp_path / "sparse_words.py").write_text(
        "class Thing:\n"
        "    '''A thing.'''\n"
        "    size: int\n"
        "    name: str = ''\n"
        "    '''Its name.'''\n"
        "    def plain(self): ...\n"
        "    def _own(self): ...\n"
        "    def turn(self, angle, speed):\n"
        "        '''Turn it.\n\n        Args:\n            angle: In degrees.\n        '''\n"
        "def plain(): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("sparse_words")
    assert list(hooks.undocumented("Thing", module.Thing)) == ["Thing.size", "Thing.plain", "Thing.turn(speed)"]
    assert list(hooks.undocumented("plain", module.plain)) == ["plain"]


def test_every_page_is_in_the_navigation_and_every_file_linked_outside_exists(hooks):
    listed = re.findall(r"(\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = [name for name in PAGES if name != README]
    assert sorted(listed) == sorted([*pages, "commands.md"])
    for name in pages:
        for target in re.findall(r"\]\(\.\./([\w/.-]+)\)", (DOCS / name).read_text()):
            assert (ROOT / target).is_file()
            assert target.startswith(hooks.COPIED)


def test_the_files_that_the_readme_links_exist():
    text = (DOCS / README).read_text()
    for target in re.findall(r"\]\(([\w/.-]+)\)", text):
        assert (ROOT / target).exists(), target
    assert len(text.splitlines()) <= 150


def test_all_packages_of_the_documentation_are_pinned_once():
    lines = (ROOT / "requirements" / "docs.txt").read_text().splitlines()
    assert "-c ../requirements.txt" in lines
    named = [Requirement(line) for line in lines if line and not line.startswith(("#", "-c"))]
    assert all(str(package.specifier).startswith("==") for package in named)
    others = (ROOT / "requirements.txt").read_text().lower()
    assert not [package.name for package in named if re.search(rf"^{package.name.lower()}==", others, re.MULTILINE)]
    pinned = {package.name: package for package in named}
    for wanted in required("options.extras_require", "docs"):
        version = str(pinned[wanted.name].specifier).removeprefix("==")
        assert wanted.specifier.contains(version)


def test_the_guides_data_are_made_and_read(folder, capsys):
    guide = blocks("guide.md")
    (folder / "make_shop.py").write_text(next(block.text for block in guide if block.file == "make_shop.py"))
    runpy.run_path("make_shop.py")
    assert main(["data", "inspect", "shop", "--split", "leave-one-out"]) == 0
    assert "not split into" not in capsys.readouterr().out


# --- slow: the pages ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_guide_works_as_it_is_written(page, folder):
    guide = page("guide.md")
    by_command = {line: re.findall(r"dress-\d+", text) for line, text in guide.said.items()}
    (users,) = (found for line, found in by_command.items() if "user-7,user-42" in line)
    (exported,) = (found for line, found in by_command.items() if "recommend exported" in line)
    assert users[:5] == exported  # user-7 comes first
    assert len(users) == 10
    (new_user,) = (found for line, found in by_command.items() if "--history" in line)
    assert len(set(new_user) - {"dress-3", "dress-4"}) == len(new_user) == 5
    (similar,) = (found for line, found in by_command.items() if "slmrec-jax similar" in line)
    assert {"dress-3", "dress-4"} < set(similar)
    assert len(similar) >= 12  # five for each, and these two
    assert guide.said["slmrec-jax explore runs/slmrec runs/lightgcn"].startswith("http://127.0.0.1:")
    report = (folder / "report.html").read_text()
    assert {"dress-3", "Differences"} <= set(re.findall(r"[\w-]+", report))
    assert (folder / "report_files" / "metrics.tex").exists()
    assert slmrec_jax.load_run("runs/seed1").config.seed == 1
    assert slmrec_jax.load_run("runs/seed1").config.slmrec.alpha == 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_a_page_works_as_it_is_written(page, name):
    page(name)


def test_no_page_is_left_out():
    """Pages with something to run are named in a test of their own or above."""
    run = {*WHOLE, "guide.md", "extend.md", "callbacks.md", "content.md", "explore.md"}
    for name in PAGES:
        codes = [block for block in blocks(name) if block.language == "python"]
        lines = [line for line in commands(name) if not is_too_long(line) and "runs/tune/best.py" not in line]
        assert name in run or not (codes or lines), name


@pytest.mark.slow
def test_callbacks_get_what_trackers_take(page, monkeypatch):
    boards, metrics = [], []
    board = SimpleNamespace(log=boards.append)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **given: nullcontext(board)))
    log_metrics = lambda values, step: metrics.append((step, values))  # noqa: E731
    mlflow = SimpleNamespace(start_run=nullcontext, log_metrics=log_metrics)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    page("callbacks.md")
    assert [each["epoch"] for each in boards[:3]] == [1, 2, 3]
    assert all("valid/recall@20" in each for each in boards)
    assert "test/recall@20" in boards[3]
    steps = [(step, values) for step, values in metrics if values]
    assert [step for step, _ in steps[:3]] == [1, 2, 3]
    assert all(re.fullmatch(r"[\w/+-]+", name) for _, values in steps for name in values)


@pytest.mark.slow
def test_parts_of_ones_own(page, folder):
    (folder / "mine.py").write_text(RECIPES[0][1])
    extend = page("extend.md")
    assert any("item-" in said for said in extend.said.values())


ELSEWHERE = "--coordinator", "--mesh data", "launch -n", "--out DIR"
"""Parts of commands for several devices or processes (`test_mesh`), or whose systems another line compares too."""
LONG = sorted(
    {
        " ".join(line.split())
        for page in PAGES
        for line in commands(page)
        if "PATH" in line and not line.startswith("make") and not any(part in line for part in ELSEWHERE)
    }
)
SMALL = {"dim": 8, "batch-size": 128, "num-layers": 1}
FLAGS = SMALL | {"epochs": 2, "seeds": 0, "trials": 1, "models": "lightgcn,slmrec:none"}
"""What makes a command on large data short."""


def shortened(line):
    """The line with its data in this folder and with `FLAGS`, as far as its command has them."""
    program, *words = shlex.split(line.replace("PATH", "PATH_OF_DATA"))
    name, _ = ours(line)
    taken = {field.name for field in dataclasses.fields(COMMANDS[name][0])} | set(field_names(slmrec_jax.Config))
    for flag, value in FLAGS.items():
        if f"--{flag}" in words:
            words[words.index(f"--{flag}") + 1] = str(value)
        elif flag.replace("-", "_") in taken:
            words += [f"--{flag}", str(value)]
    return shlex.join([program, *words])


@pytest.fixture
def large_data(folder):
    """Small data where the pages have `PATH`, `PATH/tiktok` and `PATH/lastfm`, with one modality like `small_demo`."""
    small = demo(num_users=60, num_items=80, num_scenes=6, exposures=40, columns={"visual": 8})
    data.write_store(small, folder / "PATH_OF_DATA")
    for name in ("tiktok", "lastfm"):
        data.write_store(small, folder / "PATH_OF_DATA" / name)
    (folder / "experiments").symlink_to(ROOT / "experiments")
    with empty_pictures():
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("large_data", "as_users_have_it")
@pytest.mark.parametrize("line", {shortened(line): line for line in LONG if line.startswith("slmrec-jax")}.values())
def test_a_command_on_large_data_runs_on_small_data(line):
    if lacks_a_compiler(line):
        pytest.skip("the compiler for this device is an extra")
    assert main(shlex.split(shortened(line))[1:]) == 0
    if "--out runs/tune " in line + " ":
        (best,) = (line for line in commands("experiments.md") if "best.py" in line)
        assert main([*shlex.split(best)[1:], "--data", "PATH_OF_DATA", "--epochs", "1"]) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("large_data", "experiments")
@pytest.mark.parametrize("line", [line for line in LONG if line.startswith("python")])
def test_an_experiment_of_the_pages_writes_its_table(line, folder, monkeypatch):
    def finish_run(config, dataset, place, report):
        figures = {f"{metric}@{k}": 0.1 for metric in ("recall", "ndcg", "precision") for k in (10, 20)}
        history = [{"epoch": epoch, "losses": {"loss": 3.0, "main": 2.0, "ssl": 1.0}} for epoch in (1, 2)]
        return SimpleNamespace(
            config=config, result={"valid": figures, "test": figures, "best_epoch": 1}, history=history
        )

    _, script, *words = shlex.split(line.replace("PATH", "PATH_OF_DATA"))
    module = importlib.import_module(Path(script).stem)
    if script.endswith("missing_modalities.py"):
        monkeypatch.setattr(module, "train", lambda config, *_, **__: finish_run(config, None, None, None))
    else:
        monkeypatch.setattr(importlib.import_module("sweep"), "finish_run", finish_run)
    flags = module.Flags if hasattr(module, "Flags") else module.table2.Flags
    module.main(tyro.cli(flags, args=words))
    assert list((folder / "runs").rglob("*.md")) or list((folder / "runs").rglob("*.json"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tr"], ["train"]),
        (["data", "embed", "--text-m"], ["--text-model"]),
        (["train", "--ba"], ["--batch-size"]),
        (["train", "--model", "m"], ["mf", "mmgcn", "mmssl", "mgcn"]),
        (["data", "inspect", "--js"], ["--json"]),
        (["bench", "step", "--ro"], ["--rounds"]),
        (["recommend", "--users-f"], ["--users-file"]),
    ],
)
@pytest.mark.slow
def test_the_shell_completes(folder, words, expected):
    (function,) = (block.text for block in blocks("completion.md") if block.language == SHELL_SCRIPT)
    (folder / "slmrec-jax").write_text(f'#!/bin/sh\nexec {sys.executable} -m slmrec_jax "$@"\n')
    (folder / "slmrec-jax").chmod(0o755)
    line = " ".join(map(shlex.quote, ["slmrec-jax", *words]))
    typed = f"COMP_WORDS=({line})\nCOMP_CWORD={len(words)}\n_slmrec_jax slmrec-jax"
    script = f'{function}\n{typed}\nprintf "%s\\n" "${{COMPREPLY[@]}}"'
    python = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{folder}:{python}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == expected
    assert not done.stderr


def test_a_wrong_command_is_seen():
    for line in ("slmrec-jax train --taks fac", "slmrec-jax trian", "make coffee", "pip install '.[nothing]'"):
        with pytest.raises((AssertionError, UserError)):
            check_is_understood(line)
