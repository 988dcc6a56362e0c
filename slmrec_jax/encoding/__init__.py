"""The computation of user and item rows: the graph, sparse products, propagation, features and layers."""
