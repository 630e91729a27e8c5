"""What a run will need, before it starts: ``python -m mmf_flava.plan RECIPE [key=value ...]``."""
