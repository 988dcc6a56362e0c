"""Files that could run code, read without running any: pickles, PyTorch files, object arrays."""
