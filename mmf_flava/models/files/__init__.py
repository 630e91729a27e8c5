"""Weights that somebody else wrote: found, fetched and read, and never executed."""
