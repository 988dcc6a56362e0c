"""Ranking all items for all users, and the metrics of that."""
