"""Counts of programs, from texts small enough to count by hand and from what XLA compiles here."""

import jax
import jax.numpy as jnp
import pytest

from slmrec_jax.hardware.programs import NO_SPEED, Collective, Cost, Speed, program_cost

SPEED = Speed(bandwidth=1e9, operations=1e12, launch_seconds=1e-6, cache_bytes=0)

TEXT = """HloModule jit_run, is_scheduled=true

%gathered (param_0: f32[1000,64], param_1: s32[50,1]) -> f32[50,64] {
  %param_0 = f32[1000,64]{1,0} parameter(0)
  %param_1 = s32[50,1]{1,0} parameter(1)
  %table = f32[1000,64]{1,0} bitcast(%param_0)
  ROOT %rows = f32[50,64]{1,0} gather(%table, %param_1), offset_dims={1}, slice_sizes={1,64}
}

%scattered (param_0: f32[1000,64], param_1: s32[50,1], param_2: f32[50,64]) -> f32[1000,64] {
  %param_0 = f32[1000,64]{1,0} parameter(0)
  %param_1 = s32[50,1]{1,0} parameter(1)
  %param_2 = f32[50,64]{1,0} parameter(2)
  ROOT %table = f32[1000,64]{1,0} scatter(%param_0, %param_1, %param_2), to_apply=%add, unique_indices=true
}

%inner_body (state: (s32[], f32[64,64])) -> (s32[], f32[64,64]) {
  %state = (s32[], f32[64,64]{1,0}) parameter(0)
  %count = s32[] get-tuple-element(%state), index=0
  %x = f32[64,64]{1,0} get-tuple-element(%state), index=1
  %y = f32[64,64]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %next = (s32[], f32[64,64]{1,0}) tuple(%count, %y)
}

%step (state: (s32[], f32[1000,64], s32[50,1], f32[64,64])) -> (s32[], f32[1000,64], s32[50,1], f32[64,64]) {
  %state = (s32[], f32[1000,64]{1,0}, s32[50,1]{1,0}, f32[64,64]{1,0}) parameter(0)
  %count = s32[] get-tuple-element(%state), index=0
  %table = f32[1000,64]{1,0} get-tuple-element(%state), index=1
  %ids = s32[50,1]{1,0} get-tuple-element(%state), index=2
  %x = f32[64,64]{1,0} get-tuple-element(%state), index=3
  %rows = f32[50,64]{1,0} fusion(%table, %ids), kind=kLoop, calls=%gathered
  %sums = f32[50,64]{1,0} all-reduce(%rows), replica_groups={{0,1}}, to_apply=%add
  %after = f32[1000,64]{1,0} fusion(%table, %ids, %sums), kind=kInput, calls=%scattered
  %start = (s32[], f32[64,64]{1,0}) tuple(%count, %x)
  %end = (s32[], f32[64,64]{1,0}) while(%start), condition=%inner_limit, body=%inner_body, LOOP
  %z = f32[64,64]{1,0} get-tuple-element(%end), index=1
  ROOT %next = (s32[], f32[1000,64]{1,0}, s32[50,1]{1,0}, f32[64,64]{1,0}) tuple(%count, %after, %ids, %z)
}

%inner_limit (state: (s32[], f32[64,64])) -> pred[] {
  %state = (s32[], f32[64,64]{1,0}) parameter(0)
  %count = s32[] get-tuple-element(%state), index=0
  %limit = s32[] constant(3)
  ROOT %less = pred[] compare(%count, %limit), direction=LT
}

ENTRY %main (given: (s32[], f32[1000,64], s32[50,1], f32[64,64])) -> (s32[], f32[1000,64], s32[50,1], f32[64,64]) {
  %given = (s32[], f32[1000,64]{1,0}, s32[50,1]{1,0}, f32[64,64]{1,0}) parameter(0)
  ROOT %run = (s32[], f32[1000,64]{1,0}, s32[50,1]{1,0}, f32[64,64]{1,0}) while(%given), condition=%limit, body=%step
}
"""
ROWS, IDS, SQUARE = 50 * 64 * 4, 50 * 4, 64 * 64 * 4


@pytest.mark.parametrize("loop", ["", 'backend_config={"known_trip_count":{"n":"3"}}'])
def test_a_step_is_a_turn_of_the_loop_of_unknown_length(loop):
    whole, step = program_cost(TEXT.replace("LOOP", loop), SPEED)
    assert whole == step
    assert step.kernels == 3 + 3
    gather, sums, scatter, products = 2 * ROWS + IDS, 2 * ROWS, 2 * ROWS + IDS, 3 * (2 * SQUARE + SQUARE)
    assert step.num_bytes == gather + sums + scatter + products
    assert step.operations == 3 * 2 * 64**3
    assert step.collectives == (Collective("all-reduce", ROWS, 2),)
    assert step.seconds == pytest.approx(step.num_bytes / 1e9)


def test_a_table_in_the_cache_is_read_at_most_once():
    many = TEXT.replace("[50,", "[5000,")
    table, rows = 1000 * 64 * 4, 5000 * 64 * 4
    cold, warm = (program_cost(many, SPEED._replace(cache_bytes=size))[1].num_bytes for size in (table - 1, table))
    assert cold - warm == rows - table


@pytest.mark.parametrize(("speed", "seconds"), [(NO_SPEED, 0.0), (SPEED._replace(launch_seconds=1.0), 6.0)])
def test_a_kernel_takes_the_longest_of_its_times(speed, seconds):
    assert program_cost(TEXT, speed)[1].seconds == seconds


def test_arrays_of_a_tpu_have_whole_tiles_and_may_be_in_a_cores_own_memory():
    text = """
ENTRY %main (a: f32[100,64], b: f32[100,64]) -> f32[100,64] {
  %a = f32[100,64]{1,0:T(8,128)} parameter(0)
  %b = f32[100,64]{1,0:T(8,128)S(1)} parameter(1)
  ROOT %sum = f32[100,64]{1,0:T(8,128)} add(%a, %b)
}
"""
    assert program_cost(text, SPEED)[0].num_bytes == 2 * 104 * 128 * 4


def test_a_copy_into_a_cores_own_memory_moves_whole_tiles_beside_other_kernels():
    text = """
ENTRY %main (a: f32[100,64]) -> f32[100,64] {
  %a = f32[100,64]{1,0:T(8,128)} parameter(0)
  %start = (f32[100,64]{1,0:T(8,128)S(1)}, f32[100,64]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%a)
  ROOT %done = f32[100,64]{1,0:T(8,128)S(1)} copy-done(%start)
}
"""
    cost, _ = program_cost(text, SPEED)
    assert cost.num_bytes == 104 * 128 * 4
    assert cost.seconds == pytest.approx(cost.num_bytes / SPEED.bandwidth)


@pytest.mark.parametrize("text", ["", "no program"])
def test_what_cannot_be_read_costs_nothing(text):
    assert program_cost(text, SPEED) == (Cost(), Cost())


@pytest.mark.parametrize("speed", [SPEED, NO_SPEED])
def test_the_most_expensive_branch_counts(speed):
    text = """
%cheap (x: f32[8]) -> f32[8] {
  ROOT %x = f32[8]{0} parameter(0)
}

%dear (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  ROOT %y = f32[8]{0} negate(%x)
}

ENTRY %main (p: pred[], x: f32[8]) -> f32[8] {
  %p = pred[] parameter(0)
  %x = f32[8]{0} parameter(1)
  ROOT %y = f32[8]{0} conditional(%p, %x, %x), branch_computations={%cheap, %dear}
}
"""
    assert program_cost(text, speed)[0][:2] == (1, 64)


def test_products_of_what_xla_compiles_are_counted():
    def run(x, y, count):
        return jax.lax.fori_loop(0, count, lambda _, x: jnp.tanh(x @ y), x)

    x, y = jnp.ones((96, 128)), jnp.ones((128, 128))
    text = jax.jit(run).lower(x, y, jnp.int32(5)).compile().as_text()
    whole, step = program_cost(text, SPEED)
    assert step.operations == 2 * 96 * 128 * 128
    assert whole.kernels >= step.kernels >= 1
    assert step.num_bytes >= 4 * (2 * x.size + y.size)
