"""An HTML page with the training samples and statistics of a recipe: ``python -m mmf_flava.data.show RECIPE``."""
