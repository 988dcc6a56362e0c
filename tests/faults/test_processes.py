"""Runs of several processes: they equal one process, stop together, and never wait for one that has ended."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from slmrec_jax import UserError, joining, processes
from slmrec_jax.commands import launch
from slmrec_jax.commands.cluster import ClusterFlags, join_processes
from slmrec_jax.commands.launch import LaunchFlags, run_launch
from slmrec_jax.data import write_store
from slmrec_jax.errors import RefusedElsewhere

ROOT = Path(__file__).parents[2]
RUN = ("--data", "data", "--model", "lightgcn", "--dim", "8", "--batch-size", "128", "--eval.patience", "100000")


def start(folder, *flags, count=1, devices=1):
    """Start the processes of a run; each writes what it says into a file."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
    }
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    started = []
    for index in range(count):
        joined = "--coordinator", address, "--num-processes", str(count), "--process-id", str(index)
        command = [sys.executable, "-m", "slmrec_jax", "train", "--out", str(folder), *flags]
        with (folder.parent / f"said {index}").open("w") as said:
            command += joined if count > 1 else ()
            process = subprocess.Popen(
                command, stdout=said, stderr=subprocess.STDOUT, env=environment, cwd=folder.parent
            )
        started.append(process)
    return started


def said_by(folder, index):
    lines = (folder.parent / f"said {index}").read_text().splitlines()
    return [line for line in lines if not line.startswith("[Gloo]")]


def wait_for(folder, text, seconds=60):
    end = time.monotonic() + seconds
    while not any(line.startswith(text) for line in said_by(folder, 0)):
        assert time.monotonic() < end, said_by(folder, 0)
        time.sleep(0.05)


def statuses(started, seconds=60):
    return [process.wait(timeout=seconds) for process in started]


def epochs_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_processes_equal_one_and_any_number_of_them_continues_a_run_that_was_stopped_or_killed(tmp_path, tiny):
    for name in ("alone", "together"):
        (tmp_path / name).mkdir()
        write_store(tiny, tmp_path / name / "data")
    alone, run = (tmp_path / name / "run" for name in ("alone", "together"))
    # SIGTERM to one of two processes stops both after the same step.
    both = start(run, *RUN, "--epochs", "1000", count=2)
    wait_for(run, "epoch    2")
    both[1].send_signal(signal.SIGTERM)
    assert statuses(both) == [128 + signal.SIGTERM] * 2
    assert said_by(run, 0)[-1].startswith("stopped by SIGTERM and saved; continue in each process, with its flags: ")
    assert said_by(run, 1) == []
    # SIGKILL of one ends the other, in one line.
    both = start(run, "--resume", "--epochs", "1000", count=2)
    wait_for(run, "resumed after epoch")
    wait_for(run, "epoch ")
    begun = time.monotonic()
    both[0].kill()
    assert statuses(both) == [-signal.SIGKILL, 1]
    assert time.monotonic() - begun < 30
    (line,) = said_by(run, 1)
    assert line.startswith("slmrec-jax: process 1 of 2: stopped by JAX, most likely because another process has ended")
    # One process with four devices ends the run, as one device would have.
    epochs = str(len(epochs_of(run)) + 2)
    assert statuses(start(run, "--resume", "--epochs", epochs, "--mesh", "data=2,model=2", devices=4)) == [0]
    assert statuses(start(alone, *RUN, "--epochs", epochs)) == [0]
    one, other = epochs_of(alone), epochs_of(run)
    assert len(one) == len(other) == int(epochs)
    for mine, theirs in zip(one, other, strict=True):
        assert theirs["losses"]["loss"] == pytest.approx(mine["losses"]["loss"], rel=1e-5)
        assert theirs["metrics"]["recall@20"] == pytest.approx(mine["metrics"]["recall@20"], abs=0.02)
    result = json.loads((run / "result.json").read_text())
    assert (result["mesh"], result["processes"]) == ({"data": 2, "model": 2}, 1)


@pytest.mark.slow
def test_processes_with_other_settings_are_refused_by_name(tmp_path):
    run = tmp_path / "run"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    command = [
        sys.executable,
        "-m",
        "slmrec_jax",
        "train",
        "--out",
        str(run),
        "--model",
        "mf",
        "--coordinator",
        address,
    ]
    command += ["--num-processes", "2", "--process-id"]
    started = [
        subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True, cwd=ROOT)
        for flags in (("0",), ("1", "--seed", "7"))
    ]
    said = [process.communicate(timeout=60)[1] for process in started]
    assert [process.returncode for process in started] == [1, 1]
    assert "process 1 differs from process 0 in its seed (7, not 0): start all processes with the same" in said[0]
    assert "differs" not in said[1]  # the first says it for all
    assert not run.exists()


@pytest.fixture
def two(monkeypatch):
    """Pretend to be the first of two processes that pass the same."""
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "_from_all", lambda array: np.stack([array, array]))


@pytest.mark.parametrize("value", [None, 3, "ж" * 300, {"a": [1, 2.5, None]}])
def test_messages_arrive_whole(two, value):
    assert processes.gathered(value) == [value, value]
    assert processes.agreed(value) == value


def test_rows_of_all_processes_are_put_together(two):
    assert [processes._shares(5)[place] for place in (0, 1)] == [slice(0, 2), slice(2, 5)]
    own = np.array([0.1, 1e-300])
    found = processes.gathered_rows(own, 4)
    assert (found == np.concatenate([own, own])).all()
    assert found.dtype == np.float64


def test_a_refusal_of_the_first_process_is_one_of_all(two, monkeypatch):
    def refuse():
        raise UserError("no room")

    with pytest.raises(UserError, match="no room"):
        processes.in_first(refuse)
    monkeypatch.setattr(processes, "is_first", lambda: False)
    monkeypatch.setattr(processes, "gathered", lambda own: ["no room", own])
    with pytest.raises(RefusedElsewhere, match="no room"):
        processes.in_first(refuse)
    with pytest.raises(RefusedElsewhere, match="no room"):
        processes.in_all(refuse)  # all say the same, and the first says it for all
    with pytest.raises(RefusedElsewhere, match="no room"):
        processes.in_all(lambda: 5)
    monkeypatch.setattr(processes, "gathered", lambda own: [None, own])
    with pytest.raises(UserError, match="no room") as own:
        processes.in_all(refuse)
    assert own.type is UserError
    assert processes.in_all(lambda: 5) == 5
    assert type(processes.raised_by_all(UserError("all"))) is RefusedElsewhere


def test_a_fault_of_the_disk_is_told_too(two):
    def refuse():
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        processes.in_first(refuse)


def test_alone_nothing_waits(monkeypatch):
    monkeypatch.setattr(processes, "_from_all", None)
    assert processes.gathered(object) == [object]
    assert processes.in_first(lambda: 5) == 5
    assert (processes.gathered_rows(np.arange(3), 3) == np.arange(3)).all()
    processes.wait_for_all()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (ClusterFlags(num_processes=2), "--num-processes and --process-id need --coordinator"),
        (ClusterFlags(process_id=0), "need --coordinator"),
        (ClusterFlags("here", 2, 0), "--coordinator is 'here': give HOST:PORT, such as localhost:1234, or auto"),
        (ClusterFlags("here:x", 2, 0), "give HOST:PORT"),
        (ClusterFlags("here:1", 2), "needs --num-processes and --process-id"),
        (ClusterFlags("here:1", 2, 2), "--process-id is 2: give 0 to 1, below --num-processes"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(flags, message):
    with pytest.raises(UserError, match=message):
        join_processes(flags)
    assert joining.prefix() == ""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (LaunchFlags(0, ("train",)), "--num-processes is 0: give at least 1"),
        (LaunchFlags(2, ("tune",)), "launch runs train as several processes"),
        (LaunchFlags(2, ()), "launch runs train"),
    ],
)
def test_launch_refuses_what_it_cannot_run(flags, message):
    with pytest.raises(UserError, match=message):
        run_launch(flags)


@pytest.mark.parametrize(
    ("commands", "status"),
    [
        (("exit 0", "exit 0"), 0),
        (("exit 0", "exit 3"), 3),
        (("sleep 60", "exit 1"), 1),
        (("sleep 60", "kill -KILL $$"), 128 + signal.SIGKILL),
        (("sleep 0.3; exit 143", "exit 143"), 143),
    ],
)
def test_launch_ends_all_processes_when_one_fails(commands, status, monkeypatch):
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.1)
    started = [subprocess.Popen(["/bin/sh", "-c", command]) for command in commands]
    assert launch._status(started) == status
    assert all(process.poll() is not None or process.wait(timeout=5) is not None for process in started)
