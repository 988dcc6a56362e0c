"""Reports on finished runs: metrics with intervals, differences, modalities and the item space."""
