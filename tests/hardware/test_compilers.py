"""Compilers for devices that are not attached, where they are installed; CI does not install them."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest

from slmrec_jax.devices import compiler_of, compiling_for
from slmrec_jax.errors import UserError
from slmrec_jax.hardware import compilers
from slmrec_jax.hardware.compilers import DEVICES, target_of
from slmrec_jax.hardware.targets import HARDWARE, Card, describe, hardware_of_kind


def test_every_device_of_the_command_has_its_rates():
    from typing import get_args

    from slmrec_jax.commands.plan import DeviceName

    assert get_args(DeviceName) == DEVICES


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v6 lite", "v6e"),
    ],
)
def test_devices_are_known_by_what_jax_calls_them(kind, name):
    assert hardware_of_kind(kind) == HARDWARE[name]


@pytest.mark.parametrize(
    "kind", ["cpu", "NVIDIA L40S", "NVIDIA GH200 480GB", "NVIDIA A100-SXM4-40GB", "NVIDIA H100 PCIe", "TPU v4"]
)
def test_other_devices_are_not_known(kind):
    assert hardware_of_kind(kind) is None


def test_a_card_is_described_by_its_own_figures():
    text = describe(HARDWARE["l4"])
    for part in ('device_description_str: "NVIDIA L4"', "major: 8 minor: 9", "memory_bandwidth: 300000000000"):
        assert part in text


def test_an_unknown_device_is_refused():
    with pytest.raises(UserError, match="on is 'h300', of type str: give one of cpu, a100"):
        target_of("h300")


@pytest.mark.parametrize(("device", "extra"), [("h100", "plan-cuda"), ("v5e", "plan-tpu")])
def test_a_missing_compiler_is_named_with_the_line_that_installs_it(device, extra, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"not installed: pip install 'slmrec-jax\[{extra}\]'"):
        target_of(device)


def test_a_missing_toolkit_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(compilers, "_toolkit", lambda: None)
    with pytest.raises(UserError, match="no CUDA toolkit"):
        target_of("a100")


def installed(device):
    try:
        return target_of(device)
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("device", HARDWARE)
def test_a_program_compiles_for_the_device(device):
    target = installed(device)
    with compiling_for(target):
        x = jax.ShapeDtypeStruct((256, 64), jnp.float32)
        program = compiler_of(lambda x: x + x[::-1], x, donate=(0,))()
    assert program.memory_analysis().argument_size_in_bytes >= 256 * 64 * 4
    assert ("gpu" if isinstance(HARDWARE[device].part, Card) else "tpu") == target.platform
