"""A stack machine that walks a pickle and builds inert records, without importing, calling or executing anything.

A pickle is a program. Here it may only use the few opcodes with which arrays and attributes are written, and names on
the caller's list. Anything else is rejected, with its position.
"""

import io
import pickletools
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any, NamedTuple

from slmrec_jax.data.readers.refusals import Malformed, quoted

LIST_OPCODES = frozenset(("EMPTY_LIST", "APPEND", "APPENDS"))
_EXTRA_OPCODES = LIST_OPCODES | {"BINPERSID"}
"""Opcodes that some kinds of files need in addition to those of arrays and attributes. The last one is for
references."""


class PickleKind(NamedTuple):
    """The names and opcodes that pickles of one kind may use."""

    what: str
    """The pickled value, for error messages."""
    names: Container[tuple[str, str]]
    """The (module, name) pairs that the pickle may refer to."""
    opcodes: frozenset[str] = frozenset()
    """The additional opcodes, besides those of arrays and attributes."""
    max_opcodes: int | None = 10_000
    """The maximum number of opcodes. Arrays take a few hundred, however large they are. For lists, only the file size
    limits the number."""


class Name(NamedTuple):
    """A class or function named in the file. It is never looked up."""

    module: str
    name: str


class Reference(NamedTuple):
    """The key of an object outside the pickle. It is never followed here."""

    key: Any


@dataclass(eq=False, slots=True)
class Call:
    """A call of `name` with `arguments` in the file, and the state that the file gives to the result."""

    name: Name
    arguments: tuple[Any, ...]
    state: Any = None


def decode(data: bytes, kind: PickleKind, start: int = 0) -> tuple[Any, int]:
    """Walk a pickle to its end, and return a record of its value and the position after it.

    The value is a tree of plain values, `Name`, `Call` and `Reference`. Parts may be shared or recursive, so callers
    must only look at what they expect. The pickle starts at byte `start`, and the file may continue after it. Time and
    memory are linear in the file's size; memory is at most 160 bytes per byte of the file.

    Raises:
        Malformed: The pickle is truncated, or uses an opcode or name that is not allowed.
    """
    stream = io.BytesIO(data)
    stream.seek(start)
    machine = _Machine([], [], {}, kind)
    forbidden = _EXTRA_OPCODES - kind.opcodes
    for _ in range(len(data) + 1 if kind.max_opcodes is None else kind.max_opcodes):
        position = stream.tell()
        try:
            code = stream.read(1)
            if code == b".":
                return machine.pop(), position + 1
            if code not in _OPCODES:
                found = f"{code.decode('latin-1')!a} is not an opcode"
                raise Malformed(found if code else "the file ends in the middle")
            name, read = _OPCODES[code]
            if name not in _ACTIONS or name in forbidden:
                raise Malformed(f"the opcode {name}, which {kind.what} does not need")
            argument, action = read(stream) if read else None, _ACTIONS[name]
            if action is not None:
                machine.stack.append(action(machine, argument))
            elif name == "MARK":
                machine.marks.append(len(machine.stack))
        except Malformed as fault:
            raise Malformed(f"byte {position}: {fault}") from None
        except ValueError as error:  # raised by pickletools for truncated or badly encoded arguments
            raise Malformed(f"byte {position}: {quoted(str(error))}") from None
    raise Malformed(f"byte {stream.tell()}: more than {kind.max_opcodes} opcodes, which {kind.what} does not need")


@dataclass
class _Machine:
    stack: list[Any]
    marks: list[int]
    memo: dict[int, Any]
    kind: PickleKind

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Malformed("takes a value that is not there")
        return self.stack.pop()

    def pop_many(self, count: int) -> list[Any]:
        return [self.pop() for _ in range(count)][::-1]

    def pop_to_mark(self) -> list[Any]:
        if not self.marks:
            raise Malformed("goes back to a mark that is not there")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values


# An action pops the arguments of an opcode from the stack, and returns the value to push.


def _update(machine: _Machine, values: list[Any]) -> Any:
    target, keys = machine.pop(), values[::2]
    if not isinstance(target, dict) or len(values) % 2 or not all(isinstance(key, str) for key in keys):
        raise Malformed("attributes are not pairs of a name and a value")
    target.update(zip(keys, values[1::2], strict=True))
    return target


def _extend(machine: _Machine, values: list[Any]) -> Any:
    target = machine.pop()
    if not isinstance(target, list):
        raise Malformed("appends to a value that is not a list")
    target.extend(values)
    return target


def _get(machine: _Machine, index: int) -> Any:
    if index not in machine.memo:
        raise Malformed(f"recalls value {index}, which was never kept")
    return machine.memo[index]


def _put(machine: _Machine, index: int | None) -> Any:
    value = machine.pop()
    machine.memo[len(machine.memo) if index is None else index] = value
    return value


def _name(machine: _Machine, module: Any, name: Any) -> Name:
    if not isinstance(name, str) or not isinstance(module, str):
        raise Malformed("a name is not text")
    if (module, name) not in machine.kind.names:
        raise Malformed(f"asks for {quoted(f'{module}.{name}')}, which {machine.kind.what} does not need")
    return Name(module, name)


def _call(machine: _Machine) -> Call:
    name, arguments = machine.pop_many(2)
    if not isinstance(name, Name) or not isinstance(arguments, tuple):
        raise Malformed("calls a value that is not a name on the list")
    return Call(name, arguments)


def _set_state(machine: _Machine) -> Call:
    target, state = machine.pop_many(2)
    if not isinstance(target, Call) or target.state is not None:
        raise Malformed("gives a state to a value that takes none")
    target.state = state
    return target


_ACTIONS: dict[str, Callable[[_Machine, Any], Any] | None] = {
    **dict.fromkeys(("PROTO", "FRAME", "MARK")),  # these push nothing
    **dict.fromkeys(
        (
            *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
            *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINSTRING", "BINSTRING"),
            *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        ),
        lambda machine, value: value,
    ),
    "NONE": lambda machine, _: None,
    "NEWTRUE": lambda machine, _: True,
    "NEWFALSE": lambda machine, _: False,
    "EMPTY_TUPLE": lambda machine, _: (),
    "EMPTY_DICT": lambda machine, _: {},
    "EMPTY_LIST": lambda machine, _: [],
    "TUPLE": lambda machine, _: tuple(machine.pop_to_mark()),
    "TUPLE1": lambda machine, _: tuple(machine.pop_many(1)),
    "TUPLE2": lambda machine, _: tuple(machine.pop_many(2)),
    "TUPLE3": lambda machine, _: tuple(machine.pop_many(3)),
    "SETITEM": lambda machine, _: _update(machine, machine.pop_many(2)),
    "SETITEMS": lambda machine, _: _update(machine, machine.pop_to_mark()),
    "APPEND": lambda machine, _: _extend(machine, machine.pop_many(1)),
    "APPENDS": lambda machine, _: _extend(machine, machine.pop_to_mark()),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _get),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), _put),
    "GLOBAL": lambda machine, names: _name(machine, *names),
    "STACK_GLOBAL": lambda machine, _: _name(machine, *machine.pop_many(2)),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda machine, _: _call(machine)),
    "BUILD": lambda machine, _: _set_state(machine),
    "BINPERSID": lambda machine, _: Reference(machine.pop()),
}


def _read_names(stream: io.BytesIO) -> tuple[str, str]:
    # The reader of pickletools is not used: it interprets escapes, unlike any unpickler, and warns about bad ones.
    module, name = stream.readline(), stream.readline()
    if not name.endswith(b"\n"):
        raise Malformed("the file ends in the middle of a name")
    return module[:-1].decode(), name[:-1].decode()


_OPCODES: dict[bytes, tuple[str, Callable[[io.BytesIO], Any] | None]] = {
    opcode.code.encode("latin-1"): (opcode.name, opcode.arg.reader if opcode.arg else None)
    for opcode in pickletools.opcodes
} | {b"c": ("GLOBAL", _read_names)}
