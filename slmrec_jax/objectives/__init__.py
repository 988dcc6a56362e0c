"""The training objective: losses, the in-batch softmax, augmentations, and the sampling of batches."""
