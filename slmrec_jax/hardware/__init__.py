"""Costs of programs on devices, attached or not: device data, compilers, and the costs of compiled programs."""
