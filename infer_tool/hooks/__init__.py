"""Hooks for pre-commit."""
