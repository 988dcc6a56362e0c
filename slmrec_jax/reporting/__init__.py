"""One page on finished runs: what they measured, how sure that is, and what the items look like to them."""
