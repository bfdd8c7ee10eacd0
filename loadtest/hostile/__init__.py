"""Hostile inputs at every door: what is sent, by seed, and who sends it."""
