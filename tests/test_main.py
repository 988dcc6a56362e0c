"""The program sets up JAX's cache of compiled programs before JAX is loaded."""

import os
import stat
import subprocess
import sys

import pytest

from slmrec_jax import __main__ as program
from slmrec_jax.cli import main

SET = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """A copy of the environment to write to, with a cache folder of its own."""
    copy = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    copy |= {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    monkeypatch.setattr(program.os, "environ", copy)
    return copy


def test_programs_are_kept_in_the_users_cache_folder(environment, tmp_path):
    program._keep_programs()
    folder = tmp_path / "cache" / "slmrec_jax"
    assert environment["JAX_COMPILATION_CACHE_DIR"] == str(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"  # small ones too


def test_who_has_chosen_a_folder_keeps_it(environment):
    environment["JAX_COMPILATION_CACHE_DIR"] = "elsewhere"
    environment["TF_CPP_MIN_LOG_LEVEL"] = "0"
    program._keep_programs()
    assert environment["JAX_COMPILATION_CACHE_DIR"] == "elsewhere"
    assert environment["TF_CPP_MIN_LOG_LEVEL"] == "0"
    assert SET[1] not in environment


def test_without_a_place_to_write_nothing_is_kept(environment, tmp_path):
    (tmp_path / "cache").write_text("a file")
    program._keep_programs()
    assert not set(SET) & set(environment)


def test_a_folder_of_somebody_else_is_not_used(environment, tmp_path, monkeypatch):
    monkeypatch.setattr(program.os, "getuid", lambda: os.stat(tmp_path).st_uid + 1)
    program._keep_programs()
    assert not set(SET) & set(environment)


def test_the_module_is_the_command(tmp_path):
    command = [sys.executable, "-m", "slmrec_jax", "results", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment["XDG_CACHE_HOME"] = str(tmp_path)
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "result.json is not there" in done.stderr
    assert (tmp_path / "slmrec_jax").is_dir()


def test_bench_needs_the_sources(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["bench"]) == 1
    assert "call this in a clone" in capsys.readouterr().err
