"""Many runs: comparisons, tables of results, the search for settings."""
