"""Runs: the loop, checkpoints, the run folder, and the use of a finished run."""
