"""Measures the performance goals: `make bench`, or `python -m benchmarks P1 P4 --trades 1M`.

Each goal is a ratio against a baseline that is measured in the same run, in turns (A B A B …), because a shared machine
is faster or slower from one minute to the next, but rarely from one second to the next. Reported is the median of the
ratios of the rounds. Nothing here is a test: a missed goal is printed, not raised.

The data lives in the embedded PostgreSQL and Valkey under a temporary home, which is removed at the end.
"""
