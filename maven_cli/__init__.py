"""The background workers of a crypto exchange, one idempotent pass at a time."""

__version__ = "0.1.0"
