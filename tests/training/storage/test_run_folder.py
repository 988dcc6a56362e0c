"""A run's folder: it records all that the run depends on, shows every change, and is self-contained."""

import dataclasses
import errno
import json
import os
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from listeners import on_epoch, texts_into

from slmrec_jax import Config, UserError, load, load_run, train
from slmrec_jax.commands.main import main
from slmrec_jax.commands.settings import resume_command
from slmrec_jax.config import IN_MEMORY, with_defaults
from slmrec_jax.data import write_store
from slmrec_jax.errors import Interrupted
from slmrec_jax.methods import make_method
from slmrec_jax.training.inputs import make_spec
from slmrec_jax.training.storage import arrays, checkpoint, records
from slmrec_jax.training.storage.folder import STORE, new_folder, read_config, read_kept_dataset
from slmrec_jax.training.storage.manifest import write_manifest
from slmrec_jax.training.storage.resume import made_by

pytestmark = pytest.mark.usefixtures("cheap_runs", "optax_promotion")

CONFIG = Config(model="mf", dim=4, batch_size=64, epochs=4, ks=(5,))


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    with jax.numpy_dtype_promotion("standard"):
        return train(CONFIG, tiny, out=tmp_path_factory.mktemp("run") / "run")


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished.folder, tmp_path / "run")


@pytest.fixture(scope="module")
def stored(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shop"
    write_store(tiny, folder)
    return str(folder.resolve())


def stop_after(number):
    def stop(event):
        if event.epoch == number:
            os.kill(os.getpid(), signal.SIGTERM)

    return on_epoch(stop)


def refusal(call, *arguments, **named):
    with pytest.raises(UserError) as raised:
        call(*arguments, **named)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# Paths that a pattern or a storage library could take for another.


@pytest.mark.parametrize("name", ["baby [5-core] [!a] back\\slash st*r? line\nbreak {a,b} %5B ä"])
def test_a_run_resumes_wherever_its_folder_is(finished, tiny, tmp_path, name):
    out = tmp_path / name / "run"
    train(dataclasses.replace(CONFIG, epochs=2), tiny, out=out)
    resumed = train(CONFIG, tiny, out=out, resume=True)
    assert resumed.result["test"] == finished.result["test"]
    assert load_run(out).evaluate("test").means == finished.result["test"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_default_folder_has_a_plain_name(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = train(dataclasses.replace(CONFIG, epochs=1), dataclasses.replace(tiny, name="../a [b]*"))
    assert str(run.folder) == "runs/a-b-mf-seed0"


def test_what_was_written_is_read_back(tiny, tmp_path, monkeypatch):
    """If the storage library loses one bit of one array, writing the checkpoint fails."""
    save = arrays.ocp.Checkpointer.save

    def lossy(self, path, args):
        flipped = jax.tree.map(lambda x: x, args.item)
        name = next(iter(flipped["values"]))
        flipped["values"][name] = np.nextafter(flipped["values"][name], np.float32(9))
        save(self, path, args=arrays.ocp.args.StandardSave(flipped))

    said = []
    monkeypatch.setattr(arrays.ocp.Checkpointer, "save", lossy)
    line = refusal(train, CONFIG, tiny, out=tmp_path / "run", callbacks=[texts_into(said)])
    assert "could not be saved" in line
    assert any("read back differently" in each for each in said)
    assert not checkpoint.places(tmp_path / "run" / "checkpoints")


def test_a_large_checkpoint_is_read_back_a_part_at_a_time(tiny, tmp_path, monkeypatch):
    asked = []
    restore = arrays.ocp.Checkpointer.restore

    def count(self, *arguments, **named):
        asked.append(named)
        return restore(self, *arguments, **named)

    monkeypatch.setattr(arrays.ocp.Checkpointer, "restore", count)
    monkeypatch.setattr(arrays, "READ_BACK_BYTES", 64)
    train(dataclasses.replace(CONFIG, epochs=1), tiny, out=tmp_path / "run")
    assert len(asked) > 5


def test_a_run_on_data_in_memory_is_resumed_with_them(finished, folder):
    assert "pass it as dataset" in refusal(train, CONFIG, out=folder, resume=True)


# The file that config and method come from.


@pytest.mark.slow
def test_a_run_resumes_with_the_config_file_that_it_was_begun_with(stored, tmp_path, capsys):
    file, out = tmp_path / "mine.py", tmp_path / "run"
    text = "from slmrec_jax import Config\ndef get_config():\n    return Config(model='mf', dim=4, ks=(5,), epochs=1)\n"
    file.write_text(text)
    assert main(["train", f"--config={file}", "--data", stored, "--out", str(out)]) == 0
    resume = ["train", "--out", str(out), "--resume", "--epochs", "2"]
    assert main(resume) == 1
    said = capsys.readouterr().err
    assert f"was started with --config {file}" in said
    file.write_text(text + "# another\n")
    assert main([*resume, f"--config={file}"]) == 1
    assert "restore the file as it was" in capsys.readouterr().err
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 1
    file.write_text(text)
    moved = file.rename(tmp_path / "moved.py")
    assert main([*resume, "--config", str(moved)]) == 0
    assert load_run(out).result["epochs"] == 2


def test_a_run_without_a_config_file_does_not_resume_with_one(folder, tiny, tmp_path):
    (tmp_path / "mine.py").write_text("")
    line = refusal(train, CONFIG, tiny, out=folder, resume=True, config_file=tmp_path / "mine.py")
    assert "was started without a config file" in line


def test_a_run_resumes_with_its_own_method(folder, tiny):
    def mine(config, spec):
        return make_method(config, spec)

    assert "started with the package's own method" in refusal(train, CONFIG, tiny, out=folder, resume=True, method=mine)


@pytest.mark.parametrize("flag", [["--config=a b.py"], ["--config", "a b.py"]])
def test_the_printed_command_names_the_config_file(flag, tmp_path):
    said = resume_command(["train", *flag, "--epochs", "3"], tmp_path)
    assert said == f"slmrec-jax train --config 'a b.py' --out {tmp_path} --resume"


# Files that a result depends on.


def change(file, before, after):
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1))


@pytest.mark.parametrize("name", ["config.json", "dataset.json", "result.json", "metrics.jsonl"])
def test_one_changed_figure_is_seen(folder, name):
    file = folder / name
    figure = {"config.json": '"seed": 0', "dataset.json": '"users": 60', "result.json": '"best_epoch": '}.get(name)
    text = file.read_text()
    figure = figure or text[text.index('"recall@20": ') :][:20]
    change(file, figure, figure[:-1] + ("1" if figure[-1] != "1" else "2"))
    assert "was changed after it was written" in refusal(load_run, folder)


def test_a_changed_record_does_not_choose_another_epoch(folder, tiny):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    record = json.loads(lines[0]) | {"improved": True, "selected": {"recall@20": 0.999}}
    (folder / "metrics.jsonl").write_text("\n".join([json.dumps(record), *lines[1:]]) + "\n")
    (folder / "result.json").unlink()
    line = refusal(train, CONFIG, tiny, out=folder, resume=True)
    assert "no checkpoint can be used" in line


def wrong_type(file):
    lines = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
    data = json.loads(lines[0]) if file.suffix.startswith(".json") else {"name": "text"}
    name = next(name for name in ("epoch", "best_epoch", "users", "arrays", "made_by", "name") if name in data)
    data.pop("sha256", None)
    file.write_text(json.dumps(records.seal(data | {name: ["no", "such", "value"]})) + "\n")


def replaced_by(make):
    def replace(file):
        file.unlink()
        make(file)

    return replace


TAMPERED = {
    "deep": lambda file: file.write_text('{"a":' * 100_000),
    "wrong type": wrong_type,
    "empty": lambda file: file.write_text(""),
    "not text": lambda file: file.write_bytes(b"\xff\xfe\x00{"),
    "pipe": replaced_by(os.mkfifo),
    "device": replaced_by(lambda file: file.symlink_to("/dev/zero")),
    "absent": Path.unlink,
    "directory": replaced_by(Path.mkdir),
}


def refused_in_one_line(folder, capsys):
    assert main(["evaluate", str(folder)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said[:-1].isprintable()
    return said


@pytest.mark.parametrize("tamper", TAMPERED)
@pytest.mark.parametrize("name", ["config.json", "dataset.json", "result.json", "metrics.jsonl"])
def test_a_run_folder_that_was_tampered_with_is_refused_in_one_line(folder, name, tamper, capsys):
    if (name, tamper) == ("result.json", "absent"):
        pytest.skip("that is a run that has not finished")
    TAMPERED[tamper](folder / name)
    refused_in_one_line(folder, capsys)


@pytest.mark.parametrize("tamper", TAMPERED)
@pytest.mark.parametrize("name", ["tally.json", "embeddings.safetensors", "manifest.sha256"])
def test_a_checkpoint_whose_manifest_was_forged_is_refused_in_one_line(folder, tiny, name, tamper, capsys):
    best = folder / "checkpoints" / str(json.loads((folder / "result.json").read_text())["best_epoch"])
    if name == "embeddings.safetensors" and tamper == "wrong type":
        safetensors.numpy.save_file({"users": np.zeros(3, np.int64), "items": np.zeros((2, 2))}, best / name)
    else:
        TAMPERED[tamper](best / name)
    if name != "manifest.sha256":
        write_manifest(best)
    if name == "tally.json":  # what evaluation does not need, resuming does
        like = make_method(CONFIG, make_spec(CONFIG, tiny)).init(jax.random.key(0))
        refusal(checkpoint.restore_state, best.parent, int(best.name), like)
    else:
        refused_in_one_line(folder, capsys)


@pytest.mark.parametrize("name", ["lock", "config.json.part", "metrics.jsonl.part", "curves.png"])
def test_a_run_that_goes_on_writes_through_no_link(folder, tmp_path, capsys, name):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(precious)
    status = main(["train", "--out", str(folder), "--resume", "--epochs", "5"])
    assert precious.read_text() == "mine"
    said = capsys.readouterr().err
    assert status == (1 if name == "lock" else 0), said
    assert not (folder / "config.json").is_symlink()


def test_a_pipe_in_place_of_the_lock_is_not_waited_for(folder, capsys):
    TAMPERED["pipe"](folder / "lock")
    assert main(["train", "--out", str(folder), "--resume", "--epochs", "5"]) == 1
    assert "lock is not a regular file" in capsys.readouterr().err


def test_a_path_below_a_file_is_called_missing(folder):
    assert "is missing" in refusal(load_run, folder / "config.json")


def test_a_setting_of_a_wrong_type_is_named(folder):
    data = json.loads((folder / "config.json").read_text())
    data["mf"]["l2"] = [1]
    records.write_json(folder / "config.json", {name: value for name, value in data.items() if name != "sha256"})
    assert "mf.l2 is a tuple of 1; expected a number" in refusal(load_run, folder)


@pytest.mark.parametrize("name", ["config.json", "result.json", "metrics.jsonl", "checkpoints"])
def test_a_missing_permission_is_called_that(folder, name, monkeypatch, capsys):
    """Simulate the system's answer, since root may read everything."""

    def denied(function):
        def call(path, *arguments, **named):
            if name in str(path):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return function(path, *arguments, **named)

        return call

    monkeypatch.setattr(records.os, "open", denied(os.open))
    monkeypatch.setattr(checkpoint.Path, "iterdir", denied(Path.iterdir))
    said = refused_in_one_line(folder, capsys)
    assert "Permission denied" in said
    assert "check its permissions" in said
    assert not {"damaged", "finished", "not there"} & set(said.replace(";", " ").split())


# Runs that continue, or were stopped.


@pytest.mark.parametrize("flags", [["--protocol", "mmrec"], ["--preset", "paper", "--epochs", "5"]])
def test_another_protocol_or_preset_is_refused(stored, tmp_path, capsys, flags):
    config = with_defaults(Config(data=stored, dim=4, num_layers=1, task="none"))
    with new_folder(config, load(stored), made_by(None, None), tmp_path / "run"):
        pass
    assert main(["train", "--resume", "--out", str(tmp_path / "run"), *flags]) == 1
    assert "was run with another" in capsys.readouterr().err


def test_fewer_epochs_than_were_trained_are_refused(folder, tiny):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    line = refusal(train, dataclasses.replace(CONFIG, epochs=1), tiny, out=folder, resume=True)
    assert "has already trained 4 epochs" in line
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_checkpoint_that_contradicts_itself_is_passed_over(folder, tiny):
    newest = folder / "checkpoints" / "4"
    wrong_type(newest / "tally.json")
    write_manifest(newest)
    said = []
    longer = dataclasses.replace(CONFIG, epochs=5)
    train(longer, tiny, out=folder, resume=True, callbacks=[texts_into(said)])
    assert any("epoch 4 cannot be used" in line for line in said)


@pytest.mark.parametrize("version", [None, checkpoint.FORMAT_VERSION + 1])
def test_checkpoints_of_another_version_are_refused_in_one_line(folder, tiny, version):
    for place in (folder / "checkpoints").iterdir():
        data = json.loads((place / "tally.json").read_text()) | {"version": version, "of": "another form"}
        kept = {name: value for name, value in data.items() if name != "sha256" and value is not None}
        records.write_json(place / "tally.json", kept)
        write_manifest(place)
    said = []
    longer = dataclasses.replace(CONFIG, epochs=5)
    for line in (
        refusal(train, longer, tiny, out=folder, resume=True, callbacks=[texts_into(said)]),
        refusal(load_run, folder),
    ):
        assert line.endswith("was written by another version of slmrec_jax; train again")
    assert not any("WARNING" in each for each in said)


@pytest.mark.parametrize("tally", [{"skipped_steps": 0}, {"skipped_steps": 0, "rollbacks": 0, "seconds": 0.0, "x": 0}])
def test_a_tally_of_other_fields_is_damage(folder, tally):
    newest = folder / "checkpoints" / "4"
    data = json.loads((newest / "tally.json").read_text()) | {"tally": tally}
    del data["sha256"]
    records.write_json(newest / "tally.json", data)
    write_manifest(newest)
    assert "tally does not have the fields" in checkpoint.damage(newest.parent, checkpoint.Place(4))


def test_a_run_that_goes_on_has_no_result_of_fewer_epochs(folder, tiny):
    with pytest.raises(Interrupted):
        train(dataclasses.replace(CONFIG, epochs=6), tiny, out=folder, resume=True, callbacks=[stop_after(5)])
    assert not (folder / "result.json").exists()
    assert load_run(folder).result["epochs"] == 5


def test_a_stopped_run_is_evaluated_at_its_best_epoch_so_far(finished, tiny, tmp_path, capsys):
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(CONFIG, tiny, out=out, callbacks=[stop_after(2)])
    stopped = load_run(out)
    best = max(finished.history[:2], key=lambda record: record["selected"]["recall@20"])
    assert not stopped.finished
    assert finished.finished
    assert stopped.result["best_epoch"] == best["epoch"]
    assert stopped.evaluate("valid").means == best["metrics"]
    for command in (["evaluate", str(out)], ["recommend", str(out), "--users", "user-0001"]):
        assert main(command) == 0
        assert "is unfinished: 2 of at most 4 epochs were saved" in capsys.readouterr().err


def test_a_run_that_was_stopped_before_its_first_epoch_says_so(folder, capsys):
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "checkpoints")
    assert "before an epoch was saved" in refused_in_one_line(folder, capsys)


# Data that only the run has.


def test_a_run_on_data_made_in_memory_is_self_contained(finished, folder, tiny):
    assert read_config(folder).data == IN_MEMORY
    loaded = load_run(folder)
    assert loaded.dataset.fingerprint == tiny.fingerprint
    assert loaded.evaluate("test").means == finished.result["test"]
    jax.tree.map(np.testing.assert_array_equal, loaded.recommend(k=3), finished.recommend(k=3))


def test_a_missing_data_set_is_named_with_the_fix(folder):
    shutil.rmtree(folder / STORE)
    line = refusal(read_kept_dataset, folder)
    assert line.startswith(f"{folder / STORE} is missing")
    assert "pass the data set as dataset" in line


@pytest.mark.slow
def test_the_command_works_on_a_run_on_data_made_in_memory(folder, tmp_path, capsys):
    commands = [
        ["evaluate", str(folder)],
        ["recommend", str(folder), "--users", "user-0001", "-k", "3"],
        ["export", str(folder), str(tmp_path / "exported")],
        ["report", str(folder), "--out", str(tmp_path / "report.html")],
        ["train", "--out", str(folder), "--resume", "--epochs", "5"],
    ]
    for command in commands:
        assert main(command) == 0, capsys.readouterr().err


def test_a_loaded_data_set_is_recorded_by_its_path(stored, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink(stored, "here")
    run = train(dataclasses.replace(CONFIG, epochs=1), load("here"), out="run")
    assert read_config(run.folder).data == stored
    assert not (run.folder / STORE).exists()
    assert load_run("run").dataset.source.data == stored


def test_a_loaded_data_set_that_was_changed_is_not_taken_for_its_source(stored, tmp_path):
    changed = dataclasses.replace(load(stored), features={})
    run = train(dataclasses.replace(CONFIG, epochs=1), changed, out=tmp_path / "run")
    assert read_config(run.folder).data == IN_MEMORY
    assert load_run(tmp_path / "run").dataset.fingerprint == changed.fingerprint


@pytest.mark.slow
def test_a_choice_of_modalities_is_no_data_set_of_its_own(stored, tmp_path):
    small = ["--data", stored, "--dim", "4", "--batch-size", "64", "--epochs", "1", "--modalities", "visual"]
    assert main(["train", "--model", "mf", "--out", str(tmp_path / "run"), *small]) == 0
    assert main(["compare", "--models", "popularity,mf", "--out", str(tmp_path / "compared"), *small]) == 0
    for each in (tmp_path / "run", tmp_path / "compared" / "mf-seed0"):
        assert read_config(each).data == stored
        assert not (each / STORE).exists()
        assert load_run(each).dataset.features.keys() == {"visual"}


@pytest.mark.slow
def test_names_that_are_no_text_are_read_back(folder, tmp_path, capsys):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/n\xff"))
    shutil.copytree(folder, odd / "run")
    commands = [
        ["evaluate", str(odd / "run")],
        ["export", str(odd / "run"), str(odd / "exported")],
        ["recommend", str(odd / "exported"), "--users", "user-0001", "-k", "2"],
        ["report", str(odd / "run"), "--out", str(odd / "report.html")],
    ]
    for command in commands:
        assert main(command) == 0, capsys.readouterr().err


def test_new_items_alone_are_asked_for_with_them(finished):
    assert "only_new=True needs new_items" in refusal(finished.recommend, k=2, only_new=True)


@pytest.mark.slow
def test_data_that_moved_do_not_keep_a_run_from_going_on(stored, tmp_path):
    out, moved = tmp_path / "run", tmp_path / "moved"
    train(dataclasses.replace(CONFIG, epochs=1), load(stored), out=out)
    shutil.copytree(stored, moved)
    assert main(["train", "--out", str(out), "--resume", "--epochs", "2", "--data", str(moved)]) == 0
    assert load_run(out).result["epochs"] == 2
