"""The command and `train` keep compiled programs in a folder that no other user can write to."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from slmrec_jax import program_cache

ROOT = Path(__file__).parents[1]
SET = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """A copy of the environment with its own cache folder, which the program may change."""
    copy = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    copy |= {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    monkeypatch.setattr(program_cache.os, "environ", copy)
    return copy


def test_programs_are_kept_in_the_users_cache_folder(environment, tmp_path):
    program_cache.set_environment()
    folder = tmp_path / "cache" / "slmrec_jax"
    assert environment["JAX_COMPILATION_CACHE_DIR"] == str(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"  # small ones too


def test_user_settings_win(environment, tmp_path):
    chosen = str(tmp_path / "elsewhere")
    environment["JAX_COMPILATION_CACHE_DIR"] = chosen
    environment["TF_CPP_MIN_LOG_LEVEL"] = "0"
    program_cache.set_environment()
    assert environment["JAX_COMPILATION_CACHE_DIR"] == chosen
    assert environment["TF_CPP_MIN_LOG_LEVEL"] == "0"
    assert SET[1] not in environment


@pytest.mark.parametrize("chosen", ["", "gs://bucket/programs"])
def test_no_folder_or_a_bucket_is_left_to_jax(environment, capsys, chosen):
    environment["JAX_COMPILATION_CACHE_DIR"] = chosen
    program_cache.set_environment()
    assert environment["JAX_COMPILATION_CACHE_DIR"] == chosen
    assert not capsys.readouterr().err


SCRIPT = """
{imports}
from slmrec_jax.data import demo

jax.jit(lambda x: x + 1)(1)  # compiled before JAX's cache is configured
small = demo(num_users=40, num_items=30, num_scenes=4, exposures=20)
said = []
config = slm.Config(model="mf", dim=4, epochs=1, ks=(5,))
slm.train(config, small, out="run", overwrite=True, callbacks=[lambda event: said.append(event.text)])
print("import slmrec_jax before jax" in str(said))
"""


@pytest.mark.slow
def test_train_keeps_programs_without_the_command(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "TF_CPP"))}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}

    def train(imports, **changes):
        command = [sys.executable, "-c", SCRIPT.format(imports=imports)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment | changes, check=True, capture_output=True, text=True
        )
        assert done.stderr == ""
        return done.stdout.strip() == "True"

    assert train("import jax\nimport slmrec_jax as slm")  # it would be too late to silence XLA
    assert not (tmp_path / "slmrec_jax").exists()
    for _ in range(2):  # the second time, programs are read back
        assert not train("import slmrec_jax as slm\nimport jax")
        assert len(list((tmp_path / "slmrec_jax").glob("*"))) > 3
    assert not train("import slmrec_jax as slm\nimport jax", JAX_COMPILATION_CACHE_DIR="", XDG_CACHE_HOME="other")
    assert not (tmp_path / "other" / "slmrec_jax").exists()


def open_folder(folder):
    folder.chmod(0o777)


def group_folder(folder):
    folder.chmod(0o770)


def open_entry(folder):
    (folder / "entry").chmod(0o666)


def group_entry_in_a_readable_folder(folder):
    folder.chmod(0o755)
    (folder / "entry").chmod(0o664)


def linked_entry(folder):
    (folder / "entry").rename(folder.parent / "elsewhere")
    (folder / "entry").symlink_to(folder.parent / "elsewhere")


def linked_folder(folder):
    folder.rename(folder.parent / "elsewhere")
    folder.symlink_to(folder.parent / "elsewhere")


def open_parent(folder):
    folder.parent.chmod(0o777)


def linked_parent(folder):
    """The path goes through a link whose target is in a folder that others may write to."""
    elsewhere = folder.parent.parent / "open"
    elsewhere.mkdir()
    folder.parent.rename(elsewhere / "cache")
    folder.parent.symlink_to(elsewhere / "cache")
    elsewhere.chmod(0o777)


def open_entry_below(folder):
    (folder / "sub").mkdir(mode=0o700)
    (folder / "sub" / "entry").write_bytes(b"a program")
    (folder / "sub" / "entry").chmod(0o666)


OPEN = (
    open_folder,
    group_folder,
    open_entry,
    group_entry_in_a_readable_folder,
    linked_entry,
    linked_folder,
    open_parent,
    linked_parent,
    open_entry_below,
)


@pytest.mark.parametrize("by_user", [False, True])
@pytest.mark.parametrize("opens", OPEN)
def test_programs_that_others_could_have_put_there_are_not_run(environment, tmp_path, capsys, opens, by_user):
    folder = tmp_path / "cache" / "slmrec_jax"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "entry").write_bytes(b"a program")
    if by_user:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    opens(folder)
    program_cache.set_environment()
    assert not set(SET) & set(environment)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "compiled programs are not kept or read" in said


def test_a_chosen_folder_that_is_none_is_named_without_escapes(environment, tmp_path, capsys):
    (tmp_path / "\x1b[31mfile").write_text("")
    environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / "\x1b[31mfile")
    program_cache.set_environment()
    said = capsys.readouterr().err
    assert "cannot use" in said
    assert said[:-1].isprintable()


@pytest.mark.parametrize(("of_folder", "of_entry"), [(0o700, 0o664), (0o755, 0o644), (0o700, 0o600)])
def test_programs_that_only_their_owner_writes_are_kept(environment, tmp_path, capsys, of_folder, of_entry):
    folder = tmp_path / "cache" / "slmrec_jax"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "entry").write_bytes(b"a program")
    (folder / "entry").chmod(of_entry)
    folder.chmod(of_folder)
    program_cache.set_environment()
    assert environment["JAX_COMPILATION_CACHE_DIR"] == str(folder)
    assert not capsys.readouterr().err


def test_without_a_place_to_write_nothing_is_kept(environment, tmp_path):
    (tmp_path / "cache").write_text("a file")
    program_cache.set_environment()
    assert not set(SET) & set(environment)


def test_a_folder_of_another_user_is_not_used(environment, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program_cache.os, "getuid", lambda: os.stat(tmp_path).st_uid + 1)
    found = os.stat_result((0o40700, 0, 0, 0, 12345, 0, 0, 0, 0, 0))
    monkeypatch.setattr(program_cache.os, "lstat", lambda path: found)
    program_cache.set_environment()
    assert not set(SET) & set(environment)
    assert capsys.readouterr().err.count("\n") == 1


def test_the_module_is_the_command(tmp_path):
    command = [sys.executable, "-m", "slmrec_jax", "results", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment["XDG_CACHE_HOME"] = str(tmp_path)
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "config.json is missing" in done.stderr
    assert (tmp_path / "slmrec_jax").is_dir()


def test_programs_for_another_target_are_not_kept(environment, tmp_path):
    script = """
from pathlib import Path
from slmrec_jax import program_cache
program_cache.set_environment()
import jax
from slmrec_jax.devices import Target, compiler_of, compiling_for

def kept():
    return len(list(Path(jax.config.jax_compilation_cache_dir).glob("*-cache")))

jax.jit(lambda x: x + 1)(1).block_until_ready()
before = kept()
with compiling_for(Target("cpu", tuple(jax.devices()))):
    compiler_of(lambda x: x * 3 + 2, jax.ShapeDtypeStruct((5,), "float32"))()
assert kept() == before > 0, (before, kept())
jax.jit(lambda x: x - 1)(1).block_until_ready()
assert kept() > before
"""
    subprocess.run(
        [sys.executable, "-c", script], env=environment | {"PYTHONPATH": str(ROOT)}, cwd=tmp_path, check=True
    )
