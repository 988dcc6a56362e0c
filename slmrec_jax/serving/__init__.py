"""What leaves training: lists of recommendations and exported folders."""
