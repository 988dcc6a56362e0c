"""Check annotated shapes of the package at run time; make the small data that tests share."""

import gc
import os
import resource
from collections import Counter
from importlib.metadata import version
from pathlib import Path

# Many tests compile the same programs. XLA logs a harmless error for each that it reads back.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).parents[1] / ".pytest_cache" / "programs")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

# Compiling takes most of the time of these tests, and half of that goes into optimising programs that run once, and a
# tenth into dividing them among threads. Golden values, determinism and the compiled program are tested with the full
# compiler (compilers.py).
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0 "
    # Versions that do not know these would not start.
    f"{'--xla_cpu_use_fusion_emitters=false ' if version('jaxlib').startswith('0.10.') else ''}"
    f"{'--xla_cpu_parallel_codegen_split_count=1' if version('jaxlib').startswith('0.10.') else ''}"
)

import jax
import pytest
from jaxtyping import install_import_hook
from xdist.scheduler import LoadFileScheduling

CHECKED = [
    f"slmrec_jax.{room}"
    for room in (
        *(
            "content",
            "data",
            "encoding",
            "evaluation",
            "exploring",
            "objectives",
            "reporting",
            "serving",
            "studies",
            "types",
        ),
    )
]
LONGEST = (
    *("test_docs.py", "test_mesh.py", "test_platforms.py", "test_micro_batches.py", "test_half_features.py"),
    *(
        "test_processes.py",
        "test_checking.py",
        "test_slmrec.py",
        "test_faults.py",
        "test_run.py",
        "test_mmssl_method.py",
    ),
    *("test_report.py", "test_cold_items.py"),
)
"""Files with few tests that take long, which are begun first so that none is left to one process at the end."""

# Compiled programs stay, and Python's collector would often scan everything that tracing them left.
gc.set_threshold(200_000, 20, 100)

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_configure(config):
    """Check the annotations of the folders that compute on arrays; annotated_program.py checks those of training."""
    install_import_hook(CHECKED, "checking.checked")


class ByFileOrSystem(LoadFileScheduling):
    """Run the tests of a file in one process, and so compile and train once; the contract suite is divided by system.

    pytest-xdist's own groups have no effect with pytest 9.2, which does not read the node ids that they change.
    """

    def _split_scope(self, nodeid):
        file, _, test = nodeid.partition("::")
        return f"{file}[{test.partition('[')[2]}" if file.endswith("test_contract.py") else file


def pytest_collection_modifyitems(items):
    """Order the files: the longest first, then by their numbers of tests."""
    sizes = Counter(item.path for item in items)

    def place(item):
        found = LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST)
        return found, -sizes[item.path], item.path

    items.sort(key=place)


def pytest_xdist_make_scheduler(config, log):
    """Choose how pytest-xdist divides the tests, in the order of the files."""
    config.option.loadscopereorder = False
    return ByFileOrSystem(config, log)


@pytest.fixture(scope="session")
def tiny():
    """A data set small enough that a run takes seconds, with three modalities and some rows missing."""
    from slmrec_jax.data.synthetic import demo

    columns = {"visual": 8, "acoustic": 6, "textual": 5}
    return demo(num_users=60, num_items=80, num_scenes=6, exposures=40, columns=columns).by_degree()


@pytest.fixture(scope="module")
def cheap_runs():
    """Compile the programs of equal configs once in a module, and draw no pictures (cheap_runs.py)."""
    from cheap_runs import cheap_runs

    with cheap_runs():
        yield


@pytest.fixture
def optax_promotion():
    """Allow Optax to add integers to floats, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def refusing_disk():
    """Return a function that limits the size of files until the test ends, like a full disk."""
    before, seconds = resource.getrlimit(resource.RLIMIT_FSIZE), "jax_persistent_cache_min_compile_time_secs"
    jax.config.update(seconds, 1e9)  # a program that is cut short would be read back by later tests
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    jax.config.update(seconds, 0)
