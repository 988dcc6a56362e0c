"""Files into columns and tables, each reader bounded by the size of its file."""
