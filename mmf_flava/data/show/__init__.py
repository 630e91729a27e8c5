"""One HTML page about the data of a recipe, as training sees them: ``python -m mmf_flava.data.show RECIPE``."""
