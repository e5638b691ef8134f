"""Kernels: plain functions named after their operator, one file for each family."""
