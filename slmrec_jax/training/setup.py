"""Construction of a method, its inputs and its loop from a config and a data set.

Training, tuning, reports, benchmarks and notebooks all start here.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax.training.train_state import TrainState
from jax.sharding import Mesh
from jaxtyping import Array, Int, PyTree, Scalar

from slmrec_jax.config import Config, check_config, with_defaults
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.errors import UserError, check_type, setting
from slmrec_jax.meshes import MODEL, Layout, choose_mesh, make_mesh
from slmrec_jax.methods import make_method
from slmrec_jax.methods.micro_batches import choose_micro_batches
from slmrec_jax.methods.wrappers import with_mesh, with_precision, with_stale_embeddings
from slmrec_jax.objectives.sampling import NEGATIVES, SAMPLINGS, Sizes
from slmrec_jax.training.inputs import input_shapes, make_inputs, make_spec
from slmrec_jax.training.loop import Keys, Loop, compile_loop, make_keys, make_loop, place_loop
from slmrec_jax.training.method_checks import check_32_bits, check_method
from slmrec_jax.types import Batch, Embeddings, Inputs, Method, Metrics, Params, Spec

LARGEST_COUNT = 2**31 - 1
"""The most interactions of an epoch, which are counted in int32."""

MANY_STEPS = 500
"""Above this number of steps per pass, a log line recommends micro-batches."""

MakeMethod = Callable[[Config, Spec], Method]
AnyTree = TypeVar("AnyTree")


class Setup(NamedTuple):
    """A method, its inputs and its loop; every function is pure and may be passed to `jax.jit`.

    Ids are those of the data set. Graph products are faster when users and items are numbered by degree
    (`Dataset.by_degree`).
    """

    config: Config
    """The complete configuration, with the model's defaults filled in."""
    dataset: Dataset
    """The data, restricted to the config's modalities."""
    method: Method
    """The functions that train: `init`, `step`, `embed` and `loss`."""
    inputs: Inputs
    """The graph and the features on the device, prepared by the method."""
    loop: Loop
    """The functions that `train` runs: the order of a pass, its batches, and many steps as one program."""
    draw: Callable[[int, int], tuple[PyTree, Keys]]
    """`(number, rollbacks) -> (drawn, keys)`: the random draws of a pass over the interactions. The last result is
    cached."""
    layout: Layout | None = None
    """The sharding of arrays on a mesh; `None` on one device."""

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps between evaluations."""
        return self.loop.steps_per_epoch

    def init(self) -> TrainState:
        """Return the state before the first step."""
        init = jax.jit(self.method.init) if self.layout is None else self.layout.placed(self.method.init)
        state: TrainState = init(self.keys().init)
        return state

    def batch(self, step: int | Int[Array, ""]) -> Batch:
        """Return the batch of a step. Inside `jax.jit`, each call draws the order of its pass again.

        Args:
            step: The step, counted from 0 at the start of training.
        """
        index = jnp.asarray(step, jnp.int32)
        if isinstance(step, jax.core.Tracer):
            keys = self.keys()
            drawn = self.loop.order(self.inputs, keys, index)
        else:
            drawn, keys = self.draw(int(step) // self.loop.steps_per_pass, 0)
        return self.loop.batch(drawn, self.inputs, keys, index)

    def step(self, state: TrainState, inputs: Inputs, batch: Batch) -> tuple[TrainState, Metrics]:
        """Take a training step.

        Args:
            state: Parameters, optimizer state and the number of steps taken.
            inputs: The setup's `inputs`; an argument so that they do not become constants of a compiled program.
            batch: What `batch` returns.

        Returns:
            The next state and the metrics: `loss` is the objective, and each term has its own name.
        """
        return self.method.step(state, inputs, batch)

    def loss(self, params: Params, inputs: Inputs, batch: Batch) -> tuple[Scalar, Metrics]:
        """Return the objective that a step minimises, as a function of `state.params`, and its terms.

        Args:
            params: The state's `params`.
            inputs: The setup's `inputs`.
            batch: What `batch` returns.

        Returns:
            The weighted sum of the terms, and the value of each by name.

        Raises:
            ValueError: The method's step does not minimise a single function (LATTICE, MMSSL).
        """
        if self.method.loss is None:
            raise ValueError(f"a step of {self.config.model} does not minimise a single function of its parameters")
        return self.method.loss(params, inputs, batch)

    def embed(self, state: TrainState, inputs: Inputs) -> Embeddings:
        """Return the tables used for ranking.

        Args:
            state: Parameters, optimizer state and the number of steps taken.
            inputs: The setup's `inputs`.
        """
        return self.loop.embed(state, inputs)

    def keys(self, rollbacks: int = 0) -> Keys:
        """Return the random streams of the config's seed.

        Args:
            rollbacks: The number of times training went back to a checkpoint. Each rollback changes all random draws.
        """
        return self.put(make_keys(self.config.seed, rollbacks))

    def put(self, tree: AnyTree) -> AnyTree:
        """Place arrays on the mesh, if there is one.

        Args:
            tree: Arrays on the host or on any device.
        """
        return tree if self.layout is None else cast("AnyTree", self.layout.put(tree))


def setup(
    config: Config, dataset: Dataset, *, method: MakeMethod = make_method, mesh: Mesh | str | None = None
) -> Setup:
    """Make everything needed to train a config on a data set.

    Args:
        config: Every choice.
        dataset: The data.
        method: Makes the method from the config and the sizes of the data; pass your own here.
        mesh: The devices to train on; by default one device. Either a mesh with axes `data` and `model`, such as
            `jax.make_mesh((2, 4), ("data", "model"))`, or its sizes such as `"data=2,model=4"`, or `"auto"` for all
            devices (`choose_mesh`).

    Raises:
        UserError: The config does not fit the data, or there are not enough devices.
    """
    check_config(config)
    check_type("dataset", dataset, Dataset, "a Dataset, such as slmrec_jax.load returns for a folder")
    check_type("method", method, Callable, "a function of a config and a spec")
    planned = outline(config, dataset, method=method, mesh=choose_mesh(mesh, with_defaults(config).dim))
    return with_own_inputs(planned)


def outline(config: Config, dataset: Dataset, *, method: MakeMethod = make_method, mesh: Mesh | None = None) -> Setup:
    """Make a setup whose inputs are shapes, to compile it and estimate its memory before anything is allocated.

    `mesh` is a result of `choose_mesh`.
    """
    check_32_bits()
    dataset, config = dataset.with_modalities(config.modalities), with_defaults(config)
    config, notes = with_micro_batches(config, dataset, method)
    made, layout = _placed_method(config, dataset, method, mesh)
    made = made._replace(notes=(*made.notes, *notes, *_advice(config, dataset, method, made)))
    inputs = jax.eval_shape(made.prepare, input_shapes(dataset))
    sizes = Sizes(config.batch_size, config.num_micro_batches)
    most = LARGEST_COUNT // (sizes.batch * sizes.micro_batches)
    if config.steps_per_epoch is not None and config.steps_per_epoch > most:
        raise UserError(
            f"{setting('steps_per_epoch', config.steps_per_epoch)}: an epoch would have more than {LARGEST_COUNT} "
            f"interactions, the most that can be counted; give at most {most}"
        )
    if config.eval.stale_embeddings:
        steps = config.steps_per_epoch or SAMPLINGS[made.sampling].num_steps(inputs.graph.num_interactions, sizes)
        made = with_stale_embeddings(made, inputs, steps)
    loop = make_loop(made, inputs, sizes, negatives=NEGATIVES[config.negatives], steps_per_epoch=config.steps_per_epoch)
    if layout is not None:
        loop = place_loop(loop, layout)
    return Setup(config, dataset, made, inputs, loop, _nothing_to_draw, layout)


def with_micro_batches(config: Config, dataset: Dataset, method: MakeMethod) -> tuple[Config, tuple[str, ...]]:
    """Return the config with its number of micro-batches resolved, and log lines about it.

    Raises:
        UserError: The method takes only one batch per step.
    """

    def method_for(count: int) -> Method:
        return build_method(replace(config, micro_batches=count), dataset, method=method)

    asked = config.micro_batches
    if asked == 1:
        return config, ()
    made = method_for(1)
    num_interactions = len(dataset.train.users)
    num_batches = SAMPLINGS[made.sampling].num_batches(num_interactions, config.batch_size)
    if not made.micro_batches:
        raise UserError(
            f"{setting('micro_batches', asked)}: the method takes one batch per step; leave it out, or make the method "
            "with slm.gradient_method"
        )
    if asked != "auto":
        if asked <= num_batches:
            return config, ()
        chosen, reason = num_batches, f"{num_batches}, because a pass over the interactions has no more batches"
    else:
        chosen, _ = choose_micro_batches(made, num_interactions, config.batch_size)
        # With more rows per step, other modalities may be cheaper to propagate in each step.
        chosen, reason = choose_micro_batches(method_for(chosen), num_interactions, config.batch_size)
    return replace(config, micro_batches=chosen), (f"micro-batches: {reason}",)


def _advice(config: Config, dataset: Dataset, method: MakeMethod, made: Method) -> tuple[str, ...]:
    steps = SAMPLINGS[made.sampling].num_batches(len(dataset.train.users), config.batch_size)
    if config.num_micro_batches > 1 or not made.micro_batches or steps <= MANY_STEPS:
        return ()
    try:
        build_method(replace(config, micro_batches=2), dataset, method=method)
    except Exception:  # it takes one batch per step; a method of the caller's own may raise anything
        return ()
    auto = setting("micro_batches", "auto")
    return (
        f"a pass over the interactions takes {steps} steps, and each computes over all users and items; {auto} takes "
        "several batches per step",
    )


def with_own_inputs(planned: Setup) -> Setup:
    """Return the setup with the inputs made from its own data set."""
    missing, on_host = planned.config.missing, planned.layout is not None
    return with_inputs(planned, make_inputs(planned.dataset, missing, on_host=on_host))


def with_inputs(planned: Setup, inputs: Inputs) -> Setup:
    """Return the setup with the given inputs, which its method prepares."""
    loop, prepare, layout = planned.loop, planned.method.prepare, planned.layout
    inputs = prepare(inputs) if layout is None else layout.placed(prepare)(layout.put(inputs))

    @lru_cache(maxsize=1)
    def draw(number: int, rollbacks: int) -> tuple[PyTree, Keys]:
        keys = planned.keys(rollbacks)
        return loop.order(inputs, keys, np.int32(number * loop.steps_per_pass)), keys

    return planned._replace(inputs=inputs, draw=draw)


def _nothing_to_draw(number: int, rollbacks: int) -> tuple[PyTree, Keys]:
    raise ValueError("an outline has shapes in place of inputs, and no batches: pass it through with_inputs")


def compiled(planned: Setup) -> Setup:
    """Check the method (`check_method`), and compile the programs of the loop. The inputs may be shapes."""
    check_method(planned.method, planned.loop.shapes(), planned.inputs, planned.dataset)
    keys = make_keys(planned.config.seed)
    return planned._replace(loop=compile_loop(planned.loop, planned.inputs, keys, planned.layout))


def build_method(
    config: Config, dataset: Dataset, *, method: MakeMethod = make_method, column_shares: int = 1
) -> Method:
    """Make the method of a config for the sizes of a data set (`Spec`).

    Raises:
        UserError: The config does not fit the data.
    """
    config = with_defaults(config)
    made = method(config, make_spec(config, dataset, column_shares))
    check_type("what the argument `method` returns", made, Method, "a Method, such as slm.gradient_method returns")
    return with_precision(made, config.precision)


def _placed_method(
    config: Config, dataset: Dataset, method: MakeMethod, mesh: Mesh | None
) -> tuple[Method, Layout | None]:
    """Return the method and its layout on the mesh. If the method mixes columns, every device holds whole tables."""
    if mesh is None:
        return build_method(config, dataset, method=method), None
    made = build_method(config, dataset, method=method, column_shares=mesh.shape[MODEL])
    if not made.by_columns:
        mesh = make_mesh(mesh.size, 1, list(mesh.devices.flat))
        made = build_method(config, dataset, method=method)
    num_users, num_items = dataset.num_users, dataset.num_items
    return with_mesh(made, mesh), Layout(mesh, frozenset({num_users, num_items, num_users + num_items}))
