"""HTML page with samples and statistics of a recipe's datasets: ``python -m mmf_flava.data.show RECIPE``."""
