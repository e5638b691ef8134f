"""Exact graph -> graph: fold, fuse, simplify; and the checks and facts that every stage uses."""
