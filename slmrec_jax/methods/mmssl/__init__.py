"""MMSSL (Wei et al., WWW 2023): a recommender trained as the generator against a discriminator."""
