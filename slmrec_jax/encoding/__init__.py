"""How users and items become rows: the graph, its products and propagation, features and their layers."""
