"""Readers for file formats that can contain code, which never run it: pickles, PyTorch files, object arrays."""
