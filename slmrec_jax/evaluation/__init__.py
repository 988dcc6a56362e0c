"""Full ranking of items for users, and its metrics."""
