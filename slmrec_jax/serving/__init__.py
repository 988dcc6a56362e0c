"""Serve finished runs: recommendations and exported folders."""
