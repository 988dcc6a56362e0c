"""The commands on data sets."""

import os
import signal
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("data convert SHOP OUT", signal.SIGTERM),
        ("data inspect SHOP", signal.SIGINT),
        ("train --data SHOP --out OUT", signal.SIGINT),
    ],
)
def test_a_signal_leaves_no_temporary_folder(tmp_path, command, number):
    shop, temporary = tmp_path / "shop", tmp_path / "temporary"
    shop.mkdir()
    temporary.mkdir()
    (shop / "interactions.csv").write_text("user,item\n" + "".join(f"u{row % 9},i{row}\n" for row in range(90)))
    arguments = command.replace("SHOP", str(shop)).replace("OUT", str(tmp_path / "out")).split()
    program = f"""
import os, signal, sys, tempfile
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from slmrec_jax.commands.main import main
from slmrec_jax.data.readers.engine import Engine

run = Engine.run

def run_and_terminate(self, query):
    run(self, query)
    assert os.listdir(tempfile.gettempdir())
    try:
        os.kill(os.getpid(), {int(number)})
    except BaseException:  # as DuckDB does in a query
        raise RuntimeError("Query interrupted")

Engine.run = run_and_terminate
sys.exit(main({[*arguments, "--split", "mmrec"]}))
"""
    environment = {**os.environ, "TMPDIR": str(temporary)}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False
    )
    assert (ended.returncode, ended.stderr) == (128 + number, "slmrec-jax: stopped\n")
    assert sorted(tmp_path.iterdir()) == [shop, temporary]
    assert list(temporary.iterdir()) == []
