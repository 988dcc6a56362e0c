"""The command `slmrec-jax`, which answers a user's mistake with one line and exit status 1."""

import contextlib
import errno
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from slmrec_jax.commands import (
    bench,
    blend,
    compare,
    data,
    embed,
    evaluate,
    explore,
    launch,
    plan,
    recommend,
    report,
    runs,
    train,
    tune,
)
from slmrec_jax.commands.parsing import did_you_mean, parse
from slmrec_jax.commands.settings import resume_command
from slmrec_jax.commands.stopping import ending_on_signals
from slmrec_jax.durable import FULL, reason
from slmrec_jax.errors import Interrupted, RefusedElsewhere, UserError, escaped, naming_flags
from slmrec_jax.joining import end_now, end_with, prefix, quiet_jaxlib, reports

COMMANDS: Mapping[str, tuple[type, Callable[[Any], None]]] = {
    "train": (train.TrainFlags, train.run_train),
    "launch": (launch.LaunchFlags, launch.run_launch),
    "evaluate": (evaluate.EvaluateFlags, evaluate.run_evaluate),
    "recommend": (recommend.RecommendFlags, recommend.run_recommend),
    "similar": (recommend.SimilarFlags, recommend.run_similar),
    "compare": (compare.CompareFlags, compare.run_compare),
    "tune": (tune.TuneFlags, tune.run_tune),
    "results": (runs.ResultsFlags, runs.run_results),
    "blend": (blend.BlendFlags, blend.run_blend),
    "report": (report.ReportFlags, report.run_report),
    "explore": (explore.ExploreFlags, explore.run_explore),
    "export": (runs.ExportFlags, runs.run_export),
    "plan": (plan.PlanFlags, plan.run_plan),
    "bench": (bench.BenchFlags, bench.run_bench),
    "bench step": (bench.StepFlags, bench.run_step),
    "data inspect": (data.InspectFlags, data.run_inspect),
    "data convert": (data.ConvertFlags, data.run_convert),
    "data make": (data.MakeFlags, data.run_make),
    "data embed": (embed.EmbedFlags, embed.run_embed),
}
"""The flags and the action of each command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    given = sys.argv[1:] if argv is None else argv
    arguments = [argument for argument in given if argument != "--debug"]
    debug = len(arguments) < len(given)
    _set_up_output()
    if any(argument.startswith("--coordinator") for argument in arguments):
        quiet_jaxlib()  # done now, since some flags import JAX before they are parsed
    try:
        with naming_flags(), ending_on_signals():
            _dispatch(arguments)
        print(end="", flush=True)
        return 0
    except UserError as error:
        if debug and not prefix():
            raise
        return _print_refusal(error)
    except Interrupted as stop:
        command = escaped(resume_command(arguments, stop.folder))
        if reports():
            alike = " in each process, with its flags" if prefix() else " with"
            print(f"stopped by {stop} and saved; continue{alike}: {command}", file=sys.stderr)
        return 128 + stop.signal_number
    except KeyboardInterrupt:
        print(f"slmrec-jax: {prefix()}stopped", file=sys.stderr)
        end_now(128 + signal.SIGINT)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader has ended, as in `slmrec-jax … | head`
        _discard(sys.stdout)
        return 0
    except OSError as error:  # from standard output, since errors of named files are a UserError
        if debug or error.errno not in (*FULL, errno.EIO):
            end_with(error)
        _discard(sys.stdout)
        place = error.filename or "the output of this command"
        return _print_refusal(f"cannot write {place}: {reason(error)}; free some space, or write it elsewhere")
    except Exception as error:
        end_with(error)


def _dispatch(arguments: list[str]) -> None:
    # `bench` is also a command itself, with its own flags.
    is_part = arguments[:1] == ["bench"] and arguments[1:] and not arguments[1].startswith("-")
    words = 2 if is_part or arguments[:1] == ["data"] else 1
    name, rest = " ".join(arguments[:words]), arguments[words:]
    if name == "--version":
        print(f"slmrec-jax {version('slmrec-jax')}, jax {version('jax')}")
        return
    if name in ("", "-h", "--help", "data", "data -h", "data --help"):
        print("usage: slmrec-jax COMMAND [FLAGS]\n")
        for command, (flags, _) in COMMANDS.items():
            print(f"  {command:<13} {flags.__doc__}")
        print(
            "\n`slmrec-jax COMMAND --help` lists a command's flags; --debug shows the traceback of an error.\n"
            "`slmrec-jax --version` prints the versions of this program and of jax."
        )
        return
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS)
        raise UserError(f"there is no command {name!r}{hint}; the commands are: {', '.join(COMMANDS)}")
    flags, action = COMMANDS[name]
    action(parse(flags, f"slmrec-jax {name}", rest))


def _set_up_output() -> None:
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # Orbax also raises what it and its threads log
    for stream in (sys.stdout, sys.stderr):  # a character that the encoding lacks must not end a command
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace" if stream is sys.stdout else "backslashreplace")


def _print_refusal(error: object) -> int:
    """Print an error as one line that is safe to show on a terminal, and return the exit status."""
    try:
        if not isinstance(error, RefusedElsewhere):
            print(f"slmrec-jax: {prefix()}{escaped(error)}", file=sys.stderr, flush=True)
    except OSError:  # standard error is also closed or full
        _discard(sys.stderr)
    end_now(1)
    return 1


def _discard(stream: Any) -> None:
    """Redirect a stream's buffered output to the null device, so that Python does not fail on it at exit."""
    with Path(os.devnull).open("wb") as null, contextlib.suppress(io.UnsupportedOperation):
        os.dup2(null.fileno(), stream.fileno())
