"""Studies of many runs: comparisons, tables of results, and hyperparameter search."""
