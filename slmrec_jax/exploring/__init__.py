"""The local page of `slmrec-jax explore`: its content, the answers to its requests, and its server."""
