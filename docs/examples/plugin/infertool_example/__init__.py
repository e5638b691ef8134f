"""One plugin of each kind for infertool."""
