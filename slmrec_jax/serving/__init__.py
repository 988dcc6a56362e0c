"""Use of finished runs: recommendations and exported folders."""
