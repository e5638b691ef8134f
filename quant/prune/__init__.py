"""Pruning: models of fewer or sparser weights."""
