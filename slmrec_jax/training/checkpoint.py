"""Checkpoints of a run: the last one and the best one, written in the background. The only module that knows Orbax."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax.training.train_state import TrainState
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from slmrec_jax.errors import UserError
from slmrec_jax.types import Embeddings


@contextmanager
def open_checkpoints(folder: Path, *, read_only: bool = False) -> Iterator[ocp.CheckpointManager]:
    """The checkpoints in a folder, one an epoch; on leaving, all that was saved is on disk."""
    # A later improvement has a higher number than an earlier one, and an epoch without one has the lowest.
    best = BestN(get_metric_fn=lambda metrics: metrics["improved_at"], n=1)
    options = ocp.CheckpointManagerOptions(
        preservation_policy=AnyPreservationPolicy([LatestN(1), best]),
        read_only=read_only,
        create=not read_only,
        save_interval_steps=0 if read_only else 1,
    )
    with _without_warnings():  # Orbax warns that what was asked to be read-only is
        manager = ocp.CheckpointManager(folder.resolve(), options=options)
    try:
        yield manager
    finally:
        manager.close()


def save(manager: ocp.CheckpointManager, epoch: int, state: TrainState, embeddings: Embeddings, improved: bool) -> None:
    """Saves an epoch's state, and what it ranks with, in the background.

    Args:
        manager: of the run's folder.
        epoch: how many epochs are done.
        state: what training goes on from.
        embeddings: what was evaluated.
        improved: whether this is the best epoch so far.
    """
    # The next epoch takes the state's buffers over while Orbax still writes, so it gets copies.
    state, embeddings = jax.tree.map(jnp.copy, (state, embeddings))
    manager.save(
        epoch,
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            embeddings=ocp.args.StandardSave(embeddings._asdict()),
            meta=ocp.args.JsonSave({"state": describe(state)}),
        ),
        metrics={"improved_at": epoch if improved else -1},
    )


def restore_last(
    manager: ocp.CheckpointManager, like: TrainState, say: Callable[[str], None]
) -> tuple[int, TrainState]:
    """The newest checkpoint that can be read: how many epochs were done, and the state after them.

    Where there is none at all, training had not come so far: no epoch, and `like` itself.

    Args:
        manager: of the run's folder; a checkpoint that cannot be read is deleted from it.
        like: a state of the same model.
        say: told of each checkpoint that cannot be read.

    Raises:
        UserError: none can be read, or the newest that can is of another model.
    """
    epochs = sorted(manager.all_steps(), reverse=True)
    for epoch in epochs:
        try:
            return epoch, _restore(manager, epoch, like)
        except UserError:
            raise
        except Exception as error:  # Orbax raises what the damaged file happens to lead to
            say(f"the checkpoint of epoch {epoch} cannot be read ({type(error).__name__}); going back to an older one")
            if epoch != epochs[-1]:
                manager.delete(epoch)
    if epochs:
        raise UserError(f"{manager.directory}: no checkpoint can be read; start a new run with another --out")
    return 0, like


def _restore(manager: ocp.CheckpointManager, epoch: int, like: TrainState) -> TrainState:
    saved = manager.restore(epoch, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]["state"]
    wanted = describe(like)
    if saved != wanted:
        name = next(name for name in sorted({*saved, *wanted}) if saved.get(name) != wanted.get(name))
        raise UserError(
            f"{manager.directory / str(epoch)} is a checkpoint of another model: it has {saved.get(name, 'no array')} "
            f"at {name} where this config makes {wanted.get(name, 'none')}; use the config it was made with"
        )
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    restored = manager.restore(epoch, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))
    state: TrainState = restored["state"]
    return state


def restore_state(manager: ocp.CheckpointManager, epoch: int, like: TrainState) -> TrainState:
    """The state after an epoch.

    Args:
        manager: of the run's folder.
        epoch: which.
        like: a state of the same model, or its shapes.

    Raises:
        UserError: that epoch's checkpoint is not there, damaged, or of another model.
    """
    _check_there(manager, epoch)
    try:
        return _restore(manager, epoch, like)
    except UserError:
        raise
    except Exception as error:  # Orbax raises what the damaged file happens to lead to
        raise _damaged(manager, epoch, error) from error


def restore_embeddings(manager: ocp.CheckpointManager, epoch: int) -> Embeddings:
    """What an epoch ranked with.

    Raises:
        UserError: that epoch's checkpoint is not there, or damaged.
    """
    _check_there(manager, epoch)
    try:
        saved = manager.restore(epoch, args=ocp.args.Composite(embeddings=ocp.args.StandardRestore()))["embeddings"]
    except Exception as error:  # Orbax raises what the damaged file happens to lead to
        raise _damaged(manager, epoch, error) from error
    return Embeddings(saved["users"], saved["items"])


def _check_there(manager: ocp.CheckpointManager, epoch: int) -> None:
    if epoch not in manager.all_steps():
        raise UserError(f"{manager.directory} has no checkpoint of epoch {epoch}: the run folder is not complete")


def _damaged(manager: ocp.CheckpointManager, epoch: int, error: Exception) -> UserError:
    return UserError(
        f"{manager.directory / str(epoch)} cannot be read ({type(error).__name__}): the checkpoint is damaged"
    )


@contextmanager
def _without_warnings() -> Iterator[None]:
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def describe(state: TrainState) -> dict[str, Any]:
    """The name, shape and type of each array of a state, and how they are nested (empty places included)."""
    arrays, _ = jax.tree_util.tree_flatten_with_path(state)
    nested = str(jax.tree_util.tree_structure(state.params))
    return {"params": nested} | {
        jax.tree_util.keystr(path): f"{np.dtype(x.dtype).name}{list(x.shape)}" for path, x in arrays
    }
