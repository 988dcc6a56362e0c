"""Devices that programs can be compiled for without being attached, and the rates stated by their makers.

A GPU's compiler needs a description of the card. The figures come from data sheets and OpenXLA's own descriptions
(`xla/backends/gpu/target_config/specs`). Rates are without sparsity.
"""

from collections.abc import Mapping
from typing import NamedTuple, cast

GIB = 2**30


class Rates(NamedTuple):
    """The rates that a time estimate is based on."""

    bandwidth: float
    """The bandwidth of the device's memory in bytes per second."""
    float32: float
    """Operations per second of float32 matrix products at full precision."""
    tensorfloat32: float
    """The same with factors rounded to 10 bits; equal to `float32` if there is no such format."""
    bfloat16: float
    launch_seconds: float
    """The minimum time of a kernel, an assumption."""
    link: float
    """The bytes per second that a device sends to others of its host or slice while receiving as many."""
    meet_seconds: float
    """The minimum time of a transfer, an assumption."""

    def of(self, precision: str) -> float:
        """Return the operations per second at a precision (`Config.precision`)."""
        rate: float = getattr(self, precision)
        return rate


class Card(NamedTuple):
    """The part of a GPU's description that differs between cards."""

    name: str
    capability: tuple[int, int]
    cores: int
    lanes: int
    """The number of floating-point units per core."""
    clock_ghz: float
    l2_bytes: int
    shared_bytes: int
    """The bytes of shared memory per core."""
    block_bytes: int
    """The maximum bytes of shared memory per block."""
    threads: int = 2048


class Slice(NamedTuple):
    """The names of a TPU and its topologies."""

    topologies: Mapping[int, str]
    """The topologies by number of chips, ascending."""
    accelerator: str


class Hardware(NamedTuple):
    """A device that can be planned for."""

    memory_bytes: int
    rates: Rates
    part: Card | Slice

    @property
    def cache_bytes(self) -> int:
        """The size of the cache that may hold a whole table. A TPU has none for gathered rows."""
        return self.part.l2_bytes if isinstance(self.part, Card) else 0


def _gpu_rates(bandwidth: float, float32: float, tensorfloat32: float, bfloat16: float, link: float) -> Rates:
    return Rates(bandwidth, float32, tensorfloat32, bfloat16, launch_seconds=2.5e-6, link=link, meet_seconds=1e-5)


def _tpu_rates(bandwidth: float, bfloat16: float, link: float) -> Rates:
    # A float32 product takes six bfloat16 products; three of them keep about as many bits as TF32.
    return Rates(bandwidth, bfloat16 / 6, bfloat16 / 3, bfloat16, launch_seconds=1e-6, link=link, meet_seconds=3e-6)


def _flat(name: str) -> Mapping[int, str]:
    """Return the topologies of a TPU whose chips form a plane."""
    return {4: f"{name}:2x2", 8: f"{name}:2x4", 16: f"{name}:4x4", 32: f"{name}:4x8", 64: f"{name}:8x8"}


_H100 = Card("NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 1.98, 52_428_800, 233_472, 232_448)

HARDWARE: Mapping[str, Hardware] = {
    "a100": Hardware(
        85_100_068_864,
        _gpu_rates(2.039e12, 19.5e12, 156e12, 312e12, 3.0e11),
        Card("NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 1.41, 41_943_040, 167_936, 166_912),
    ),
    "h100": Hardware(84_942_979_072, _gpu_rates(3.352e12, 67e12, 494e12, 989e12, 4.5e11), _H100),
    "h200": Hardware(
        151_397_597_184,
        _gpu_rates(4.8e12, 67e12, 494e12, 989e12, 4.5e11),
        _H100._replace(name="NVIDIA H200 141GB HBM3e"),
    ),
    "b200": Hardware(
        191_514_411_008,
        _gpu_rates(7.672e12, 75e12, 1.1e15, 2.25e15, 9.0e11),
        Card("NVIDIA B200", (10, 0), 148, 128, 1.965, 132_644_864, 233_472, 232_448),
    ),
    "l4": Hardware(
        23_609_475_072,
        _gpu_rates(3.0e11, 30.3e12, 60e12, 121e12, 3.2e10),
        Card("NVIDIA L4", (8, 9), 58, 128, 2.04, 50_331_648, 102_400, 101_376, threads=1536),
    ),
    "v5e": Hardware(16 * GIB, _tpu_rates(8.19e11, 197e12, 1.0e11), Slice(_flat("v5e"), "v5litepod-4")),
    "v5p": Hardware(
        95 * GIB,
        _tpu_rates(2.765e12, 459e12, 3.0e11),
        Slice({4: "v5p:2x2x1", 8: "v5p:2x2x2", 16: "v5p:2x2x4", 32: "v5p:2x4x4", 64: "v5p:4x4x4"}, "v5p-8"),
    ),
    "v6e": Hardware(32 * GIB, _tpu_rates(1.638e12, 918e12, 2.24e11), Slice(_flat("v6e"), "v6e-4")),
}
"""The devices by the name that `plan` accepts."""


KINDS: Mapping[str, str] = {
    "a100": "NVIDIA A100-SXM4-80GB",
    "h100": "NVIDIA H100 80GB HBM3",
    "h200": "NVIDIA H200",
    "b200": "NVIDIA B200",
    "l4": "NVIDIA L4",
    "v5e": "TPU v5 lite",
    "v5p": "TPU v5",
    "v6e": "TPU v6 lite",
}
"""JAX's full names of these devices (`device_kind`); other variants of a card have different rates."""


def describe(hardware: Hardware) -> str:
    """Return the description of a card that XLA's GPU compiler reads (a `GpuTargetConfigProto` as text)."""
    card = cast("Card", hardware.part)
    major, minor = card.capability
    fields = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 49_152,
        "shared_memory_per_core": card.shared_bytes,
        "threads_per_core_limit": card.threads,
        "core_count": card.cores,
        "fpus_per_core": card.lanes,
        "block_dim_limit_x": 2_147_483_647,
        "block_dim_limit_y": 65_535,
        "block_dim_limit_z": 65_535,
        "memory_bandwidth": int(hardware.rates.bandwidth),
        "l2_cache_size": card.l2_bytes,
        "clock_rate_ghz": card.clock_ghz,
        "device_memory_size": hardware.memory_bytes,
        "shared_memory_per_block_optin": card.block_bytes,
        "registers_per_core_limit": 65_536,
        "registers_per_block_limit": 65_536,
    }
    info = " ".join(f"{name}: {value}" for name, value in fields.items())
    return (
        f"gpu_device_info {{ {info} cuda_compute_capability {{ major: {major} minor: {minor} }} }} "
        f'platform_name: "CUDA" runtime_version {{ major: 12 minor: 8 }} dnn_version_info {{ major: 9 minor: 7 }} '
        f'device_description_str: "{card.name}"'
    )


def hardware_of_kind(kind: str) -> Hardware | None:
    """Return the device of a JAX kind, such as `NVIDIA H100 80GB HBM3` or `TPU v5 lite`; `None` if unknown."""
    return next((HARDWARE[name] for name, own in KINDS.items() if own == kind), None)
