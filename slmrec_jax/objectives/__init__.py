"""What training optimises: losses, the softmax below them, augmentations, and the sampling of batches."""
