"""Checks of data sets, and statistics about them."""
