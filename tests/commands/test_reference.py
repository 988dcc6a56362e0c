"""The page of commands has every flag of the program, and nothing else."""

import re

import pytest

from slmrec_jax.commands.main import COMMANDS, main
from slmrec_jax.commands.reference import command_reference
from slmrec_jax.commands.settings import SettingsFlags

PAGE = command_reference({name: flags for name, (flags, _) in COMMANDS.items()})
SECTIONS = {
    head.removeprefix("slmrec-jax "): text
    for head, _, text in (part.partition("\n") for part in re.split("^## ", PAGE, flags=re.MULTILINE)[1:])
}


def flags_in(cells):
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9.-]*", cells))


def documented(section):
    """The flags in the first column of a section's tables."""
    return flags_in("\n".join(re.findall(r"^\| `([^`]+)`", SECTIONS[section], re.MULTILINE)))


def offered(capsys, monkeypatch, name):
    """The flags that the program lists, without help, negations of switches, and the one that it always refuses."""
    monkeypatch.setenv("COLUMNS", "100")  # wider help has two columns
    option = "--help-all" if issubclass(COMMANDS[name][0], SettingsFlags) else "--help"
    with pytest.raises(SystemExit):
        main([*name.split(), option])
    shown = capsys.readouterr().out
    heads = [line[2:] for line in shown.splitlines() if re.match(r"[│ ] -+[a-z]", line)]
    found = flags_in("\n".join(re.split(r"\s{2,}", head)[0] for head in heads)) - {"-h", "--help", "--eval.name"}
    return {flag for flag in found if flag.replace("no-", "", 1) not in found - {flag}}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_is_on_the_page(capsys, monkeypatch, name):
    trains = issubclass(COMMANDS[name][0], SettingsFlags)
    assert documented(name) | (documented("Settings") if trains else set()) == offered(capsys, monkeypatch, name)


def test_defaults_and_choices_are_those_of_the_program():
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.*?) \| [^|]* \|$", SECTIONS["Settings"], re.MULTILINE))
    assert rows["--task"] == "`TEXT` | `fac`"
    assert rows["--optimizer.learning-rate"] == "`X` | `0.001`"
    assert rows["--eval.first-epoch-counts"] == " | `on`"
    assert rows["--ks"] == "`N …` | `10 20 50`"
    assert "slmrec-jax export RUN OUT [FLAGS]" in SECTIONS["export"]
    assert "slmrec-jax results RUNS [FLAGS]" in SECTIONS["results"]
