"""Low rank: one layer becomes two of fewer weights."""
