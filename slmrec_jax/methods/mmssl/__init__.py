"""MMSSL (Wei et al., WWW 2023): a recommender that is trained as a generator against a discriminator."""
