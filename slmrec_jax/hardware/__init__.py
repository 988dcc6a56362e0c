"""What programs cost on devices, attached or not: their data, compilers for them, and counts of compiled programs."""
