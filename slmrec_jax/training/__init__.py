"""Runs: the loop, checkpoints, the run folder, and what can be asked of a finished run."""
