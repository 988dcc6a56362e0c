"""The command `slmrec-jax explore`."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from slmrec_jax.commands.runs import check_named, open_runs
from slmrec_jax.config.config import IN_MEMORY
from slmrec_jax.errors import UserError

_MOST_RUNS = 2


@dataclass(frozen=True)
class ExploreFlags:
    """Show one or two runs on a local page: users, their recommendations, similar items and a map of items."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """The run folders: one, or two on the same data to see side by side."""
    port: int = 0
    """The port on 127.0.0.1; 0 is any free one."""
    data: str | None = None
    """The path of the runs' data set, if it was moved; it is split as in the run."""


def run_explore(flags: ExploreFlags) -> None:
    """Print the address of the page, and serve it until Ctrl-C."""
    check_named(flags.runs)
    if len(flags.runs) > _MOST_RUNS:
        raise UserError(f"explore shows one or two runs, but {len(flags.runs)} were named: name fewer")
    from slmrec_jax.exploring.explored import explore
    from slmrec_jax.exploring.server import check_port, make_server
    from slmrec_jax.serving.exports import is_export

    check_port(flags.port)
    for folder in flags.runs:
        if is_export(folder):
            raise UserError(f"{folder} is an export, which does not hold what explore shows: give the run itself")
    runs = open_runs(flags.runs, flags.data)
    data = flags.data or runs[0].config.data
    pictures = Path(data) if data not in ("demo", IN_MEMORY) and Path(data).is_dir() else None
    with make_server(explore(runs, pictures), flags.port) as server:
        print(server.address, flush=True)
        server.serve_forever()
