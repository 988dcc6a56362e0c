"""Events reach callbacks, and a display shows them on a terminal, in a notebook and elsewhere."""

import dataclasses
import functools
import io
import sys
import types

import jax
import pytest
from rich.console import Console

from slmrec_jax import Config, train
from slmrec_jax.training import progress
from slmrec_jax.training.events import Event, message

pytestmark = pytest.mark.usefixtures("cheap_runs", "optax_promotion")

CONFIG = Config(model="mf", dim=4, batch_size=128, epochs=3, ks=(5, 20))


@pytest.fixture(scope="module")
def events_and_run(tiny, tmp_path_factory):
    events = []
    with jax.numpy_dtype_promotion("standard"):
        run = train(CONFIG, tiny, out=tmp_path_factory.mktemp("run") / "run", callbacks=[events.append])
    return events, run


def epoch_of(number, improved=False):
    values = {"loss/loss": 1.5, "valid/recall@20": 0.25}
    return Event("epoch", f"epoch {number} of a run", number, values, "valid/recall@20", improved)


def test_a_callback_receives_messages_epochs_and_the_final_evaluation(events_and_run):
    events, run = events_and_run
    kinds = [event.kind for event in events]
    assert kinds[kinds.index("epoch") :] == ["epoch", "epoch", "epoch", "evaluation"]
    assert "message" in kinds
    for event, record in zip((event for event in events if event.kind == "epoch"), run.history, strict=True):
        assert event.epoch == record["epoch"]
        assert event.values["loss/loss"] == record["losses"]["loss"]
        assert event.values[event.metric] == record["selected"]["recall@20"]
        assert event.improved == record["improved"]
    last = events[-1]
    assert last.epoch == run.result["best_epoch"]
    assert last.values == {
        f"{split}/{name}": value for split in ("valid", "test") for name, value in run.result[split].items()
    }


@pytest.mark.slow
def test_an_exception_of_a_callback_ends_the_run_which_resumes(tiny, tmp_path, events_and_run):
    def fail(event):
        if event.epoch == 2:
            raise OSError("the log server is away")

    with pytest.raises(RuntimeError, match=r"the callback .*fail.* failed: the log server is away"):
        train(CONFIG, tiny, out=tmp_path / "run", callbacks=[fail])
    run = train(CONFIG, tiny, out=tmp_path / "run", resume=True)
    assert run.result["test"] == events_and_run[1].result["test"]


def test_there_is_no_display_by_default_in_a_program_without_a_terminal(tiny, tmp_path, capsys):
    train(dataclasses.replace(CONFIG, epochs=1), tiny, out=tmp_path / "run")
    assert capsys.readouterr().err == ""


def test_the_display_prints_a_line_an_epoch_where_there_is_no_terminal(tiny, tmp_path, capsys):
    train(dataclasses.replace(CONFIG, epochs=1), tiny, out=tmp_path / "run", progress=True)
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if line.startswith("epoch ")]
    assert "valid recall@20" in line


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_of_80_columns_shows_the_whole_bar(monkeypatch, width):
    written = io.StringIO()
    console = functools.partial(Console, file=written, force_terminal=True, width=width, legacy_windows=False)
    monkeypatch.setattr(progress, "Console", lambda **options: console(**(options | {"stderr": False})))
    with progress.display(1000) as show:
        show(message("the data \x1b[2J"))
        show(epoch_of(1))
        show(epoch_of(2, improved=True))
    shown = written.getvalue()
    assert "the data \\x1b[2J" in shown
    last = shown.split("\r")[-1]
    for part in ("epoch", "2/1000", "loss 1.5000", "recall@20 0.2500*", "0:00:"):
        assert part in last
    assert "…" not in last


def test_a_notebook_has_a_bar_without_widgets(monkeypatch):
    pages = []

    def shown(page, display_id=None):
        pages.append(page)
        return types.SimpleNamespace(update=pages.append)

    kernel = types.SimpleNamespace(kernel=True)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: kernel))
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(HTML=str, display=shown))
    with progress.telling(None, 3, []) as tell:
        tell(epoch_of(1, improved=True))
    assert "compiling" in pages[0]
    assert '<progress value="1" max="3">' in pages[1]
    assert "recall@20 0.2500*" in pages[1]
