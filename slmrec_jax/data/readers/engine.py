"""Queries tables by an embedded DuckDB within a limit of memory; what does not fit waits in a private folder.

Nothing but the given files can be read: access to others and to the network is off, no extension is loaded, and all
queries are this package's own. DuckDB reads a file by a link in the private folder, so that no name is taken for a
pattern.
"""

import ctypes
import re
import shutil
import tempfile
import weakref
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import duckdb

from slmrec_jax.data.readers.refusals import one_line
from slmrec_jax.errors import UserError, check_type, setting, shown

PREFIX = "slmrec-jax-"
"""The beginning of the name of a private folder."""
_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""glibc would keep what DuckDB gives back; other C libraries do not have it."""
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT])(i?)B?\s*", re.IGNORECASE)
_LEAST_BYTES = 2**24
_BYTES_PER_THREAD = 2**27
"""A thread needs about this much for what it cannot put aside."""
_ROWS_AT_ONCE = 2**20
_DUCKDB_SHARE = 0.8
"""The share of the memory of the machine, or of the container, that DuckDB takes if it is not told a limit."""
_LINK = re.compile(r"([0-9]+)\.parquet")

_limit: ContextVar[str | None] = ContextVar("memory_limit", default=None)


@contextmanager
def limited_memory(limit: str | None) -> Iterator[None]:
    """Give every engine that is made within the block this limit, such as `4GB`; `None` is half of the free memory.

    Raises:
        UserError: The limit is not a size.
    """
    if limit is not None:
        _parse_size(limit)
    before = _limit.set(limit)
    try:
        yield
    finally:
        _limit.reset(before)


class Engine:
    """A DuckDB of its own, with its tables and its private folder, which go when it is no longer referenced."""

    def __init__(self, files: Sequence[Path] = (), root: Path | None = None) -> None:
        """Start with the limit of `limited_memory`.

        Args:
            files: Parquet files to read.
            root: A folder around them: below it, a folder `key=value` is a column `key`.
        """
        self._files = list(files)
        self._num_names = 0
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        connection = duckdb.connect(
            config={
                "allow_community_extensions": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "temp_directory": str(folder / "spilled"),
            }
        )
        self._connection, self._folder = connection, folder
        self._finalizer = weakref.finalize(self, _close, connection, folder)
        limit = _half_of_free_memory(connection) if _limit.get() is None else _parse_size(_limit.get())
        self._limit = limit
        ((cores,),) = connection.execute("SELECT current_setting('threads')").fetchall()
        self._links: list[str] = []
        for number, file in enumerate(files):
            keys = [] if root is None else partition_folders(file, root)
            link = folder.joinpath("files", *keys, f"{number}.parquet")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.absolute())
            self._links.append(str(link))
        for name, value in (
            ("memory_limit", f"'{limit}B'"),
            ("threads", str(max(1, min(cores, limit // _BYTES_PER_THREAD)))),
            ("allowed_paths", _literal(self._links)),
            ("enable_external_access", "false"),
            ("python_scan_all_frames", "false"),
            ("TimeZone", "'UTC'"),
            ("lock_configuration", "true"),
        ):
            connection.execute(f"SET {name} = {value}")

    def new_name(self) -> str:
        """Return a name for a table or a view."""
        self._num_names += 1
        return f"table_{self._num_names}"

    def parquet(self, files: Sequence[Path]) -> str:
        """Return what a query selects from to read some of the Parquet files.

        Beside their columns there are `row`, from 0 in each file, and `part`, the place of the file.
        """
        places = [self._files.index(file) for file in files]
        links = [self._links[place] for place in places]
        partitioned = any("=" in part for part in links[0].removeprefix(str(self._folder)).split("/"))
        part = "0" if len(files) == 1 else rf"regexp_extract(filename, '{_LINK.pattern}$', 1)::INTEGER - {places[0]}"
        return (
            f"(SELECT *, {part} AS part, file_row_number AS row FROM read_parquet({_literal(links)}, file_row_number = "
            f"true, filename = true, hive_partitioning = {partitioned}, hive_types_autocast = false))"
        )

    def run(self, query: str) -> None:
        """Run a statement."""
        with self._refusing():
            self._connection.execute(query)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a short result."""
        with self._refusing():
            return list(self._connection.execute(query).fetchall())

    def blocks(self, query: str) -> Generator[Any, None, None]:
        """Yield a long result as Arrow record batches."""
        with self._refusing(), closing(self._connection.sql(query).to_arrow_reader(_ROWS_AT_ONCE)) as reader:
            yield from reader

    def add_table(self, name: str, blocks: Iterable[Any], where: str = "a table") -> None:
        """Make a table from Arrow tables or record batches, of which there is at least one; `where` names it."""
        made = False
        for block in blocks:
            into = f"INSERT INTO {name}" if made else f"CREATE TABLE {name} AS"
            try:
                self._connection.register("block", block)
                self.run(f"{into} SELECT * FROM block")
            except duckdb.NotSupportedError as error:  # such as decimals of more than 38 digits
                raise UserError(f"{where}: {one_line(error)}; make its columns numbers, text or times") from error
            self._connection.unregister("block")
            made = True

    def close(self) -> None:
        """Free the memory and delete the private folder now."""
        self._finalizer()

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except duckdb.OutOfMemoryException as error:
            limit = f"{setting('memory_limit')} of {self._limit >> 20} MiB"
            raise UserError(
                f"the tables need more than the {limit} and the room in {tempfile.gettempdir()} "
                f"({one_line(error).partition(' Possible solutions')[0]}); give more memory, or free some space there, "
                f"or name a larger folder by TMPDIR"
            ) from error
        except duckdb.Error as error:
            if not self._files:
                raise
            place = self._place_of_damage(str(error))
            file = self._files[place]
            found = one_line(error).partition("Error: ")[2] or one_line(error)
            found = found.replace(self._links[place], file.name)
            raise UserError(f"{file}: not a readable Parquet file ({found}); write it again") from error

    def _place_of_damage(self, message: str) -> int:
        """Return the place of the file that an error is about, even if the message does not name it."""
        if named := _LINK.search(message):
            return int(named[1])
        for place in range(len(self._links) - 1):
            try:
                self._connection.execute(
                    f"SELECT max(hash(COLUMNS(*))) FROM read_parquet({quoted_text(self._links[place])})"
                )
            except duckdb.Error:
                return place
        return len(self._links) - 1


def quoted_name(name: str) -> str:
    """Return the name of a column as a query has it."""
    return '"' + name.replace('"', '""') + '"'


def quoted_text(text: str) -> str:
    """Return a text as a query has it."""
    return "'" + text.replace("'", "''") + "'"


def _literal(texts: Sequence[str]) -> str:
    return f"[{', '.join(map(quoted_text, texts))}]"


def _close(connection: Any, folder: Path) -> None:
    connection.close()
    shutil.rmtree(folder, ignore_errors=True)
    if _TRIM is not None:
        _TRIM(0)


def partition_folders(file: Path, root: Path) -> list[str]:
    """Return the folders `key=value` between a folder and a file below it."""
    return [part for part in file.relative_to(root).parent.parts if "=" in part[1:]]


def _parse_size(size: object) -> int:
    check_type(setting("memory_limit"), size, str, "a size such as 4GB")
    found = _SIZE.fullmatch(str(size))
    if found is None:
        raise UserError(f"{setting('memory_limit')} is {shown(size)}: give a size such as 4GB or 500MB")
    count = int(float(found[1]) * (1024 if found[3] else 1000) ** (" KMGT".index(found[2].upper())))
    if count < _LEAST_BYTES:
        raise UserError(f"{setting('memory_limit')} is {shown(size)}: give at least {_LEAST_BYTES >> 20}MiB")
    return count


def _half_of_free_memory(connection: Any) -> int:
    (own,) = connection.execute("SELECT current_setting('memory_limit')").fetchone()
    free = [_parse_size(own) / _DUCKDB_SHARE]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    except OSError:  # not Linux
        pass
    return max(_LEAST_BYTES, int(min(free)) // 2)
