"""The one place where a config and a data set become a method, its inputs and its loop.

Training, tuning, reports, benchmarks and notebooks all start here.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.training.train_state import TrainState
from jaxtyping import Array, Int, PyTree, Scalar

from slmrec_jax.config import Config, check_config, with_defaults
from slmrec_jax.data.dataset import Dataset
from slmrec_jax.errors import UserError, check_type
from slmrec_jax.methods import make_method
from slmrec_jax.methods.wrappers import with_precision, with_stale_embeddings
from slmrec_jax.objectives.sampling import NEGATIVES, SAMPLINGS
from slmrec_jax.training.inputs import input_shapes, make_inputs, make_spec
from slmrec_jax.training.loop import Keys, Loop, compile_loop, make_keys, make_loop
from slmrec_jax.types import Batch, Embeddings, Inputs, Method, Metrics, Params, Spec

MakeMethod = Callable[[Config, Spec], Method]


class Setup(NamedTuple):
    """A method, its inputs and its loop; every function is pure and may be passed to `jax.jit`.

    Ids are those of the data set. Tables read often by the graph product are faster when users and items are numbered
    by degree (`Dataset.by_degree`).
    """

    config: Config
    """Every choice, with the model's defaults filled in."""
    dataset: Dataset
    """The data, with the config's modalities."""
    method: Method
    """The functions that train: `init`, `step`, `embed` and `loss`."""
    inputs: Inputs
    """The graph and the features on the device, as the method prepared them."""
    loop: Loop
    """What `train` runs: the order of an epoch, its batches, and many steps as one program."""
    draw: Callable[[int, int], tuple[PyTree, Keys]]
    """`(epoch, rollbacks) -> (drawn, keys)`: what an epoch draws at its start, remembered for the last one."""

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps that take each batch once."""
        return self.loop.steps_per_epoch

    def init(self) -> TrainState:
        """Return the state before the first step."""
        return self.loop.init(self.keys()).state

    def batch(self, step: int | Int[Array, ""]) -> Batch:
        """Return the batch of a step; within `jax.jit` each call draws the order of its epoch.

        Args:
            step: The step, counted from 0 at the start of training.
        """
        index = jnp.asarray(step, jnp.int32)
        if isinstance(step, jax.core.Tracer):
            keys = self.keys()
            drawn = self.loop.order(self.inputs, keys, index)
        else:
            drawn, keys = self.draw(int(step) // self.steps_per_epoch, 0)
        return self.loop.batch(drawn, self.inputs, keys, index)

    def step(self, state: TrainState, inputs: Inputs, batch: Batch) -> tuple[TrainState, Metrics]:
        """Take a training step.

        Args:
            state: Parameters, optimizer state and the number of steps taken.
            inputs: The setup's `inputs`, an argument so that they are no constants of a compiled program.
            batch: What `batch` returns.

        Returns:
            The next state, and metrics: `loss` is the objective, and each term has its own name.
        """
        return self.method.step(state, inputs, batch)

    def loss(self, params: Params, inputs: Inputs, batch: Batch) -> tuple[Scalar, Metrics]:
        """Return the objective that a step descends, as a function of `state.params`, and its parts.

        Args:
            params: The state's `params`.
            inputs: The setup's `inputs`.
            batch: What `batch` returns.

        Returns:
            The weighted sum of the terms, and the value of each by name.

        Raises:
            ValueError: The method's step is not the descent of one function (MMSSL).
        """
        if self.method.loss is None:
            raise ValueError(f"a step of {self.config.model} does not descend one function of its parameters")
        return self.method.loss(params, inputs, batch)

    def embed(self, state: TrainState, inputs: Inputs) -> Embeddings:
        """Return the tables that rank.

        Args:
            state: Parameters, optimizer state and the number of steps taken.
            inputs: The setup's `inputs`.
        """
        return self.loop.embed(state, inputs)

    def keys(self, rollbacks: int = 0) -> Keys:
        """Return the random streams of the config's seed.

        Args:
            rollbacks: How often training went back to a checkpoint; each time, everything is drawn differently.
        """
        return make_keys(self.config.seed, rollbacks)


def setup(config: Config, dataset: Dataset, *, method: MakeMethod = make_method) -> Setup:
    """Make everything that training a config on a data set needs.

    Args:
        config: Every choice.
        dataset: The data.
        method: Makes the method from the config and the sizes of the data; pass your own here.

    Raises:
        UserError: The config and the data do not go together.
    """
    check_config(config)
    check_type("dataset", dataset, Dataset, "a Dataset, such as slmrec_jax.load returns for a folder")
    check_type("method", method, Callable, "a function of a config and a spec")
    planned = outline(config, dataset, method=method)
    return with_inputs(planned, make_inputs(planned.dataset, config.missing))


def outline(config: Config, dataset: Dataset, *, method: MakeMethod = make_method) -> Setup:
    """Make a setup whose inputs are shapes, to compile it and to estimate its memory before anything is allocated."""
    dataset, config = dataset.with_modalities(config.modalities), with_defaults(config)
    made = build_method(config, dataset, method=method)
    inputs = jax.eval_shape(made.prepare, input_shapes(dataset))
    if config.eval.stale_embeddings:
        steps = SAMPLINGS[made.sampling].num_steps(inputs.graph.num_interactions, config.batch_size)
        made = with_stale_embeddings(made, inputs, steps)
    loop = make_loop(made, inputs, config.batch_size, negatives=NEGATIVES[config.negatives])
    return Setup(config, dataset, made, inputs, loop, _nothing_to_draw)


def with_inputs(planned: Setup, inputs: Inputs) -> Setup:
    """Return the setup with these inputs of its data set, prepared by its method."""
    inputs, loop = planned.method.prepare(inputs), planned.loop

    @lru_cache(maxsize=1)
    def draw(epoch: int, rollbacks: int) -> tuple[PyTree, Keys]:
        keys = planned.keys(rollbacks)
        return loop.order(inputs, keys, jnp.int32(epoch * loop.steps_per_epoch)), keys

    return planned._replace(inputs=inputs, draw=draw)


def _nothing_to_draw(epoch: int, rollbacks: int) -> tuple[PyTree, Keys]:
    raise ValueError("an outline has shapes in place of inputs, and no batches: pass it through with_inputs")


def compiled(planned: Setup) -> Setup:
    """Return the setup with compiled programs in its loop. Its inputs may be shapes."""
    metrics = planned.loop.shapes().means.values
    if "loss" not in metrics:
        raise UserError(f"the method's step has the metrics {', '.join(metrics)}: return the total as `loss` too")
    return planned._replace(loop=compile_loop(planned.loop, planned.inputs, planned.keys()))


def build_method(config: Config, dataset: Dataset, *, method: MakeMethod = make_method) -> Method:
    """Make the method of a config for the sizes of a data set.

    Raises:
        UserError: The config and the data do not go together.
    """
    config = with_defaults(config)
    return with_precision(method(config, make_spec(config, dataset)), config.precision)
