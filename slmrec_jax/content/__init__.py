"""Vectors of items, made of their texts and pictures by a model."""
