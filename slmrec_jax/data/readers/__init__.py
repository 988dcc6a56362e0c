"""Read files into columns and tables, in memory bounded by the size of the file.

A file or a value that cannot be read as what is expected raises `UserError`, whose line says which, where and the fix.
"""
