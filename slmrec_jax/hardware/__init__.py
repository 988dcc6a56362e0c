"""Costs of programs on devices, attached or not: device data, compilers, and counts of compiled programs."""
