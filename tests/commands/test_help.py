"""Help is short, complete for the chosen model, and loads nothing heavy."""

import re
import shutil
import subprocess
import sys

import pytest

from slmrec_jax.commands.main import COMMANDS, main
from slmrec_jax.commands.parsing import parse
from slmrec_jax.commands.train import TrainFlags
from slmrec_jax.config import BASE, Config
from slmrec_jax.forms import field_names

HEAVY = ("jax", "pyarrow", "matplotlib", "scipy", "optuna", "orbax", "flax")

SCRIPT = f"""
import sys
from slmrec_jax.commands.main import COMMANDS, main
for arguments in ["--help"], ["--version"], *([*name.split(), "--help"] for name in COMMANDS):
    try:
        main(arguments)
    except SystemExit as stop:
        assert not stop.code, arguments
    loaded = [name for name in {HEAVY} if name in sys.modules]
    assert not loaded, (arguments, loaded)
"""


def help_of(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert not stop.value.code
    return capsys.readouterr().out


@pytest.mark.slow
def test_help_loads_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("usage: ") == 1 + len(COMMANDS)


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("model", BASE)
def test_help_has_what_the_model_uses(capsys, monkeypatch, model, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = help_of(capsys, "train", "--model", model, "--help")
    assert max(map(len, shown.splitlines())) <= columns
    words = " ".join(shown.split())
    assert f"{model}, --{model}.*:" in words
    for name, value in vars(getattr(Config(), model)).items():
        assert value == () or re.search(rf"[:,] {name.replace('_', '-')} ", words), name
    assert len(shown.splitlines()) <= (68 if columns == 80 else 55)
    assert f"learning-rate {BASE[model]['optimizer.learning_rate']}" in words
    for other in set(BASE) - {model}:
        assert f"--{other}." not in words


def test_all_help_describes_every_flag(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    shown = help_of(capsys, "train", "--help-all")
    for name in field_names(Config):
        section = getattr(Config(), name)
        for inner in field_names(type(section)):
            assert f"--{name}.{inner}".replace("_", "-") in shown
        if not field_names(type(section)):
            flag = {"since": "from"}.get(name, name)  # a word of Python
            assert f"--{flag} ".replace("_", "-") in shown
    assert "(default: 0.001)" in shown  # the model's own learning rate in place of None


def test_short_names_of_the_optimizers_flags():
    for arguments in (["--lr", "0.5", "--wd", "0.25"], ["--lr=0.5", "--wd=0.25"]):
        optimizer = parse(TrainFlags, "slmrec-jax train", arguments).settings.optimizer
        assert (optimizer.learning_rate, optimizer.weight_decay) == (0.5, 0.25)


def test_settings_come_from_toml_and_flags_win(tmp_path):
    (tmp_path / "mine.toml").write_text('model = "mf"\nepochs = 7\nprotocol = "mmrec"\n[mf]\nl2 = 0.5\n')
    flags = parse(TrainFlags, "slmrec-jax train", ["--config", str(tmp_path / "mine.toml"), "--epochs", "3"])
    assert (flags.settings.model, flags.settings.epochs, flags.settings.mf.l2) == ("mf", 3, 0.5)
    assert flags.settings.protocol == "mmrec"


@pytest.mark.usefixtures("optax_promotion")
def test_a_settings_file_counts_when_a_run_is_resumed(finished, tiny_demo, tmp_path, refused):
    shutil.copytree(finished.folder, tmp_path / "run")
    file = tmp_path / "mine.toml"
    resume = ["train", "--config", str(file), "--out", str(tmp_path / "run"), "--resume"]
    file.write_text("dim = 13\n")
    assert "was run with another dim (4, not 13)" in refused(*resume)
    file.write_text("epochs = 2\n")
    assert main(resume) == 0
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_flag_is_named_wherever_it_stands(refused):
    assert "there is no flag '--splt'; did you mean '--split'?" in refused("evaluate", "--splt", "test", "run")
    assert "there is no flag '--item'; did you mean '--items'?" in refused("similar", "--item", "3", "run")
    assert "there is no flag '--data'" in refused("launch", "-n", "2", "train", "--data", "demo")  # named in its help
    assert "there is no flag '--seed'" in refused("data", "inspect", "demo", "--seed", "3")
    assert "unexpected argument 'more'" in refused("data", "make", "demo", "folder", "more")
    assert "RUN is missing" in refused("evaluate")
    assert "--optimizer.learning-rate is '0.1x'; expected a number" in refused("train", "--lr=0.1x")
    assert "--epochs is 'x'; expected a whole number;" in refused("train", "--epochs", "x")
    assert "--micro-batches is 'x'; expected a whole number or auto;" in refused("train", "--micro-batches", "x")
