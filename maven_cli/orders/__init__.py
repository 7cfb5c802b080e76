"""Orders: which are due, what the engine said about them, and their story."""
