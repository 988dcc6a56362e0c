"""Checks of data sets, and facts about them."""
