"""Transfers between the devices of a mesh, as named in the text of a compiled program."""

import math
import re
from typing import NamedTuple

OPERATIONS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_COUNTED = re.compile(r"replica_groups=\[\d+,(\d+)\]")
_BY_AXES = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}")
_PAIRS = re.compile(r"source_target_pairs=")


class Collective(NamedTuple):
    """A transfer between devices."""

    operation: str
    num_bytes: int
    """The bytes of the result on each device."""
    num_devices: int
    """The number of devices in a group that communicates; 0 means all devices."""

    @property
    def sent_bytes(self) -> float:
        """The bytes that each device sends, and receives, in a ring."""
        others = (self.num_devices - 1) / self.num_devices if self.num_devices else 1.0
        if self.operation == "all-reduce":
            return 2 * others * self.num_bytes
        if self.operation == "reduce-scatter":
            return float(max(1, self.num_devices - 1) * self.num_bytes)
        return float(self.num_bytes) if self.operation == "collective-permute" else others * self.num_bytes


def operation_of(name: str) -> str | None:
    """Return the kind of transfer that an operation starts or performs; `None` if it is not a transfer."""
    return next((each for each in OPERATIONS if name.startswith(each)), None)


def group_size(attributes: str) -> int:
    """Return the number of devices of a group; 0, which means all, if the attributes do not give it."""
    if listed := _LISTED.search(attributes):
        return len(listed[1].split(","))
    if counted := _COUNTED.search(attributes):
        return int(counted[1])
    if by_axes := _BY_AXES.search(attributes):
        sizes = dict(re.findall(r"('\w+')=(\d+)", by_axes[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'\w+'", by_axes[2]))
    return 2 if _PAIRS.search(attributes) else 0
