"""Item vectors, made from texts and pictures with a model."""
