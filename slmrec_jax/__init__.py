"""SLMRec: self-supervised learning for multimedia recommendation, on JAX."""
