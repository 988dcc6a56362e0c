"""SLMRec: self-supervised learning for multimedia recommendation, on JAX."""

from slmrec_jax.config import Config, with_preset, with_protocol
from slmrec_jax.data import load
from slmrec_jax.errors import UserError
from slmrec_jax.training.run import Run, load_run, train

__all__ = ["Config", "Run", "UserError", "load", "load_run", "train", "with_preset", "with_protocol"]
