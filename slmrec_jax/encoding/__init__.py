"""The computation of users' and items' rows: the graph, its products and propagation, features and their layers."""
