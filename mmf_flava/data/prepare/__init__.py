"""Command-line tools that prepare datasets: ``python -m mmf_flava.data.prepare --help``."""
