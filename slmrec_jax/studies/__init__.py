"""Studies of many runs: comparisons, tables of results, the search for settings."""
