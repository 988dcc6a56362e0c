"""The local page of `slmrec-jax explore`: what it shows, how requests are answered, and its server."""
