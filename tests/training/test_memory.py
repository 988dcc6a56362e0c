import ctypes
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from listeners import texts_into

from slmrec_jax import Config, UserError, devices, train
from slmrec_jax.config import SLMRecConfig, with_defaults
from slmrec_jax.data.dataset import Words
from slmrec_jax.evaluation import protocol as evaluation
from slmrec_jax.training import memory
from slmrec_jax.training import train as train_module
from slmrec_jax.training.inputs import input_shapes, make_inputs
from slmrec_jax.training.memory import Memory, available_bytes, check_fits, estimate, line_of, smaller_by
from slmrec_jax.training.setup import compiled, outline, setup, with_inputs

pytestmark = pytest.mark.usefixtures("optax_promotion")

CONFIG = Config(model="mf", dim=8, batch_size=64)
NOTHING = Memory(**dict.fromkeys(Memory._fields, 0))


def shapes_of(tree):
    return jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree)


@pytest.fixture(scope="module")
def worded(tiny):
    """With words, one pair of which stands there twice."""
    words = Words(np.array([0, 0, 0, 7], np.int32), np.array([2, 2, 4, 1], np.int32), 5)
    return dataclasses.replace(tiny, features={**tiny.features, "words": words})


@pytest.fixture(scope="module")
def programs(tiny):
    """Compiled for shapes."""
    with jax.numpy_dtype_promotion("standard"):
        return compiled(outline(CONFIG, tiny))


@pytest.fixture
def expected(tiny, programs):
    ranking = evaluation.plan_evaluation(tiny, "valid", evaluation.PROTOCOLS["strict"]).ranking
    return estimate(programs, ranking)


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_shapes_without_values_are_those_of_the_inputs(worded, platform):
    with devices.compiling_for(platform):
        assert shapes_of(input_shapes(worded)) == shapes_of(make_inputs(worded))


@pytest.mark.parametrize(
    "changes",
    [
        {"propagation": "chains"},
        {"propagation": "chains", "frozen_rows": "bfloat16"},
        {"model": "vbpr"},
        {"model": "bm3"},
        {"model": "mgcn"},
        {"model": "mmgcn"},
        {"model": "freedom"},
        {"model": "lattice"},
        {"slmrec": SLMRecConfig(item_graph=0.3)},
        {"model": "mmssl"},
    ],
    ids=str,
)
def test_what_is_prepared_is_known_without_preparing(tiny, changes):
    config = with_defaults(dataclasses.replace(Config(dim=8, batch_size=64, num_layers=2), **changes))
    assert shapes_of(outline(config, tiny).inputs) == shapes_of(setup(config, tiny).inputs)


def test_parts_are_the_bytes_of_their_arrays(tiny, programs, expected):
    rows = tiny.num_users + tiny.num_items
    # Parameters and both of Adam's moments, a step each for state and optimizer, and means of an epoch.
    means = 4 * len(programs.loop.shapes().means.values) + 4
    assert expected.state == 3 * 4 * rows * CONFIG.dim + 2 * 4 + means
    assert expected.checkpoints == 2 * expected.state + 4 * rows * CONFIG.dim  # a copy to write, one read back
    assert expected.graph == sum(x.nbytes for x in jax.tree.leaves(make_inputs(tiny).graph))
    assert expected.process > 50 * 2**20
    assert (expected.activations == 0) != (expected.evaluation == 0)
    assert sum(expected) == expected.process + expected.earlier + expected.to_come


def test_where_training_waits_for_checkpoints_nothing_is_copied(tiny, programs, expected):
    ranking = evaluation.plan_evaluation(tiny, "valid", evaluation.PROTOCOLS["strict"]).ranking
    waiting = estimate(programs, ranking, copies=False)
    assert waiting.checkpoints == 0  # they take less than an evaluation, which is at another time
    assert waiting.to_come == expected.to_come - expected.checkpoints


def test_a_run_without_memory_for_copies_waits_for_its_checkpoints(tiny, tmp_path, monkeypatch, programs):
    monkeypatch.setattr(train_module, "compiled", lambda planned: planned._replace(loop=programs.loop))
    monkeypatch.setattr(train_module, "available_bytes", lambda num_on_host: 10**9)
    runs, copied, fit = {}, [], train_module.fit

    def fit_and_keep(*arguments, copies, **options):
        copied.append(copies)
        return fit(*arguments, copies=copies, **options)

    monkeypatch.setattr(train_module, "fit", fit_and_keep)
    for spare in (0.1, 1.0):
        monkeypatch.setattr(memory, "SPARE", spare)
        said, folder = [], tmp_path / str(spare)
        run = train(dataclasses.replace(CONFIG, epochs=2), tiny, out=folder, callbacks=[texts_into(said)])
        assert any("training waits while they are written" in text for text in said) != copied[-1]
        runs[copied[-1]] = run.embeddings
    assert runs.keys() == {False, True}
    np.testing.assert_array_equal(*(embeddings.items for embeddings in runs.values()))


def test_a_higher_peak_before_is_the_peak_of_the_run(tiny, programs, expected, monkeypatch):
    ranking = evaluation.plan_evaluation(tiny, "valid", evaluation.PROTOCOLS["strict"]).ranking
    monkeypatch.setattr(memory, "peak_rss_bytes", lambda: 10**12)
    after = estimate(programs, ranking)
    assert sum(after) == 10**12
    assert after.to_come == expected.to_come


def test_compiled_for_shapes_is_compiled_for_values(tiny, programs):
    made, keys = with_inputs(programs, make_inputs(tiny)), programs.keys()
    drawn = made.loop.order(made.inputs, keys, jnp.int32(0))
    after = made.loop.run(made.loop.init(keys), drawn, made.inputs, keys, jnp.int32(1))
    assert int(after.state.step) == 1
    assert shapes_of(after) == shapes_of(made.loop.shapes())
    assert jnp.isfinite(after.means.values["loss"])


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library has no malloc_trim")
def test_freed_memory_goes_back_to_the_system():
    # Blocks too small for mappings of their own, with one behind them that keeps the heap from shrinking.
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = [libc.malloc(100_000) for _ in range(1001)]
    for block in blocks:
        ctypes.memset(ctypes.c_void_p(block), 1, 100_000)
    last = blocks.pop()
    for block in blocks:
        libc.free(block)
    before = memory.rss_bytes()
    memory.trim_memory()
    assert before - memory.rss_bytes() > 90_000_000
    libc.free(last)


def test_what_fits_is_not_refused():
    needed = NOTHING._replace(process=10**12, state=600, activations=400)
    check_fits(needed, 1000)
    check_fits(needed, None)


@pytest.mark.parametrize("part", smaller_by())
def test_what_does_not_fit_names_its_largest_part_and_how_to_fix_it(part):
    needed = NOTHING._replace(process=10**13, later=10**12, **{part: 2 * 2**30})
    with pytest.raises(UserError) as raised:
        check_fits(needed, 2**30)
    assert str(raised.value).endswith(
        f"1.00 GiB are free; the largest part is {part} with 2.00: give {smaller_by()[part]}"
    )


def test_every_part_that_grows_with_a_choice_can_be_made_smaller():
    assert set(smaller_by()) == set(Memory._fields) - {"process", "earlier", "later"}


def test_the_line_names_the_parts_by_size():
    line = line_of(NOTHING._replace(process=2**30, state=3 * 2**30, graph=100))
    assert line == "memory: 4.00 GiB expected at the peak: state 3.00, process 1.00"


def test_a_run_that_would_not_fit_is_refused_before_it_begins(tiny, tmp_path, monkeypatch, programs):
    monkeypatch.setattr(train_module, "available_bytes", lambda num_on_host: 1000)
    monkeypatch.setattr(train_module, "compiled", lambda planned: programs)
    said = []
    with pytest.raises(UserError, match=r"memory: .* GiB more are needed"):
        train(CONFIG, tiny, out=tmp_path / "run", callbacks=[texts_into(said)])
    assert not (tmp_path / "run").exists()
    assert said[-1].startswith("memory: ")


@pytest.mark.parametrize(("limit", "free"), [("5000", 4100), ("max", None)])
def test_a_container_may_have_less_than_its_machine(tmp_path, monkeypatch, limit, free):
    for name, text in (("max", limit), ("current", "1000"), ("stat", "anon 7\ninactive_file 100")):
        (tmp_path / f"memory.{name}").write_text(text + "\n")
    without = available_bytes()
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    if free is None:
        assert without is not None
        assert available_bytes() > 2**20
    else:
        assert available_bytes() == free


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the options are for CPU")
def test_programs_are_compiled_with_the_options_for_the_cpu(tiny, monkeypatch):
    monkeypatch.setitem(devices.OPTIONS, "cpu", {"xla_cpu_unheard_of": True})
    with pytest.raises(RuntimeError, match="xla_cpu_unheard_of"):
        compiled(outline(CONFIG, tiny))
