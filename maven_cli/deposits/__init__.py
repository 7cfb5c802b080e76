"""Deposits: the chains that are watched, what was found on them, and what became of it."""
