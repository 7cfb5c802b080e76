"""Chain adapters against real nodes."""
