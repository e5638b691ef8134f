"""Training of imported graphs: the one loop that all methods share."""
