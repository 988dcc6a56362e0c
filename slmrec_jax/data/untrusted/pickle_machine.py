"""A stack machine that walks a pickle and builds inert records: it imports, calls and runs nothing.

A pickle is a program. Here it may use the few opcodes that arrays and attributes are written with; a name that it asks
for must be on the caller's list. Whatever else it asks for is refused with its place.
"""

import io
import pickletools
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

_STOP = b"."

LISTS = frozenset(("EMPTY_LIST", "APPEND", "APPENDS"))
REFERENCES = frozenset(("BINPERSID",))
"""Opcodes that a kind of file may need beyond those of arrays and attributes."""


class Malformed(Exception):
    """What is wrong with the file, and at which byte if that is known."""


class Kind(NamedTuple):
    """What the pickles of one kind may use."""

    what: str
    """What it is a pickle of, for error lines."""
    names: Container[tuple[str, str]]
    """The (module, name) pairs that it may ask for."""
    opcodes: frozenset[str] = frozenset()
    """What it may use beyond arrays and attributes."""
    max_opcodes: int | None = 10_000
    """What arrays take is a few hundred, however large they are. Nothing bounds the opcodes of lists but the file."""


class Name(NamedTuple):
    """A class or function that the file names; never looked up."""

    module: str
    name: str


class Reference(NamedTuple):
    """What the file says of a thing that is kept outside the pickle; never followed here."""

    key: Any


@dataclass(eq=False, slots=True)
class Call:
    """What calling `name` with `arguments` would have made, and the state it would have been given."""

    name: Name
    arguments: tuple[Any, ...]
    state: Any = None


class Decoded(NamedTuple):
    """What a pickle would have made, and the byte after its last."""

    value: Any
    end: int


def decode(data: bytes, kind: Kind) -> Any:
    """Walks the pickle to its end and returns what it would have made.

    Time is linear in the file's size; so is memory, at 160 bytes for each of the file's at the very most.

    Args:
        data: The file.
        kind: What it may use.

    Returns:
        A tree of plain values, `Name`, `Call` and `Reference`. Parts may be shared, or hold themselves: look at what
        is expected and at nothing else.

    Raises:
        Malformed: It is truncated, or asks for an opcode or a name that is not on the list.
    """
    return decode_at(data, 0, kind).value


def decode_at(data: bytes, start: int, kind: Kind) -> Decoded:
    """As `decode`, for a pickle that starts at a byte of the file and has more of the file after it."""
    stream = io.BytesIO(data)
    stream.seek(start)
    machine = _Machine([], [], {}, kind)
    for _ in range(len(data) + 1 if kind.max_opcodes is None else kind.max_opcodes):
        position = stream.tell()
        try:
            code = stream.read(1)
            if code == _STOP:
                return Decoded(machine.pop(), position + 1)
            step = _STEPS.get(code)
            if step is None or (step.extra and step.name not in kind.opcodes):
                _refuse_opcode(code, kind)
            step.action(machine, step.read(stream) if step.read else None)
        except Malformed as fault:
            raise Malformed(f"byte {position}: {fault}") from None
        except ValueError as error:  # the readers of pickletools, for truncated or badly encoded arguments
            raise Malformed(f"byte {position}: {quoted(str(error))}") from None
    raise Malformed(f"byte {stream.tell()}: more than {kind.max_opcodes} opcodes, which {kind.what} does not need")


def quoted(text: str) -> str:
    """Text from a file, fit for an error line: short, and without control characters."""
    return ascii(text[:80])


@dataclass
class _Machine:
    stack: list[Any]
    marks: list[int]
    memo: dict[int, Any]
    kind: Kind

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Malformed("takes a value that is not there")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        if not self.marks:
            raise Malformed("goes back to a mark that is not there")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values


def _refuse_opcode(code: bytes, kind: Kind) -> NoReturn:
    if code == b"":
        raise Malformed("the file ends in the middle")
    text = code.decode("latin-1")
    known = [opcode.name for opcode in pickletools.opcodes if opcode.code == text]
    raise Malformed(f"the opcode {known[0]}, which {kind.what} does not need" if known else f"{text!a} is no opcode")


def _read_names(stream: io.BytesIO) -> tuple[str, str]:
    # Not the reader of pickletools: it interprets escapes, as no unpickler does, and warns of bad ones.
    module, name = stream.readline(), stream.readline()
    if not name.endswith(b"\n"):
        raise Malformed("the file ends in the middle of a name")
    return module[:-1].decode(), name[:-1].decode()


def _push(machine: _Machine, value: Any) -> None:
    machine.stack.append(value)


def _constant(make: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(make())


def _mark(machine: _Machine, _: Any) -> None:
    machine.marks.append(len(machine.stack))


def _tuple(machine: _Machine, _: Any) -> None:
    machine.stack.append(tuple(machine.pop_to_mark()))


def _tuple_of(size: int) -> Callable[[_Machine, Any], None]:
    def action(machine: _Machine, _: Any) -> None:
        values = [machine.pop() for _ in range(size)]
        machine.stack.append(tuple(reversed(values)))

    return action


def _set_items(machine: _Machine, _: Any) -> None:
    values = machine.pop_to_mark()
    _fill(machine, values)


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    _fill(machine, [key, value])


def _fill(machine: _Machine, values: list[Any]) -> None:
    target = machine.pop()
    keys = values[::2]
    if not isinstance(target, dict) or len(values) % 2 or not all(isinstance(key, str) for key in keys):
        raise Malformed("attributes are not pairs of a name and a value")
    target.update(zip(keys, values[1::2], strict=True))
    machine.stack.append(target)


def _append(machine: _Machine, _: Any) -> None:
    value = machine.pop()
    _extend(machine, [value])


def _appends(machine: _Machine, _: Any) -> None:
    values = machine.pop_to_mark()
    _extend(machine, values)


def _extend(machine: _Machine, values: list[Any]) -> None:
    target = machine.pop()
    if not isinstance(target, list):
        raise Malformed("appends to what is not a list")
    target.extend(values)
    machine.stack.append(target)


def _get(machine: _Machine, index: int) -> None:
    if index not in machine.memo:
        raise Malformed(f"recalls value {index}, which was never kept")
    machine.stack.append(machine.memo[index])


def _put(machine: _Machine, index: int | None) -> None:
    value = machine.pop()
    machine.memo[len(machine.memo) if index is None else index] = value
    machine.stack.append(value)


def _global(machine: _Machine, names: tuple[str, str]) -> None:
    _push_name(machine, *names)


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise Malformed("a name is not text")
    _push_name(machine, module, name)


def _push_name(machine: _Machine, module: str, name: str) -> None:
    if (module, name) not in machine.kind.names:
        raise Malformed(f"asks for {quoted(f'{module}.{name}')}, which {machine.kind.what} does not need")
    machine.stack.append(Name(module, name))


def _call(machine: _Machine, _: Any) -> None:
    arguments, name = machine.pop(), machine.pop()
    if not isinstance(name, Name) or not isinstance(arguments, tuple):
        raise Malformed("calls what is not a name on the list")
    machine.stack.append(Call(name, arguments))


def _build(machine: _Machine, _: Any) -> None:
    state, target = machine.pop(), machine.pop()
    if not isinstance(target, Call) or target.state is not None:
        raise Malformed("gives a state to what takes none")
    target.state = state
    machine.stack.append(target)


def _reference(machine: _Machine, _: Any) -> None:
    machine.stack.append(Reference(machine.pop()))


_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, version: None,
    "FRAME": lambda machine, length: None,
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), _push),
    **dict.fromkeys(("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINSTRING", "BINSTRING"), _push),
    **dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"), _push),
    "NONE": _constant(lambda: None),
    "NEWTRUE": _constant(lambda: True),
    "NEWFALSE": _constant(lambda: False),
    "EMPTY_TUPLE": _constant(tuple),
    "EMPTY_DICT": _constant(dict),
    "EMPTY_LIST": _constant(list),
    "MARK": _mark,
    "TUPLE": _tuple,
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "APPEND": _append,
    "APPENDS": _appends,
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _get),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), _put),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _call),
    "BUILD": _build,
    "BINPERSID": _reference,
}
_READERS: dict[str, Callable[[io.BytesIO], Any]] = {"GLOBAL": _read_names}


class _Step(NamedTuple):
    name: str
    read: Callable[[io.BytesIO], Any] | None
    action: Callable[[_Machine, Any], None]
    extra: bool


_STEPS = {
    opcode.code.encode("latin-1"): _Step(
        opcode.name,
        _READERS.get(opcode.name, opcode.arg.reader) if opcode.arg else None,
        _ACTIONS[opcode.name],
        opcode.name in LISTS | REFERENCES,
    )
    for opcode in pickletools.opcodes
    if opcode.name in _ACTIONS
}
