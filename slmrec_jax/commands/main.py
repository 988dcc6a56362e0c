"""The command `slmrec-jax`. What a person got wrong is answered with one line and exit status 1."""

import argparse
import contextlib
import dataclasses
import difflib
import errno
import functools
import importlib.util
import io
import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, TypeVar, cast

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from slmrec_jax.commands import data as cli_data
from slmrec_jax.commands import runs as cli_runs
from slmrec_jax.commands import tune as cli_tune
from slmrec_jax.config import BASE, IN_MEMORY, PROTOCOLS, Config, ProtocolName, with_preset, with_protocol
from slmrec_jax.config.protocols import Candidates
from slmrec_jax.data.new_items import read_new_items
from slmrec_jax.durable import FULL, reason
from slmrec_jax.errors import UserError, escaped, naming_flags
from slmrec_jax.evaluation.groups import Group
from slmrec_jax.serving import exports, recommendations
from slmrec_jax.studies import results
from slmrec_jax.training.progress import console_report
from slmrec_jax.training.signals import Interrupted
from slmrec_jax.training.storage.folder import read_config

Flags = TypeVar("Flags")


@dataclass(frozen=True)
class Train:
    """Train a model, select its best epoch, test it."""

    settings: Annotated[Config, tyro.conf.arg(name="")]
    preset: str | None = None
    """Named settings of the model, such as slmrec's `paper` (docs/settings.md has all); single flags win over them."""
    protocol: ProtocolName | None = None
    """How to select and to test, `strict` by default; single --eval.* flags win over it."""
    config: Path | None = None
    """A Python file of yours with get_config(), and make_method(config, spec) if it brings its own parts."""
    out: Path | None = None
    """The run's folder; by default a new one under runs/."""
    resume: bool = False
    """Go on with the run in --out."""


@dataclass(frozen=True)
class Evaluate:
    """Measure a finished run."""

    run: Path
    """The run's folder."""
    data: str | None = None
    """Where its data set is now, if it was moved."""
    split: Literal["valid", "test"] = "test"
    protocol: ProtocolName | None = None
    """Another protocol than the run's own."""
    by: Literal["users", "items"] | None = None
    """Groups by how many training interactions users or items have."""
    cold: Literal["trained", "content"] = "trained"
    """Items without training interactions: as training left them, or placed by their features alone."""
    candidates: Candidates | None = None
    """What is ranked: all items, or those without training interactions alone; by default as the run has it."""
    format: Literal["table", "json"] = "table"


@dataclass(frozen=True)
class Recommend:
    """List the best items that users have not interacted with, in raw ids."""

    run: Path | None = None
    """The run's folder."""
    exported: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Instead of a run: a folder that `export` made. Neither the data nor what trained is needed."""
    data: str | None = None
    """Where its data set is now, if it was moved."""
    users: str = "all"
    """Raw ids, separated by commas, or `all`. Quotes keep a comma in an id, as in CSV: '"Doe, Jane",u2'."""
    users_file: Path | None = None
    """Instead: a text file with one raw id a line, taken as it stands there."""
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 20
    """How many items each."""
    cold_items: Path | None = None
    """Features of items that have no interactions yet, to rank among the others: a file called as its modality (.npy,
    .safetensors or .parquet), or a folder with a file for each."""
    only_cold: bool = False
    """Ranks these items alone."""
    format: Literal["table", "parquet", "jsonl"] = "table"
    out: Path | None = None
    """The file to write, instead of the terminal; also a device or a pipe."""


@dataclass(frozen=True)
class Compare:
    """Train several systems on the same data and show their test metrics side by side."""

    settings: Annotated[Config, tyro.conf.arg(name="")]
    out: Path = Path("runs/compare")
    """The folder for the runs, the table and the picture; finished runs that lie there are not repeated."""
    preset: str | None = None
    """Named settings of the model, such as slmrec's `paper` (docs/settings.md has all); single flags win over them."""
    protocol: ProtocolName | None = None
    """How to select and to test, `strict` by default; single --eval.* flags win over it."""
    config: Path | None = None
    """A Python file of yours with get_config()."""
    models: str = "popularity,lightgcn,slmrec"
    """Systems, separated by commas: popularity, itemknn and models, also with a preset, which wins over flags:
    `slmrec:fd` is SLMRec with that task, and others are `slmrec:paper`, `mf:concat`, `mf:linear`, `lightgcn:fused`,
    `vbpr:original`, `mmgcn:frozen` and `mmssl:published`."""
    seeds: str = "0"
    """Seeds, separated by commas."""


@dataclass(frozen=True)
class Results:
    """Show finished runs side by side."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Their folders."""
    force: bool = False
    """Also runs on different data or under different protocols, whose figures say nothing of each other."""
    format: Literal["table", "json"] = "table"


@dataclass(frozen=True)
class Bench:
    """Run the benchmarks of a clone of the project, in its root folder."""

    data: str = "demo"
    """A real data set to measure on, beside generated ones."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what Orbax and its threads log, Orbax also raises
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace" if stream is sys.stdout else "backslashreplace")
    try:
        with naming_flags():
            status = _run([argument for argument in arguments if argument != "--debug"])
        print(end="", flush=True)
        return status
    except UserError as error:
        if debug:
            raise
        return _refuse(error)
    except Interrupted as stop:
        command = escaped(_resume_command(arguments, stop.folder))
        print(f"stopped by {stop} and saved; go on with: {command}", file=sys.stderr)
        return 128 + stop.signal_number
    except KeyboardInterrupt:
        print("slmrec-jax: stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # `slmrec-jax … | head` has seen enough
        _discard(sys.stdout)
        return 0
    except OSError as error:  # what is left is standard output: the commands themselves say which file
        if debug or error.errno not in (*FULL, errno.EIO):
            raise
        _discard(sys.stdout)
        where = error.filename or "the output of this command"
        return _refuse(f"cannot write {where}: {reason(error)}; free some space, or send it to another place")


def _refuse(error: object) -> int:
    """Say on one line what is wrong; nothing in it is obeyed by a terminal."""
    try:
        print(f"slmrec-jax: {escaped(error)}", file=sys.stderr, flush=True)
    except OSError:  # no one can be told
        _discard(sys.stderr)
    return 1


def _discard(stream: Any) -> None:
    """Send what a stream still holds to nowhere, so that Python does not fail on it at exit."""
    with Path(os.devnull).open("wb") as nowhere, contextlib.suppress(io.UnsupportedOperation):
        os.dup2(nowhere.fileno(), stream.fileno())


def _resume_command(arguments: list[str], folder: Path) -> str:
    """Return what goes on with a stopped run; `compare` and `tune` find out by themselves which of their runs it is."""
    if arguments[0] != "train":
        return shlex.join(["slmrec-jax", *arguments])
    file = _first_choices(arguments).config
    return shlex.join(["slmrec-jax", "train", *(["--config", file] if file else []), "--out", str(folder), "--resume"])


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help") or arguments in (["data"], ["data", "-h"], ["data", "--help"]):
        print("usage: slmrec-jax COMMAND [FLAGS]\n")
        for name, (flags, _) in COMMANDS.items():
            print(f"  {name:<13} {flags.__doc__}")
        print("\n`slmrec-jax COMMAND --help` lists a command's flags; --debug shows the traceback of a refusal.")
        return 0
    words = 2 if arguments[0] == "data" else 1
    name, rest = " ".join(arguments[:words]), arguments[words:]
    if name not in COMMANDS:
        raise UserError(f"there is no command {name!r}{_nearest(name, COMMANDS)}; there are: {', '.join(COMMANDS)}")
    flags, action = COMMANDS[name]
    return action(_parse(flags, f"slmrec-jax {name}", rest))


def _train(flags: Train) -> int:
    from slmrec_jax.methods import make_method
    from slmrec_jax.training.train import train

    method = getattr(_experiment(flags.config), "make_method", make_method) if flags.config else make_method
    with console_report(flags.settings.epochs) as report:
        run = train(
            flags.settings,
            out=flags.out,
            resume=flags.resume,
            method=method,
            config_file=flags.config,
            report=report,
        )
    title = f"{run.config.model} on {run.dataset.name}, best epoch {run.result['best_epoch']}"
    _print_metrics({split: run.result[split] for split in ("valid", "test") if split in run.result}, title)
    print(f"run folder: {escaped(run.folder)}")
    return 0


def _evaluate(flags: Evaluate) -> int:
    from slmrec_jax.training.run import load_run

    run = load_run(flags.run, data=flags.data)
    cli_runs.note_unfinished(run)
    if flags.cold == "content":
        run = run.with_content()
    protocol = flags.protocol or run.config.protocol
    if flags.by is not None:
        return _print_groups(run.evaluate_by(flags.by, flags.split, flags.protocol, flags.candidates), flags, protocol)
    means = dict(run.evaluate(flags.split, flags.protocol, flags.candidates).means)
    if flags.format == "json":
        fingerprint = run.dataset.fingerprint
        print(json.dumps({"split": flags.split, "protocol": protocol, "fingerprint": fingerprint, "metrics": means}))
    else:
        _print_metrics({flags.split: means}, f"{run.folder}, protocol {protocol}")
    return 0


def _recommend(flags: Recommend) -> int:
    users: list[str] | None = None
    if flags.users_file is not None:
        if flags.users != "all":
            raise UserError("recommend takes one of --users and --users-file")
        users = recommendations.read_id_file(flags.users_file, "--users-file")
    elif flags.users != "all":
        users = recommendations.split_ids(flags.users, "--users")
    if flags.format == "parquet" and flags.out is None:
        raise UserError("--format parquet needs --out: the file to write")
    if flags.only_cold and flags.cold_items is None:
        raise UserError("--only-cold needs --cold-items: the features of new items")
    if (flags.run is None) == (flags.exported is None):
        raise UserError("recommend needs one of --run, the folder of a run, and --from, a folder that export made")
    if flags.exported is None:
        found = _recommend_from_run(flags, users)
    elif flags.data is not None or flags.cold_items is not None:
        raise UserError("--from takes neither --data nor --cold-items, which need the run: give --run")
    else:
        found = exports.recommend(exports.read_export(flags.exported), users, flags.k)
    recommendations.write(found, flags.format, flags.out)
    if found.items.shape[1] < flags.k:
        print(f"-k is {flags.k}, and there are {found.items.shape[1]} items to rank", file=sys.stderr)
    note = recommendations.nothing_left(found)
    if note:
        print(note, file=sys.stderr)
    return 0


def _recommend_from_run(flags: Recommend, users: list[str] | None) -> recommendations.Recommendations:
    from slmrec_jax.training.run import load_run

    run = load_run(cast("Path", flags.run), data=flags.data)
    cli_runs.note_unfinished(run)
    new = None if flags.cold_items is None else read_new_items(flags.cold_items, run.dataset)
    for note in new.notes if new else ():
        print(escaped(note), file=sys.stderr)
    return run.recommend(users, flags.k, new_items=new, only_new=flags.only_cold)


def _compare(flags: Compare) -> int:
    from slmrec_jax.studies.comparison import compare

    seeds = _seeds(flags, "compare")
    if flags.settings.model != Config().model:
        raise UserError("compare takes --models, not --model")
    with console_report(flags.settings.epochs) as report:
        comparison = compare(flags.settings, flags.models.split(","), seeds, flags.out, report)
    Console().print(comparison.table())
    print(f"table, picture and runs: {escaped(flags.out)}")
    return 0


def _tune(flags: cli_tune.Tune) -> int:
    return cli_tune.tune(flags, _seeds(flags, "tune"))


def _seeds(flags: Compare | cli_tune.Tune, command: str) -> list[int]:
    """The seeds of a command that trains several of the package's own systems.

    Raises:
        UserError: they cannot be read, or the flags say what that command does not take.
    """
    seeds = flags.seeds.split(",")
    if not all(seed.isdigit() for seed in seeds) or len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds is {flags.seeds!r}: give different numbers separated by commas, such as 0,1,2")
    if flags.settings.seed != Config().seed:
        raise UserError(f"{command} takes --seeds, not --seed")
    if flags.config and hasattr(_experiment(flags.config), "make_method"):
        raise UserError(f"--config {flags.config} brings a method of its own, which {command} cannot: use train")
    return [int(seed) for seed in seeds]


def _results(flags: Results) -> int:
    if not flags.runs:
        raise UserError("no runs were named: give their folders")
    found = results.gather(flags.runs, force=flags.force)
    if flags.format == "json":
        print(json.dumps([row | {"folder": str(row["folder"])} for row in found.rows]))
    else:
        Console().print(found.table())
    return 0


def _bench(flags: Bench) -> int:
    suite = Path("benchmarks") / "suite.py"
    if not suite.is_file():
        raise UserError(f"there is no {suite} here: the benchmarks lie in the project's sources, call this in a clone")
    command = [sys.executable, str(suite), "--data", flags.data]
    return subprocess.run(command, check=False).returncode  # noqa: S603 (a file of the project, and no shell)


COMMANDS: Mapping[str, tuple[type, Callable[[Any], int]]] = {
    "train": (Train, _train),
    "evaluate": (Evaluate, _evaluate),
    "recommend": (Recommend, _recommend),
    "compare": (Compare, _compare),
    "tune": (cli_tune.Tune, _tune),
    "results": (Results, _results),
    "report": (cli_runs.Report, cli_runs.report),
    "export": (cli_runs.Export, cli_runs.export),
    "bench": (Bench, _bench),
    "data inspect": (cli_data.Inspect, cli_data.inspect),
    "data convert": (cli_data.Convert, cli_data.convert),
    "data make": (cli_data.Make, cli_data.make),
}


def _parse(flags: type[Flags], program: str, arguments: list[str]) -> Flags:
    """The flags of a command; what the words before them choose (a preset, a file) they win over.

    Raises:
        UserError: a flag or its value is not known.
    """
    has_settings = "settings" in {field.name for field in dataclasses.fields(flags)}  # type: ignore[arg-type]
    default: dict[str, Any] = {"default": flags(_base_config(arguments))} if has_settings else {}  # type: ignore[call-arg]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed, unknown = tyro.cli(flags, prog=program, args=arguments, return_unknown_args=True, **default)
    except SystemExit as stop:
        if not stop.code:  # help was asked for
            print(end="", flush=True)
            raise
        raise UserError(f"{_one_line(said.getvalue())}; see {program} --help") from None
    if unknown:
        nearest = _nearest(unknown[0], _known_flags(flags, default))
        raise UserError(f"there is no flag {unknown[0]!r}{nearest}; see {program} --help")
    if has_settings and parsed.settings.eval.name != default["default"].settings.eval.name:
        raise UserError("--eval.name names the protocol that --eval.* flags change: choose one by --protocol")
    return cast("Flags", _in_full(parsed) if has_settings else parsed)


def _in_full(flags: Any) -> Any:
    """The flags with what a run folder should keep: the data's whole path, and modalities one by one."""
    settings: Config = flags.settings
    folder = settings.data if settings.data in ("demo", IN_MEMORY) else str(Path(settings.data).resolve())
    modalities = tuple(name for names in settings.modalities for name in names.split(",") if name)
    return dataclasses.replace(flags, settings=dataclasses.replace(settings, data=folder, modalities=modalities))


def _known_flags(flags: type, default: Mapping[str, Any]) -> set[str]:
    """As the help lists them."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        tyro.cli(flags, args=["--help"], **default)
    return set(re.findall(r"--[a-z][a-z0-9.-]*", said.getvalue()))


def _base_config(arguments: list[str]) -> Config:
    """The config before single flags: of the run to resume, or of a file, or the default; then preset and protocol."""
    try:
        chosen = _first_choices(arguments)
    except argparse.ArgumentError:
        return Config()  # a flag without its value: the full parser says so
    if chosen.resume and chosen.out:
        config = read_config(Path(chosen.out))  # what differs from it is refused later
    else:
        config = _experiment(Path(chosen.config)).get_config() if chosen.config else Config()
    if not isinstance(config, Config):
        raise UserError(f"--config {chosen.config}: get_config() returns {config!r}, not a slmrec_jax.Config")
    if chosen.model in BASE:
        config = dataclasses.replace(config, model=chosen.model)
    if chosen.preset:
        config = with_preset(config, chosen.preset)
    if chosen.protocol in PROTOCOLS:
        config = with_protocol(config, chosen.protocol)
    return config


def _first_choices(arguments: list[str]) -> argparse.Namespace:
    """Read the flags on which the meaning of others depends."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("--config", "--model", "--preset", "--protocol", "--out"):
        first.add_argument(name)
    first.add_argument("--resume", action="store_true")
    return first.parse_known_args(arguments)[0]


@functools.cache
def _experiment(path: Path) -> ModuleType:
    """A person's own Python file, named on the command line; what it holds is run.

    Raises:
        UserError: it cannot be read or has no get_config().
    """
    spec = importlib.util.spec_from_file_location(f"slmrec_jax_config_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError(f"--config {path}: there is no Python file of that name")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the annotations of their module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(f"--config {path}: line {error.lineno} is not Python: {error.msg}") from None
    if not callable(getattr(module, "get_config", None)):
        raise UserError(f"--config {path}: it has no function get_config(), which returns a slmrec_jax.Config")
    return module


def _one_line(said: str) -> str:
    """The message in an error text of tyro's: between its title and the next rule, with a box around or without."""
    paragraphs: list[list[str]] = [[]]
    for line in said.splitlines():
        if line.startswith(("╭", "╰")) or "────" in line or "----" in line:
            paragraphs.append([])
        else:
            paragraphs[-1].append(line.strip("│ "))
    message = " ".join(paragraphs[1]) if len(paragraphs) > 1 else ""
    return message.rstrip(".") or "the flags cannot be read"


def _nearest(word: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _print_groups(groups: Sequence[Group], flags: Evaluate, protocol: str) -> int:
    """A row a group, the metrics that comparisons show in columns."""
    if flags.format == "json":
        print(json.dumps({"split": flags.split, "protocol": protocol, "by": [group._asdict() for group in groups]}))
        return 0
    cutoffs = list(dict.fromkeys(key.split("@")[1] for key in groups[0].means))[:2]
    metrics = [f"{metric}@{k}" for k in cutoffs for metric in ("recall", "ndcg")]
    title = _title(f"{flags.run}, {flags.split}, protocol {protocol}, {flags.by} by training interactions")
    table = Table("training", str(flags.by), "held out", *metrics, title=title, title_justify="left")
    for group in groups:
        values = (f"{group.means[metric]:.4f}" for metric in metrics)
        table.add_row(group.label, str(group.num_nodes), str(group.num_interactions), *values)
    Console().print(table)
    return 0


def _print_metrics(splits: Mapping[str, Mapping[str, float]], title: str) -> None:
    """A row a metric, a column a split and cut-off."""
    table = Table("metric", title=_title(title), title_justify="left")
    keys = [key.split("@") for key in next(iter(splits.values()))]
    cutoffs = list(dict.fromkeys(cutoff for _, cutoff in keys))
    for split in splits:
        for cutoff in cutoffs:
            table.add_column(f"{split} @{cutoff}", justify="right")
    for metric in dict.fromkeys(name for name, _ in keys):
        cells = (f"{values[f'{metric}@{cutoff}']:.4f}" for values in splits.values() for cutoff in cutoffs)
        table.add_row(metric, *cells)
    Console().print(table)


def _title(text: str) -> Text:
    """Of a table; not a string, whose brackets would be read as markup."""
    return Text(escaped(text), "table.title")


if __name__ == "__main__":
    sys.exit(main())
