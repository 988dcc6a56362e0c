"""Serving of finished runs: recommendations and exported folders."""
