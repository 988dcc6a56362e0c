"""Exact ranking of all items for users, and metrics of the ranking."""
