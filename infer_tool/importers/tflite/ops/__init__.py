"""Operators of TFLite, one file for each family."""
