"""Formats of the data of others: what a path contains, and its rows."""
