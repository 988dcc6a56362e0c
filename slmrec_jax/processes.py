"""Communication between the processes that train one run together.

The processes are joined by `jax.distributed`. Each runs the same code on the same data, and they synchronise in every
transfer. Decisions that depend on local state (a clock, a signal, a file) must therefore be made by the first process
or by all together. With one process, nothing here waits.
"""

import json
import platform
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Shaped

from slmrec_jax.errors import RefusedElsewhere, UserError

Returned = TypeVar("Returned")

_LEAST_BYTES = 256
"""The minimum message size. Messages are padded to powers of two, since each length needs a separate program."""


def count() -> int:
    """Return the number of processes."""
    return int(jax.process_count())


def index() -> int:
    """Return the index of this process, from 0."""
    return int(jax.process_index())


def is_first() -> bool:
    """Return whether this process is the one that writes files and talks to the user."""
    return index() == 0


def gathered(value: Any) -> list[Any]:
    """Gather the values of all processes, in process order. All processes must call this function.

    Args:
        value: Numbers, strings, `None`, and lists and mappings of these, as in JSON.
    """
    if count() == 1:
        return [value]
    text = json.dumps(value).encode()
    sizes = _from_all(np.int32(len(text)))
    padded = np.zeros(max(_LEAST_BYTES, 1 << (int(sizes.max()) - 1).bit_length()), np.uint8)
    padded[: len(text)] = np.frombuffer(text, np.uint8)
    return [json.loads(bytes(row[:size])) for row, size in zip(_from_all(padded), sizes, strict=True)]


def agreed(value: Any) -> Any:
    """Return the first process's value in all processes. All processes must call this function."""
    return gathered(value)[0]


def wait_for_all() -> None:
    """Wait until every process has called this function."""
    gathered(None)


def in_first(action: Callable[[], Returned]) -> Returned | None:
    """Call a function only in the first process, and return its result there and `None` in the others.

    Raises:
        UserError: The function raises it in the first process; the other processes raise `RefusedElsewhere`.
        OSError: Likewise.
    """
    return in_all(lambda: action() if is_first() else None)


def in_all(action: Callable[[], Returned]) -> Returned:
    """Call a function in every process; if it fails in one, it fails in all. The function must not wait for others.

    Raises:
        UserError: The function raises it in some process; the other processes raise `RefusedElsewhere`.
        OSError: Likewise.
    """
    if count() == 1:
        return action()
    refusal: UserError | OSError | None = None
    try:
        result = action()
    except (UserError, OSError) as error:
        refusal = error
    said = gathered(None if refusal is None else str(refusal))
    if all(text == said[0] for text in said) and not is_first():
        refusal = None  # the first process reports it for all
    if refusal is not None:
        raise refusal
    for text in said:
        if text is not None:
            raise RefusedElsewhere(text)
    return result


def raised_by_all(error: UserError) -> UserError:
    """Return the error to raise in this process when all processes fail: only the first process reports the reason."""
    return error if is_first() else RefusedElsewhere(str(error))


def on_own_host() -> int:
    """Return the number of processes on this host, including this one. All processes must call this function."""
    hosts = gathered(host())
    return hosts.count(hosts[index()])


def host() -> list[str]:
    """Return an identifier of this machine."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux
        boot = ""
    return [platform.node(), boot]


def own_rows(num_rows: int) -> slice:
    """Return this process's share of `num_rows` rows."""
    return _shares(num_rows)[index()]


def gathered_rows(own: Shaped[np.ndarray, "own ..."], num_rows: int) -> Shaped[np.ndarray, "rows ..."]:
    """Concatenate the shares of all processes, each of which passes its own. All processes must call this function."""
    if count() == 1:
        return own
    shares = _shares(num_rows)
    padded = np.zeros((max(share.stop - share.start for share in shares), *own.shape[1:]), own.dtype)
    padded[: len(own)] = own
    bits = _from_all(padded.reshape(-1).view(np.uint8))  # JAX would round 64-bit numbers
    found = [row.view(own.dtype).reshape(padded.shape) for row in bits]
    return np.concatenate([rows[: share.stop - share.start] for rows, share in zip(found, shares, strict=True)])


def _shares(num_rows: int) -> list[slice]:
    bounds = np.linspace(0, num_rows, count() + 1).astype(np.int64)
    return [slice(int(start), int(stop)) for start, stop in pairwise(bounds)]


def _from_all(array: Any) -> np.ndarray:
    return np.ascontiguousarray(multihost_utils.process_allgather(array))
