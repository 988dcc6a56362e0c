"""Queries of tables with an embedded DuckDB, within a memory limit; the excess is spilled to a private folder.

Only the given files can be read: access to other files and to the network is disabled, no extension is loaded, and all
queries are this package's own. DuckDB reads each file through a numbered link in the private folder, since the file's
own name could be a pattern or not be UTF-8.
"""

import ctypes
import re
import shutil
import tempfile
import weakref
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from slmrec_jax.data.readers.refusals import shown_value
from slmrec_jax.errors import TooLarge, UserError, check_type, one_line, setting

PREFIX = "slmrec-jax-"
"""The prefix of the names of private folders."""
_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""glibc's function that returns memory freed by DuckDB to the system; `None` with other C libraries."""
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT])(i?)B?\s*", re.IGNORECASE)
_LEAST_BYTES, _MOST_BYTES = 2**24, 2**50
_BYTES_PER_THREAD = 2**27
"""The bytes that a thread needs for data that it cannot spill."""
_ROWS_AT_ONCE = 2**20
_DUCKDB_SHARE = 0.8
"""The share of the memory of the machine or container that DuckDB uses by default."""
_FAULTS = (duckdb.Error, pa.ArrowException, OSError)
"""The exceptions of DuckDB. A result that is read block by block raises them as Arrow or system errors."""
_TOO_LARGE = ("Out of Memory Error", "No space left")

_limit: ContextVar[str | None] = ContextVar("memory_limit", default=None)


@contextmanager
def limited_memory(limit: str | None) -> Iterator[None]:
    """Set the memory limit, such as `4GB`, of engines made within the block; `None` means half of the free memory.

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
    """A separate DuckDB instance. Its tables and private folder are removed when it is no longer referenced."""

    def __init__(self, files: Sequence[Path] = ()) -> None:
        """Start DuckDB with the limit of `limited_memory`. `files` are the Parquet files to read."""
        self._files = list(files)
        self._num_names = 0
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        try:
            connection = duckdb.connect(
                config={
                    "allow_community_extensions": False,
                    "autoinstall_known_extensions": False,
                    "autoload_known_extensions": False,
                    "temp_directory": str(folder / "spilled"),
                }
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._connection, self._folder = connection, folder
        self._finalizer = weakref.finalize(self, _close, connection, folder)
        limit = _half_of_free_memory(connection) if _limit.get() is None else _parse_size(_limit.get())
        self._limit = limit
        ((cores,),) = connection.execute("SELECT current_setting('threads')").fetchall()
        self._links: list[str] = []
        for number, file in enumerate(files):
            link = folder / "files" / f"{number}.parquet"
            link.parent.mkdir(exist_ok=True)
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
        """Return a new name for a table or view."""
        self._num_names += 1
        return f"table_{self._num_names}"

    def parquet(
        self,
        files: Sequence[Path],
        columns: Mapping[str, int],
        values: Mapping[str, Sequence[str | None]] | None = None,
        parts: Sequence[int] | None = None,
    ) -> str:
        """Return a query for columns of Parquet files, which must have the same columns in the same order.

        Args:
            files: Some of the engine's files.
            columns: For each column of the result, its index in the files; names cannot be used, since DuckDB ignores
                case.
            values: Additional columns, with one text per file.
            parts: The number of each file, by default from 0, which becomes the column `part`. The column `row` counts
                the rows of each file from 0.
        """
        links = [self._links[self._files.index(file)] for file in files]
        # With these names, no column can hide the columns that DuckDB adds, `file_row_number` and `file_index`.
        names = ", ".join(f"column_{place}" for place in range(max(columns.values(), default=0) + 1))
        chosen = [f"column_{place} AS {quoted_name(name)}" for name, place in columns.items()]
        for name, texts in (values or {}).items():
            found = ["NULL::VARCHAR" if text is None else quoted_text(text) for text in texts]
            chosen.append(f"{_of_file(found)} AS {quoted_name(name)}")
        numbers = list(parts or range(len(files)))
        if numbers == list(range(numbers[0], numbers[0] + len(files))):
            part = f"file_index::BIGINT + {numbers[0]}"
        else:
            part = _of_file([str(number) for number in numbers])
        return (
            f"SELECT {', '.join(chosen)}, {part} AS part, file_row_number AS row FROM read_parquet("
            f"{_literal(links)}, hive_partitioning = false) AS file({names})"
        )

    def run(self, query: str) -> None:
        """Run a statement."""
        with self._refusing():
            self._connection.execute(query).fetchall()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a short result."""
        with self._refusing():
            return list(self._connection.execute(query).fetchall())

    def blocks(self, query: str) -> Generator[Any, None, None]:
        """Yield a long result as Arrow record batches."""
        with self._refusing(), closing(self._connection.sql(query).to_arrow_reader(_ROWS_AT_ONCE)) as reader:
            yield from reader

    def add_table(self, name: str, blocks: Iterable[Any], where: str = "a table") -> None:
        """Make a table from at least one Arrow table or record batch. `where` names it in errors."""
        made = False
        for block in blocks:
            into = f"INSERT INTO {name}" if made else f"CREATE TABLE {name} AS"
            try:
                self._connection.register("block", block)
                self._connection.execute(f"{into} SELECT * FROM block").fetchall()
            except _FAULTS as error:  # e.g. decimals of more than 38 digits, or text that is not UTF-8
                self._refuse_size(error)
                raise UserError(
                    f"{where}: {one_line(error)}; make its columns numbers, text or times; text must be UTF-8"
                ) from error
            self._connection.unregister("block")
            made = True

    def close(self) -> None:
        """Free the memory and delete the private folder."""
        self._finalizer()

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except _FAULTS as error:
            self._refuse_size(error)
            if not self._files:
                raise
            place = self._place_of_damage(str(error))
            file = self._files[place]
            found = one_line(error).partition("Error: ")[2] or one_line(error)
            found = found.replace(self._links[place], file.name)
            raise UserError(f"{file}: not a readable Parquet file ({found}); write it again") from error

    def _refuse_size(self, error: Exception) -> None:
        """Raise `TooLarge` if the cause is that a table fits neither in memory nor on disk."""
        if any(words in str(error) for words in _TOO_LARGE):
            limit = f"{setting('memory_limit')} of {self._limit >> 20} MiB"
            raise TooLarge(
                f"the tables need more than the {limit} and the room in {tempfile.gettempdir()} "
                f"({one_line(error).partition(' Possible solutions')[0]}); give more memory, or free some space there, "
                f"or set TMPDIR to a larger folder"
            ) from error

    def _place_of_damage(self, message: str) -> int:
        """Return the index of the file that an error is about, even if the message does not name it."""
        for place, link in enumerate(self._links):
            if link in message:
                return place
        for place, link in enumerate(self._links[:-1]):
            query = f"SELECT max(hash(COLUMNS(*))) FROM read_parquet({quoted_text(link)}, hive_partitioning = false)"
            try:
                self._connection.execute(query).fetchall()
            except duckdb.Error:
                return place
        return len(self._links) - 1


def quoted_name(name: str) -> str:
    """Quote a column name for a query."""
    return '"' + name.replace('"', '""') + '"'


def quoted_text(text: str) -> str:
    """Quote a text for a query."""
    return "'" + text.replace("'", "''") + "'"


def _literal(texts: Sequence[str]) -> str:
    return f"[{', '.join(map(quoted_text, texts))}]"


def _close(connection: Any, folder: Path) -> None:
    connection.close()
    shutil.rmtree(folder, ignore_errors=True)
    if _TRIM is not None:
        _TRIM(0)


def _of_file(values: Sequence[str]) -> str:
    """Return SQL for the value of a row's file, given one value per file."""
    return values[0] if len(values) == 1 else f"[{', '.join(values)}][file_index::BIGINT + 1]"


def _parse_size(size: object) -> int:
    check_type(setting("memory_limit"), size, str, "a size such as 4GB")
    given, found = f"{setting('memory_limit')} is {shown_value(size)}", _SIZE.fullmatch(str(size))
    if found is None:
        raise UserError(f"{given}: give a size such as 4GB or 500MB")
    count = float(found[1]) * (1024 if found[3] else 1000) ** (" KMGT".index(found[2].upper()))
    if count < _LEAST_BYTES:
        raise UserError(f"{given}: give at least {_LEAST_BYTES >> 20}MiB")
    if count > _MOST_BYTES:
        raise UserError(f"{given}: give at most {_MOST_BYTES >> 40}TiB")
    return int(count)


def _half_of_free_memory(connection: Any) -> int:
    (own,) = connection.execute("SELECT current_setting('memory_limit')").fetchone()
    free = [_parse_size(own) / _DUCKDB_SHARE]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    except OSError:  # not Linux
        pass
    return max(_LEAST_BYTES, int(min(free)) // 2)
