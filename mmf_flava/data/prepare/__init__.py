"""Command-line makers of data: ``python -m mmf_flava.data.prepare --help``."""
