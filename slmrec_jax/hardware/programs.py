"""Costs of a compiled program, counted from its text: kernels, memory traffic, operations of products, and collectives.

The model is that each kernel reads its operands and writes its results once, with three exceptions. A gather reads only
its rows, each as often as it is requested, but no more than a whole table if that fits in the cache. A scatter writes
only its rows. Data in a TPU core's own memory are not read from the device's memory.

The time of a kernel is the maximum of three: its bytes divided by the bandwidth, the operations of its matrix products
divided by their rate, and the launch time. A transfer takes its latency plus the time of the bytes that a device sends
over its link, even if kernels run at the same time. The sum is an estimate: few kernels reach these rates, and other
arithmetic is not counted.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from slmrec_jax.hardware.collectives import Collective, group_size, operation_of

BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s64": 8, "u64": 8, "f64": 8, "c64": 8}
"""The bytes of an element by type. Other types have four."""

FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "copy-done", "slice-done",
    "async-done", "all-reduce-done", "all-gather-done", "collective-permute-done", "reduce-scatter-done",
    "all-to-all-done", "opt-barrier", "partition-id",
}  # fmt: skip
"""The operations that do not run a separate kernel."""

FREE_CALLS = {"AssumeGatherIndicesInBound", "AllocateBuffer", "ConcatBitcast"}
"""The custom calls that do not run a kernel either."""

ROW_READERS = ("gather", "dynamic-slice", "slice")
ROW_WRITERS = ("scatter", "dynamic-update-slice")

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.+?) ([a-z][a-z0-9\-]*)\((.*)$")
_ARRAY = re.compile(r"\b([a-z]+[0-9]*[a-z0-9]*)\[([\d,]*)\](?:\{([^}]*)\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")


class Instruction(NamedTuple):
    """A line of a program's text."""

    name: str
    shape: str
    operation: str
    operands: tuple[str, ...]
    attributes: str
    root: bool


class Speed(NamedTuple):
    """The hardware rates that an estimate is based on."""

    bandwidth: float
    """The memory bandwidth in bytes per second."""
    operations: float
    """Matrix-product operations per second, at the precision of the program."""
    launch_seconds: float
    """The minimum time of a kernel."""
    cache_bytes: int
    """The size of the cache in bytes."""
    link: float = math.inf
    """The bytes per second that a device sends to the other devices of a mesh."""
    meet_seconds: float = 0.0
    """The minimum time (latency) of a transfer."""


NO_SPEED = Speed(math.inf, math.inf, 0.0, 0)
"""The speed for callers that only need counts: everything takes no time."""


class Cost(NamedTuple):
    """The counts of a program or a part of it."""

    kernels: int = 0
    num_bytes: int = 0
    operations: int = 0
    seconds: float = 0.0
    collectives: tuple[Collective, ...] = ()

    def plus(self, other: "Cost", times: int = 1) -> "Cost":
        """Add another cost, multiplied by `times`."""
        return Cost(
            self.kernels + times * other.kernels,
            self.num_bytes + times * other.num_bytes,
            self.operations + times * other.operations,
            self.seconds + times * other.seconds,
            self.collectives + times * other.collectives,
        )


Computations = Mapping[str, Mapping[str, Instruction]]


def program_cost(text: str, speed: Speed) -> tuple[Cost, Cost]:
    """Return the cost of a program, and the cost of one iteration of its loop of unknown length.

    The first cost also includes one iteration of that loop. The training program is such a loop over steps.
    """
    computations, entry = _parse(text)
    loops = (line for line in computations.get(entry, {}).values() if _trips(line, computations) == 0)
    body = next((_called(line).get("body", "") for line in loops), "")
    return _cost_of(computations, entry, speed), _cost_of(computations, body, speed)


def _parse(text: str) -> tuple[Computations, str]:
    computations: dict[str, dict[str, Instruction]] = {}
    current, entry = "", ""
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            current = head[2]
            computations[current] = {}
            entry = current if head[1] else entry
        elif found := _LINE.match(line):
            root, name, shape, operation, rest = found.groups()
            operands, attributes = _split(rest)
            names = tuple(_NAME.findall(operands))
            computations[current][name] = Instruction(name, shape, operation, names, operands + attributes, bool(root))
    return computations, entry


def _split(rest: str) -> tuple[str, str]:
    """Split the text after an opening parenthesis at the matching closing one."""
    depth = 1
    for place, letter in enumerate(rest):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return rest[:place], rest[place:]
    return rest, ""


def _cost_of(computations: Computations, name: str, speed: Speed) -> Cost:
    total = Cost()
    lines = computations.get(name, {})
    for line in lines.values():
        called = _called(line)
        if line.operation == "while":
            total = total.plus(_cost_of(computations, called.get("body", ""), speed), _trips(line, computations) or 1)
        elif line.operation in ("call", "conditional") or (line.operation == "async-start" and "calls" in called):
            branches = [_cost_of(computations, branch, speed) for branch in called.values() if branch in computations]
            total = total.plus(max(branches, key=lambda cost: (cost.seconds, cost.num_bytes), default=Cost()))
        elif line.operation not in FREE and not any(f'"{free}"' in line.attributes for free in FREE_CALLS):
            total = total.plus(_kernel_cost(line, lines, computations, speed))
    return total


def _kernel_cost(line: Instruction, lines: Mapping[str, Instruction], computations: Computations, speed: Speed) -> Cost:
    inner = computations.get(_called(line).get("calls", ""), {})
    operation = operation_of(line.operation)
    operations = sum(_operations(each, inner) for each in inner.values()) + _operations(line, lines)
    if line.operation in ("copy-start", "slice-start"):  # into or out of a core's memory; the smaller array moves
        arrays = [found[0] for found in _ARRAY.finditer(line.shape.replace("S(1)", "")) if found[2]]
        num_bytes = min(map(_size, arrays), default=0)
    else:
        num_bytes = _bytes_read(line, lines, inner, speed.cache_bytes) + _bytes_written(line, lines, inner)
    launch = 0.0 if line.operation.endswith("-start") else speed.launch_seconds  # runs in parallel with other kernels
    seconds = max(num_bytes / speed.bandwidth, operations / speed.operations, launch)
    if operation is None or group_size(line.attributes) == 1:  # a transfer with itself
        return Cost(1, num_bytes, operations, seconds)
    # A started operation returns its inputs in addition to its outputs, except for a sum. Data that a TPU core receives
    # into its own memory have crossed the link, too.
    arrays = [found[0] for found in _ARRAY.finditer(line.shape.replace("S(1)", ""))]
    outputs = arrays[len(line.operands) :] if len(arrays) > len(line.operands) else arrays
    moved = Collective(operation, sum(map(_size, outputs)), group_size(line.attributes))
    return Cost(1, num_bytes, operations, max(seconds, speed.meet_seconds + moved.sent_bytes / speed.link), (moved,))


def _bytes_read(
    line: Instruction, lines: Mapping[str, Instruction], inner: Mapping[str, Instruction], cache_bytes: int
) -> int:
    if "csr_sparse_dense" in line.attributes:  # one row of the table per entry
        columns, table = (lines[name].shape for name in (line.operands[1], line.operands[3]))
        entries, (_, dim) = math.prod(_dims(columns)), _dims(table)
        return entries * (4 + 4 + 4 * dim)
    total = 0
    parameters = {each.attributes.split(")")[0]: each.name for each in inner.values() if each.operation == "parameter"}
    for place, operand in enumerate(line.operands):
        if operand not in lines:
            continue
        size = _size(lines[operand].shape)
        if line.operation in ROW_READERS and place == 0:
            size = _size(line.shape)
        elif line.operation in ROW_WRITERS and place == 0:
            size = 0
        elif str(place) in parameters:
            uses = list(_uses(parameters[str(place)], inner))
            rows = [_row_bytes(use, name) for use, name in uses]
            if uses and None not in rows:
                read = sum(row for row in rows if row is not None)
                size = min(size, read) if size <= cache_bytes else read
        total += size
    return total


def _row_bytes(use: Instruction, name: str) -> int | None:
    """Return the bytes that a use reads of a table; `None` if it reads the whole table."""
    first = bool(use.operands) and use.operands[0] == name
    if use.operation in ROW_READERS and first:
        return _size(use.shape)
    return 0 if use.operation in ROW_WRITERS and first else None


def _bytes_written(line: Instruction, lines: Mapping[str, Instruction], inner: Mapping[str, Instruction]) -> int:
    writers = [each for each in inner.values() if each.operation in ROW_WRITERS and each.root] if inner else [line]
    for writer in writers:
        if writer.operation in ROW_WRITERS:
            update = writer.operands[2 if writer.operation == "scatter" else 1]
            return _size((inner or lines)[update].shape) if update in (inner or lines) else 0
    return _size(line.shape)


def _uses(name: str, lines: Mapping[str, Instruction]) -> Iterator[tuple[Instruction, str]]:
    """Yield the uses of a value, also through bitcasts, each with the name under which the value is used."""
    for line in lines.values():
        if name in line.operands:
            if line.operation == "bitcast":
                yield from _uses(line.name, lines)
            else:
                yield line, name


def _operations(line: Instruction, lines: Mapping[str, Instruction]) -> int:
    """Count the multiplications and additions of a matrix product; 0 for anything else."""
    product = line.operation in ("dot", "convolution") or "gemm" in line.attributes.split("backend_config")[0]
    if not product or line.operation in ("fusion", "call") or len(line.operands) < 2:
        return 0
    if any(operand not in lines for operand in line.operands[:2]):
        return 0
    left, right = (_dims(lines[operand].shape) for operand in line.operands[:2])
    out = math.prod(_dims(line.shape))
    axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", line.attributes)
    if axes:
        return 2 * out * math.prod(left[int(axis)] for axis in axes[1].split(",") if axis)
    # For B products (M × K) (K × N), the product of the factors' sizes is the result's size times B K².
    batch = math.prod(_dims(line.shape)[:-2])
    return 2 * out * round(math.sqrt(math.prod(left) * math.prod(right) / out / batch)) if out else 0


def _trips(line: Instruction, computations: Computations) -> int | None:
    """Return the number of iterations of a loop; 0 if it depends on values, `None` if the line is not a loop."""
    if line.operation != "while":
        return None
    known = re.search(r'known_trip_count[^}]*?"n":"(\d+)"', line.attributes)
    if known:
        return int(known[1])
    condition = computations.get(_called(line).get("condition", ""), {})
    limits = [each.attributes.split(")")[0] for each in condition.values() if each.operation == "constant"]
    compares = any(each.operation in ("compare", "fusion") for each in condition.values())
    return int(limits[0]) if compares and len(limits) == 1 and limits[0].isdigit() else 0


def _called(line: Instruction) -> dict[str, str]:
    """Return the computations that a line names, by attribute or, for branches, by position."""
    called = {found[1]: found[2] for found in _CALLED.finditer(line.attributes)}
    branches = re.search(r"branch_computations=\{([^}]*)\}", line.attributes)
    for place, name in enumerate(_NAME.findall(branches[1]) if branches else ()):
        called[f"branch {place}"] = name
    return called


def _dims(shape: str) -> tuple[int, ...]:
    found = _ARRAY.search(shape)
    return tuple(int(size) for size in found[2].split(",") if size) if found else ()


def _size(shape: str) -> int:
    """Return the bytes of a shape, or of all arrays of a tuple. A TPU's tiles count in full."""
    total = 0
    for kind, dims, layout in _ARRAY.findall(shape):
        if "S(1)" in layout:
            continue
        sizes = [int(size) for size in dims.split(",") if size]
        tile = re.search(r"T\((\d+),(\d+)\)", layout)
        order = [int(axis) for axis in layout.split(":")[0].split(",") if axis.isdigit()]
        if tile and len(order) >= 2:
            for axis, multiple in zip(order[:2], (int(tile[2]), int(tile[1])), strict=True):
                sizes[axis] = -(-sizes[axis] // multiple) * multiple
        total += BYTES.get(kind, 4) * math.prod(sizes)
    return total
