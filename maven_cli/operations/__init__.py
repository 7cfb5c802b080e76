"""Keeping the workers honest: dead letters, circuits and incidents, as rows that the next process and a person find."""
