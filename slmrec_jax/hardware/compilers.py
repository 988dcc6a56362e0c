"""Compilers for devices that are not attached. They are optional extras; an error names the command to install one."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import jax

from slmrec_jax.devices import Target
from slmrec_jax.errors import UserError, check_choice
from slmrec_jax.hardware.targets import HARDWARE, Hardware, Slice, describe

GPU_SHARE = 0.75
"""The share of a GPU's memory that JAX uses, unless XLA_PYTHON_CLIENT_MEM_FRACTION is set."""

TPU_SHARE = 0.97
"""The share of a TPU's memory that JAX uses; the runtime keeps about half a GiB."""

GPUS_OF_HOST = 8
"""The number of GPUs of a host that are connected by NVLink."""

TOOLKITS = ("/usr/local/cuda",)
"""Further folders that may contain a CUDA toolkit."""


DEVICES = ("cpu", *HARDWARE)
"""The names of the devices that can be planned for."""


def target_of(name: str, count: int = 1) -> Target:
    """Return the compilation target for devices of a kind in `DEVICES`; `cpu` is this machine's.

    Args:
        name: The kind.
        count: The number of devices. There are `GPUS_OF_HOST` GPUs per host.

    Raises:
        UserError: There is no device of that name, the number is not available, or the compiler is not installed or
            does not start.
    """
    check_choice("on", name, DEVICES)
    if name == "cpu":
        devices = tuple(jax.devices("cpu"))
        if count > len(devices):
            raise UserError(
                f"{count} CPU devices: this process has {len(devices)}; get more with "
                f"XLA_FLAGS=--xla_force_host_platform_device_count={count}"
            )
        return Target("cpu", devices)
    hardware = HARDWARE[name]
    return _tpu(name, hardware, hardware.part, count) if isinstance(hardware.part, Slice) else _gpu(hardware, count)


def _gpu(hardware: Hardware, count: int) -> Target:
    if not any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)):
        raise UserError(_missing("GPUs", "plan-cuda"))
    toolkit = _toolkit()
    if toolkit is None:
        raise UserError(f"there is no CUDA toolkit, whose assembler is needed to compile: {_install('plan-cuda')}")
    hosts, left = divmod(count, GPUS_OF_HOST)
    if hosts and left:
        raise UserError(f"{count} GPUs do not fill hosts of {GPUS_OF_HOST}: give up to {GPUS_OF_HOST} or a multiple")
    topology = f"1x{hosts}x{GPUS_OF_HOST}" if hosts else f"1x1x{left}"
    devices = _devices("cuda", "planned", topology=topology, target_config=describe(hardware))
    options = (("xla_gpu_cuda_data_dir", str(toolkit)), ("xla_gpu_autotune_level", "0"))
    return Target("gpu", devices, int(GPU_SHARE * hardware.memory_bytes), options)


def _tpu(name: str, hardware: Hardware, part: Slice, count: int) -> Target:
    topology = next((each for chips, each in part.topologies.items() if chips >= count), None)
    if topology is None:
        raise UserError(f"{count} chips of {name}: give at most {max(part.topologies)}")
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(_missing("TPUs", "plan-tpu"))
    # Without these, libtpu queries the cloud for its hardware, and takes a lock that prevents other processes from
    # compiling.
    os.environ |= {
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": part.accelerator,
    }
    return Target("tpu", _devices("tpu", topology)[:count], int(TPU_SHARE * hardware.memory_bytes))


def _devices(platform: str, topology_name: str, **options: str) -> tuple[jax.Device, ...]:
    from jax.experimental import topologies

    try:
        described = topologies.get_topology_desc(platform=platform, topology_name=topology_name, **options)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        raise UserError(f"the compiler for {platform} does not start: {error}") from error
    return tuple(described.devices)


def _toolkit() -> Path | None:
    """Return the folder of a CUDA toolkit with its assembler and device library."""
    wheels = [Path(folder) / "nvidia" / "cu13" for folder in sys.path]
    assembler = shutil.which("ptxas")
    on_path = [Path(assembler).resolve().parents[1]] if assembler else []
    candidates = [*wheels, *on_path, *map(Path, TOOLKITS)]
    wanted = "bin/ptxas", "nvvm/libdevice/libdevice.10.bc"
    return next((folder for folder in candidates if all((folder / part).exists() for part in wanted)), None)


def _missing(devices: str, extra: str) -> str:
    return f"the compiler for {devices} is not installed: {_install(extra)}"


def _install(extra: str) -> str:
    return f"pip install 'slmrec-jax[{extra}]', or '.[{extra}]' in a clone"
