"""Readers of files into columns and tables, with memory bounded by the size of the file.

A file or value that does not have the expected form raises a `UserError` that names it, its place and the fix.
"""
