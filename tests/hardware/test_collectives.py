"""Transfers between devices, as the text of a program names them."""

import pytest

from slmrec_jax.hardware.collectives import Collective, group_size, operation_of
from slmrec_jax.hardware.programs import NO_SPEED, program_cost

PROGRAM = """HloModule m

ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %x = f32[8,4]{1,0} parameter(0)
  %ids = s32[16]{0} parameter(1)
  %sum = f32[8,4]{1,0:S(1)} all-reduce-start(%x), replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, to_apply=%add
  %done = f32[8,4]{1,0:S(1)} all-reduce-done(%sum)
  %both = ((f32[8,4]{1,0}, s32[16]{0}), (f32[64,4]{1,0}, s32[128]{0})) all-gather-start(%done, %ids), GROUPS
  %two = (f32[64,4]{1,0}, s32[128]{0}) all-gather-done(%both)
  ROOT %moved = f32[8,4]{1,0} collective-permute(%done), source_target_pairs={{0,1},{1,0}}
}
""".replace("GROUPS", "replica_groups=[1,8]<=[8], dimensions={0}")


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}, use_global_device_ids=true", 4),
        ("replica_groups=[2,4]<=[8]", 4),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", 2),
        ("replica_groups=mesh['axis_0'=8,'axis_1'=1] {'axis_0'}", 8),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}", 8),
        ("source_target_pairs={{0,1},{1,0}}", 2),
        ("replica_groups={}", 0),
        ("replica_groups={{0},{1}}", 1),
    ],
)
def test_the_size_of_a_group(attributes, size):
    assert group_size(attributes) == size


@pytest.mark.parametrize(
    ("operation", "sent"),
    [
        ("all-reduce", 2 * 0.75 * 80),
        ("all-gather", 0.75 * 80),
        ("all-to-all", 0.75 * 80),
        ("reduce-scatter", 3 * 80),
        ("collective-permute", 80),
    ],
)
def test_what_a_device_sends_in_a_ring(operation, sent):
    assert Collective(operation, 80, 4).sent_bytes == sent
    assert operation_of(f"{operation}-start") == operation


def test_transfers_of_a_program_have_the_bytes_of_their_results():
    whole, _ = program_cost(PROGRAM, NO_SPEED)
    assert whole.collectives == (
        Collective("all-reduce", 128, 4),
        Collective("all-gather", 1024 + 512, 8),
        Collective("collective-permute", 128, 2),
    )


def test_a_group_of_one_transfers_nothing():
    assert program_cost(PROGRAM.replace("[1,8]<=[8]", "[8,1]<=[8]"), NO_SPEED)[0].collectives == (
        Collective("all-reduce", 128, 4),
        Collective("collective-permute", 128, 2),
    )


def test_the_time_of_a_transfer_is_that_of_its_bytes_over_the_link_and_of_meeting():
    speed = NO_SPEED._replace(link=1e6, meet_seconds=1e-3)
    sent = 2 * 0.75 * 128 + 7 / 8 * 1536 + 128
    assert program_cost(PROGRAM, speed)[0].seconds == pytest.approx(3e-3 + sent / 1e6)
