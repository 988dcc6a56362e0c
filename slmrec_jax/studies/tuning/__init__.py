"""Hyperparameter search: spaces, trials of several seeds, a journal to resume from, and the best config as a file."""
