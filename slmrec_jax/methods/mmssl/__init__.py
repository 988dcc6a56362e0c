"""MMSSL (Wei et al., WWW 2023): a recommender that plays the generator against a discriminator."""
