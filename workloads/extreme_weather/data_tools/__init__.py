"""Tooling that prepares, makes and draws data. Training does not import it, and the code's digest leaves it out."""
