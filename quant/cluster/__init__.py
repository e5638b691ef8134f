"""Clustered weights: each is one of a few values, which are trained."""
