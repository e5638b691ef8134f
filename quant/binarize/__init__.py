"""Weights, or weights and activations, of one bit."""
