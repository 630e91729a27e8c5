"""The trainer ``flava``: training loop, precision, sharding, checkpoints."""
