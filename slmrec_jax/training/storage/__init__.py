"""A run's folder on disk: records, checkpoints, and the lock that protects them."""
