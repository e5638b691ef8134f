"""Emitters: from a model in memory to files."""
