"""A sample exchange: a simulated market, and the passes of the schedule on it."""
